"""The part of a picture that is edited: cut out, scaled and padded for the model, each step recorded and undone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor
from torch.nn.functional import pad

from ..conditioning import nearest_kontext_size
from ..errors import Flux1Error
from ..image import TOKEN, feathered, grown, image_and_mask, resized, rgb, size_of

LEAST_CONTEXT = 32
"""Pixels around a mask that the model sees at least, where the picture has them."""
MEGAPIXEL = 1024 * 1024

Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True)
class Box:
    """A rectangle of a picture, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def size(self) -> Size:
        return self.width, self.height

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height

    def of(self, picture: Tensor) -> Tensor:
        """This part of `(b, height, width, ...)`, as a view."""
        return picture[:, self.top : self.top + self.height, self.left : self.left + self.width]

    def grown(self, pixels: int, within: Size) -> Box:
        """Wider by so many pixels at each side, as far as a picture of size `within` goes."""
        left, top = max(self.left - pixels, 0), max(self.top - pixels, 0)
        right, bottom = min(self.right + pixels, within[0]), min(self.bottom + pixels, within[1])
        return Box(left, top, right - left, bottom - top)

    def moved(self, right: int, down: int) -> Box:
        return Box(self.left + right, self.top + down, self.width, self.height)

    def resized(self, size: Size, within: Size, holding: Box | None = None) -> Box:
        """Of another size about the same middle, moved where it would leave `within` or not hold `holding`."""
        width, height = min(size[0], within[0]), min(size[1], within[1])
        left, top = self.left + (self.width - width) // 2, self.top + (self.height - height) // 2
        if holding is not None:
            left, top = (
                max(min(left, holding.left), holding.right - width),
                max(min(top, holding.top), holding.bottom - height),
            )
        return Box(max(min(left, within[0] - width), 0), max(min(top, within[1] - height), 0), width, height)


@dataclass(frozen=True)
class Region:
    """A part of a picture on its way through the model.

    `original` is the whole picture, `(b, height, width, 3)` or with alpha `(b, height, width, 4)`, and `mask`
    `(b, box.height, box.width)` says where in `box` it may change. The model was shown `box` scaled to `inner`, with the
    edge repeated at the right and bottom up to `size`. `touched`, `(b, height, width)`, is true where earlier edits
    of a chain were allowed to paint; None before the first.
    """

    original: Tensor
    box: Box
    mask: Tensor
    inner: Size
    size: Size
    touched: Tensor | None = None

    def shown(self, part: Tensor) -> Tensor:
        """What the model is shown of `part` `(b, box.height, box.width, c)`, a picture or a mask."""
        scaled = resized(part, self.inner).movedim(-1, 1)
        sides = (0, self.size[0] - self.inner[0], 0, self.size[1] - self.inner[1])
        return pad(scaled, sides, mode="replicate").movedim(1, -1)

    def restored(self, edited: Tensor) -> Tensor:
        """The inverse of `shown`, also for a picture that came back in another size: `(b, box.height, box.width, c)`."""
        width, height = (
            max(1, round(found * inner / whole))
            for found, inner, whole in zip(size_of(edited), self.inner, self.size, strict=True)
        )
        return resized(edited[:, :height, :width], self.box.size)

    @property
    def image(self) -> Tensor:
        """The picture for the model, `(b, height, width, 3)`."""
        return self.shown(self.box.of(self.original)[..., :3].float())

    @property
    def shown_mask(self) -> Tensor:
        """The mask for the model, `(b, height, width)`."""
        return self.shown(self.mask[..., None])[..., 0]


def prepared(
    image: Tensor,
    mask: Tensor | None = None,
    *,
    whole: bool = False,
    context: float = 0.5,
    sizing: str = "megapixels",
    megapixels: float = 1.0,
    fit: str = "pad",
    fill_holes: bool = False,
    grow: int = 0,
    blur: int = 0,
    earlier: Region | None = None,
) -> Region:
    """The region to edit in `image` `(b, height, width, 1, 3 or 4)`: around `mask` `(b, height, width)`, or all of it.

    `context` is how much the model sees beyond the mask at each side, as a share of the mask's longer side. `sizing` is a
    name from `SIZINGS`, `fit` from `FITS`. The mask may first get its holes filled, be widened by `grow` pixels and
    softened over `blur` pixels. `earlier` is the region of a finished edit that `image` is the result of.

    Raises Flux1Error for a picture below 16 pixels, for a mask that is empty, of another size or batch, and for one
    that does not fit into the crop.
    """
    picture = Box(0, 0, *size_of(image))
    if mask is None:
        patch, change = picture, image.new_ones((), dtype=torch.float32).expand(image.shape[:3])
        painted, holding, box = picture, None, picture
    else:
        patch, change = changing(image, mask, fill_holes, grow, blur)
        painted = holding = bounds(change).moved(patch.left, patch.top)
        box = picture if whole else around(painted, context, sizing, picture.size)
    box, inner, size = FITS[fit](box, SIZINGS[sizing](box.size, megapixels), holding)
    sides = (patch.left - box.left, box.right - patch.right, patch.top - box.top, box.bottom - patch.bottom)
    original = untouched(image, earlier).expand(len(change), -1, -1, -1)
    return Region(original, box, pad(change, sides), inner, size, earlier.touched if earlier else None)


