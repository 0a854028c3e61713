"""Our transformer as ComfyUI's own: called with its arguments, open to its patches, wrappers and ControlNets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import comfy.model_base
import comfy.patcher_extension
import torch
from comfy.ldm.flux.math import apply_rope, apply_rope1
from comfy.ldm.modules.attention import attention_pytorch, attention_sub_quad, optimized_attention
from torch import Tensor

from ...flux_core import packing
from ...flux_core.errors import Flux1Error
from ...flux_core.model import Hooks, Table, Transformer
from ...flux_core.model.attention import for_queries, joined, turned
from ...flux_core.redux import over_references
from ...flux_core.references import weighed
from ...flux_core.variants import FluxParams, Variant
from .constants import Constants, samples_of
from .packed import weights_in_place
from .values import CONTROL_CHANNELS, FILL_CHANNELS, NEEDS_CHANNELS, REFERENCE_WEIGHTS

LATENT_CHANNELS = 16
CELL = packing.PATCH**2
"""Latent cells in a token: ComfyUI counts channels per cell, the released sizes per token."""

SEE_ATTENTION = ("attn1_patch", "attn1_output_patch")
"""Patches that are shown a block's queries, or what they attended to."""


class ComfyHooks(Hooks):
    """What ComfyUI's `transformer_options` and ControlNets hang into one call of the transformer."""

    def __init__(
        self,
        options: dict[str, Any],
        control: dict[str, list[Tensor | None]] | None,
        blocks: ComfyTransformer,
        table: Table | None = None,
    ):
        super().__init__(table)
        self.options = options
        self.patches = options.get("patches", {})
        self.replacements = options.get("patches_replace", {}).get("dit", {})
        self.control = control or {}
        self.totals = {"double": len(blocks.double_blocks), "single": len(blocks.single_blocks)}
        self.compiled = blocks.compiled

    def enter(self, img: Tensor, txt: Tensor, img_ids: Tensor, txt_ids: Tensor) -> tuple[Tensor, ...]:
        seen = {"img": img, "txt": txt, "img_ids": img_ids, "txt_ids": txt_ids}
        for patch in self.patches.get("post_input", ()):
            seen = patch({**seen, "transformer_options": self.options})
        return seen["img"], seen["txt"], seen["img_ids"], seen["txt_ids"]

    def double_block(self, index, block, img, txt, vec, pe, mask):
        self._announce("double", index)

        def original(args: dict[str, Any]) -> dict[str, Tensor]:
            img, txt = block(args["img"], args["txt"], args["vec"], args["pe"], args.get("attn_mask"), self)
            return {"img": img, "txt": txt}

        args = {"img": img, "txt": txt, "vec": vec, "pe": pe, "attn_mask": mask}
        out = self._run("double_block", index, args, original)
        return self._controlled("input", index, out["img"], 0), out["txt"]

    def single_block(self, index, block, x, text_tokens, vec, pe, mask, needed):
        self._announce("single", index)
        self.options["img_slice"] = [text_tokens, x.shape[1]]
        if self._looked_at("single_block", index):
            needed = slice(None)

        def original(args: dict[str, Any]) -> dict[str, Tensor]:
            img = block(args["img"], text_tokens, args["vec"], args["pe"], args.get("attn_mask"), self, needed)
            return {"img": img}

        out = self._run("single_block", index, {"img": x, "vec": vec, "pe": pe, "attn_mask": mask}, original)
        return self._controlled("output", index, out["img"], text_tokens)

    def region(self, function, *arguments):
        return (compiled(function) if self.compiled else function)(*arguments)

    def attention(self, streams, pe, mask, text_tokens, needed=slice(None)):
        if not self._attention_is_seen():
            q, k, v = self.region(turned, streams, pe, needed, None if self.compiled else apply_rope1)
            return self._attend(q, k, v, for_queries(mask, needed))
        q, k, v = joined(streams)
        seen = {**self.options, "img_slice": [text_tokens, q.shape[2]]}
        for patch in self.patches.get("attn1_patch", ()):
            out = patch(q, k, v, pe=pe, attn_mask=mask, extra_options=seen)
            q, k, v = out.get("q", q), out.get("k", k), out.get("v", v)
            pe, mask = out.get("pe", pe), out.get("attn_mask", mask)
        attended = self._attend(*apply_rope(q, k, pe), v, mask)
        for patch in self.patches.get("attn1_output_patch", ()):
            attended = patch(attended, seen)
        return attended

    def _attention_is_seen(self) -> bool:
        """Whether somebody else takes part in it, and expects all tokens."""
        return "optimized_attention_override" in self.options or not self.patches.keys().isdisjoint(SEE_ATTENTION)

    def _attend(self, q, k, v, mask):
        """ComfyUI's choice of attention, but for the slow one that it falls back to on a CPU."""
        attend = (
            attention_pytorch
            if optimized_attention is attention_sub_quad and q.device.type == "cpu"
            else optimized_attention
        )
        return attend(q, k, v, q.shape[1], skip_reshape=True, mask=mask, transformer_options=self.options)

    def _looked_at(self, kind: str, index: int) -> bool:
        """Whether somebody else sees what this block takes or gives, and expects all tokens in it."""
        residuals = self.control.get("output") or ()
        controlled = index < len(residuals) and residuals[index] is not None
        return self._attention_is_seen() or controlled or (kind, index) in self.replacements

    def _announce(self, kind: str, index: int) -> None:
        self.options.update(block_type=kind, block_index=index, total_blocks=self.totals[kind])

    def _run(self, kind: str, index: int, args: dict[str, Any], original: Callable) -> dict[str, Tensor]:
        replacement = self.replacements.get((kind, index))
        if replacement is None:
            return original(args)
        return replacement({**args, "transformer_options": self.options}, {"original_block": original})

    def _controlled(self, side: str, index: int, x: Tensor, start: int) -> Tensor:
        """Add a ControlNet's residual to the image tokens, which begin at `start`."""
        residuals = self.control.get(side) or ()
        if index >= len(residuals) or residuals[index] is None:
            return x
        x, end = x.clone(), start + residuals[index].shape[1]
        x[:, start:end] += residuals[index]
        return x


