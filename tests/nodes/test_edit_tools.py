"""The edit tools through /prompt: an edit without a mask laid back and found, boxes from each source, refusals."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from tests.flux_core.synthetic_edits import DRIFTS, edit, photographs
from tests.nodes.graphs import GraphBuilder
from workflows.client import Client, Result, RunError
from workflows.graph import Link


def as_picture(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image.numpy() * 255).round().astype(np.uint8))


@pytest.fixture(scope="module")
def given(server: Client):
    one = edit(photographs()["coffee"], DRIFTS["enlarged"], 0.1, seed=3)
    server.upload(as_picture(one.source), "before.png")
    server.upload(as_picture(one.edited), "after.png")
    server.upload(as_picture(photographs_tensor("grass")), "other.png")
    server.upload(Image.fromarray(one.changed.astype(np.uint8) * 255), "where.png")
    return one


def photographs_tensor(name: str) -> torch.Tensor:
    return torch.from_numpy(photographs()[name])


def load(add: GraphBuilder, name: str) -> Link:
    return add("LoadImage", image=name)[0]


def shown(server: Client, add: GraphBuilder, *images: Link) -> tuple[list[np.ndarray], Result]:
    """The pictures, in [0, 1]."""
    savers = [add("SaveImage", images=image, filename_prefix="test/edit")[0][0] for image in images]
    done = server.run(add.graph)
    files = dict(zip((node for node, output in done.outputs.items() if "images" in output), done.files, strict=True))
    return [np.asarray(Image.open(io.BytesIO(files[s])).convert("RGB"), np.float32) / 255 for s in savers], done


def texts(done: Result) -> str:
    return " ".join(text for output in done.outputs.values() for text in output.get("text", ()))


def test_an_edit_is_laid_back_and_what_it_changed_is_found(server: Client, given):
    add = GraphBuilder()
    aligned, _, outside = add("Flux1AlignEdit", source=load(add, "before.png"), edited=load(add, "after.png"))[:3]
    mask = add("Flux1ChangeMask", source=load(add, "before.png"), edited=aligned, threshold=0.0, grow=0, feather=0)[0]
    as_images = [add("MaskToImage", mask=each)[0] for each in (mask, outside)]
    (laid, found, out), done = shown(server, add, aligned, *as_images)
    kept = ~given.changed & (out[..., 0] == 0)
    assert np.abs(laid - given.source.numpy())[kept].mean() < 0.01
    found, painted = found[..., 0] > 0.5, given.changed
    assert (found & painted).sum() / (found | painted).sum() >= 0.8
    assert "undone" in texts(done) and "104.0" in texts(done) and "% changed" in texts(done)


def test_an_edit_that_is_another_picture_stays_as_it_is_and_says_so(server: Client, given):
    add = GraphBuilder()
    aligned = add("Flux1AlignEdit", source=load(add, "other.png"), edited=load(add, "before.png"))[0]
    scaled = add(
        "ImageScale", image=load(add, "before.png"), width=283, height=350, upscale_method="bicubic", crop="disabled"
    )[0]
    (laid, plain), done = shown(server, add, aligned, scaled)
    assert laid.shape == plain.shape and np.abs(laid - plain).mean() < 0.02  # the one antialiased, the other not
    assert "left as it is" in texts(done)


def boxed(add: GraphBuilder, boxes: str = "", **settings) -> list[Link]:
    inputs = {"image": load(add, "before.png"), "boxes": boxes, "colours": "red", **settings}
    return add("Flux1BoxPrompt", **inputs)


def test_boxes_are_the_same_however_they_are_given(server: Client, given):
    rows, columns = np.nonzero(given.changed)
    x, y = int(columns.min()), int(rows.min())
    width, height = int(columns.max()) + 1 - x, int(rows.max()) + 1 - y
    add = GraphBuilder()
    mask = add("LoadImageMask", image="where.png", channel="red")[0]
    box = add("PrimitiveBoundingBox", x=x, y=y, width=width, height=height)[0]
    ways = [boxed(add, f"{x}, {y}, {width}, {height}"), boxed(add, mask=mask), boxed(add, bboxes=box)]
    pictures, done = shown(server, add, *(way[0] for way in ways), *(add("MaskToImage", mask=w[1])[0] for w in ways))
    assert all(np.array_equal(pictures[0], each) for each in pictures[1:3])
    white = np.zeros(given.changed.shape, bool)
    white[y : y + height, x : x + width] = True
    assert all(np.array_equal(each[..., 0] == 1, white) for each in pictures[3:])
    assert np.array_equal(pictures[0][white], np.asarray(as_picture(given.source), np.float32)[white] / 255)
    assert "the red box" in texts(done)


def change_of(first: str, second: str) -> Callable:
    def graph(add: GraphBuilder) -> Link:
        pictures = {"source": load(add, first), "edited": load(add, second)}
        mask = add("Flux1ChangeMask", **pictures, threshold=0.0, grow=0, feather=0)[0]
        return add("MaskToImage", mask=mask)[0]

    return graph


def box_of(boxes: str, colours: str = "red") -> Callable:
    return lambda add: boxed(add, boxes, colours=colours)[0]


REFUSED = {  # the graph, whether before anything runs, the node, words in the text
    "unreadable box": (box_of("cat, 1, 2"), True, "Flux1BoxPrompt", ["cat, 1, 2"]),
    "unknown colour": (box_of("1, 2, 30, 40", "mauve"), True, "Flux1BoxPrompt", ["mauve", "red"]),
    "no box": (box_of(""), False, "Flux1BoxPrompt", ["no box"]),
    "box outside": (box_of("5000, 0, 30, 40"), False, "Flux1BoxPrompt", ["400 x 301", "5000"]),
    "sizes differ": (change_of("before.png", "other.png"), False, "Flux1ChangeMask", ["400 x 301", "Align"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_words(case, server: Client, given):
    graph, at_once, node, words = REFUSED[case]
    add = GraphBuilder()
    add("SaveImage", images=graph(add), filename_prefix="test/edit")
    with pytest.raises(RunError) as caught:
        server.run(add.graph)
    error = caught.value
    if at_once:
        assert error.status == 400
        (entry,) = (entry for entry in error.node_errors.values() if entry["errors"])
        said = entry["class_type"], " ".join(each["details"] for each in entry["errors"])
    else:
        said = error.node_type, error.answer["exception_message"]
    assert said[0] == node
    assert all(word in said[1] for word in [*words, "Expected:", "Found:", "Fix:"]), said[1]


def test_each_picture_of_a_batch_is_laid_back_by_itself(pack):
    from flux1.nodes.edit_tools import Flux1AlignEdit

    source = photographs()["china"]
    two = [edit(source, DRIFTS[name], 0.1, seed=5) for name in ("shift", "turned")]
    given = [one.edited.clone() for one in two]
    images, report, outside = Flux1AlignEdit.execute(two[0].source[None], torch.stack([one.edited for one in two])).args
    assert len(report.splitlines()) == 2
    for one, laid, out, untouched in zip(two, images, outside, given, strict=True):
        kept = torch.from_numpy(~one.changed) & (out == 0)
        before, after = ((each - one.source).abs()[kept].mean() for each in (one.edited, laid))
        assert after < 0.25 * before
        assert torch.equal(one.edited, untouched)


def test_batches_that_don_t_match_are_refused(pack):
    from flux1.flux_core.errors import Flux1Error
    from flux1.nodes.edit_tools import Flux1AlignEdit

    with pytest.raises(Flux1Error, match="batch"):
        Flux1AlignEdit.execute(torch.rand(2, 64, 64, 3), torch.rand(3, 64, 64, 3))
