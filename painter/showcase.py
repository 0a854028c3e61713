"""`python -m painter.showcase [NAME ...]`: bundled workflows run on drawn landscapes, their thumbnails made anew.

The demo shows the same runs. The control LoRAs are made of the tiny models; for depth the scene's own is shown, as no
depth network is among them.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from painter.control_lora import write_control_loras
from painter.masks import around_body
from painter.painter import WEIGHTS, painting
from painter.scenes import SIZE, Scene, draw
from workflows.client import Client
from workflows.graph import Graph, links, read_graph

WORKFLOWS = Path(__file__).parent.parent / "workflows"
SCENE = Scene(time="day", sky="blue", body="right", ridges=3, ground="meadow", lake=True, light="right", seed=11)
NEXT = replace(SCENE, time="sunset", sky="orange", body="left", seed=12)  # for workflows that take two pictures
SEED = 7
THUMBNAIL, GAP = 384, 6  # pixels: height of a thumbnail, and between before and after
MEGAPIXEL = 1024  # side of the pictures that the workflows are made for
TO_A_MEGAPIXEL = {("Flux1KontextReference", "stretch"), ("Flux1PrepareEdit", "kontext")}  # how pictures are sized
ROOM = ("left", "top", "right", "bottom", "feather")
SCALES = {"upscale_refine": 0.5, "inpaint_lossless": 3.0}
"""Of the pictures for workflows that bring them, or a part of them, to the one size that the tiny models know."""


@dataclass(frozen=True)
class Run:
    """A workflow's input pictures, masks shown in them, and what it made of them."""

    before: list[Image.Image]
    after: list[Image.Image]

    @property
    def pictures(self) -> list[Image.Image]:
        return [*self.before, *self.after]


def landscape(scene: Scene = SCENE) -> Image.Image:
    return Image.fromarray((draw(scene).image * 255).round().astype(np.uint8))


def with_hole(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """One picture that carries both: LoadImage reads its colours as IMAGE, what is transparent in it as MASK."""
    both = picture.copy()
    both.putalpha(mask.point(lambda value: 255 - value))
    return both


def marked(picture: Image.Image, mask: Image.Image, boxed: bool) -> Image.Image:
    """The mask shown grey in the picture, or as a red box."""
    if not boxed:
        return Image.composite(Image.new("RGB", picture.size, "grey"), picture, mask)
    framed = picture.copy()
    ImageDraw.Draw(framed).rectangle(mask.getbbox(), outline="red", width=2)
    return framed


def scaled(picture: Image.Image, scale: float) -> Image.Image:
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)


def depth_of(scene: Scene = SCENE) -> Image.Image:
    return Image.fromarray((draw(scene).depth * 255).round().astype(np.uint8)).convert("RGB")


def sunless_hole(scene: Scene = SCENE) -> Image.Image:
    """A mask around the sun: white where to paint."""
    return Image.fromarray(around_body(draw(scene), np.random.default_rng(3)).astype(np.uint8) * 255)


def run(client: Client, workflow: str, picture: Image.Image, mask: Image.Image, progress: bool = False) -> Run:
    """The bundled workflow of this name on `picture`, and where it asks for a mask, on `mask`.

    A second picture that it asks for is another landscape; where it asks a network for depth, SCENE's is loaded instead.
    """
    graph = read_graph(WORKFLOWS / "api" / f"{workflow}.json")
    masked = {link[0] for node in graph.values() for _, link in links(node) if link[1] == 1}
    boxes = any(node["class_type"] == "Flux1BoxPrompt" for node in graph.values())
    shown, names = [], {}
    for key, node in graph.items():
        if node["class_type"] == "LoadImage":
            seen = landscape(NEXT) if names else picture
            given = with_hole(seen, mask) if key in masked else seen
            names[key] = client.upload(given, f"showcase_{workflow}_{len(names)}.png")
            shown.append(marked(seen, mask, boxes) if key in masked else seen)
    for key, node in graph.items():
        if node["class_type"] == "Flux1DepthMap":
            depth = client.upload(depth_of(), f"showcase_{workflow}_depth.png")
            graph[key] = {"class_type": "LoadImage", "inputs": {"image": depth}}
    graph = adapted(graph, names, picture.size)
    return Run(shown, [image.convert("RGB") for image in client.run(graph, progress).images])


def adapted(graph: Graph, pictures: Mapping[str, str], size: tuple[int, int]) -> Graph:
    """The workflow with other pictures (file names by node), seed and size, and otherwise as it is.

    Room around a picture becomes smaller with it. Of a picture that is edited in part, all is shown: the tiny models know
    whole landscapes only.
    """
    ours = {"seed": SEED, "noise_seed": SEED, "width": size[0], "height": size[1]}

    def inputs(key: str, node: dict) -> dict:
        own = ours | ({"image": pictures[key]} if key in pictures else {})
        if (node["class_type"], node["inputs"].get("sizing")) in TO_A_MEGAPIXEL:
            own["sizing"] = "own size"
        if node["class_type"] == "Flux1PrepareEdit":
            own |= {"megapixels": (SIZE / MEGAPIXEL) ** 2, "context": 8.0}
        if node["class_type"] == "Flux1PadForOutpaint":
            own |= {name: node["inputs"][name] * size[0] // MEGAPIXEL for name in ROOM}
        return {
            name: value if isinstance(value, list) else own.get(name, value) for name, value in node["inputs"].items()
        }

    return {key: node | {"inputs": inputs(key, node)} for key, node in graph.items()}


def side_by_side(pictures: list[Image.Image], height: int = THUMBNAIL, gap: int = GAP) -> Image.Image:
    """In one row on white, all of one height."""
    scaled = [p.resize((round(p.width * height / p.height), height), Image.Resampling.LANCZOS) for p in pictures]
    row = Image.new("RGB", (sum(p.width + gap for p in scaled) - gap, height), "white")
    left = 0
    for picture in scaled:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return row


def main() -> None:
    wanted = sys.argv[1:] or [file.stem for file in sorted(WORKFLOWS.glob("*.json"))]
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        for part in WEIGHTS.iterdir():
            (models / part.name).symlink_to(part)
        write_control_loras(WEIGHTS, models)
        with painting(models) as painter:
            for name in tqdm(wanted, desc="thumbnails"):
                picture, mask = (scaled(each, SCALES.get(name, 1.0)) for each in (landscape(), sunless_hole()))
                pictures = run(painter.client, name, picture, mask).pictures
                side_by_side(pictures).save(WORKFLOWS / f"{name}.jpg", quality=90)


if __name__ == "__main__":
    main()
