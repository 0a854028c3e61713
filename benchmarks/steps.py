"""One step of the transformer: ours, ComfyUI's in two settings, diffusers'; on the same weights, corrected to full depth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flux_core import packing
from flux_core.variants import DEV

from .lines import Timed

TEXT_TOKENS, SIGMA, GUIDANCE = 512, 0.5, 4.0
"""1000 sigma and 1000 guidance are bfloat16 numbers: else rounding these, which all do alike, would hide all other errors."""


@dataclass(frozen=True)
class Given:
    """What a step is given; latents `(1, 16, side / 8, side / 8)`."""

    latent: Tensor
    states: Tensor
    pooled: Tensor
    guidance: Tensor
    reference: Tensor | None = None

    @property
    def step(self) -> dict[str, Any]:
        references = {} if self.reference is None else {"ref_latents": [self.reference]}
        return {"c_crossattn": self.states, "y": self.pooled, "guidance": self.guidance, **references}


def given(side: int, reference: bool = False, seed: int = 0) -> Given:
    """For a picture of side x side pixels, with a reference of the same size."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    latent = draw(1, 16, side // 8, side // 8)
    return Given(
        latent, draw(1, TEXT_TOKENS, DEV.context_in_dim), draw(1, DEV.vec_in_dim), torch.tensor([GUIDANCE]),
        draw(*latent.shape) if reference else None,
    )  # fmt: skip


class Stopwatch:
    """Seconds of a step as a whole, of a block of each kind and of the last one, and what that makes at full depth."""

    def __init__(self, double: nn.ModuleList, single: nn.ModuleList):
        self.blocks = {"double": double[0], "single": single[0], "last": single[-1]}
        self.seconds: dict[str, float] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as hooks:
            for name, block in self.blocks.items():
                hooks.callback(block.register_forward_pre_hook(self._start(name)).remove)
                hooks.callback(block.register_forward_hook(self._stop(name)).remove)
            start = now()
            yield
            self.seconds["all"] = now() - start

    def _start(self, name: str) -> Callable:
        def hook(*_: Any) -> None:
            self.seconds[name] = -now()

        return hook

    def _stop(self, name: str) -> Callable:
        def hook(*_: Any) -> None:
            self.seconds[name] += now()

        return hook

    def at_full_depth(self) -> float:
        """19 double and 38 single blocks, the last of which may do less."""
        double, single, last = (self.seconds[name] for name in ("double", "single", "last"))
        rest = self.seconds["all"] - double - single - last
        return rest + DEV.depth * double + (DEV.depth_single_blocks - 1) * single + last


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class ComfyStep:
    """A step of a MODEL, as ComfyUI's samplers call it; returns the velocity."""

    def __init__(self, patcher: Any):
        import comfy.model_management

        comfy.model_management.load_models_gpu([patcher])
        self.patcher, self.model, self.device = patcher, patcher.model, patcher.load_device
        self.options = patcher.model_options["transformer_options"]

    @torch.inference_mode()
    def __call__(self, what: Given) -> Timed:
        flux = self.model.diffusion_model
        watch = Stopwatch(flux.double_blocks, flux.single_blocks)
        latent, sigma = what.latent.to(self.device), torch.tensor([SIGMA], device=self.device)
        with watch.running():
            clean = self.model.apply_model(latent, sigma, transformer_options=self.options, **what.step)
        return watch.at_full_depth(), ((latent - clean) / SIGMA).cpu()


class OurStep(ComfyStep):
    """The same in the middle of a run: what all of its steps share is computed in the one to warm up."""

    def __init__(self, patcher: Any):
        super().__init__(patcher)
        self.run = self.model.diffusion_model.constants.during(patcher)
        self.run.__enter__()


class DiffusersStep:
    def __init__(self, weights: dict[str, Tensor], double: int, single: int, dtype: torch.dtype = torch.bfloat16):
        from diffusers import FluxTransformer2DModel
        from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

        with torch.device("meta"):
            self.model = FluxTransformer2DModel(guidance_embeds=True, num_layers=double, num_single_layers=single)
        self.model.load_state_dict(convert_flux_transformer_checkpoint_to_diffusers(dict(weights)), assign=True)
        self.dtype = dtype

    @torch.inference_mode()
    def __call__(self, what: Given) -> Timed:
        watch = Stopwatch(self.model.transformer_blocks, self.model.single_transformer_blocks)
        height, width = what.latent.shape[-2:]
        grid = packing.grid_of(height, width)
        ids, picture = packing.image_ids(*grid), packing.pack(what.latent)
        if what.reference is not None:
            ids = torch.cat([ids, packing.image_ids(*grid, 1)])
            picture = torch.cat([picture, packing.pack(what.reference)], dim=1)
        with watch.running():
            tokens = self.model(
                hidden_states=picture.to(self.dtype),
                encoder_hidden_states=what.states.to(self.dtype),
                pooled_projections=what.pooled.to(self.dtype),
                timestep=torch.tensor([SIGMA], dtype=self.dtype),
                guidance=what.guidance,
                img_ids=ids,
                txt_ids=torch.zeros(TEXT_TOKENS, 3),
            ).sample[:, : packing.token_count(height, width)]
        return watch.at_full_depth(), packing.unpack(tokens, height, width).float()


def comfy_default(path: Path) -> Any:
    """ComfyUI's MODEL as it starts: on a CPU in float32, with the attention that it chooses there."""
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(path))


def comfy_bf16(path: Path, compute: torch.dtype = torch.bfloat16) -> Any:
    """ComfyUI's MODEL told to keep and compute in bfloat16 and to take torch's attention: all that a CPU user can tell it."""
    import comfy.sd
    from comfy.ldm.modules.attention import attention_pytorch

    patcher = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.bfloat16})
    patcher.set_model_compute_dtype(compute)
    patcher.model_options["transformer_options"]["optimized_attention_override"] = lambda original, *args, **kwargs: (
        attention_pytorch(*args, **kwargs)
    )
    return patcher


def ours(path: Path, pack: bool | None = None) -> Any:
    from flux1.nodes import bridge

    return bridge.load_model(str(path), pack=pack)
