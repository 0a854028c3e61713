"""Boxes drawn on a picture, so that a prompt can point: "put a hat on the cat in the red box"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy import ndimage
from torch import Tensor

from ..errors import Flux1Error

COLOURS = {"red": "#ff0000", "blue": "#0040ff", "green": "#00d000", "yellow": "#ffe000", "purple": "#a000ff",
           "orange": "#ff8000", "cyan": "#00e0ff", "pink": "#ff60c0"}  # fmt: skip
"""By the names that a prompt calls them; the first box is red."""
NUMBER = r"[-+]?\d+(?:\.\d+)?"
LINE = re.compile(rf"(?:(?P<label>[^:]*):)?\s*(?P<numbers>{NUMBER}(?:[\s,]+{NUMBER}){{3}})\s*")


@dataclass(frozen=True)
class Box:
    """Pixels from (left, top) up to but without (right, bottom)."""

    left: int
    top: int
    right: int
    bottom: int
    label: str = ""

    def within(self, width: int, height: int) -> Box:
        """What of it lies in the picture. Raises Flux1Error where nothing does."""
        cut = Box(max(0, self.left), max(0, self.top), min(width, self.right), min(height, self.bottom), self.label)
        if cut.left >= cut.right or cut.top >= cut.bottom:
            raise Flux1Error(
                "A box lies outside the picture or is empty",
                expected=f"a box within {width} x {height} pixels",
                found=f"x {self.left}, y {self.top}, {self.right - self.left} x {self.bottom - self.top}",
                fix="give x, y, width and height in the picture's pixels",
            )
        return cut


def parsed(text: str) -> list[Box]:
    """A box a line: `x, y, width, height`, before it if wanted a label and a colon. Raises Flux1Error."""
    boxes = []
    for line in filter(str.strip, text.splitlines()):
        match = LINE.fullmatch(line.strip())
        numbers = [round(float(number)) for number in re.findall(NUMBER, match["numbers"])] if match else [0] * 4
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            raise Flux1Error(
                "A box can't be read",
                expected="a line for each box: x, y, width, height, such as cat: 120, 80, 200, 160",
                found=line.strip(),
                fix="correct the line",
            )
        boxes.append(Box(x, y, x + width, y + height, (match["label"] or "").strip()))
    return boxes


def detected(bboxes: Any) -> list[Box]:
    """ComfyUI's BOUNDING_BOX, drawn or detected: one box, a list, or a list for each picture, of which the first counts."""
    while isinstance(bboxes, list) and bboxes and isinstance(bboxes[0], list):
        bboxes = bboxes[0]
    boxes = []
    for found in [bboxes] if isinstance(bboxes, dict) else bboxes:
        x, y, width, height = (round(found[key]) for key in ("x", "y", "width", "height"))
        boxes.append(Box(x, y, x + width, y + height, str(found.get("label") or "")))
    return boxes


def chosen(colours: str) -> list[str]:
    """Names of colours, separated by commas or spaces. Raises Flux1Error for an unknown one."""
    names = colours.replace(",", " ").lower().split()
    if unknown := [name for name in names if name not in COLOURS]:
        raise Flux1Error(
            "There is no such colour for a box",
            expected=", ".join(COLOURS),
            found=", ".join(unknown),
            fix="choose among these, which a model knows by name",
        )
    return names


def islands(mask: Tensor) -> list[Box]:
    """The box around each island of a mask `(height, width)`, from top to bottom."""
    labels, _ = ndimage.label(mask.cpu().numpy() > 0.5, structure=np.ones((3, 3)))
    return [Box(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]


def coloured(count: int, first: Sequence[str]) -> list[str]:
    """A colour for each of `count` boxes: the `first` ones, then those left. Raises Flux1Error when there are too many."""
    names = list(dict.fromkeys([*first, *COLOURS]))
    if count > len(names):
        raise Flux1Error(
            "There are more boxes than colours",
            expected=f"at most {len(names)} boxes",
            found=f"{count}",
            fix="remove boxes, or small islands of the mask",
        )
    return names[:count]


def filled(boxes: Sequence[Box], width: int, height: int) -> Tensor:
    """The mask `(height, width)` of all boxes."""
    mask = torch.zeros(height, width)
    for box in boxes:
        mask[box.top : box.bottom, box.left : box.right] = 1
    return mask


def drawn(image: Tensor, boxes: Sequence[Box], colours: Sequence[str], thickness: int, labels: bool = True) -> Tensor:
    """`image` `(b, height, width, 3)` with a frame around each box and its label above it.

    The frames lie around the boxes, not in them: where only the boxes are painted anew, nothing of a frame is left. No
    other pixel changes.
    """
    height, width = image.shape[1:3]
    overlay = Image.new("RGBA", (width, height))
    pen, font = ImageDraw.Draw(overlay), ImageFont.load_default(max(12, height // 40))
    for box, colour in zip(boxes, colours, strict=True):
        frame = (box.left - thickness, box.top - thickness, box.right + thickness - 1, box.bottom + thickness - 1)
        pen.rectangle(frame, outline=COLOURS[colour], width=thickness)
        if labels and box.label:
            above = frame[1] - font.size > 0
            at = (max(0, frame[0]), frame[1] if above else frame[3] + 1)
            anchor = "ld" if above else "la"
            pen.rectangle(pen.textbbox(at, box.label, font, anchor), fill=COLOURS[colour])
            pen.text(at, box.label, contrasting(colour), font, anchor)
    pixels = torch.from_numpy(np.array(overlay)).to(image.device)
    return torch.where(pixels[..., 3:] > 0, pixels[..., :3].to(image) / 255, image)


def contrasting(colour: str) -> str:
    red, green, blue = ImageColor.getrgb(COLOURS[colour])
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"  # Rec. 601


def named(colours: Sequence[str]) -> str:
    """The boxes as a prompt calls them: `the red box, the blue box and the green box`."""
    names = [f"the {colour} box" for colour in colours]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