@cache
def compiled(function: Callable) -> Callable:
    """`function` by torch.compile: one graph for all blocks of a kind, whose weights are among its arguments."""
    return torch.compile(function)


class ComfyTransformer(Transformer):
    """The transformer behind ComfyUI's calling convention: latents in, latents out."""

    patch_size = packing.PATCH
    compiled = False

    def __init__(self, dtype: torch.dtype | None = None, device: Any = None, operations: Any = None, **config: Any):
        super().__init__(params_of(config), operations, dtype=dtype, device=device)
        self.dtype = dtype
        self.constants = Constants()

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        guidance: Tensor | None = None,
        ref_latents: Sequence[Tensor] | None = None,
        control: dict | None = None,
        transformer_options: dict[str, Any] = {},
        **kwargs: Any,
    ) -> Tensor:
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._velocity, self, wrappers)
        return executor.execute(x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs)

    def _velocity(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        guidance: Tensor | None = None,
        ref_latents: Sequence[Tensor] | None = None,
        control: dict | None = None,
        transformer_options: dict[str, Any] = {},
        ref_latents_method: packing.Placement = "offset",
        attention_mask: Tensor | None = None,
        reference_weights: Sequence[float] = (),
        **ignored: Any,
    ) -> Tensor:
        """Velocity `(b, 16, h, w)` at x `(b, 16 + extra, h, w)`, the extra channels being Fill's or a control's."""
        check_conditioning(self, x, context)
        height, width = x.shape[-2:]
        noisy, extra = x.tensor_split([LATENT_CHANNELS], dim=1)
        options = transformer_options.copy()
        rope = packing.RopeOptions(**(options.get("rope_options") or {}))
        references = self._references(ref_latents or (), (height, width), ref_latents_method, rope)
        if references:
            counts = options["reference_image_num_tokens"] = [tokens.shape[1] for tokens, _ in references]
            if attention_mask is not None:  # ComfyUI makes it for text and picture only
                attention_mask = over_references(attention_mask, context.shape[1], sum(counts))
            before = context.shape[1] + packing.token_count(height, width)
            attention_mask = weighed(attention_mask, reference_weights, counts, before, context)
        pooled = context.new_zeros(len(x), self.params.vec_in_dim) if y is None else y[:, : self.params.vec_in_dim]
        with weights_in_place(self.constants.weights()):
            prepared = self.constants.prepare(
                (context, pooled, guidance, attention_mask, extra, *(tokens for tokens, _ in references)),
                (height, width, ref_latents_method, rope, [tuple(latent.shape) for latent in ref_latents or ()]),
                lambda: self.prepare(
                    packing.image_ids(*packing.grid_of(height, width), options=rope, device=x.device),
                    context,
                    pooled,
                    guidance,
                    extra=packing.pack(extra) if extra.shape[1] else None,
                    references=references,
                    mask=attention_mask,
                ),
            )
            table = self.constants.table(self, samples_of(timestep, pooled, guidance))
            tokens = self.step(packing.pack(noisy), timestep, prepared, hooks=ComfyHooks(options, control, self, table))
        return packing.unpack(tokens, height, width)

    def _references(
        self,
        latents: Sequence[Tensor],
        canvas: tuple[int, int],
        placement: packing.Placement,
        rope: packing.RopeOptions,
    ) -> list[tuple[Tensor, Tensor]]:
        if not latents:
            return []
        for latent in latents:
            if latent.shape[1] != LATENT_CHANNELS:
                raise Flux1Error(
                    "A reference latent is not FLUX.1's",
                    expected=f"{LATENT_CHANNELS} channels",
                    found=f"{latent.shape[1]} channels",
                    fix="encode the reference picture with FLUX.1's ae.safetensors (Flux1LoadVAE)",
                )
        if placement not in packing.PLACEMENTS:
            raise Flux1Error(
                "FLUX.1 has no such reference method",
                expected=f"one of {', '.join(packing.PLACEMENTS)}",
                found=placement,
                fix="choose another method in FluxKontextMultiReferenceLatentMethod, or remove that node",
            )
        sizes = [tuple(latent.shape[-2:]) for latent in latents]
        ids = packing.reference_ids(sizes, canvas, placement, rope, latents[0].device)
        return [(packing.pack(latent), positions) for latent, positions in zip(latents, ids, strict=True)]


