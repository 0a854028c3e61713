"""Pictures of every kind and size for the edge and depth maps, and depth weights that are not there."""

import numpy as np
import pytest
from PIL import Image

from tests.faults.conftest import Faulty
from tests.faults.graphs import (
    CANNY,
    alike,
    load_image,
    noise,
    pixels,
    refusal,
    refused_at_once,
    refused_while_running,
    saved,
)
from workflows.client import Client
from workflows.graph import GraphBuilder, Link

pytestmark = pytest.mark.usefixtures("unharmed")
BASE = CANNY


def edges(add: GraphBuilder, image: Link, low: int = 50, high: int = 200) -> str:
    return saved(add, add("Flux1CannyEdges", image=image, low=low, high=high)[0])


def edges_of(client: Client, *pictures: Image.Image) -> np.ndarray:
    """The maps of pictures in one batch."""
    add = GraphBuilder()
    names = [client.upload(picture, f"edges {number}.png") for number, picture in enumerate(pictures)]
    batch, *others = (load_image(add, name) for name in names)
    for image in others:
        batch = add("ImageBatch", image1=batch, image2=image)[0]
    saver = edges(add, batch)
    return pixels(client.run(add.graph), saver)


@pytest.mark.parametrize("size", [(1, 1), (8, 64)])
def test_c01_a_picture_smaller_than_a_token_is_refused(size, client: Client):
    add = GraphBuilder()
    edges(add, add("EmptyImage", width=size[0], height=size[1], batch_size=1, color=0)[0])
    refused_while_running(client, add, "Flux1CannyEdges", "16", "{} x {}".format(*size), "^(?!.*padding size)")


@pytest.mark.parametrize(("low", "high"), [(200, 50), (-1, 50), (50, 2001)])
def test_c02_thresholds_the_wrong_way_round_are_refused_when_queued(low, high, client: Client):
    add = GraphBuilder()
    edges(add, add("EmptyImage", width=64, height=64, batch_size=1, color=0)[0], low, high)
    refused_at_once(client, add, "Flux1CannyEdges", f"low {low}", f"high {high}")


def test_c02_a_threshold_that_is_no_number_is_comfyui_s_to_refuse(client: Client):
    add = GraphBuilder()
    edges(add, add("EmptyImage", width=64, height=64, batch_size=1, color=0)[0], "abc")
    (entry,) = refusal(client, add).node_errors.values()
    assert entry["errors"][0]["type"] == "invalid_input_type"


def test_c04_each_of_a_batch_gets_the_map_it_gets_alone(client: Client):
    pictures = [noise(71, 57, seed=seed) for seed in range(3)]
    maps = edges_of(client, *pictures)
    assert maps.shape == (3, 57, 71, 3)
    assert alike(maps, np.concatenate([edges_of(client, picture) for picture in pictures]))


KINDS = {
    "RGBA": (lambda picture: picture.convert("RGBA"), "png"),
    "grey": (lambda picture: picture.convert("L"), "png"),
    "16 bit": (lambda picture: Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257), "png"),
    "palette": (lambda picture: picture.quantize(64), "png"),
    "CMYK": (lambda picture: picture.convert("CMYK"), "tiff"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_c05_c07_every_kind_of_picture_has_edges_of_its_size(kind, client: Client, tmp_path):
    change, ending = KINDS[kind]
    change(noise(71, 57)).save(tmp_path / f"kind.{ending}")
    client.upload(tmp_path / f"kind.{ending}", f"kind {kind}.{ending}")
    add = GraphBuilder()
    saver = edges(add, load_image(add, f"kind {kind}.{ending}"))
    found = pixels(client.run(add.graph), saver)
    assert found.shape == (1, 57, 71, 3)
    assert set(np.unique(found)) == {0, 255}


@pytest.mark.parametrize("name", ["depth-anything-large-hf", "Depth-Anything-V2-Small-hf", "../vae", {"a": 1}], ids=str)
def test_c09_depth_weights_that_are_absent_are_named_and_not_fetched(name, faulty: Faulty, client: Client):
    before = len(faulty.seen())
    add = GraphBuilder()
    image = add("EmptyImage", width=64, height=64, batch_size=1, color=0)[0]
    saved(add, add("Flux1DepthMap", image=image, model_name=name, normalisation="min-max")[0])
    refused_at_once(client, add, "Flux1DepthMap", "model.safetensors", "depth_anything")
    assert not [event for event in faulty.seen()[before:] if event[0].startswith("socket.")]
