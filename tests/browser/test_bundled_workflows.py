"""The bundled workflows in the real graph editor: they open whole, mean what their API twins say, can be read, run."""

import io
import json
import math
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.editor import FILES, Editor, twin_of, without_meta

NOTES = {"MarkdownNote", "Note"}
FOLDERS = {"diffusion_models", "text_encoders", "vae", "loras", "style_models", "clip_vision"}

Box = tuple[float, float, float, float]

# Every node and group of the workflow and of each subgraph in it, as drawn: left, top, right, bottom.
GEOMETRY = """() => [app.rootGraph, ...app.rootGraph.subgraphs.values()].map(graph => {
  const box = ([x, y, width, height]) => [x, y, x + width, y + height];
  const title = LiteGraph.NODE_TITLE_HEIGHT;
  const outline = ({pos, size}) => box([pos[0], pos[1] - title, size[0], size[1] + title]);
  const node = id => graph.getNodeById(id);
  return {
    inside: graph !== app.rootGraph,
    nodes: graph.nodes.map(node => ({title: node.title, type: node.type, box: outline(node)})),
    groups: graph.groups.map(group => ({title: group.title, box: box(group.boundingRect)})),
    wires: [...graph.links.values()].filter(wire => node(wire.origin_id) && node(wire.target_id)).map(
      wire => [node(wire.origin_id), node(wire.target_id)].map(end => ({title: end.title, box: outline(end)}))
    ),
  };
})"""

# What each wire of the whole graph, as drawn, meets on its way: nodes it runs behind, wires from other outputs it crosses.
MEETINGS = """() => {
  const {canvas, rootGraph: graph} = app, half = 0.5;
  const outline = ({pos: [x, y], size: [width, height]}) =>
    [x, y - LiteGraph.NODE_TITLE_HEIGHT, width, height + LiteGraph.NODE_TITLE_HEIGHT];
  const boxes = graph.nodes.map(outline), edge = 200;
  const left = Math.min(...boxes.map(([x]) => x)) - edge, top = Math.min(...boxes.map(([, y]) => y)) - edge;
  const width = (Math.max(...boxes.map(([x, , w]) => x + w)) + edge - left) * half;
  const height = (Math.max(...boxes.map(([, y, , h]) => y + h)) + edge - top) * half;
  canvas.ds.scale = 0.1;  // only wires in view are drawn
  canvas.ds.offset = [-left, -top];
  canvas.draw(true, true);
  const pixels = draw => {
    const pen = new OffscreenCanvas(width, height).getContext('2d');
    pen.scale(half, half);
    pen.translate(-left, -top);
    pen.lineWidth = 2;
    draw(pen);
    return pen.getImageData(0, 0, width, height).data;
  };
  const meet = (a, b) => { for (let i = 3; i < a.length; i += 4) if (a[i] > 100 && b[i] > 100) return true; return false; };
  const wires = [...graph.links.values()].map(link => {
    const paths = [link.path];
    for (let id = link.parentId; id != null; id = graph.reroutes.get(id).parentId)
      paths.push(graph.reroutes.get(id).path);
    const [from, to] = [link.origin_id, link.target_id].map(id => graph.getNodeById(id));
    const name = `${from.title} to ${to.title}`, source = `${from.id} ${link.origin_slot}`;
    return {from, to, name, source, drawn: pixels(pen => paths.forEach(path => pen.stroke(path)))};
  });
  const nodes = graph.nodes.map(node => ({node, drawn: pixels(pen => pen.fillRect(...outline(node)))}));
  const hidden = wire => nodes.filter(({node, drawn}) =>
    node !== wire.from && node !== wire.to && meet(drawn, wire.drawn)).map(({node}) => [wire.name, node.title]);
  const crossed = (wire, number) => wires.slice(number + 1).filter(other =>
    other.source !== wire.source && meet(other.drawn, wire.drawn)).map(other => [wire.name, other.name]);
  return {hidden: wires.flatMap(hidden), crossed: wires.flatMap(crossed)};
}"""


# What the editor draws of the open graph, and whether it leaves no text out as too small.
SAID = """() => {
  const {canvas} = app, texts = [], pen = CanvasRenderingContext2D.prototype, fillText = pen.fillText;
  pen.fillText = function (text, ...rest) { texts.push(text); return fillText.call(this, text, ...rest); };
  try { canvas.draw(true, true); } finally { pen.fillText = fillText; }
  return {texts, readable: !canvas.low_quality};
}"""

