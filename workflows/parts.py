"""What the drawn workflows have in common: their models, prompt, painting, result and note, and where these stand.

Models are at the left, what the user gives in two rows beside them, painting and result at the right. Long wires run
in three lanes: above the rows, between them and below.
"""

from collections.abc import Sequence

from flux_core.lora import CONTROL_STRENGTH
from flux_core.variants import VARIANTS

from .sheet import File, Output, Point, Sheet

UNETS, TEXTS = "diffusion_models", "text_encoders"
ENCODERS = "comfyanonymous/flux_text_encoders"
SPLIT = "split_files/diffusion_models/"
MODELS = {  # by name in flux_core's table of variants
    "dev": File("flux1-dev.safetensors", UNETS, "Comfy-Org/flux1-dev", size="24 GB"),
    "schnell": File("flux1-schnell.safetensors", UNETS, "Comfy-Org/flux1-schnell", size="24 GB"),
    "fill": File("flux1-fill-dev.safetensors", UNETS, "Comfy-Org/flux1-dev", SPLIT, "24 GB"),
    "canny": File("flux1-canny-dev.safetensors", UNETS, "Comfy-Org/flux1-dev", SPLIT, "24 GB"),
    "depth": File("flux1-depth-dev.safetensors", UNETS, "black-forest-labs/FLUX.1-Depth-dev", size="24 GB"),
    "kontext": File(
        "flux1-dev-kontext_fp8_scaled.safetensors", UNETS, "Comfy-Org/flux1-kontext-dev_ComfyUI", SPLIT, "12 GB"
    ),
}
T5 = File("t5xxl_fp16.safetensors", TEXTS, ENCODERS, size="10 GB")
CLIP = File("clip_l.safetensors", TEXTS, ENCODERS)
VAE = File("ae.safetensors", "vae", "Comfy-Org/Lumina_Image_2.0_Repackaged", "split_files/vae/")
LORAS = {  # which make dev a control model, by that model's name
    "canny": File(
        "flux1-canny-dev-lora.safetensors", "loras", "black-forest-labs/FLUX.1-Canny-dev-lora", size="1.2 GB"
    ),
    "depth": File("flux1-depth-dev-lora.safetensors", "loras", "Comfy-Org/flux1-dev", "split_files/loras/", "1.2 GB"),
}
REDUX = File("flux1-redux-dev.safetensors", "style_models", "Comfy-Org/Flux1-Redux-Dev")
SIGLIP = File("sigclip_vision_patch14_384.safetensors", "clip_vision", "Comfy-Org/sigclip_vision_384", size="0.9 GB")
FILES = [*MODELS.values(), *LORAS.values(), REDUX, SIGLIP, T5, CLIP, VAE]
DEPTH_NETWORK = "depth-anything-large-hf"
DEPTH_FILES = [  # a folder, which the graph editor can't look into
    File(name, f"depth_anything/{DEPTH_NETWORK}", f"LiheYoung/{DEPTH_NETWORK}", size=size)
    for name, size in (("config.json", ""), ("preprocessor_config.json", ""), ("model.safetensors", "1.3 GB"))
]
SEED = 42

# Heights on the sheet, in the graph editor's pixels: where groups begin and end, and the three lanes.
TOP, BOTTOM = -80, 920
ABOVE, BETWEEN, BELOW = 14, 464, 934


def loaders(sheet: Sheet, variant: str, lora: File | None = None) -> tuple[Output, Output, Output]:
    """MODEL, with a control LoRA if one is named, CLIP and VAE."""
    left, wide = (-40, (400, 0)) if lora is None else (-310, (300, 0))  # so wide that file names are read whole
    (model,) = load_model(sheet, variant, (left, 0), wide)
    if lora is not None:
        strength = {"strength": "custom", "strength.value": CONTROL_STRENGTH}
        model, *_ = sheet.add(
            "Flux1LoadLora", "Make it a control model", (20, 0), (340, 0), model=model, lora_name=lora.name, **strength
        )
    (clip,) = sheet.add(
        "Flux1LoadTextEncoders", "Load text encoders", (400, 50), (280, 0), t5_name=T5.name, clip_name=CLIP.name
    )
    (vae,) = sheet.add("Flux1LoadVAE", "Load VAE", (left, 240), wide, vae_name=VAE.name)
    sheet.group("1 Load models", (left - 20, TOP), (700, 350))
    return model, clip, vae.over((720, 254))


def load_model(sheet: Sheet, variant: str, at: Point, size: Point) -> list[Output]:
    title = f"Load {variant if variant in ('dev', 'schnell') else variant.title()} model"
    return sheet.add("Flux1LoadModel", title, at, size, model_name=MODELS[variant].name)


def stacked_loaders(sheet: Sheet, variant: str) -> tuple[Output, Output, Output]:
    """MODEL, CLIP and VAE below each other, for workflows without a prompt beside them."""
    left, wide = -80, (400, 0)
    (model,) = load_model(sheet, variant, (left, 0), wide)
    (clip,) = sheet.add(
        "Flux1LoadTextEncoders", "Load text encoders", (left, 232), wide, t5_name=T5.name, clip_name=CLIP.name
    )
    (vae,) = sheet.add("Flux1LoadVAE", "Load VAE", (left, 382), wide, vae_name=VAE.name)
    sheet.group("1 Load models", (left - 20, TOP), (left + 420, 458))
    return model, clip, vae


