"""From nothing to a picture: tiny models, a real ComfyUI server, the bundled Fill and Kontext workflows, a photograph.

The photograph is scikit-learn's sample `china.jpg`: by danielbuechele, CC BY 2.0.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from flux_core.errors import Flux1Error
from workflows.cache import CACHE, made_once
from workflows.client import Client, RunError
from workflows.comfyui import find_comfyui
from workflows.graph import Graph, read_graph
from workflows.server import Server, quiet_editor, serve

ROOT = Path(__file__).resolve().parent
WORKFLOWS = {"fill_inpaint": "Fill: the masked part is painted anew", "kontext_edit": "Kontext: the picture is edited"}
SIZE = (144, 96)  # the photograph's 3:2, in whole tokens of 16 pixels
SEED = 7


def main() -> None:
    options = parse()
    comfyui = step("ComfyUI", lambda: find_comfyui(options.comfyui))
    models = step("Tiny models", lambda: made_once(CACHE / "demo" / "models", tiny_models))
    options.output.mkdir(parents=True, exist_ok=True)
    print("ComfyUI server: starting ...", flush=True)
    log = CACHE / "demo" / "comfyui.log"
    with serve(models, comfyui=comfyui, log=log, settings=quiet_editor()) as server:
        print(f"ComfyUI server: {server.address}")
        paint(Client(server.address), options.output)
        if options.gui:
            stay(server)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gui", action="store_true", help="leave the server running, to be opened in a browser")
    parser.add_argument("--comfyui", type=Path, metavar="PATH", help="an existing ComfyUI; also COMFYUI_PATH")
    parser.add_argument("--output", type=Path, metavar="DIR", default=ROOT / "output", help="where the pictures go")
    return parser.parse_args()


def step(name: str, work: Callable[[], Path]) -> Path:
    """Says what is being prepared before it may take a while, and where it is afterwards."""
    print(f"{name}: preparing ...", end="", flush=True)
    path = work()
    print(f"\r{name}: {path}    ")
    return path


def tiny_models(folder: Path) -> None:
    """FLUX.1 in miniature under the released files' names: trained on drawn landscapes, so far as it has been trained."""
    from painter.family import write_random_family

    write_random_family(folder)
    shutil.copytree(ROOT / "painter" / "weights", folder, dirs_exist_ok=True)


def paint(client: Client, output: Path) -> None:
    """Runs the workflows and saves their pictures and the contact sheet in `output`."""
    photograph, mask = photograph_and_mask()
    name = client.upload(with_hole(photograph, mask), "photograph.png")
    rows: list[tuple[str, list[Image.Image]]] = []
    for workflow, caption in WORKFLOWS.items():
        graph = adapted(read_graph(ROOT / "workflows" / "api" / f"{workflow}.json"), name)
        results = client.run(graph, progress=True).images
        for number, result in enumerate(results, 1):
            result.save(output / f"{workflow}_{number}.png")
        before = shown(photograph, mask) if workflow.startswith("fill") else photograph
        rows.append((caption, [before, *results]))
    sheet = output / "contact_sheet.png"
    contact_sheet(rows).save(sheet)
    print(f"Pictures: {output}\nBefore and after: {sheet}")


def photograph_and_mask() -> tuple[Image.Image, Image.Image]:
    """The photograph and, white, the part of its sky that is to be painted anew."""
    from sklearn.datasets import load_sample_image

    photograph = Image.fromarray(load_sample_image("china.jpg")).resize(SIZE, Image.Resampling.LANCZOS)
    mask = Image.new("L", SIZE)
    width, height = SIZE
    ImageDraw.Draw(mask).ellipse((width * 0.55, height * 0.05, width * 0.85, height * 0.4), fill=255)
    return photograph, mask.filter(ImageFilter.GaussianBlur(2))


def with_hole(photograph: Image.Image, mask: Image.Image) -> Image.Image:
    """One picture that carries both: LoadImage reads its colours as IMAGE, what is transparent in it as MASK."""
    both = photograph.copy()
    both.putalpha(mask.point(lambda value: 255 - value))
    return both


def shown(photograph: Image.Image, mask: Image.Image) -> Image.Image:
    return Image.composite(Image.new("RGB", SIZE, "white"), photograph, mask.point(lambda value: value * 3 // 4))


def adapted(graph: Graph, picture: str) -> Graph:
    """The workflow with other pictures, seed and size, and otherwise as it is."""
    width, height = SIZE
    ours = {"image": picture, "seed": SEED, "noise_seed": SEED, "width": width, "height": height, "sizing": "own size"}

    def value_of(name: str, value: object) -> object:
        linked = isinstance(value, list)
        return value if linked else ours.get(name, value)

    return {
        key: node | {"inputs": {name: value_of(name, value) for name, value in node["inputs"].items()}}
        for key, node in graph.items()
    }


def contact_sheet(rows: list[tuple[str, list[Image.Image]]], margin: int = 12, heading: int = 28) -> Image.Image:
    """The rows' pictures beside each other, before and after, each row below its caption."""
    width, height = SIZE
    columns = max(len(pictures) for _, pictures in rows)
    size = (margin + columns * (width + margin), margin + len(rows) * (heading + height + margin))
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for row, (caption, pictures) in enumerate(rows):
        top = margin + row * (heading + height + margin)
        draw.text((margin, top), caption, fill="black", font=font)
        for column, picture in enumerate(pictures):
            sheet.paste(picture.convert("RGB").resize(SIZE), (margin + column * (width + margin), top + heading))
    return sheet


def stay(server: Server) -> None:
    print(f"Open {server.address} in a browser. Ctrl-C stops the server.", flush=True)
    server.process.wait()
    raise Flux1Error(
        "The ComfyUI server ended", expected="a server that runs until Ctrl-C",
        found=f"code {server.process.returncode}", fix=f"look at the end of {server.log}",
    )  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except (Flux1Error, RunError) as error:
        raise SystemExit(f"\n{error}") from error
    except KeyboardInterrupt:
        print("\nStopped.")
        raise SystemExit(130) from None  # as a shell reports Ctrl-C
