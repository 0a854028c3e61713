"""What the drawn workflows have in common: their models, prompt, painting, result and note, and where these stand.

Models are at the left, what the user gives in two rows beside them, painting and result at the right. Long wires run
in three lanes: above the rows, between them and below.
"""

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
    "kontext": File(
        "flux1-dev-kontext_fp8_scaled.safetensors", UNETS, "Comfy-Org/flux1-kontext-dev_ComfyUI", SPLIT, "12 GB"
    ),
}
T5 = File("t5xxl_fp16.safetensors", TEXTS, ENCODERS, size="10 GB")
CLIP = File("clip_l.safetensors", TEXTS, ENCODERS)
VAE = File("ae.safetensors", "vae", "Comfy-Org/Lumina_Image_2.0_Repackaged", "split_files/vae/")
FILES = [*MODELS.values(), T5, CLIP, VAE]
SEED = 42

# Heights on the sheet, in the graph editor's pixels: where groups begin and end, and the three lanes.
TOP, BOTTOM = -80, 920
ABOVE, BETWEEN, BELOW = 14, 464, 934


def loaders(sheet: Sheet, variant: str) -> tuple[Output, Output, Output]:
    """MODEL, CLIP and VAE."""
    title = f"Load {variant if variant in ('dev', 'schnell') else variant.title()} model"
    left, wide = -40, (400, 0)  # so wide that the longest file name is read whole
    (model,) = sheet.add("Flux1LoadModel", title, (left, 0), wide, model_name=MODELS[variant].name)
    (clip,) = sheet.add(
        "Flux1LoadTextEncoders", "Load text encoders", (400, 50), (280, 0), t5_name=T5.name, clip_name=CLIP.name
    )
    (vae,) = sheet.add("Flux1LoadVAE", "Load VAE", (left, 240), wide, vae_name=VAE.name)
    sheet.group("1 Load models", (left - 20, TOP), (700, 350))
    return model, clip, vae.over((720, 254))


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


def paint(
    sheet: Sheet, variant: str, left: int, at: Point, model: Output, positive: Output, latent: Output, vae: Output, *,
    number: int = 4, bottom: int = BOTTOM, strength: float = 1.0,
) -> None:  # fmt: skip
    """The last two groups: sampler at `at`, decoder, result. The first one begins at `left` and has this number.

    `vae` is led to the lowest lane by the caller.
    """
    (painted,) = sheet.add(
        "Flux1Sampler", "Paint", at, model=model, positive=positive, latent=latent, seed=SEED,
        steps=VARIANTS[variant].steps, strength=strength,
    )  # fmt: skip
    x, y = at[0] + 380, at[1]
    vae = vae.over((x - 60, bottom + 14), (x - 40, y + 140))
    (image,) = sheet.add("Flux1DecodeImage", "Decode", (x, y), (210, 0), latent=painted, vae=vae)
    sheet.add("SaveImage", "Save", (x + 280, 60), (440, bottom - 80), images=image, filename_prefix=sheet.name)
    sheet.group(f"{number} Paint", (left, TOP), (x + 230, bottom))
    sheet.group(f"{number + 1} Result", (x + 260, TOP), (x + 740, bottom))


def read_me(sheet: Sheet, variant: str, title: str, what: str, *changes: str, bottom: int = BOTTOM) -> None:
    """The note below the loaders: what it does, what to change, what to download."""
    rows = [
        f"| {name(file)} | models/{file.folder} | [{file.repository}]({page(file)}) |"
        for file in (MODELS[variant], T5, CLIP, VAE)
    ]
    lines = [
        f"# {title}", "", what, "", "## What to change", "", *(f"- {change}" for change in changes), "",
        "## Models to download", "", "| File | Folder in ComfyUI | From |", "|---|---|---|", *rows, "",
        "Press R after copying them, so that the loaders list them.", "",
    ]  # fmt: skip
    sheet.note("\n".join(lines), (-40, 400), (680, bottom))


def name(file: File) -> str:
    return f"{file.name} ({file.size})" if file.size else file.name


def page(file: File) -> str:
    """Where a person finds the file."""
    return f"https://huggingface.co/{file.repository}" + (f"/tree/main/{file.path.rstrip('/')}" if file.path else "")
