"""Refinement in tiles: seamless where tiles agree, the plain sampler where there is one, refused where it can't be."""

import pytest
import torch

PROMPT_WIDTH = 64


@pytest.fixture(autouse=True)
def as_the_server_runs():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def model(pack):
    from flux1.nodes.loaders import Flux1LoadModel

    return Flux1LoadModel.execute("flux1-dev.safetensors", "default", "auto")[0]


def prompt(**values) -> list:
    torch.manual_seed(1)
    return [[torch.randn(1, 12, PROMPT_WIDTH), {"pooled_output": torch.randn(1, 64), "guidance": 3.5, **values}]]


def latent(height: int, width: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return {"samples": torch.randn(1, 16, height, width)}


def refined(model, given: dict, positive: list | None = None, **settings) -> torch.Tensor:
    from flux1.nodes.refine import Flux1TiledSampler

    values = {"seed": 4, "steps": 10, "strength": 0.3, "tile_size": 128, "overlap": 32, **settings}
    return Flux1TiledSampler.execute(model, positive or prompt(), given, **values)[0]["samples"]


def watched(model, seen: list):
    """The MODEL, and what it is called with put into `seen`."""
    other = model.clone()

    def watch(apply_model, given):
        seen.append(given)
        return apply_model(given["input"], given["timestep"], **given["c"])

    other.set_model_unet_function_wrapper(watch)
    return other


def test_one_tile_is_the_plain_sampler(model):
    from flux1.nodes.sampling import Flux1Sampler

    given = latent(16, 12)
    plain = Flux1Sampler.execute(model, prompt(), given, seed=4, steps=10, strength=0.3)[0]["samples"]
    torch.testing.assert_close(refined(model, given), plain, atol=1e-5, rtol=1e-5)


def perfect(model, clean: torch.Tensor):
    """The MODEL with its transformer replaced by one that knows the clean latent: wherever a tile lies, by its positions,
    its answer is what leads there."""
    other = model.clone()
    inside = model.model.process_latent_in(clean)

    def answer(apply_model, given):
        rope = given["c"]["transformer_options"].get("rope_options", {})
        top, left = (int(2 * rope.get(axis, 0)) for axis in ("shift_y", "shift_x"))
        height, width = given["input"].shape[-2:]
        return inside[..., top : top + height, left : left + width].to(given["input"])

    other.set_model_unet_function_wrapper(answer)
    return other


@pytest.mark.parametrize(("height", "width"), [(48, 48), (30, 54), (16, 70)])
def test_a_model_that_leaves_pictures_as_they_are_gives_them_back_whole(model, height, width):
    given = latent(height, width)
    result = refined(perfect(model, given["samples"]), given)
    assert (result - given["samples"]).abs().max() < 1e-3


def test_no_seam_where_tiles_meet(model):
    """The largest step across the tiles' edges is no larger than inside them."""
    y, x = torch.meshgrid(torch.linspace(0, 3, 48), torch.linspace(0, 5, 64), indexing="ij")
    given = {"samples": (y.sin() + x.cos()).expand(1, 16, -1, -1).clone()}
    result = refined(perfect(model, given["samples"]), given)
    steps = result.diff(dim=-1).abs().amax((0, 1, 2))
    assert steps.max() < 1.05 * given["samples"].diff(dim=-1).abs().max()


def test_tiles_know_their_place(model):
    from flux1.flux_core.tiles import tiles_over

    seen = []
    refined(watched(model, seen), latent(32, 24), steps=1, strength=1.0)
    places = [given["c"]["transformer_options"]["rope_options"] for given in seen]
    tiles = tiles_over(32, 24, 16, 4)
    assert places == [{"shift_y": tile.top / 2, "shift_x": tile.left / 2} for tile in tiles]
    assert len(tiles) > 4


def test_the_schedule_is_the_tiles_own(model):
    """A long picture in tiles of its height runs as one tile would, not as the whole would."""
    from flux1.nodes.sampling import shifted_sigmas

    seen = []
    refined(watched(model, seen), latent(16, 64), strength=1.0, steps=4)
    levels, (expected, _) = torch.cat([given["timestep"] for given in seen]), shifted_sigmas(latent(16, 16), None, 4)
    tiles = len(seen) // 4
    assert tiles > 1
    torch.testing.assert_close(levels[::tiles], expected[:-1])


@pytest.mark.parametrize("key", ["concat_latent_image", "reference_latents", "control"])
def test_what_a_tile_cannot_follow_is_refused(model, key):
    with pytest.raises(ValueError, match=f"tiles.*Expected:.*Found: {key}.*Fix:"):
        refined(model, latent(32, 32), positive=prompt(**{key: object()}))
