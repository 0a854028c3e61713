"""Tiles cover everything, alike in size, and put together what was cut apart."""

from itertools import pairwise

import pytest
import torch

from flux_core.packing import PATCH
from flux_core.tiles import Tile, blended, tiles_over, window

CASES = [(64, 64, 32, 8), (50, 34, 32, 8), (33, 97, 20, 6), (16, 16, 32, 8), (128, 20, 32, 0), (512, 512, 128, 16)]


@pytest.mark.parametrize(("height", "width", "size", "overlap"), CASES)
def test_every_cell_is_covered_by_tiles_of_one_size_on_whole_tokens(height, width, size, overlap):
    tiles, covered = tiles_over(height, width, size, overlap), torch.zeros(height, width)
    for tile in tiles:
        tile.of(covered).add_(1)
        assert (tile.height, tile.width) == (min(size, height), min(size, width))
        ends = tile.top + tile.height == height, tile.left + tile.width == width
        assert (tile.top % PATCH == 0 or ends[0]) and (tile.left % PATCH == 0 or ends[1])
    assert covered.min() >= 1


@pytest.mark.parametrize(("height", "width", "size", "overlap"), CASES)
def test_neighbours_share_the_overlap(height, width, size, overlap):
    tiles = tiles_over(height, width, size, overlap)
    for starts, extent in (({t.top for t in tiles}, size), ({t.left for t in tiles}, size)):
        ordered = sorted(starts)
        assert all(after - before <= extent - overlap + 1 for before, after in pairwise(ordered))


@pytest.mark.parametrize(("height", "width", "size", "overlap"), CASES)
def test_what_is_cut_apart_is_put_together_again(height, width, size, overlap):
    latent = torch.randn(2, 16, height, width)
    parts = [(tile, tile.of(latent)) for tile in tiles_over(height, width, size, overlap)]
    torch.testing.assert_close(blended(parts, latent, overlap), latent, atol=1e-5, rtol=1e-5)


def test_tiles_that_disagree_meet_without_a_step():
    """Each tile another constant: nowhere a larger step than the ramp's own slope."""
    like, overlap = torch.zeros(1, 1, 16, 256), 32
    tiles = tiles_over(16, 256, 96, overlap)
    levels = blended([(tile, torch.full((1, 1, 16, 96), float(i % 2))) for i, tile in enumerate(tiles)], like, overlap)
    assert len(tiles) >= 3 and levels.amax() == 1 and levels.amin() == 0
    assert levels.diff(dim=-1).abs().max() < 2.0 / overlap


def test_the_pictures_own_edge_keeps_its_weight():
    corner = window(Tile(0, 0, 16, 16), 64, 64, 8)
    assert (corner[:8, :8] == 1).all() and corner[-1, 0] < 0.05


def test_an_overlap_as_wide_as_the_tile_is_refused():
    with pytest.raises(ValueError, match="overlap"):
        tiles_over(64, 64, 16, 16)