def text_encode(
    sheet: Sheet, variant: str, words: str, model: Output, clip: Output, size: Point = (400, 350), **more: str
) -> Output:
    """The upper row: the prompt, with the model's own guidance."""
    (prompt,) = sheet.add(
        "Flux1TextEncode", "Prompt", (780, 80), size, clip=clip, model=model.over((375, 176), (720, 176)),
        prompt=words, guidance=VARIANTS[variant].guidance, **more,
    )  # fmt: skip
    sheet.group("2 Prompt", (760, TOP), (800 + size[0], 100 + size[1]))
    return prompt


def load_picture(sheet: Sheet, title: str, file: str = "landscape.png") -> list[Output]:
    """The lower row's beginning: IMAGE and MASK."""
    outputs = sheet.add("LoadImage", title, (780, 560), (400, 340), image=file)
    sheet.group("3 Picture", (760, 480), (1200, BOTTOM))
    return outputs


def show_picture(sheet: Sheet, prompt: Output, at: Point, **strength: float | str) -> Output:
    """The lower row: a picture and the models that read it; at its end, at `at`, the prompt that has seen it."""
    picture, _ = load_picture(sheet, "Picture")
    wide = (400, 0)
    (redux,) = sheet.add("StyleModelLoader", "Load Redux", (1250, 535), wide, style_model_name=REDUX.name)
    (siglip,) = sheet.add("CLIPVisionLoader", "Load image encoder", (1250, 660), wide, clip_name=SIGLIP.name)
    sheet.group("4 Load Redux", (1230, 480), (1670, 730))
    return sheet.add(
        "Flux1ReduxConditioning", "Show the picture", at, conditioning=prompt,
        style_model=redux, clip_vision=siglip, **strength,
        **{"pictures.picture0": picture.over((1215, BETWEEN), (1650, BETWEEN))},
    )[0]  # fmt: skip


def paint(
    sheet: Sheet, variant: str, left: int, at: Point, model: Output, positive: Output, latent: Output, vae: Output, *,
    number: int = 4, bottom: int = BOTTOM, strength: float = 1.0, sampler: str = "Flux1Sampler",
) -> None:  # fmt: skip
    """The last two groups: sampler at `at`, decoder, result. The first one begins at `left` and has this number.

    `vae` is led to the lowest lane by the caller. `variant` names the settings.
    """
    painted = sample(sheet, variant, at, model, positive, latent, strength=strength, sampler=sampler)
    x, y = at[0] + 380, at[1]
    vae = vae.over((x - 60, bottom + 14), (x - 40, y + 140))
    (image,) = sheet.add("Flux1DecodeImage", "Decode", (x, y), (210, 0), latent=painted, vae=vae)
    sheet.group(f"{number} Paint", (left, TOP), (x + 230, bottom))
    result(sheet, number + 1, x + 260, image, bottom)


def sample(
    sheet: Sheet, variant: str, at: Point, model: Output, positive: Output, latent: Output, *, strength: float = 1.0,
    sampler: str = "Flux1Sampler",
) -> Output:  # fmt: skip
    """The sampler, with the settings of the variant: a LATENT."""
    return sheet.add(
        sampler, "Paint", at, model=model, positive=positive, latent=latent, seed=SEED,
        steps=VARIANTS[variant].steps, strength=strength,
    )[0]  # fmt: skip


def result(sheet: Sheet, number: int, left: int, image: Output, bottom: int = BOTTOM) -> None:
    """The last group."""
    sheet.add("SaveImage", "Save", (left + 20, 60), (440, bottom - 80), images=image, filename_prefix=sheet.name)
    sheet.group(f"{number} Result", (left, TOP), (left + 480, bottom))


def read_me(
    sheet: Sheet, variant: str, title: str, what: str, *changes: str, more: Sequence[File] = (),
    place: tuple[Point, Point] | None = None,
) -> None:  # fmt: skip
    """The note, which comes last: what it does, what to change, what to download: the variant's model and `more`.

    It stands below the loaders, or in `place`.
    """
    rows = [
        f"| {name(file)} | models/{file.folder} | [{file.repository}]({page(file)}) |"
        for file in (MODELS[variant], *more, T5, CLIP, VAE)
    ]
    lines = [
        f"# {title}", "", what, "", "## What to change", "", *(f"- {change}" for change in changes), "",
        "## Models to download", "", "| File | Folder in ComfyUI | From |", "|---|---|---|", *rows, "",
        "Press R after copying them, so that the loaders list them.", "",
    ]  # fmt: skip
    _, (left, _), (right, loaders_end) = sheet.groups[0]
    bottom = max(end for _, _, (_, end) in sheet.groups)
    sheet.note("\n".join(lines), *(place or ((left + 20, loaders_end + 50), (right - 20, bottom))))


def name(file: File) -> str:
    return f"{file.name} ({file.size})" if file.size else file.name


def page(file: File) -> str:
    """Where a person finds the file."""
    return f"https://huggingface.co/{file.repository}" + (f"/tree/main/{file.path.rstrip('/')}" if file.path else "")
