"""The bundled workflows of edits that lose nothing: from edit to edit, or of what an edit was not meant to change."""

from collections.abc import Callable

from flux_core.variants import VARIANTS

from .parts import (
    ABOVE,
    BELOW,
    BETWEEN,
    BOTTOM,
    SEED,
    TOP,
    load_picture,
    loaders,
    read_me,
    result,
    sample,
    stacked_loaders,
    text_encode,
)
from .sheet import Output, Point, Sheet, Subgraph

REGION = "FLUX1_REGION"
STEPS = VARIANTS["kontext"].steps


def kontext_edit(sheet: Sheet) -> None:
    """Two edits, the second one of the first one's latent, each a subgraph."""
    model, clip, vae = stacked_loaders(sheet, "kontext")
    image, _ = sheet.add("LoadImage", "Picture to edit", (-80, 558), (400, 320), image="landscape.png")
    sheet.group("2 Picture", (-100, 478), (340, 898))
    latent, image = sheet.add(
        repainted(sheet, "FLUX.1 Kontext Edit"), "First edit", (520, 150), (400, 330), model=model, clip=clip, vae=vae,
        image=image, prompt="make the sky pink",
    )  # fmt: skip
    sheet.add("SaveImage", "Save first edit", (980, 280), (400, 550), images=image, filename_prefix="kontext_edit_1")
    sheet.group("3 First edit", (500, TOP), (1400, 898))
    _, image = sheet.add(
        repainted(sheet, "FLUX.1 Kontext Edit Again", again=True), "Second edit", (1500, 150), (400, 300),
        model=model.over((420, 14), (1420, 14)), clip=clip.over((440, 36), (1420, 36)), vae=vae.over((460, 58), (1420, 58)),
        latent=latent, prompt="add snow on the mountains", seed=SEED + 1,
    )  # fmt: skip
    sheet.add("SaveImage", "Save second edit", (1920, 280), (400, 550), images=image, filename_prefix="kontext_edit_2")
    sheet.group("4 Second edit", (1480, TOP), (2340, 898))
    read_me(
        sheet, "kontext", "Edit a picture by telling what to change",
        "FLUX.1 Kontext looks at your picture and paints it again with the change. The second edit starts from the first "
        "one's latent: nothing is lost by decoding in between. To keep what is not edited bit for bit, see "
        "*kontext_lossless* and *edit_chain*.",
        "**Picture**: load your own.",
        "**Prompts**: one instruction for each edit. Name what is to change and what is to stay: *make the sky pink, keep "
        "the mountains*.",
        "**seed** and **steps**: another seed gives another result; fewer steps are quicker.",
        "**sizing**: stretch, crop or pad to a size that Kontext was trained on (about one megapixel), or keep the "
        "picture's own size.",
        "For a third edit, copy *Second edit* and connect the second one's LATENT to it. Both are subgraphs: open them to "
        "see and change what is inside.",
        place=((-780, -50), (-140, 898)),
    )  # fmt: skip


def inpaint_lossless(sheet: Sheet) -> None:
    model, clip, vae = loaders(sheet, "fill")
    prompt = text_encode(sheet, "fill", "only the natural landscape", model, clip)
    picture, mask = load_picture(sheet, "Picture with its mask", "photograph_with_hole.png")
    image, mask, region = sheet.add(
        "Flux1PrepareEdit", "Cut out", (1260, 560), (260, 0), image=picture, mask=mask, context=1.0, grow=4, blur=4
    )
    sheet.group("4 Cut out", (1240, 480), (1540, BOTTOM))
    positive, latent = sheet.add(
        "Flux1FillConditioning", "Show picture and mask", (1620, 300), (260, 0), conditioning=prompt,
        vae=vae.over((750, BETWEEN), (1560, BETWEEN)), image=image, mask=mask,
    )  # fmt: skip
    end(sheet, "fill", put_back, "Put back", model, positive, latent, region.over((1580, 860)), vae)
    read_me(
        sheet, "fill", "Paint a small part of a large picture anew",
        "FLUX.1 Fill paints about one megapixel at once. So the masked part is cut out with what is around it, painted at "
        "that size, and put back: at the picture's full size, in its colours, and not a bit is changed outside the mask.",
        "**Picture and mask**: load your picture, of any size, then right-click the node and choose *Open in Mask "
        "Editor* to mark what to paint anew.",
        "**Prompt**: say what the finished part shows, not what to remove.",
        "**Cut out**: *context* (an advanced input) is how much around the mask the model sees. More lets it fit in "
        "better, less gives the part itself more pixels.",
        "**Put back**: *colour* corrects a drift of colours by what is known around the mask, *blend* hides its edge.",
        "**Seed** and **steps**: another seed gives another picture; 20 steps are quicker, 50 finer.",
    )  # fmt: skip


