"""What each model file is, from its header alone; of a broken one, what the reader says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import Checkpoint, check_tensors, expect_transformer, identify, likely_variant, read_header
from ..checkpoint.check import LATENT_CHANNELS
from ..checkpoint.looks import lora_family
from ..depth import WEIGHTS, check_folder
from ..errors import Flux1Error
from ..lora import expect_lora, is_control
from ..variants import VARIANTS

DEPTH_FOLDER = "depth_anything"
FOLDERS = {  # ComfyUI's name of a kind of models, and the folders below models/ in which it looks for them
    "diffusion_models": ("diffusion_models", "unet"),
    "checkpoints": ("checkpoints",),
    "text_encoders": ("text_encoders", "clip"),
    "vae": ("vae",),
    "loras": ("loras",),
    "style_models": ("style_models",),
    "clip_vision": ("clip_vision",),
}
BELONGS = {  # by what a file is, where its loader looks for it
    "transformer": ("diffusion_models",),
    "checkpoint": ("checkpoints", "diffusion_models"),
    "t5": ("text_encoders",),
    "clip_l": ("text_encoders",),
    "autoencoder": ("vae",),
    "lora": ("loras",),
    "redux": ("style_models",),
    "clip_vision": ("clip_vision",),
}


@dataclass(frozen=True)
class ModelFile:
    """A file of FLUX.1's, a broken file, or one of another model (neither `role` nor `problem`)."""

    folder: str
    """ComfyUI's name of the kind of models it lies with, such as diffusion_models."""
    name: str
    """As loaders list it, with the folders below."""
    bytes: int
    what: str
    """For people: "FLUX.1 Fill transformer, BFL layout, 11.9 B parameters, bf16, 19+38 blocks"."""
    role: str = ""
    """What it can be in a task: a variant's name, or one of `tasks.PARTS`; empty where it is of no use to FLUX.1."""
    checkpoint: Checkpoint | None = None
    problem: Flux1Error | None = None

    @property
    def belongs_in(self) -> str:
        """The folder that it has to be moved to, empty where it is in the right one."""
        right = BELONGS[self.checkpoint.kind] if self.checkpoint and self.role else (self.folder,)
        return "" if self.folder in right else right[0]

    @property
    def usable(self) -> bool:
        """Whether the pack's loaders offer and take it. An all-in-one file is for ComfyUI's Load Checkpoint."""
        return bool(self.role) and not self.problem and not self.belongs_in and self.folder != "checkpoints"


def look_into(folder: str, name: str, path: str | os.PathLike[str]) -> ModelFile:
    """What the file at `path` is. Never raises for a file, whatever is wrong with it."""
    found, size = None, os.path.getsize(path) if os.path.exists(path) else 0
    try:
        header = read_header(path)
        found = identify(header)
        return ModelFile(folder, name, size, found.description, _role(found), found)
    except Flux1Error as refusal:
        what = found.description if found else "not readable"
        return ModelFile(folder, name, size, what, checkpoint=found, problem=refusal)


def look_into_depth_network(path: Path) -> ModelFile:
    """What the folder at `path`, which should hold a depth network in transformers' layout, is."""
    weights = path / WEIGHTS
    size = weights.stat().st_size if weights.is_file() else 0
    try:
        check_folder(path)
        return ModelFile(DEPTH_FOLDER, path.name, size, "depth network (depth-anything)", "depth network")
    except Flux1Error as refusal:
        return ModelFile(DEPTH_FOLDER, path.name, size, "depth network, not usable", problem=refusal)


def files_below(models: Path) -> Iterator[ModelFile]:
    """All model files in a models folder that is laid out as ComfyUI's, links followed as ComfyUI follows them."""
    for folder, places in FOLDERS.items():
        for place in places:
            for path in sorted(_safetensors(models / place)):
                yield look_into(folder, path.relative_to(models / place).as_posix(), path)
    depth = models / DEPTH_FOLDER
    for path in sorted(depth.iterdir()) if depth.is_dir() else ():
        if path.is_dir():
            yield look_into_depth_network(path)


def _safetensors(place: Path) -> Iterator[Path]:
    seen: set[str] = {os.path.realpath(place)}
    for folder, inner, names in os.walk(place, followlinks=True):
        new = {name: os.path.realpath(os.path.join(folder, name)) for name in inner}
        inner[:] = [name for name, real in new.items() if real not in seen]  # a link to a folder above has no end
        seen.update(new.values())
        yield from (Path(folder, name) for name in names if name.lower().endswith(".safetensors"))


def _role(found: Checkpoint) -> str:
    """What this file can be in a task. Raises Flux1Error for one of FLUX.1's that is not whole."""
    match found.kind:
        case "transformer" | "checkpoint":
            expect_transformer(found.header)
            return found.variant or ""
        case "t5" | "clip_l":
            check_tensors(found)
            return found.kind
        case "autoencoder":
            return "vae" if found.latent_channels == LATENT_CHANNELS else ""
        case "lora":
            return _lora_role(found)
        case "redux" | "clip_vision":
            return found.kind
        case _:
            return ""


def _lora_role(found: Checkpoint) -> str:
    """Canny and Depth are twins: the name decides, as it does between the models."""
    if lora_family(found.header.tensors) not in ("", "FLUX"):
        return ""
    try:
        expect_lora(found.header)
    except Flux1Error:  # another model's
        return ""
    control = is_control(found.header)
    return f"{likely_variant(VARIANTS['canny'].params, found.file)} LoRA" if control else "LoRA"
