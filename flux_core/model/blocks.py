"""The two kinds of block: text and image apart but attending together, then both as one sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import one_pass
from .attention import Stream, finite_in_half
from .hooks import Hooks
from .modulation import Modulation, ModulationLayer, modulations
from .one_pass import EPS


class QKNorm(nn.Module):
    """RMS norm of queries and keys, per head. Released files call the weights `scale`."""

    def __init__(self, dim: int, operations: Any, **factory: Any):
        super().__init__()
        self.query_norm = operations.RMSNorm(dim, eps=EPS, **factory)
        self.key_norm = operations.RMSNorm(dim, eps=EPS, **factory)
        self.register_load_state_dict_pre_hook(_scale_to_weight)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.query_norm(q).to(v), self.key_norm(k).to(v)


def _scale_to_weight(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *rest: object) -> None:
    for name in ("query_norm", "key_norm"):
        if f"{prefix}{name}.scale" in state_dict:
            state_dict[f"{prefix}{name}.weight"] = state_dict.pop(f"{prefix}{name}.scale")


class SelfAttention(nn.Module):
    """The projections of one stream's half of joint attention."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool, operations: Any, **factory: Any):
        super().__init__()
        self.heads = heads
        self.qkv = operations.Linear(dim, 3 * dim, bias=qkv_bias, **factory)
        self.norm = QKNorm(dim // heads, operations, **factory)
        self.proj = operations.Linear(dim, dim, bias=True, **factory)

    def stream(self, x: Tensor) -> Stream:
        return Stream(self.qkv(x), self.norm, self.heads)


class GELU(nn.GELU):
    """tanh GELU of a projection that nobody else looks at: in its place, or in `out`, where that pays."""

    def __init__(self):
        super().__init__(approximate="tanh")

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        if not one_pass.pays(x):
            return super().forward(x)
        return torch.ops.aten.gelu.out(x, approximate=self.approximate, out=x if out is None else out)


def mlp(dim: int, hidden: int, operations: Any, **factory: Any) -> nn.Sequential:
    """Linear, tanh GELU, linear; numbered 0 and 2 in the released files."""
    return nn.Sequential(
        operations.Linear(dim, hidden, bias=True, **factory),
        GELU(),
        operations.Linear(hidden, dim, bias=True, **factory),
    )


def layer_norm(dim: int, operations: Any, **factory: Any) -> nn.Module:
    return operations.LayerNorm(dim, elementwise_affine=False, eps=EPS, **factory)


class DoubleStreamBlock(nn.Module):
    """Image and text each with weights of their own, meeting only in attention."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, qkv_bias: bool, operations: Any, **factory: Any):
        super().__init__()
        for stream in ("img", "txt"):
            self.add_module(f"{stream}_mod", ModulationLayer(dim, 2, operations, **factory))
            self.add_module(f"{stream}_norm1", layer_norm(dim, operations, **factory))
            self.add_module(f"{stream}_attn", SelfAttention(dim, heads, qkv_bias, operations, **factory))
            self.add_module(f"{stream}_norm2", layer_norm(dim, operations, **factory))
            self.add_module(f"{stream}_mlp", mlp(dim, int(dim * mlp_ratio), operations, **factory))

    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor, mask: Tensor | None = None, hooks: Hooks = Hooks()
    ) -> tuple[Tensor, Tensor]:
        """img and txt `(b, tokens, hidden)`, vec `(b, hidden)`; returns (img, txt)."""
        img_changes, txt_changes = (
            modulations(hooks.modulate(layer, vec), 2) for layer in (self.img_mod, self.txt_mod)
        )
        streams = hooks.region(DoubleStreamBlock.project, self, img, txt, img_changes[0], txt_changes[0])
        attended = hooks.attention(streams, pe, mask, txt.shape[1])
        return hooks.region(DoubleStreamBlock.finish, self, img, txt, attended, img_changes, txt_changes)

    def project(self, img: Tensor, txt: Tensor, of_img: Modulation, of_txt: Modulation) -> tuple[Stream, Stream]:
        """What comes before attention: text's stream, then the image's."""
        return (
            self.txt_attn.stream(of_txt.modulate(self.txt_norm1(txt))),
            self.img_attn.stream(of_img.modulate(self.img_norm1(img))),
        )

    def finish(
        self, img: Tensor, txt: Tensor, attended: Tensor, of_img: list[Modulation], of_txt: list[Modulation]
    ) -> tuple[Tensor, Tensor]:
        """What comes after attention, whose result is text's tokens, then the image's; returns (img, txt)."""
        (img_attention, img_mlp), (txt_attention, txt_mlp) = of_img, of_txt
        txt_attended, img_attended = attended.tensor_split([txt.shape[1]], dim=1)
        img = img_attention.gated(img, self.img_attn.proj(img_attended))
        img = img_mlp.gated(img, self.img_mlp(img_mlp.modulate(self.img_norm2(img))))
        txt = txt_attention.gated(txt, self.txt_attn.proj(txt_attended))
        txt = txt_mlp.gated(txt, self.txt_mlp(txt_mlp.modulate(self.txt_norm2(txt))))
        return img, finite_in_half(txt)


class SingleStreamBlock(nn.Module):
    """Text and image as one sequence, attention and MLP side by side (arXiv 2302.05442)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, operations: Any, **factory: Any):
        super().__init__()
        self.heads = heads
        self.widths = [3 * dim, int(dim * mlp_ratio)]
        self.modulation = ModulationLayer(dim, 1, operations, **factory)
        self.pre_norm = layer_norm(dim, operations, **factory)
        self.linear1 = operations.Linear(dim, sum(self.widths), bias=True, **factory)
        self.norm = QKNorm(dim // heads, operations, **factory)
        self.mlp_act = GELU()
        self.linear2 = operations.Linear(dim + self.widths[1], dim, bias=True, **factory)

    def forward(
        self,
        x: Tensor,
        text_tokens: int,
        vec: Tensor,
        pe: Tensor,
        mask: Tensor | None = None,
        hooks: Hooks = Hooks(),
        needed: slice = slice(None),
    ) -> Tensor:
        """x `(b, text_tokens + image tokens, hidden)`, vec `(b, hidden)`; returns the like of x, its `needed` tokens."""
        (change,) = modulations(hooks.modulate(self.modulation, vec), 1)
        stream, hidden = hooks.region(SingleStreamBlock.project, self, x, change)
        attended = hooks.attention((stream,), pe, mask, text_tokens, needed)
        return hooks.region(SingleStreamBlock.finish, self, x[:, needed], attended, hidden[:, needed], change)

    def project(self, x: Tensor, change: Modulation) -> tuple[Stream, Tensor]:
        """What comes before attention: its stream, and the MLP's hidden values, not yet activated."""
        qkv, hidden = self.linear1(change.modulate(self.pre_norm(x))).split(self.widths, dim=-1)
        return Stream(qkv, self.norm, self.heads), hidden

    def finish(self, x: Tensor, attended: Tensor, hidden: Tensor, change: Modulation) -> Tensor:
        """What comes after attention."""
        return finite_in_half(change.gated(x, self.linear2(self._beside(attended, hidden))))

    def _beside(self, attended: Tensor, hidden: Tensor) -> Tensor:
        """What was attended to, and the activated MLP's hidden values; `(b, tokens, sum of their widths)`."""
        if not one_pass.pays(hidden):
            return torch.cat([attended, self.mlp_act(hidden)], dim=-1)
        both = hidden.new_empty(*hidden.shape[:2], attended.shape[-1] + hidden.shape[-1])
        left, right = both.tensor_split([attended.shape[-1]], dim=-1)
        left.copy_(attended)
        self.mlp_act(hidden, out=right)
        return both


class LastLayer(nn.Module):
    """Modulated norm and the way back to packed latents."""

    def __init__(self, dim: int, out_channels: int, operations: Any, **factory: Any):
        super().__init__()
        self.norm_final = layer_norm(dim, operations, **factory)
        self.linear = operations.Linear(dim, out_channels, bias=True, **factory)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), operations.Linear(dim, 2 * dim, bias=True, **factory))

    def forward(self, x: Tensor, vec: Tensor, hooks: Hooks = Hooks()) -> Tensor:
        shift, scale = hooks.modulate(self.adaLN_modulation, vec)[:, None, :].chunk(2, dim=-1)
        return self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))
