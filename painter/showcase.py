"""`python -m painter.showcase`: every bundled workflow run on drawn landscapes, its thumbnail made anew from the result.

The demo shows the same runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from painter.masks import around_body
from painter.painter import painting
from painter.scenes import Scene, draw
from workflows.client import Client
from workflows.graph import Graph, links, read_graph

WORKFLOWS = Path(__file__).parent.parent / "workflows"
SCENE = Scene(time="day", sky="blue", body="right", ridges=3, ground="meadow", lake=True, light="right", seed=11)
NEXT = replace(SCENE, time="sunset", sky="orange", body="left", seed=12)  # for workflows that take two pictures
SEED = 7
THUMBNAIL, GAP = 384, 6  # pixels: height of a thumbnail, and between before and after
MEGAPIXEL = 1024  # side of the pictures that the workflows are made for


@dataclass(frozen=True)
class Run:
    """A workflow's input pictures, holes shown grey, and what it made of them."""

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


def sunless_hole(scene: Scene = SCENE) -> Image.Image:
    """A mask around the sun: white where to paint."""
    return Image.fromarray(around_body(draw(scene), np.random.default_rng(3)).astype(np.uint8) * 255)


def run(client: Client, workflow: str, picture: Image.Image, mask: Image.Image, progress: bool = False) -> Run:
    """The bundled workflow of this name on `picture`, and where it asks for a mask, on `mask`.

    A second picture that it asks for is another landscape.
    """
    graph = read_graph(WORKFLOWS / "api" / f"{workflow}.json")
    masked = {link[0] for node in graph.values() for _, link in links(node) if link[1] == 1}
    shown, names = [], {}
    for key, node in graph.items():
        if node["class_type"] == "LoadImage":
            seen = landscape(NEXT) if names else picture
            given = with_hole(seen, mask) if key in masked else seen
            names[key] = client.upload(given, f"showcase_{workflow}_{len(names)}.png")
            shown.append(Image.composite(Image.new("RGB", seen.size, "grey"), seen, mask) if key in masked else seen)
    graph = adapted(graph, names, picture.size)
    return Run(shown, [image.convert("RGB") for image in client.run(graph, progress).images])


def adapted(graph: Graph, pictures: Mapping[str, str], size: tuple[int, int]) -> Graph:
    """The workflow with other pictures (file names by node), seed and size, and otherwise as it is.

    Room around a picture becomes smaller with it.
    """
    ours = {"seed": SEED, "noise_seed": SEED, "width": size[0], "height": size[1], "sizing": "own size"}

    def inputs(key: str, node: dict) -> dict:
        own = ours | ({"image": pictures[key]} if key in pictures else {})
        if node["class_type"] == "Flux1PadForOutpaint":
            room = ("left", "top", "right", "bottom", "feather")
            own |= {name: node["inputs"][name] * size[0] // MEGAPIXEL for name in room}
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
    with painting() as painter:
        for file in tqdm(sorted(WORKFLOWS.glob("*.json")), desc="thumbnails"):
            done = run(painter.client, file.stem, landscape(), sunless_hole())
            side_by_side(done.pictures).save(file.with_suffix(".jpg"), quality=90)


if __name__ == "__main__":
    main()
