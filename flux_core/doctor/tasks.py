"""What FLUX.1 can be asked to do, which files each task takes, and which of them are missing or don't fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..checkpoint.header import Header
from ..lora import width_of
from .files import DEPTH_FOLDER, ModelFile

Chosen = dict[str, ModelFile]
"""The files chosen so far: "model", and the parts by role."""


class Part(NamedTuple):
    """A file that a task takes: what to call it, and where to put which released one."""

    words: str
    folder: str
    file: str
    width: Callable[[ModelFile], int | None] = lambda file: None
    """What has to agree with the file it is to work with, None where nothing has."""
    wanted: Callable[[Chosen], int | None] = lambda chosen: None
    """What it has to be, None where the other file is not there to tell."""


def _of(role: str, read: Callable[[ModelFile], int | None]) -> Callable[[Chosen], int | None]:
    return lambda chosen: read(chosen[role]) if role in chosen else None


def _size(tensor: str, dimension: int) -> Callable[[ModelFile], int | None]:
    """Reads one side of the first tensor whose name ends so."""

    def read(file: ModelFile) -> int | None:
        header: Header = file.checkpoint.header
        shape = next((info.shape for name, info in header.tensors.items() if name.endswith(tensor)), ())
        return shape[dimension] if len(shape) > dimension else None

    return read


MODELS = {
    variant: Part(f"a FLUX.1 {variant.title()} model", "diffusion_models", f"{file}.safetensors")
    for variant, file in {
        "dev": "flux1-dev",
        "fill": "flux1-fill-dev",
        "kontext": "flux1-dev-kontext_fp8_scaled",
        "canny": "flux1-canny-dev",
        "depth": "flux1-depth-dev",
    }.items()
}
PARTS = {
    "t5": Part(
        "the text encoder T5-XXL", "text_encoders", "t5xxl_fp16.safetensors",
        lambda file: file.checkpoint.text.width, _of("model", lambda file: file.checkpoint.params.context_in_dim),
    ),
    "clip_l": Part(
        "the text encoder CLIP-L", "text_encoders", "clip_l.safetensors",
        lambda file: file.checkpoint.text.width, _of("model", lambda file: file.checkpoint.params.vec_in_dim),
    ),
    "vae": Part("the VAE", "vae", "ae.safetensors"),
    **{
        f"{kind} LoRA": Part(
            f"the {kind.title()} LoRA", "loras", f"flux1-{kind}-dev-lora.safetensors",
            lambda file: width_of(file.checkpoint.header),
            _of("model", lambda file: file.checkpoint.params.hidden_size),
        )
        for kind in ("canny", "depth")
    },
    "depth network": Part("a depth network", DEPTH_FOLDER, "depth-anything-large-hf"),
    "redux": Part(
        "Redux", "style_models", "flux1-redux-dev.safetensors",
        _size("redux_down.weight", 0), _of("model", lambda file: file.checkpoint.params.context_in_dim),
    ),
    "clip_vision": Part(
        "Redux's image encoder SigLIP", "clip_vision", "sigclip_vision_patch14_384.safetensors",
        _size("embeddings.patch_embedding.weight", 0), _of("redux", _size("redux_up.weight", 1)),
    ),
}  # fmt: skip
ALWAYS = ("t5", "clip_l", "vae")


class Task(NamedTuple):
    name: str
    variants: tuple[str, ...]
    """Models that do it, the first of which is proposed where none is there."""
    parts: tuple[str, ...] = ()
    """What it takes beside the model, the text encoders and the VAE."""


TASKS = (
    Task("Text to image", ("dev", "krea", "schnell", "lite")),
    Task("Inpaint and outpaint (Fill)", ("fill",)),
    Task("Edit by instruction (Kontext)", ("kontext",)),
    Task("Paint along edges (Canny)", ("canny",)),
    Task("Paint along edges (Canny LoRA)", ("dev", "krea"), ("canny LoRA",)),
    Task("Paint by depth (Depth)", ("depth",), ("depth network",)),
    Task("Paint by depth (Depth LoRA)", ("dev", "krea"), ("depth LoRA", "depth network")),
    Task("Vary a picture (Redux)", ("dev", "krea", "schnell"), ("redux", "clip_vision")),
)


@dataclass(frozen=True)
class Missing:
    """A part that is not there, and files that could be it but don't fit."""

    part: Part
    unfit: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """Whether a task can be done, with which files, and what it lacks."""

    task: Task
    files: Chosen = field(default_factory=dict)
    missing: tuple[Missing, ...] = ()

    @property
    def ready(self) -> bool:
        return not self.missing


def statuses(files: Sequence[ModelFile]) -> list[Status]:
    """Each task with those of the files that lack least."""
    usable = [file for file in files if file.usable]
    return [
        min(
            (_with(model, task, usable) for model in usable if model.role in task.variants),
            key=lambda status: len(status.missing),
            default=_with(None, task, usable),
        )
        for task in TASKS
    ]


def _with(model: ModelFile | None, task: Task, files: Sequence[ModelFile]) -> Status:
    chosen: Chosen = {"model": model} if model else {}
    missing = [] if model else [Missing(MODELS[task.variants[0]])]
    for role in (*ALWAYS, *task.parts):
        part, there = PARTS[role], [file for file in files if file.role == role]
        wanted = part.wanted(chosen)
        fitting = [file for file in there if None in (wanted, part.width(file)) or part.width(file) == wanted]
        if fitting:
            chosen[role] = fitting[0]
        else:
            unfit = (
                f"{file.name} doesn't fit as {part.words}: its width is {part.width(file)}, {wanted} is needed"
                for file in there
            )
            missing.append(Missing(part, tuple(unfit)))
    return Status(task, chosen, tuple(missing))
