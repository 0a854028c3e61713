"""Boxes: read as written, drawn around and not in them, found in masks as OpenCV finds them."""

import cv2
import numpy as np
import pytest
import torch

from flux_core.edit.boxes import COLOURS, Box, chosen, coloured, detected, drawn, filled, islands, named, parsed
from flux_core.errors import Flux1Error


def picture(width: int = 173, height: int = 121) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(2, height, width, 3)


def test_what_is_written_is_read():
    text = "10, 20, 30, 40\n\n the cat: 1 2 3 4\nx=1: -5.4, 6.6, 50, 60"
    assert parsed(text) == [Box(10, 20, 40, 60), Box(1, 2, 4, 6, "the cat"), Box(-5, 7, 45, 67, "x=1")]


@pytest.mark.parametrize("line", ["cat", "1, 2, 3", "1, 2, 3, 4, 5", "1, 2, 0, 4", "1, 2, 3, -4", "nan, 1, 2, 3"])
def test_what_can_t_be_read_is_named(line):
    with pytest.raises(Flux1Error, match=line):
        parsed(f"1, 2, 3, 4\n{line}")


def test_a_box_outside_is_refused_and_one_half_outside_cut():
    assert Box(-5, 10, 20, 300, "a").within(64, 48) == Box(0, 10, 20, 48, "a")
    with pytest.raises(Flux1Error, match="64 x 48"):
        Box(64, 10, 70, 20).within(64, 48)


@pytest.mark.parametrize("box", [Box(40, 30, 90, 80, "cat"), Box(0, 0, 60, 50), Box(120, 90, 173, 121, "x")])
def test_a_frame_lies_around_its_box_and_nothing_else_changes(box):
    image, thickness = picture(), 4
    result = drawn(image, [box], ["blue"], thickness, labels=False)
    frame = np.zeros(image.shape[1:3], np.uint8)
    cv2.rectangle(frame, (box.left - 4, box.top - 4), (box.right + 3, box.bottom + 3), 1, cv2.FILLED)
    frame[box.top : box.bottom, box.left : box.right] = 0
    changed = (result != image).any(-1)
    assert torch.equal(changed, torch.from_numpy(frame > 0).expand(2, -1, -1))
    blue = torch.tensor([int(COLOURS["blue"][i : i + 2], 16) for i in (1, 3, 5)]) / 255
    assert torch.equal(result[changed], blue.expand(int(changed.sum()), -1))


@pytest.mark.parametrize("top", [0, 60])
def test_a_label_stands_outside_of_its_box(top):
    image, box = picture(), Box(40, top, 120, top + 40, "cat")
    with_label, without = (drawn(image, [box], ["red"], 3, labels) for labels in (True, False))
    assert (with_label != without).any()
    assert torch.equal(with_label[:, top : top + 40, 40:120], image[:, top : top + 40, 40:120])


@pytest.mark.parametrize(("colour", "text"), [("yellow", 0.0), ("blue", 1.0)])
def test_a_label_is_dark_on_bright_colours_and_bright_on_dark_ones(colour, text):
    result = drawn(picture(), [Box(40, 60, 120, 100, "cat")], [colour], 3)
    assert (result == text).all(-1).any()
    assert not (result == 1 - text).all(-1).any()


def test_islands_are_those_that_opencv_finds():
    random = np.random.default_rng(4)
    mask = np.zeros((90, 140), np.uint8)
    for x, y in random.integers(5, 80, (9, 2)):
        cv2.circle(mask, (int(x * 1.5), int(y)), 6, 1, cv2.FILLED)
    mask[80, 130] = mask[81, 131] = 1  # at a corner they touch
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    theirs = {(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist()}
    assert {(b.left, b.top, b.right, b.bottom) for b in islands(torch.from_numpy(mask).float())} == theirs


def test_the_mask_is_white_in_all_boxes_and_nowhere_else():
    boxes = [Box(3, 4, 20, 30), Box(15, 20, 60, 47)]
    mask = np.zeros((50, 70), np.uint8)
    for box in boxes:
        cv2.rectangle(mask, (box.left, box.top), (box.right - 1, box.bottom - 1), 1, cv2.FILLED)
    assert torch.equal(filled(boxes, 70, 50), torch.from_numpy(mask).float())


def test_colours_go_to_the_boxes_in_turn():
    assert coloured(3, chosen("Green, red")) == ["green", "red", "blue"]
    assert named(["red"]) == "the red box"
    assert named(["red", "blue", "green"]) == "the red box, the blue box and the green box"
    with pytest.raises(Flux1Error, match="mauve"):
        chosen("red, mauve")
    with pytest.raises(Flux1Error, match="9"):
        coloured(9, [])


def test_comfyui_s_boxes_are_taken_in_each_of_their_forms():
    box = {"x": 3, "y": 4.4, "width": 10, "height": 20, "label": "cat", "score": 0.9}
    for form in (box, [box], [[box], []]):
        assert detected(form) == [Box(3, 4, 13, 24, "cat")]