def kontext_lossless(sheet: Sheet) -> None:
    model, clip, vae = loaders(sheet, "kontext")
    prompt = text_encode(sheet, "kontext", "remove the sun", model, clip)
    picture, _ = load_picture(sheet, "Picture to edit", "photograph.png")
    image, _, region = sheet.add(
        "Flux1PrepareEdit", "Size", (1260, 560), (260, 0), image=picture, area="whole picture", sizing="kontext"
    )
    sheet.group("4 Size", (1240, 480), (1540, BOTTOM))
    positive, latent = show(sheet, (1620, 300), prompt, vae.over((750, BETWEEN), (1560, BETWEEN)), image)
    source = image.over((1580, 810), (2235, 810), (2250, 370))
    end(
        sheet, "kontext", keep_the_rest, "Keep the rest", model, positive, latent, region.over((1560, 860)), vae,
        source=source,
    )  # fmt: skip
    read_me(
        sheet, "kontext", "Edit a picture and keep the rest of it",
        "FLUX.1 Kontext paints the whole picture again, a little softer, shifted and in other colours. Here the shift is "
        "undone, what the instruction really changed is found, and only that is taken: everything else is your picture, "
        "bit for bit and at its full size.",
        "**Picture**: load your own, of any size.",
        "**Prompt**: the instruction. It works for changes of things; a new style or time of day changes everything.",
        "**Keep the rest**: *threshold* 0 finds by itself what counts as a change. Is something of the edit missing? Set "
        "0.03. Is too much taken? 0.1. *grow* and *blend_width* widen and soften the border. Open the subgraph for more.",
        "**Seed**: another seed gives another result.",
    )  # fmt: skip


def kontext_box_edit(sheet: Sheet) -> None:
    model, clip, vae = loaders(sheet, "kontext")
    prompt = text_encode(sheet, "kontext", "remove the sun in the red box", model, clip)
    picture, mask = load_picture(sheet, "Picture, roughly marked", "photograph_with_hole.png")
    framed, region = sheet.add(point(sheet), "Draw boxes", (1260, 560), (260, 250), image=picture, mask=mask)
    sheet.group("4 Point", (1240, 480), (1540, BOTTOM))
    positive, latent = show(
        sheet, (1620, 300), prompt, vae.over((750, BETWEEN), (1560, BETWEEN)), framed, sizing="stretch"
    )
    end(sheet, "kontext", put_back, "Put back", model, positive, latent, region.over((1580, 860)), vae)
    read_me(
        sheet, "kontext", "Edit what is in a box",
        "Some things are hard to name: the third cat from the left. So boxes are drawn on the picture that FLUX.1 Kontext "
        "sees, the prompt points at them, and the edit is put back in the boxes only. Frames and the rest of the "
        "repainted picture are dropped.",
        "**Picture**: load your own, right-click the node, choose *Open in Mask Editor* and dab on each thing that you "
        "mean. Each dab becomes a box. Or write boxes as numbers into *boxes*.",
        "**Prompt**: name the boxes by their colours: *put a hat on the cat in the red box*. They are red, blue, green, "
        "yellow, in this order; *colours* takes others.",
        "**Seed**: another seed gives another result.",
    )  # fmt: skip


CHAIN = (
    "add snow to the mountains",
    "remove the sun",
    "make the sky orange",
    "change the ground to lavender field",
    "put the sun on the left",
)


