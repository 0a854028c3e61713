"""`python -m workflows.build`: draws the bundled workflows and writes them, for the editor and for `/prompt`."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import tomllib

from .comfyui import OLDEST, find_comfyui, version_text
from .edits import edit_chain, inpaint_lossless, kontext_box_edit, kontext_edit, kontext_lossless
from .parts import (
    ABOVE,
    BELOW,
    BETWEEN,
    BOTTOM,
    DEPTH_FILES,
    DEPTH_NETWORK,
    FILES,
    LORAS,
    REDUX,
    SIGLIP,
    TOP,
    load_picture,
    loaders,
    paint,
    read_me,
    show_picture,
    text_encode,
)
from .server import PACK, ask, serve
from .sheet import Info, Sheet

WORKFLOWS = Path(__file__).parent


def text_to_image_dev(sheet: Sheet) -> None:
    text_to_image(
        sheet, "dev",
        "a landscape at sunset, orange sky, sun on the left, three mountain ridges, snowy peaks, a lake, lavender field",
    )  # fmt: skip
    read_me(
        sheet, "dev", "Paint a picture from words",
        "FLUX.1 dev paints what the prompt says.",
        "**Prompt**: whole sentences or a list, up to 512 tokens (about 350 words).",
        "**Size**: the width and height in pixels, or a preset. The schedule follows by itself.",
        "**Seed** and **steps**: another seed gives another picture; 20 steps are quicker, 50 finer.",
        "**Guidance**: 3.5 comes with the model. To try another number, turn *guidance_by_model* off; 2 looks more "
        "natural, 5 follows the prompt more strictly.",
    )  # fmt: skip


def text_to_image_schnell(sheet: Sheet) -> None:
    text_to_image(
        sheet, "schnell",
        "a landscape at night, purple sky, moon on the right, two mountain ridges, snowy peaks, a lake, green meadow",
    )  # fmt: skip
    read_me(
        sheet, "schnell", "Paint a picture in four steps",
        "FLUX.1 schnell is made for four steps and has no guidance; its licence is Apache 2.0.",
        "**Prompt**: whole sentences or a list, up to 256 tokens (about 170 words).",
        "**Size**: the width and height in pixels, or a preset.",
        "**Seed**: another seed gives another picture.",
        "**Steps**: 4. One step gives a sketch, more than four rarely help.",
    )  # fmt: skip


def long_prompt(sheet: Sheet) -> None:
    text_to_image(
        sheet, "dev",
        "A landscape at sunset, painted in great detail. The sky is orange: deep amber where it meets the mountains, "
        "apricot higher up, and at the top of the picture already the first violet of the night, with three thin bands "
        "of cloud lit from below. The sun stands low on the left, a hand's width above the horizon, large and a little "
        "flattened by the haze, and its light lies along the water in a broken golden path.\n\n"
        "Three mountain ridges stand one behind the other. The farthest is pale blue and almost melts into the air; the "
        "second is darker, with snowy peaks that catch the last light on their western faces and keep a cold blue "
        "shadow on the others; the nearest is nearly black, its edge drawn by single fir trees.\n\n"
        "In the middle lies a lake, quite still, so that the ridges and the snow stand in it upside down. A narrow "
        "strip of reeds runs along the near shore. From there to the lower edge of the picture reaches a lavender "
        "field, its rows leading the eye towards the water, the blossoms in front sharp enough to be counted, those "
        "further back a soft violet carpet. Nobody is to be seen. The light is warm, the shadows are long, the air "
        "is clear after rain. Wide-angle photograph, everything in focus, natural colours.",
        clip_prompt="landscape photograph, golden hour, mountains, lake, lavender, warm light, sharp",
        t5_length="512",
    )  # fmt: skip
    read_me(
        sheet, "dev", "A long prompt",
        "FLUX.1 reads its prompt twice. T5 understands sentences, up to 512 tokens (about 350 words); CLIP only sees 77 "
        "tokens and sets the overall mood, so it gets a few keywords of its own.",
        "**prompt**: describe the picture as to somebody who can't see it: what there is, where it is, what it looks "
        "like, the light, at last the kind of picture. The node says how many tokens that is, and where it was cut if "
        "it is too long.",
        "**CLIP prompt**: keywords for subject, mood and style. Leave it empty to give CLIP the beginning of the prompt.",
        "**t5_length**: 512. *by model* takes the same for dev, and 256 for schnell.",
        "**Size**, **seed** and **steps**: as for every picture from words.",
    )  # fmt: skip


def image_to_image(sheet: Sheet) -> None:
    picture_to_image(
        sheet, 0.6,
        "a landscape at sunset, orange sky, sun on the right, three mountain ridges, snowy peaks, a lake, green meadow",
    )  # fmt: skip
    read_me(
        sheet, "dev", "Paint over a picture",
        "FLUX.1 dev adds noise to your picture and paints on from there. The outlines stay, the rest follows the "
        "prompt. The result has the size of your picture.",
        "**Picture**: load your own; about one megapixel is best, any size works.",
        "**Prompt**: describe the whole picture as it should become.",
        "**Strength**: how much of the picture may change. As Black Forest Labs count, 0.6 of 50 steps means that the "
        "last 30 are painted. 0.3 touches it up, 0.9 leaves little of it.",
        "**Seed**: another seed gives another picture.",
    )  # fmt: skip


def image_to_image_style(sheet: Sheet) -> None:
    picture_to_image(
        sheet, 0.8,
        "an impressionist oil painting with thick, visible brush strokes, vivid colours: a landscape at day, yellow sky, "
        "sun on the right, three mountain ridges, a lake, wheat field",
    )  # fmt: skip
    read_me(
        sheet, "dev", "Paint a picture in another style",
        "The same as painting over a picture, at a higher strength: the composition stays, colours and surfaces are "
        "new.",
        "**Picture**: load your own; about one megapixel is best, any size works.",
        "**Prompt**: the style first, then what the picture shows. What is not named may be lost at this strength.",
        "**Strength**: 0.8. Below 0.7 a photograph mostly stays one; above 0.9 the composition goes too.",
        "**Seed**: styles vary much from seed to seed, so try some.",
    )  # fmt: skip


def kontext_two_references(sheet: Sheet) -> None:
    bottom = 1280
    model, clip, vae = loaders(sheet, "kontext")
    prompt = text_encode(sheet, "kontext", "make the sky orange, as in the second picture", model, clip)
    first = sheet.add("LoadImage", "First picture", (780, 560), (400, 320), image="landscape.png")[0]
    second = sheet.add("LoadImage", "Second picture", (780, 940), (400, 320), image="second_landscape.png")[0]
    sheet.group("3 Pictures", (760, 480), (1200, bottom))
    positive, latent = sheet.add(
        "Flux1KontextReference", "Show both pictures", (1360, 300), conditioning=prompt,
        vae=vae.over((750, BETWEEN), (1210, BETWEEN)), **{"images.image0": first, "images.image1": second},
        sizing="stretch",
    )  # fmt: skip
    vae = vae.over((750, bottom + 14))
    paint(sheet, "kontext", 1340, (1720, 280), model.over((1560, ABOVE)), positive, latent, vae, bottom=bottom)
    read_me(
        sheet, "kontext", "Edit a picture after another one",
        "FLUX.1 Kontext sees both pictures and paints the first one again, with what you want to have from the second.",
        "**First picture**: the one to edit; the result has its shape.",
        "**Second picture**: shows an object, a person, a place or a style. Another picture input opens when this one "
        "is connected, up to eight.",
        "**Prompt**: name what to take from the second picture, where it goes, and what is to stay: *put the cat of the "
        "second picture on the sofa, keep the room as it is*.",
        "**sizing**: stretch, crop or pad to a size that Kontext was trained on (about one megapixel), or keep the "
        "pictures' own sizes.",
        "**placement** (an advanced input): if the two get mixed up, try *index* instead of *offset*.",
        "**scale** (an advanced input): each picture more takes its time, at 0.5 much less, but fine detail is lost.",
    )  # fmt: skip


def canny_control(sheet: Sheet) -> None:
    along_a_map(sheet, "canny", EDGES_WORDS)
    read_me(
        sheet, "canny", "Paint along the edges of a picture",
        "FLUX.1 Canny takes the outlines from your picture and everything else from the prompt.",
        *CANNY_CHANGES, "**Seed**: another seed gives another picture along the same lines.",
    )  # fmt: skip


def canny_lora(sheet: Sheet) -> None:
    along_a_map(sheet, "canny", EDGES_WORDS, lora=True)
    read_me(
        sheet, "dev", "Paint along the edges of a picture, with a LoRA",
        "The Canny LoRA makes FLUX.1 dev follow outlines nearly as well as FLUX.1 Canny does: 1.2 GB instead of another "
        "24 GB.",
        *CANNY_CHANGES, LORA_STRENGTH, more=[LORAS["canny"]],
    )  # fmt: skip


def depth_control(sheet: Sheet) -> None:
    along_a_map(sheet, "depth", DEPTH_WORDS)
    read_me(
        sheet, "depth", "Paint into the depth of a picture",
        "FLUX.1 Depth takes from your picture how far everything is, and everything else from the prompt.",
        *DEPTH_CHANGES, "**Seed**: another seed gives another picture of the same depth.", more=DEPTH_FILES,
    )  # fmt: skip


def depth_lora(sheet: Sheet) -> None:
    along_a_map(sheet, "depth", DEPTH_WORDS, lora=True)
    read_me(
        sheet, "dev", "Paint into the depth of a picture, with a LoRA",
        "The Depth LoRA makes FLUX.1 dev follow depth nearly as well as FLUX.1 Depth does: 1.2 GB instead of another "
        "24 GB.",
        *DEPTH_CHANGES, LORA_STRENGTH, more=[LORAS["depth"], *DEPTH_FILES],
    )  # fmt: skip


def redux_variation(sheet: Sheet) -> None:
    after_a_picture(sheet, "", strength=1.0)
    read_me(
        sheet, "dev", "Vary a picture",
        "Redux tells FLUX.1 dev what your picture shows and how it looks, as if in words, and dev paints another such "
        "picture.",
        "**Picture**: load your own. Redux sees all of it, squashed into a square of 384 pixels: no small print.",
        "**Prompt**: empty. Words hardly count beside a whole picture; *redux_style_mix* makes room for them.",
        "**Size**: of the new picture; it need not have the shape of yours.",
        "**Strength**: below 1 the new picture strays further from yours.",
        "**Another picture input** opens when this one is connected: several pictures are mixed.",
        "**Seed**: another seed gives another variation.",
        more=[REDUX, SIGLIP],
    )  # fmt: skip


def redux_style_mix(sheet: Sheet) -> None:
    after_a_picture(
        sheet, "a landscape, one mountain ridge, snowy peaks, a lake, lavender field", strength=0.1, strength_type="attn_bias"
    )  # fmt: skip
    read_me(
        sheet, "dev", "Paint what the words say, as a picture looks",
        "Redux shows FLUX.1 dev your picture, but at a tenth of the attention: its colours, light and manner "
        "come through, while the prompt says what is painted.",
        "**Picture**: load one whose look you like.",
        "**Prompt**: what the new picture shows. Leave colours and style to the picture.",
        "**Strength**: 0.1. With less the prompt has its own way, with more the picture's things come along too.",
        "**strength_type**: *multiply* is the other way to fade the picture, at less memory; there, begin with 0.3.",
        "**Seed**: mixes vary much from seed to seed, so try some.",
        more=[REDUX, SIGLIP],
    )  # fmt: skip


def upscale_refine(sheet: Sheet) -> None:
    model, clip, vae = loaders(sheet, "dev")
    prompt = text_encode(
        sheet, "dev",
        "a landscape at day, blue sky, sun on the right, three mountain ridges, a lake, green meadow, sharp, fine detail",
        model, clip, (800, 350),
    )  # fmt: skip
    picture, _ = load_picture(sheet, "Picture to enlarge")
    (larger,) = sheet.add("ImageScaleBy", "Enlarge", (1280, 560), image=picture, upscale_method="lanczos", scale_by=2.0)
    sheet.group("4 Enlarge", (1260, 480), (1600, BOTTOM))
    vae = vae.over((750, BELOW), (1610, BELOW))
    (latent,) = sheet.add(
        "Flux1EncodeImage", "Encode", (1700, 560), (230, 0), image=larger, vae=vae.over((1650, BELOW))
    )
    paint(
        sheet, "dev", 1680, (2020, 60), model.over((1640, ABOVE)), prompt, latent, vae, number=5, strength=0.3,
        sampler="Flux1TiledSampler",
    )  # fmt: skip
    read_me(
        sheet, "dev", "Enlarge a picture and refine it",
        "The picture is enlarged, and FLUX.1 dev paints fine detail into it in overlapping tiles that leave no seam. So "
        "it never sees more than about one megapixel at once, however large the picture is.",
        "**Picture**: load your own.",
        "**Enlarge**: by how much; twice at a time works best. A model for enlarging (*Upscale Image (using Model)*) can "
        "stand in its place.",
        "**Prompt**: what the whole picture shows, and *sharp, fine detail*.",
        "**Strength**: how much is painted anew. 0.2 to 0.4 sharpens; more invents things, in every tile.",
        "**tile_size**, **overlap**: in pixels. Where memory is short, take smaller tiles.",
    )  # fmt: skip


def fill_inpaint(sheet: Sheet) -> None:
    model, clip, vae = loaders(sheet, "fill")
    prompt = text_encode(
        sheet, "fill", "Please backfill the missing parts of the picture, only the natural landscape", model, clip
    )
    image, mask = load_picture(sheet, "Picture with its mask", "landscape_with_hole.png")
    positive, latent = sheet.add(
        "Flux1FillConditioning", "Show picture and mask", (1320, 300), conditioning=prompt,
        vae=vae.over((750, BETWEEN), (1210, BETWEEN)), image=image, mask=mask,
    )  # fmt: skip
    vae = vae.over((750, BELOW))
    paint(sheet, "fill", 1300, (1680, 280), model.over((1520, ABOVE)), positive, latent, vae)
    read_me(
        sheet, "fill", "Paint a part of a picture anew",
        "FLUX.1 Fill paints the masked part of a picture so that it fits the rest and the prompt.",
        "**Picture and mask**: load your picture, then right-click the node and choose *Open in Mask Editor* to mark "
        "what to paint anew. A picture with a transparent part brings its mask with it.",
        "**Prompt**: say what the finished picture shows, not what to remove.",
        "**Seed** and **steps**: another seed gives another picture; 20 steps are quicker, 50 finer.",
    )  # fmt: skip


def fill_outpaint(sheet: Sheet) -> None:
    model, clip, vae = loaders(sheet, "fill")
    prompt = text_encode(
        sheet, "fill", "a wide landscape, blue sky, three mountain ridges, a lake, green meadow", model, clip, (740, 350),
    )  # fmt: skip
    picture, _ = load_picture(sheet, "Picture")
    larger, mask = sheet.add("Flux1PadForOutpaint", "Add room", (1270, 560), (250, 0), image=picture)
    sheet.group("4 Room around it", (1250, 480), (1540, BOTTOM))
    positive, latent = sheet.add(
        "Flux1FillConditioning", "Show picture and mask", (1640, 300), conditioning=prompt,
        vae=vae.over((750, BETWEEN), (1550, BETWEEN)), image=larger, mask=mask,
    )  # fmt: skip
    vae = vae.over((750, BELOW))
    paint(sheet, "fill", 1620, (2000, 280), model.over((1840, ABOVE)), positive, latent, vae, number=5)
    read_me(
        sheet, "fill", "Paint what lies beyond a picture's edges",
        "FLUX.1 Fill paints on where your picture ends, so that it fits the picture and the prompt.",
        "**Picture**: load your own. Together with the new room it should not be much above two megapixels.",
        "**Add room**: how many pixels to add at each side. Up to half the picture's own width or height at once "
        "works best.",
        "**feather** (an advanced input): how far it may paint over the picture's edge to hide the seam.",
        "**Prompt**: what the whole finished picture shows.",
        "**Seed** and **steps**: another seed gives another picture; 20 steps are quicker, 50 finer.",
    )  # fmt: skip


def text_to_image(sheet: Sheet, variant: str, words: str, **encode: str) -> None:
    """From an empty latent."""
    model, clip, vae = loaders(sheet, variant)
    prompt = text_encode(sheet, variant, words, model, clip, (400, 500), **encode)
    (latent,) = sheet.add("Flux1EmptyLatent", "Size", (780, 710), (400, 0), preset="custom", width=1024, height=1024)
    sheet.group("3 Size", (760, 630), (1200, BOTTOM))
    paint(sheet, variant, 1260, (1280, 60), model.over((1210, ABOVE)), prompt, latent, vae.over((750, BELOW)))


def picture_to_image(sheet: Sheet, strength: float, words: str) -> None:
    """From a picture, with dev."""
    model, clip, vae = loaders(sheet, "dev")
    prompt = text_encode(sheet, "dev", words, model, clip)
    picture, _ = load_picture(sheet, "Picture to start from")
    vae = vae.over((750, BELOW), (1150, BELOW))
    (latent,) = sheet.add(
        "Flux1EncodeImage", "Encode", (1280, 560), (230, 0), image=picture, vae=vae.over((1230, BELOW))
    )  # fmt: skip
    paint(sheet, "dev", 1260, (1580, 60), model.over((1540, ABOVE)), prompt, latent, vae, strength=strength)


def along_a_map(sheet: Sheet, control: str, words: str, lora: bool = False) -> None:
    """From the edges or the depth of a picture, with the control model, or with dev and the LoRA that makes it one."""
    model, clip, vae = loaders(sheet, "dev", LORAS[control]) if lora else loaders(sheet, control)
    prompt = text_encode(sheet, control, words, model, clip)
    picture, _ = load_picture(sheet, "Picture")
    node, name, settings = MAPS[control]
    seen = sheet.add(node, name, (1240, 560), (320, 0), image=picture, **settings)[0]
    sheet.add("PreviewImage", f"The {name.lower()}", (1610, 620), (240, 280), images=seen)
    positive, latent = sheet.add(
        "Flux1ControlConditioning", f"Show {name.lower()}", (1640, 300), (210, 0), conditioning=prompt,
        vae=vae.over((750, BETWEEN), (1566, BETWEEN)), control_image=seen.over((1584, 574)),
    )  # fmt: skip
    sheet.group(f"4 {name}", (1220, TOP), (1870, BOTTOM))
    vae = vae.over((750, BELOW))
    paint(sheet, control, 1890, (1910, 280), model.over((1780, ABOVE)), positive, latent, vae, number=5)


def after_a_picture(sheet: Sheet, words: str, **strength: float | str) -> None:
    """From a picture shown by Redux with this strength and strength_type, and words, with dev."""
    bottom = 1030
    model, clip, vae = loaders(sheet, "dev")
    prompt = text_encode(sheet, "dev", words, model, clip, (870, 350))
    positive = show_picture(sheet, prompt, (1740, 300), **strength)
    (latent,) = sheet.add("Flux1EmptyLatent", "Size", (1250, 830), (400, 0), preset="custom", width=1024, height=1024)
    sheet.group("5 Size", (1230, 750), (1670, bottom))
    latent, vae = latent.over((1690, 844), (2070, 844)), vae.over((750, bottom + 14))
    paint(
        sheet, "dev", 1690, (2110, 280), model.over((1920, ABOVE)), positive, latent, vae, number=6, bottom=bottom
    )  # fmt: skip


EDGES_WORDS = (
    "a landscape at sunset, orange sky, sun on the right, three mountain ridges, snowy peaks, a lake, lavender field"
)
DEPTH_WORDS = (
    "a landscape at night, purple sky, moon on the right, three mountain ridges, snowy peaks, a lake, wheat field"
)
CANNY_CHANGES = (
    "**Picture**: load your own, a photograph or a drawing. The result has its size; about one megapixel is best.",
    "**Edges**: 50 and 200 are what the model was trained with. Too many lines in *The edges*? Raise both. Too "
    "few? Lower both.",
    "**Prompt**: describe the finished picture, its colours, materials and light; the outlines are known.",
    "**Guidance**: 30 comes with the model. With less it follows prompt and edges less strictly and looks softer.",
)
DEPTH_CHANGES = (
    "**Picture**: load your own, a photograph or a drawing. The result has its size; about one megapixel is best.",
    f"**Depth**: {DEPTH_NETWORK} is what FLUX.1 Depth was trained with, *as trained* its own scale. Have you another "
    "depth-anything? Its folder in models/depth_anything is in the list too; choose *min-max* for it if *The depth* is "
    "nearly black or white.",
    "**Prompt**: describe the finished picture, its colours, materials and light; its depth is known.",
    "**Guidance**: 10 comes with the model. With less it follows the prompt less strictly and looks softer.",
)
LORA_STRENGTH = "**Strength** of the LoRA: 0.85, as Black Forest Labs use it. With less it follows the picture less."
MAPS = {  # by the control model's name: the node that draws its map, the map's name, the node's settings
    "canny": ("Flux1CannyEdges", "Edges", {}),
    "depth": ("Flux1DepthMap", "Depth", {"model_name": DEPTH_NETWORK}),
}

DRAWN: tuple[Callable[[Sheet], None], ...] = (
    text_to_image_dev,
    text_to_image_schnell,
    long_prompt,
    image_to_image,
    image_to_image_style,
    kontext_two_references,
    canny_control,
    canny_lora,
    depth_control,
    depth_lora,
    redux_variation,
    redux_style_mix,
    upscale_refine,
    fill_inpaint,
    fill_outpaint,
    kontext_edit,
    inpaint_lossless,
    kontext_lossless,
    kontext_box_edit,
    edit_chain,
)


def drawn(infos: Mapping[str, Info]) -> list[Sheet]:
    """The workflows, for a server whose `/object_info` is `infos`."""
    project = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = {"flux1": project["version"], "comfy-core": version_text(OLDEST)}
    sheets = [Sheet(draw.__name__, infos, FILES, versions) for draw in DRAWN]
    for draw, sheet in zip(DRAWN, sheets, strict=True):
        draw(sheet)
    return sheets


def files(infos: Mapping[str, Info]) -> dict[Path, str]:
    """Path and text of every file."""
    contents = {}
    for sheet in drawn(infos):
        contents[WORKFLOWS / f"{sheet.name}.json"] = sheet.to_ui()
        contents[WORKFLOWS / "api" / f"{sheet.name}.json"] = sheet.to_api()
    return {path: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for path, content in contents.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as no_models, serve(Path(no_models), comfyui=find_comfyui()) as server:
        for path, text in files(ask(server, "/object_info")).items():
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
