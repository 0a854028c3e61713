"""An edited region put back into its picture: colours corrected, blended, and nothing outside the mask changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..conditioning import LATENT_SCALE
from ..errors import Flux1Error
from ..image import grown, rgb, size_of
from .blend import BLENDS
from .colour import DEGREES, fitted
from .drift import Drift, drift_of
from .region import Region, bounds

COLOURS = ("off", *DEGREES)
RING, LEAST_RING = 0.5, 64
"""How wide a ring around the mask is looked at: a share of the mask's longer side, and pixels at least."""


@dataclass(frozen=True)
class Finished:
    """The picture `(b, height, width, 3 or 4)`, 1 where it changed `(b, height, width)`, what drifted, the next region."""

    image: Tensor
    change: Tensor
    drift: Drift
    region: Region

    @property
    def report(self) -> str:
        """A line for each picture."""
        lines = [
            "shift {:+.2f}, {:+.2f} px, scale {:.4f}, colour gain {:.3f} {:.3f} {:.3f}, {:.2%} of pixels changed".format(
                *shift.tolist(), scale.item(), *gain.tolist(), change.mean().item()
            )
            for shift, scale, gain, change in zip(
                self.drift.shift, self.drift.scale, self.drift.gain, self.change, strict=True
            )
        ]
        return lines[0] if len(lines) == 1 else "\n".join(f"{number}: {line}" for number, line in enumerate(lines, 1))


def finished(
    edited: Tensor,
    region: Region,
    change_mask: Tensor | None = None,
    *,
    colour: str = "local",
    blend: str = "feather",
    width: int = 16,
) -> Finished:
    """`edited` `(b, height, width, 3)`, of any size, in the place of its region.

    `change_mask`, of the picture's size or of the size that was sent to the model, is taken instead of the region's own.
    Colours are corrected by a fit around the mask (`colour`, one of `COLOURS`); the mask's edge is hidden by a blend from
    `BLENDS` over `width` pixels. Pixels with mask 0 are the original's, bit for bit.

    Raises Flux1Error for a mask of another size and for batches that don't match.
    """
    mask = region.mask if change_mask is None else in_box(change_mask, region)
    edited = region.restored(rgb(edited).to(region.original.device, torch.float32))
    batch = common_batch(edited, region.original, mask)
    mask = mask.expand(batch, -1, -1)
    original = region.original.expand(batch, -1, -1, -1)
    # Only a window around the mask is worked on, so that a large picture costs no more than a small one.
    spot = bounds(mask)
    window = spot.grown(max(LEAST_RING, round(RING * max(spot.size))), region.box.size)
    place = window.moved(region.box.left, region.box.top)
    before = place.of(original)[..., :3].movedim(-1, 1)
    now = window.of(edited).movedim(-1, 1).expand(batch, -1, -1, -1)
    weight = window.of(mask)[:, None]
    known = (weight == 0).to(now)
    # With a mask over everything, nothing is known; the drift is measured all the same, as well as it can be.
    drift = drift_of(now, before.float(), known if known.any() else torch.ones_like(known))
    bleed = math.ceil(
        LATENT_SCALE * max(outer / inner for outer, inner in zip(region.box.size, region.inner, strict=True))
    )
    laid = laid_in(before.float(), now, weight, colour, blend, width, bleed)
    after = torch.where(weight > 0, laid.clamp(0, 1).to(before.dtype), before)

    image = original.clone()
    place.of(image)[..., :3] = after.movedim(1, -1)
    change = torch.zeros(image.shape[:3], device=image.device)
    place.of(change)[:] = (eight_bit(after) != eight_bit(before)).any(1)
    earlier = torch.zeros_like(change, dtype=torch.bool) if region.touched is None else region.touched
    touched = earlier.expand(batch, -1, -1).clone()
    region.box.of(touched).logical_or_(mask > 0)
    return Finished(image, change, drift, replace(region, original=image, mask=mask, touched=touched))


def laid_in(
    before: Tensor, now: Tensor, mask: Tensor, colour: str, blend: str, width: int, bleed: int = LATENT_SCALE
) -> Tensor:
    """`now` corrected by what is known of `before`, and blended into it: `(b, 3, h, w)` each, `mask` `(b, 1, h, w)`.

    Colours are compared only from `bleed` pixels beyond the mask on, where there is anything: up to there what was
    painted, or a frame drawn around it, shows through.
    """
    known = [(wide == 0).to(now) for wide in (grown((mask[:, 0] > 0).to(now), bleed)[:, None], mask)]
    if colour != "off" and known[-1].any():
        now = fitted(now, before, next(each for each in known if each.any()), DEGREES[colour]).of(now)
    return BLENDS[blend](before, now, mask, width)


def in_box(mask: Tensor, region: Region) -> Tensor:
    """A mask of the picture or of what the model was shown, as a mask of the region's box `(b, height, width)`."""
    mask = (mask[None] if mask.ndim == 2 else mask).to(region.original.device, torch.float32).clamp(0, 1)
    if size_of(mask) == region.size:
        return region.restored(mask[..., None])[..., 0]
    if size_of(mask) == size_of(region.original):
        return region.box.of(mask)
    raise Flux1Error(
        "The change mask is not of the picture's size",
        expected="{} x {} pixels, the picture's size, or {} x {}, the edited region's".format(
            *size_of(region.original), *region.size
        ),
        found="{} x {}".format(*size_of(mask)),
        fix="take the mask from the same picture, or scale it to the picture's size",
    )


def common_batch(*tensors: Tensor) -> int:
    """How many pictures there are, where some come once for all. Raises Flux1Error where they don't match."""
    counts = [len(tensor) for tensor in tensors]
    if set(counts) - {1, max(counts)}:
        raise Flux1Error(
            "The batches of edited picture, original and mask don't match", expected="the same number of each, or 1",
            found=", ".join(map(str, counts)), fix="finish the edit with the region that it was prepared with",
        )  # fmt: skip
    return max(counts)


def eight_bit(picture: Tensor) -> Tensor:
    """As it would be saved."""
    return (picture * 255).round()