def edit_chain(sheet: Sheet) -> None:
    model, clip, vae = loaders(sheet, "kontext")
    image, _ = sheet.add("LoadImage", "Picture to edit", (780, 300), (300, 320), image="photograph.png")
    sheet.group("2 Picture", (760, TOP), (1100, BOTTOM))
    edit, before, left = one_edit(sheet), {"image": image}, 1180
    for number, words in enumerate(CHAIN):
        files = {
            name: wire.over((740, lane), (left - 40, lane))
            for name, wire, lane in zip(("model", "clip", "vae"), (model, clip, vae), (14, 36, 58), strict=True)
        }
        image, region = sheet.add(
            edit, f"Edit {number + 1}", (left, 250), (264, 330), **files, **before, prompt=words, seed=SEED + number
        )
        before, left = {"image": image, "region": region}, left + 312
        if number < len(CHAIN) - 1:
            sheet.add("PreviewImage", f"After edit {number + 1}", (left, 650), (264, 250), images=image)
    sheet.group("3 Edit", (1140, TOP), (left - 40, BOTTOM))
    result(sheet, 4, left, image)
    read_me(
        sheet, "kontext", "Edit a picture again and again",
        "Five instructions, one after the other. Whatever no edit was meant to change comes from your picture itself, bit "
        "for bit, however many edits there are: nothing is lost by coding and decoding again and again.",
        "**Picture**: load your own, of any size.",
        "**Prompts**: one instruction for each edit. For fewer edits, connect an earlier one to *Save*; for more, copy "
        "the last one.",
        "**Seed**: another seed gives another result; the edits before it are not run again.",
        "Each edit is a subgraph: open one to see how it works. They are all the same, so what you change in one is "
        "changed in all.",
    )  # fmt: skip


def repainted(sheet: Sheet, name: str, again: bool = False) -> Subgraph:
    """From the models, a picture, or again a LATENT, and an instruction to LATENT and picture."""
    inner = sheet.subgraph(name)
    model, clip, vae = inner.input("model", "MODEL"), inner.input("clip", "CLIP"), inner.input("vae", "VAE")
    source = inner.input("latent", "LATENT") if again else inner.input("image", "IMAGE")
    words = inner.input("prompt", "STRING", default="", multiline=True)
    seed, steps = inner.input("seed", "INT", default=SEED), inner.input("steps", "INT", default=STEPS)
    (prompt,) = inner.add(
        "Flux1TextEncode", "Instruction", (260, -350), (400, 320), clip=clip, model=model, prompt=words,
        guidance=VARIANTS["kontext"].guidance,
    )  # fmt: skip
    if again:
        (positive,) = inner.add("ReferenceLatent", "Show the latent", (760, 0), conditioning=prompt, latent=source)
        latent = source
    else:
        sizing = inner.input("sizing", "COMBO", default="stretch")
        positive, latent = show(inner, (760, 0), prompt, vae, source, sizing)
    (latent,) = inner.add(
        "Flux1Sampler", "Paint", (1140, 170), model=model.over((720, 184)), positive=positive, latent=latent, seed=seed,
        steps=steps,
    )  # fmt: skip
    (image,) = inner.add("Flux1DecodeImage", "Decode", (1500, 460), (230, 0), latent=latent, vae=vae.over((1100, 520)))
    inner.output("LATENT", latent)
    inner.output("IMAGE", image)
    return inner


def end(
    sheet: Sheet, variant: str, inner: Callable[[Sheet], Subgraph], title: str, model: Output, positive: Output,
    latent: Output, region: Output, vae: Output, **more: Output,
) -> None:  # fmt: skip
    """The last three groups: sampler, back into the picture by `inner`, and the result.

    Wires come up to `inner` from the lanes side by side.
    """
    latent = sample(sheet, variant, (1940, 280), model.over((1860, ABOVE)), positive, latent)
    sheet.group("5 Paint", (1600, TOP), (2260, BOTTOM))
    image, *_ = sheet.add(
        inner(sheet), title, (2340, 280), (280, 0), latent=latent, region=region.over((2262, 860), (2277, 400)),
        vae=vae.over((750, BELOW), (2289, BELOW), (2304, 430)), **more,
    )  # fmt: skip
    sheet.group(f"6 {title}", (2320, TOP), (2640, BOTTOM))
    result(sheet, 7, 2680, image)


def show(
    sheet: Sheet, at: Point, prompt: Output, vae: Output, image: Output, sizing: str | Output = "own size"
) -> list[Output]:
    """The prompt that has seen the picture, and the LATENT to paint in."""
    return sheet.add(
        "Flux1KontextReference", "Show the picture", at, (260, 0), conditioning=prompt, vae=vae, sizing=sizing,
        **{"images.image0": image},
    )  # fmt: skip