def params_of(config: dict[str, Any]) -> FluxParams:
    """The transformer's sizes from ComfyUI's `unet_config`, which counts channels per latent cell."""
    same = ("vec_in_dim", "context_in_dim", "hidden_size", "mlp_ratio", "num_heads", "depth", "depth_single_blocks",
            "theta", "qkv_bias", "guidance_embed")  # fmt: skip
    return FluxParams(
        in_channels=config["in_channels"] * CELL,
        out_channels=config["out_channels"] * CELL,
        axes_dim=tuple(config["axes_dim"]),
        **{name: config[name] for name in same},
    )


def check_conditioning(model: Transformer, x: Tensor, context: Tensor) -> None:
    """Refuse text states of another model's width: the product would fail, or worse, succeed by accident."""
    if context.shape[-1] != model.params.context_in_dim:
        raise Flux1Error(
            "The text conditioning doesn't fit the model",
            expected=f"T5 states of width {model.params.context_in_dim}",
            found=f"width {context.shape[-1]}",
            fix="encode the prompt with FLUX.1's own text encoders: t5xxl and clip_l (Flux1LoadTextEncoders)",
        )


MADE_FOR = {
    FILL_CHANNELS: ("a Fill model", "the mask", "load flux1-fill-dev.safetensors with Flux1LoadModel"),
    CONTROL_CHANNELS: ("a Canny or Depth model", "the control picture",
                       "load flux1-canny-dev or flux1-depth-dev.safetensors, or dev with their LoRA"),
}  # fmt: skip
"""By the input channels a conditioning needs: whose they are, what is lost on another model, what to do."""


class Flux1Model(comfy.model_base.Flux):
    """ComfyUI's FLUX around our transformer; it also knows which variant it is."""

    def __init__(self, model_config: Any, model_type: comfy.model_base.ModelType, variant: Variant, device: Any = None):
        super().__init__(model_config, model_type, device=device, unet_model=ComfyTransformer)
        self.variant = variant

    def extra_conds(self, **conditioning: Any) -> dict[str, Any]:
        out = super().extra_conds(**conditioning)
        if REFERENCE_WEIGHTS in conditioning:
            out["reference_weights"] = comfy.conds.CONDConstant(conditioning[REFERENCE_WEIGHTS])
        return out

    def concat_cond(self, **conditioning: Any) -> Tensor | None:
        needed = conditioning.get(NEEDS_CHANNELS)
        # Only ours tells: another pack may have put a transformer without img_in in its place.
        has = self.diffusion_model.img_in.weight.shape[1] if hasattr(self.diffusion_model, "img_in") else needed
        if needed is not None and needed != has:
            wanted, lost, fix = MADE_FOR[needed]
            raise Flux1Error(
                f"The conditioning is for {wanted}, this one would ignore {lost}",
                expected=f"{wanted}, in_channels {needed}",
                found=f"{self.variant.name}, in_channels {has}",
                fix=fix,
            )
        return super().concat_cond(**conditioning)
