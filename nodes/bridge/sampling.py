"""Sampling through ComfyUI's guider and sampler classes, so that no hook, preview, interrupt or mask is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from torch import Tensor
from tqdm.auto import tqdm

from ...flux_core import packing, sampling
from ...flux_core.errors import Flux1Error
from ...flux_core.schedule import within
from ...flux_core.tiles import Tile, blended
from ...flux_core.variants import VARIANTS, Variant, variants_like
from .checks import checked
from .transformer import Flux1Model, params_of

VARIANT = "flux1_variant"
"""A MODEL's attachment: which FLUX.1 it is by now, where a LoRA made it another one than was loaded."""


def euler_sampler() -> comfy.samplers.KSAMPLER:
    """Euler on packed latents as ComfyUI's SAMPLER."""
    return comfy.samplers.KSAMPLER(_packed_euler)


def _packed_euler(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
) -> Tensor:
    """`flux_core.sampling.euler` with ComfyUI's signature: `model` gives the clean latent, `(b, 16, h, w)`."""
    height, width = x.shape[-2:]
    current: dict[str, Tensor] = {}
    bar = tqdm(total=len(sigmas) - 1, disable=disable)

    def velocity(tokens: Tensor, sigma: Tensor) -> Tensor:
        latent = packing.unpack(tokens, height, width)
        clean = model(latent, sigma * latent.new_ones(len(latent)), **(extra_args or {}))
        current.update(x=latent, sigma=sigma, sigma_hat=sigma, denoised=clean)
        return packing.pack((latent - clean) / sigma)

    def on_step(step: int, clean: Tensor) -> None:
        bar.update()
        if callback is not None:
            callback({"i": step, **current})

    with bar:
        return packing.unpack(sampling.euler(velocity, packing.pack(x), sigmas, on_step), height, width)


def tiled_euler(tiles: Sequence[Tile], overlap: int) -> comfy.samplers.KSAMPLER:
    """Euler on a latent that the model sees in tiles only, each at its own positions, blended at every step."""

    def sampler(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, **settings: Any) -> Tensor:
        def whole(x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
            parts = ((tile, model(tile.of(x), sigma, **placed(extra, tile))) for tile in tiles)
            return blended(parts, x, overlap)

        return _packed_euler(whole, x, sigmas, **settings)

    return comfy.samplers.KSAMPLER(sampler)


def placed(extra: dict[str, Any], tile: Tile) -> dict[str, Any]:
    """A sampler's arguments for the model, with the tile's place among the options for positions."""
    options = extra["model_options"]
    transformer = options.get("transformer_options", {})
    rope = transformer.get("rope_options") or {}
    moved = {
        axis: rope.get(axis, 0.0) + start / packing.PATCH
        for axis, start in (("shift_y", tile.top), ("shift_x", tile.left))
    }
    transformer = {**transformer, "rope_options": {**rope, **moved}}
    return {**extra, "model_options": {**options, "transformer_options": transformer}}


UNTILED = ("concat_latent_image", "reference_latents", "attention_mask", "control", "area", "mask")
"""What conditioning may say of the whole picture, and a tile can't follow."""


def check_tileable(conditioning: list, latent: dict[str, Any]) -> None:
    """Raises Flux1Error for what can't be cut into tiles."""
    found = sorted({key for _, values in conditioning for key in UNTILED if values.get(key) is not None})
    found += ["noise_mask"] if latent.get("noise_mask") is not None else []
    if found:
        raise Flux1Error(
            "This can't be painted in tiles",
            expected="conditioning and latent for the picture as a whole: a prompt",
            found=", ".join(found),
            fix="leave Fill, control, references, areas and masks out of the refinement",
        )


def variant_of(model: Any) -> Variant:
    """Which FLUX.1 a MODEL is: as a LoRA made it, as loaded by us, else as far as its sizes tell (dev for its twins).

    Raises Flux1Error when it is no FLUX.1.
    """
    if (attached := model.get_attachment(VARIANT)) is not None:
        return attached
    if isinstance(model.model, Flux1Model):
        return model.model.variant
    config = model.model.model_config.unet_config
    if config.get("image_model") != "flux":
        raise Flux1Error(
            "The model is not FLUX.1",
            expected="a FLUX.1 diffusion model",
            found=type(model.model).__name__,
            fix="load a FLUX.1 file with Flux1LoadModel",
        )
    candidates = variants_like(params_of(config))
    return VARIANTS["dev" if "dev" in candidates else candidates[0]]


def empty_fixed(model: Any, latent: dict[str, Any]) -> dict[str, Any]:
    """The latent with FLUX.1's 16 channels, if it is empty."""
    samples = comfy.sample.fix_empty_latent_channels(
        model, latent["samples"], latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal")
    )
    return {**latent, "samples": samples}


def noise_for(latent: dict[str, Any], seed: int, kind: str) -> Tensor:
    """Noise of the latent's shape: ComfyUI's own, or (`kind` "bfl") what Black Forest Labs' code draws."""
    samples = latent["samples"]
    if kind == "bfl":
        return sampling.bfl_noise(len(samples), *samples.shape[-2:], seed).to(samples.dtype)
    return comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))


class Guider(comfy.samplers.CFGGuider):
    """ComfyUI's, with true CFG in a part of the run only: outside of it the negative prompt is not even asked."""

    def __init__(self, model: Any, window: tuple[float, float]):
        super().__init__(checked(model))
        self.window = window

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: int | None = None):
        inside = within(self.window, model_options["transformer_options"]["sample_sigmas"], timestep)
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, self.conds.get("negative"), self.conds.get("positive"),
            self.cfg if inside else 1.0, model_options=model_options, seed=seed,
        )  # fmt: skip


def guider(
    model: Any,
    positive: list,
    negative: list | None = None,
    cfg: float = 1.0,
    window: tuple[float, float] = (0.0, 1.0),
) -> Guider:
    """Without a `negative` there is no true CFG; with one, in the `window` from and to a share of the steps."""
    made = Guider(model, window)
    made.inner_set_conds({"positive": positive} if negative is None else {"positive": positive, "negative": negative})
    made.set_cfg(cfg)
    return made


def sample(
    guider: Guider,
    latent: dict[str, Any],
    noise: Tensor,
    sigmas: Tensor,
    seed: int,
    sampler: comfy.samplers.KSAMPLER | None = None,
) -> dict[str, Any]:
    """Run `sampler`, by default Euler, over `sigmas` under `guider`; returns the latent with its samples replaced.

    A schedule of fewer than two levels has no step: the latent comes back as it is. Progress bar, previews,
    interruption, noise mask, hooks and wrappers are ComfyUI's.

    Raises Flux1Error when a step's result has NaN or infinite values.
    """
    if len(sigmas) < 2:
        return latent
    samples = guider.sample(
        noise,
        latent["samples"],
        sampler or euler_sampler(),
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(guider.model_patcher, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    out = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio")}
    return {**out, "samples": samples.to(comfy.model_management.intermediate_device())}