def point(sheet: Sheet) -> Subgraph:
    """From a picture and its mask to the picture with boxes, and the REGION in them."""
    inner = sheet.subgraph("FLUX.1 Point")
    picture, mask = inner.input("image", "IMAGE"), inner.input("mask", "MASK", optional=True)
    boxes = inner.input("boxes", "STRING", default="", multiline=True)
    colours = inner.input("colours", "STRING", default="red")
    framed, mask, _ = inner.add(
        "Flux1BoxPrompt", "Draw boxes", (0, 0), (300, 250), image=picture, mask=mask, boxes=boxes, colours=colours
    )
    _, _, region = inner.add(
        "Flux1PrepareEdit", "Only there", (390, 0), image=picture, mask=mask, area="whole picture", sizing="kontext",
        fit="stretch",
    )  # fmt: skip
    inner.output("IMAGE", framed)
    inner.output("region", region)
    return inner


def put_back(sheet: Sheet) -> Subgraph:
    """From LATENT, REGION and VAE to the whole picture and its REGION."""
    inner = sheet.subgraph("FLUX.1 Put Back")
    latent, region, vae = inner.input("latent", "LATENT"), inner.input("region", REGION), inner.input("vae", "VAE")
    colour = inner.input("colour", "COMBO", default="local")
    blend = inner.input("blend", "COMBO", default="feather")
    width = inner.input("blend_width", "INT", default=16)
    (image,) = inner.add("Flux1DecodeImage", "Decode", (0, 0), (210, 0), latent=latent, vae=vae)
    image, *_, region = inner.add(
        "Flux1FinishEdit",
        "Put back",
        (300, 0),
        image=image,
        region=region,
        colour=colour,
        blend=blend,
        blend_width=width,
    )
    inner.output("IMAGE", image)
    inner.output("region", region)
    return inner


def keep_the_rest(sheet: Sheet) -> Subgraph:
    """From LATENT, the picture that was shown, REGION and VAE to the whole picture, its REGION and what changed."""
    inner = sheet.subgraph("FLUX.1 Keep the Rest")
    latent, source = inner.input("latent", "LATENT"), inner.input("source", "IMAGE")
    region, vae = inner.input("region", REGION), inner.input("vae", "VAE")
    threshold = inner.input("threshold", "FLOAT", default=0.0)
    grow = inner.input("grow", "INT", default=8)
    colour = inner.input("colour", "COMBO", default="off")
    width = inner.input("blend_width", "INT", default=16)
    (image,) = inner.add("Flux1DecodeImage", "Decode", (0, 0), (210, 0), latent=latent, vae=vae)
    image, *_ = inner.add("Flux1AlignEdit", "Lay over the source", (300, 0), (240, 0), source=source, edited=image)
    (change,) = inner.add(
        "Flux1ChangeMask", "What has changed", (630, 160), (260, 0), source=source, edited=image, threshold=threshold,
        grow=grow,
    )  # fmt: skip
    image, *_, region = inner.add(
        "Flux1FinishEdit", "Put back", (980, 0), image=image, region=region, change_mask=change, colour=colour,
        blend_width=width,
    )  # fmt: skip
    inner.output("IMAGE", image)
    inner.output("region", region)
    inner.output("change", change)
    return inner


def one_edit(sheet: Sheet) -> Subgraph:
    """From the models, a picture, the REGION of the edit before and an instruction to the picture and its REGION."""
    rest = keep_the_rest(sheet)
    inner = sheet.subgraph("FLUX.1 Lossless Kontext Edit")
    model, clip, vae = inner.input("model", "MODEL"), inner.input("clip", "CLIP"), inner.input("vae", "VAE")
    image, region = inner.input("image", "IMAGE"), inner.input("region", REGION, optional=True)
    words = inner.input("prompt", "STRING", default="", multiline=True)
    seed, steps = inner.input("seed", "INT", default=SEED), inner.input("steps", "INT", default=STEPS)
    (prompt,) = inner.add(
        "Flux1TextEncode", "Prompt", (0, -300), (300, 200), clip=clip, model=model, prompt=words,
        guidance=VARIANTS["kontext"].guidance,
    )  # fmt: skip
    image, _, region = inner.add(
        "Flux1PrepareEdit", "Size", (0, 60), image=image, region=region, area="whole picture", sizing="kontext"
    )
    positive, latent = show(inner, (390, -100), prompt, vae, image)
    (latent,) = inner.add(
        "Flux1Sampler", "Paint", (740, -100), model=model, positive=positive, latent=latent, seed=seed, steps=steps
    )
    image, region, _ = inner.add(
        rest, "Keep the rest", (1130, -100), latent=latent, source=image, region=region, vae=vae
    )
    inner.output("IMAGE", image)
    inner.output("region", region)
    return inner