def changing(image: Tensor, mask: Tensor, fill_holes: bool, grow: int, blur: int) -> tuple[Box, Tensor]:
    """Where the picture may change: a box around the refined mask, and the mask in it."""
    _, mask = image_and_mask(image, mask)
    patch = bounds(mask).grown(max(grow, 0) + blur + 1, size_of(image))
    mask = patch.of(mask).float()
    mask = feathered(grown(holes_filled(mask) if fill_holes else mask, grow), blur)
    if not mask.any():
        raise Flux1Error(
            "The mask is empty: 0 pixels are left of it to be painted", expected="a mask that survives being narrowed",
            found=f"grow {grow}", fix="narrow it less, or draw a larger one",
        )  # fmt: skip
    return patch, mask


def holes_filled(mask: Tensor) -> Tensor:
    """White also where black is enclosed by white; a hole open to the border stays."""
    filled = torch.stack([torch.from_numpy(binary_fill_holes(each.cpu().numpy())) for each in mask > 0])
    return torch.where(filled.to(mask.device) & (mask == 0), 1.0, mask)


def bounds(mask: Tensor) -> Box:
    """The smallest box with all of `(b, height, width)` that is above 0; one pixel where nothing is."""
    hit = (mask > 0).any(0)
    (top, bottom), (left, right) = (
        (int(places.min()), int(places.max()) + 1) if len(places := hit.any(dim).nonzero()) else (0, 1)
        for dim in (1, 0)
    )
    return Box(left, top, right - left, bottom - top)


def around(painted: Box, context: float, sizing: str, within: Size) -> Box:
    """What the model is to see of a picture of size `within` to paint a part of it."""
    box = painted.grown(max(LEAST_CONTEXT, round(context * max(painted.size))), within)
    box = box.resized((max(TOKEN, box.width), max(TOKEN, box.height)), within)
    if sizing == "kontext":  # rather more of the picture than padding or distortion
        width, height = nearest_kontext_size(*box.size)
        wider = max(box.width, round(box.height * width / height)), max(box.height, round(box.width * height / width))
        box = box.resized(wider, within)
    return box


def untouched(image: Tensor, earlier: Region | None) -> Tensor:
    """The picture before the edit: as it came, where an edit of a chain has painted; elsewhere the chain's original.

    Alpha is kept. Raises Flux1Error where the picture is not of the chain's size.
    """
    image = image if image.shape[-1] == 4 else rgb(image)
    if earlier is None or earlier.touched is None:
        return image
    if size_of(image) != size_of(earlier.original):
        raise Flux1Error(
            "The picture is not of the size of the region's picture",
            expected="{} x {} pixels".format(*size_of(earlier.original)), found="{} x {}".format(*size_of(image)),
            fix="connect the picture and the region of the same FLUX.1 Finish Edit",
        )  # fmt: skip
    painted, original = bounds(earlier.touched), earlier.original.clone()
    part = torch.where(
        painted.of(earlier.touched)[..., None], painted.of(image)[..., :3], painted.of(original)[..., :3]
    )
    painted.of(original)[..., :3] = part
    return original


def padded(box: Box, wanted: Size, holding: Box | None) -> tuple[Box, Size, Size]:
    """The whole box with its aspect ratio, padded to whole tokens."""
    scale = min(wanted[0] / box.width, wanted[1] / box.height)
    inner = max(1, round(box.width * scale)), max(1, round(box.height * scale))
    return box, inner, tokens(wanted, math.ceil)


def stretched(box: Box, wanted: Size, holding: Box | None) -> tuple[Box, Size, Size]:
    """The whole box, its aspect ratio changed to that of whole tokens."""
    size = tokens(wanted, round)
    return box, size, size


def cropped(box: Box, wanted: Size, holding: Box | None) -> tuple[Box, Size, Size]:
    """As much of the box as has the aspect ratio of whole tokens; raises Flux1Error where `holding` doesn't fit."""
    size = tokens(wanted, round)
    width, height = min(box.width, round(box.height * size[0] / size[1])), box.height
    height = min(height, round(box.width * size[1] / size[0]))
    if holding and (holding.width > width or holding.height > height):
        raise Flux1Error(
            "The mask does not fit into the crop", expected=f"a mask of at most {width} x {height} pixels",
            found="{} x {}".format(*holding.size), fix="set fit to pad or stretch",
        )  # fmt: skip
    kept = box.resized((width, height), (box.right, box.bottom), holding)
    return kept, size, size


FITS = {"pad": padded, "stretch": stretched, "crop": cropped}
"""By name, box and wanted size to the box that is kept, the size that it is scaled to and that with padding."""


def tokens(size: Size, rounding: Callable[[float], int]) -> Size:
    """Both sides whole tokens, one at least."""
    width, height = (max(1, rounding(side / TOKEN)) * TOKEN for side in size)
    return width, height


def of_megapixels(size: Size, megapixels: float) -> Size:
    scale = math.sqrt(megapixels * MEGAPIXEL / (size[0] * size[1]))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


SIZINGS: dict[str, Callable[[Size, float], Size]] = {
    "megapixels": of_megapixels,
    "kontext": lambda size, megapixels: nearest_kontext_size(*size),
    "own size": lambda size, megapixels: size,
}
"""By name, the size a box is worked on at."""