# Notes that are longer than their frames; the text area is for writing.
NOTE = ".comfy-markdown"
OVERFLOWING = """note => [...document.querySelectorAll(note + ', ' + note + ' :not(textarea)')]
  .filter(part => part.checkVisibility() && part.scrollHeight > part.clientHeight + 2 && getComputedStyle(part).overflowY !== 'visible')
  .map(part => part.innerText)"""

# By node, the width, height and file name of the pictures that it shows; null until they are all there.
SHOWN = """() => {
  const showing = app.rootGraph.nodes.filter(node => node.imgs?.length);
  if (!showing.every(node => node.imgs.every(picture => picture.complete && picture.naturalWidth))) return null;
  return Object.fromEntries(showing.map(({id, imgs}) => [id, imgs.map(({naturalWidth, naturalHeight, src}) =>
    [naturalWidth, naturalHeight, new URL(src).searchParams.get('filename')])]));
}"""


@dataclass(frozen=True)
class Opened:
    """A bundled workflow, open in the editor, and its API twin."""

    file: Path
    editor: Editor
    twin: dict[str, Any]


@pytest.fixture(scope="module", params=FILES, ids=lambda file: file.stem)
def opened(request: pytest.FixtureRequest, editor: Editor) -> Opened:
    """The workflow as a user sees it who has its models and its picture and takes it from the gallery."""
    editor.open_template(request.param.stem)
    return Opened(request.param, editor, twin_of(request.param))


def all_nodes(saved: dict[str, Any]) -> list[dict[str, Any]]:
    """The file's nodes, those inside subgraphs too."""
    inner = saved.get("definitions", {}).get("subgraphs", [])
    return [*saved["nodes"], *(node for subgraph in inner for node in subgraph["nodes"])]


def painted_size(graph: dict[str, Any], size: tuple[int, int]) -> tuple[int, int]:
    """Of a picture of this size, enlarged and with the room around it as the workflow has it."""
    rooms = [node["inputs"] for node in graph.values() if node["class_type"] == "Flux1PadForOutpaint"]
    width, height = (sum(room[a] + room[b] for room in rooms) for a, b in (("left", "right"), ("top", "bottom")))
    scale = math.prod(node["inputs"]["scale_by"] for node in graph.values() if node["class_type"] == "ImageScaleBy")
    return round(size[0] * scale) + width, round(size[1] * scale) + height


def seeds(graph: dict[str, Any]) -> dict[str, int]:
    return {key: node["inputs"]["seed"] for key, node in graph.items() if "seed" in node["inputs"]}


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def overlaps(graph: dict[str, Any]) -> list[tuple[str, str]]:
    """Titles of nodes that lie on each other, and of groups that do."""
    pairs = [*combinations(graph["nodes"], 2), *combinations(graph["groups"], 2)]
    return [(a["title"], b["title"]) for a, b in pairs if overlap(a["box"], b["box"])]


def within(a: Box, b: Box) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def astray(graph: dict[str, Any]) -> list[str]:
    """Titles of nodes that don't stand whole in one group; notes, and what is inside a subgraph, stand in none."""
    found = []
    for node in graph["nodes"]:
        around = [group["title"] for group in graph["groups"] if overlap(node["box"], group["box"])]
        whole = [group["title"] for group in graph["groups"] if within(node["box"], group["box"])]
        alone = node["type"] in NOTES or graph["inside"]
        if around != whole or len(whole) != (0 if alone else 1):
            found.append(f"{node['title']} is in {around}")
    return found


def test_opens_without_a_complaint(opened: Opened) -> None:
    assert not opened.editor.complaint()
    assert not opened.editor.page.locator(".p-toast-message").all_inner_texts()  # of the schema check
    assert not opened.editor.errors


def test_means_what_its_api_twin_says(opened: Opened) -> None:
    assert without_meta(opened.editor.to_api()) == without_meta(opened.twin)


def test_every_node_stands_in_one_group_and_on_no_other(opened: Opened) -> None:
    for graph in opened.editor.page.evaluate(GEOMETRY):
        assert not overlaps(graph)
        assert not astray(graph)


