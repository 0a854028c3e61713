"""Norm and rotation in one pass are the two of them in a row, and nearer to the truth in half precision."""

import pytest
import torch

from flux_core import packing
from flux_core.model.attention import Stream, joined, rotate, turned
from flux_core.model.blocks import QKNorm
from flux_core.model.embedding import rotary
from flux_core.model.one_pass import CHUNK

HEADS, HEAD_DIM, TEXT, GRID = 3, 128, 11, 12


def streams(dtype: torch.dtype, batch: int = 2, seed: int = 0) -> list[Stream]:
    """Text and image, from projections as uneven as real ones; the image's qkv is a view into something wider."""
    torch.manual_seed(seed)

    def norm() -> QKNorm:
        made = QKNorm(HEAD_DIM, torch.nn)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, 1, 0.3)
        return made.to(dtype).requires_grad_(False)

    width = 3 * HEADS * HEAD_DIM
    text, image = torch.randn(batch, TEXT, width), torch.randn(batch, GRID**2, width + 64)
    scale = torch.rand(width).mul(4).exp() / 10
    return [
        Stream((text * scale).to(dtype), norm(), HEADS),
        Stream((image[..., :width] * scale).to(dtype), norm(), HEADS),
    ]


def positions(batch: int = 1) -> torch.Tensor:
    ids = torch.cat([torch.zeros(TEXT, 3), packing.image_ids(GRID, GRID)])
    return rotary(ids.expand(batch, -1, -1), (16, 56, 56), 10_000)


def two_passes(some: list[Stream], pe: torch.Tensor, needed: slice) -> tuple[torch.Tensor, ...]:
    q, k, v = joined(some, needed)
    return rotate(q, pe[:, :, needed]), rotate(k, pe), v


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    return ((found.double() - true.double()).norm() / true.double().norm()).item()


@pytest.mark.parametrize("positions_of", [1, 2])
@pytest.mark.parametrize("needed", [slice(None), slice(TEXT, TEXT + 50)])
@torch.no_grad()
def test_one_pass_is_norm_then_rotation(needed: slice, positions_of: int):
    assert GRID**2 > 2 * CHUNK and GRID**2 % CHUNK
    some, pe = streams(torch.float32), positions(positions_of)
    for ours, theirs in zip(turned(some, pe, needed), two_passes(some, pe, needed), strict=True):
        assert ours.shape == theirs.shape and error(ours, theirs) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_it_is_no_further_from_float32_than_two_passes(dtype: torch.dtype):
    some, pe = streams(dtype), positions()
    exact = [Stream(s.qkv.float(), s.norm.float(), s.heads) for s in streams(dtype)]
    true = two_passes(exact, pe, slice(None))
    one, two = turned(some, pe), two_passes(some, pe, slice(None))
    for ours, theirs, wanted in list(zip(one, two, true, strict=True))[:2]:
        assert ours.dtype == dtype and error(ours, wanted) < 0.9 * error(theirs, wanted)


def test_gradients_pass():
    some = streams(torch.float32)
    leaf = some[1].qkv.clone().requires_grad_()
    q, _, _ = turned([some[0], some[1]._replace(qkv=leaf)], positions())
    q.square().sum().backward()
    assert leaf.grad.abs().sum() > 0


@torch.no_grad()
def test_what_it_is_given_stays_as_it_is():
    some = streams(torch.bfloat16)
    before = [s.qkv.clone() for s in some]
    turned(some, positions())
    assert all(torch.equal(s.qkv, b) for s, b in zip(some, before, strict=True))
