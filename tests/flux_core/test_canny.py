"""Edges pixel for pixel as OpenCV finds them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from flux_core.canny import HIGH, LOW, canny_edges
from flux_core.errors import Flux1Error

RNG = np.random.default_rng(0)
PICTURES = {
    "photograph 0": load_sample_images().images[0],
    "photograph 1": load_sample_images().images[1],
    "noise": RNG.integers(0, 256, (71, 57, 3), np.uint8),
    "soft noise": cv2.GaussianBlur(RNG.integers(0, 256, (200, 180, 3), np.uint8), (0, 0), 2) * 3,
    "flat": np.full((16, 16, 3), 77, np.uint8),
    "steps": np.kron(RNG.integers(0, 256, (12, 12, 3), np.uint8), np.ones((8, 8, 1), np.uint8)),
    "one row": RNG.integers(0, 256, (1, 40, 3), np.uint8),
}

PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "microaneurysms.png", "moon.png",
    "motorcycle_left.png", "motorcycle_right.png", "page.png", "rocket.jpg", "text.png", "logo.png", "horse.png",
)  # fmt: skip
CROP = 201, 259
NOISE = {
    f"{width} x {height}": RNG.integers(0, 256, (height, width, 3), np.uint8)
    for width, height in ((3, 3), (17, 33), (57, 71), (128, 128), (201, 99))
}


def photograph(name: str) -> np.ndarray:
    """One of scikit-image's, its middle."""
    pixels = np.array(Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB"))
    top, left = (max(side - wanted, 0) // 2 for side, wanted in zip(pixels.shape, CROP, strict=False))
    return pixels[top : top + CROP[0], left : left + CROP[1]]


def as_image(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels)[None].float() / 255


@pytest.mark.parametrize("thresholds", [(LOW, HIGH), (100, 100), (10, 600), (0, 0)])
@pytest.mark.parametrize("name", PICTURES)
def test_every_pixel_is_opencvs(name: str, thresholds: tuple[int, int]):
    theirs = cv2.Canny(PICTURES[name], *thresholds)
    ours = canny_edges(as_image(PICTURES[name]), *thresholds)[0].numpy() * 255
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_every_pixel_of_a_photograph_is_opencvs(name: str):
    pixels = photograph(name)
    theirs = cv2.Canny(pixels, LOW, HIGH)
    assert np.array_equal(canny_edges(as_image(pixels))[0].numpy() * 255, theirs)
    assert theirs.any()


@pytest.mark.parametrize("size", NOISE)
def test_every_pixel_of_a_batch_of_noise_is_opencvs(size: str):
    """Three, each of another contrast."""
    batch = [(NOISE[size].astype(int) * part // 4).astype(np.uint8) for part in (1, 2, 4)]
    ours = canny_edges(torch.cat([as_image(pixels) for pixels in batch])).numpy() * 255
    for mine, pixels in zip(ours, batch, strict=True):
        assert np.array_equal(mine, cv2.Canny(pixels, LOW, HIGH))


def test_a_batch_is_its_pictures_one_by_one():
    batch = torch.rand(3, 40, 50, 3)
    assert torch.equal(canny_edges(batch), torch.cat([canny_edges(one[None]) for one in batch]))


def test_an_edge_is_followed_however_long_it_winds():
    seeds, candidates = np.zeros((1, 64, 64), bool), np.zeros((1, 64, 64), bool)
    candidates[0, ::2] = True
    candidates[0, 1::4, -1], candidates[0, 3::4, 0] = True, True
    seeds[0, 0, 0] = True
    from flux_core.canny import connected

    assert torch.equal(connected(torch.from_numpy(seeds), torch.from_numpy(candidates)), torch.from_numpy(candidates))


def test_thresholds_the_wrong_way_round_are_refused():
    with pytest.raises(Flux1Error, match=r"low.*\b90\b.*\b20\b"):
        canny_edges(torch.rand(1, 32, 32, 3), 90, 20)