def test_all_that_it_says_can_be_read(opened: Opened) -> None:
    """As it opens on a screen of 2560 x 1440, whole: no name or number is shortened, no note goes on below its frame."""
    page = opened.editor.page
    said = page.evaluate(SAID)
    assert said["readable"] and "Read me first" in said["texts"]
    assert not [text for text in said["texts"] if text.endswith(("…", "..."))]
    assert page.locator(NOTE).count() and not page.evaluate(OVERFLOWING, NOTE)


def test_every_wire_leads_from_left_to_right(opened: Opened) -> None:
    for graph in opened.editor.page.evaluate(GEOMETRY):
        for source, target in graph["wires"]:
            assert source["box"][2] < target["box"][0], f"{source['title']} to {target['title']}"


def test_no_wire_runs_behind_a_node_or_crosses_another(opened: Opened) -> None:
    """Save that three models can't reach each of several edits without."""
    meetings = opened.editor.page.evaluate(MEETINGS)
    assert not meetings["hidden"]
    assert not meetings["crossed"] or opened.file.stem in ("kontext_edit", "edit_chain")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_names_what_it_takes_to_run_it(file: Path) -> None:
    """Each loaded file with its source and folder, each node's pack, a seed that stays, a note without HTML."""
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert saved["version"] == 0.4
    nodes = all_nodes(saved)
    for node in nodes:
        properties, values = node["properties"], node.get("widgets_values", [])
        if node["type"] in NOTES:
            assert "huggingface.co" in values[0] and "<" not in values[0]
            continue
        assert properties["cnr_id"] == ("flux1" if node["type"].startswith("Flux1") else properties["cnr_id"])
        assert properties["ver"]
        links = {model["name"]: model for model in properties.get("models", [])}
        assert {value for value in values if str(value).endswith(".safetensors")} == set(links)
        for model in links.values():
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith("/" + model["name"])
            assert model["directory"] in FOLDERS
        if node["type"] in ("Flux1Sampler", "Flux1TiledSampler"):
            assert "fixed" in values
    assert any(node["type"] in NOTES for node in nodes)


def test_runs_at_the_press_of_the_button_and_shows_its_picture(opened: Opened, picture: Image.Image) -> None:
    page = opened.editor.page
    page.evaluate(
        """([width, height]) => {
          const quick = {steps: 2, sizing: 'own size', width, height};
          const takes = ({options: {values}}, value) => !values || values.includes(value);
          const graphs = [...app.rootGraph.subgraphs.values(), app.rootGraph];
          for (const node of graphs.flatMap(graph => graph.nodes)) for (const widget of node.widgets ?? [])
            if (widget.name in quick && takes(widget, quick[widget.name])) widget.value = quick[widget.name];
        }""",
        picture.size,
    )
    outputs = opened.editor.run()
    assert seeds(opened.editor.to_api()) == seeds(opened.twin)  # the same again at the next press
    savers = [key for key, node in opened.twin.items() if node["class_type"] == "SaveImage"]
    assert savers and set(savers) <= set(outputs)
    for key in savers:
        [saved] = outputs[key]["images"]
        painted = Image.open(io.BytesIO(page.request.get(page.url.split("#")[0] + "view", params=saved).body()))
        assert painted.size == painted_size(opened.twin, picture.size)
        assert len(painted.getcolors(painted.width * painted.height)) > 100  # painted, not black or empty
        shown = f"node => ({SHOWN})()?.[node]"
        page.wait_for_function(shown, arg=key, timeout=30_000)
        assert page.evaluate(shown, key) == [[*painted.size, saved["filename"]]]
    opened.editor.fit()
    page.wait_for_timeout(500)  # until it is drawn
    opened.editor.screenshot(opened.file.stem)
    for graph in page.evaluate(GEOMETRY):  # reports make nodes grow
        assert not overlaps(graph)
        assert not astray(graph)


def test_means_the_same_once_saved_and_opened_again(opened: Opened, tmp_path: Path) -> None:
    before = opened.editor.to_api()
    (tmp_path / "saved.json").write_text(json.dumps(opened.editor.to_ui()))
    opened.editor.open(tmp_path / "saved.json")
    assert opened.editor.to_api() == before
