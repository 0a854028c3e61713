"""From nothing to pictures: tiny FLUX.1 models, a real ComfyUI server, the bundled Fill and Kontext workflows, a prompt."""

import argparse
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from flux_core.errors import Flux1Error
from painter import showcase
from painter.painter import WEIGHTS, Job, Painter
from painter.redux import LOADERS
from workflows.cache import CACHE
from workflows.client import Client, RunError
from workflows.comfyui import find_comfyui
from workflows.server import Server, quiet_editor, serve

ROOT = Path(__file__).resolve().parent
WORKFLOWS = {
    "fill_inpaint": "Fill: the masked part is painted anew",
    "kontext_edit": "Kontext: make the sky pink, add snow",
}
PROMPTS = (
    "a landscape at sunset, orange sky, sun on the left, three mountain ridges, snowy peaks, a lake, lavender field",
    "a landscape at night, purple sky, moon on the right, two mountain ridges, snowy peaks, no lake, green meadow",
    "a landscape at day, pink sky, no sun, three mountain ridges, bare peaks, a lake, wheat field",
    "a landscape at day, blue sky, sun in the centre, one mountain ridge, snowy peaks, no lake, red clay",
)
SHOWN, MARGIN, HEADING = 256, 12, 28  # pixels


def main() -> None:
    options = parse()
    comfyui = step("ComfyUI", lambda: find_comfyui(options.comfyui))
    options.output.mkdir(parents=True, exist_ok=True)
    print("ComfyUI server: starting ...", flush=True)
    log = CACHE / "demo" / "comfyui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with serve(WEIGHTS, comfyui=comfyui, log=log, settings=quiet_editor(), options=("--cpu", *LOADERS)) as server:
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


def paint(client: Client, output: Path) -> None:
    """Runs the workflows and the prompts and saves their pictures and the contact sheet in `output`."""
    rows: list[tuple[str, list[Image.Image]]] = []
    for workflow, caption in WORKFLOWS.items():
        run = showcase.run(client, workflow, showcase.landscape(), showcase.sunless_hole(), progress=True)
        rows.append((caption, run.pictures))
        save(run.after, output, workflow)
    jobs = [Job("dev", prompt, seed) for seed, prompt in enumerate(PROMPTS)]
    made = [Image.fromarray((picture * 255).round().astype("uint8")) for picture in Painter(client).paint(jobs)]
    rows.append(("dev: text to image", made))
    save(made, output, "text_to_image")
    sheet = output / "contact_sheet.png"
    contact_sheet(rows).save(sheet)
    print(f"Pictures: {output}\nBefore and after: {sheet}")


def save(pictures: list[Image.Image], output: Path, name: str) -> None:
    for number, picture in enumerate(pictures, 1):
        picture.save(output / f"{name}_{number}.png")


def contact_sheet(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    """The rows' pictures beside each other, before and after, each row below its caption."""
    strips = [(caption, showcase.side_by_side(pictures, SHOWN, MARGIN)) for caption, pictures in rows]
    width = 2 * MARGIN + max(strip.width for _, strip in strips)
    sheet = Image.new("RGB", (width, MARGIN + len(rows) * (HEADING + SHOWN + MARGIN)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for row, (caption, strip) in enumerate(strips):
        top = MARGIN + row * (HEADING + SHOWN + MARGIN)
        draw.text((MARGIN, top), caption, fill="black", font=font)
        sheet.paste(strip, (MARGIN, top + HEADING))
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
