"""`python -m tests.browser.showcase`: the README's pictures of the graph editor, workflows of it run by the trained family."""

import io

from PIL import Image

from painter.painter import WEIGHTS
from painter.scenes import SIZE
from painter.showcase import landscape, sunless_hole, with_hole
from tests.browser.editor import Editor, open_browser, open_editor
from workflows.client import Client
from workflows.comfyui import find_comfyui
from workflows.server import PACK, quiet_editor, serve

SHOWN = ("text_to_image_schnell", "fill_inpaint", "kontext_edit")
ASSETS = PACK / "assets"
WIDTH = 1600  # pixels

# The family paints small pictures.
SMALL = """size => {
  const small = {sizing: 'own size', width: size, height: size};
  for (const node of app.graph.nodes) for (const widget of node.widgets ?? [])
    if (widget.name in small) widget.value = small[widget.name];
}"""

# All of the graph on the screen: left, top, right, bottom.
OUTLINE = """() => {
  const things = [...app.graph.nodes, ...app.graph.groups].map(({boundingRect: [x, y, w, h]}) => [x, y, x + w, y + h]);
  const corner = (i, pick) => pick(...things.map(thing => thing[i]));
  return [...app.canvasPosToClientPos([corner(0, Math.min), corner(1, Math.min)]),
          ...app.canvasPosToClientPos([corner(2, Math.max), corner(3, Math.max)])];
}"""


def picture_of(editor: Editor, name: str) -> Image.Image:
    """The workflow in the editor, once it has run."""
    editor.open_template(name)
    editor.page.evaluate(SMALL, SIZE)
    editor.run()
    editor.fit(0.92)
    editor.page.wait_for_timeout(6000)  # until it is drawn, and the note that it is done has gone
    left, top, right, bottom = editor.page.evaluate(OUTLINE)
    area = {"x": left - 20, "y": top - 20, "width": right - left + 40, "height": bottom - top + 60}
    shot = Image.open(io.BytesIO(editor.page.screenshot(clip=area))).convert("RGB")
    return shot.resize((WIDTH, round(shot.height * WIDTH / shot.width)), Image.Resampling.LANCZOS)


def main() -> None:
    ASSETS.mkdir(exist_ok=True)
    settings = quiet_editor() | {"Comfy.Locale": "en", "Comfy.Minimap.Visible": False}
    with serve(WEIGHTS, comfyui=find_comfyui(), settings=settings) as server, open_browser() as browser:
        client = Client(server.address)
        client.upload(landscape(), "landscape.png")
        client.upload(with_hole(landscape(), sunless_hole()), "landscape_with_hole.png")
        with open_editor(browser, server.address) as editor:
            for name in SHOWN:
                picture_of(editor, name).save(ASSETS / f"editor_{name}.jpg", quality=85)


if __name__ == "__main__":
    main()
