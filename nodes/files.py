"""Model files by name: where they are, and refusals that ComfyUI can show at queue time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import folder_paths

from ..flux_core.errors import Flux1Error

WORKFLOWS = Path(__file__).parents[1] / "workflows"


def names(folder: str) -> list[str]:
    """The .safetensors files of one of ComfyUI's model folders; the pack reads nothing that could run code."""
    return [name for name in folder_paths.get_filename_list(folder) if name.lower().endswith(".safetensors")]


def path_of(folder: str, name: str) -> str:
    """The path of `name`, which must be in the list the node offers.

    Raises Flux1Error otherwise: no path from a prompt reaches the file system unseen.
    """
    searched = ", ".join(folder_paths.get_folder_paths(folder))
    if name in names(folder):
        if path := folder_paths.get_full_path(folder, name):
            return path
        raise Flux1Error(
            "The model file can't be reached",
            file=name,
            expected=f"a file in {searched}",
            found="a link that leads nowhere, or a file that has just gone",
            fix="put the file itself there, then refresh the page with R",
        )
    if not str(name).lower().endswith(".safetensors"):
        raise Flux1Error(
            "Value not in list: only .safetensors files are read, other kinds can run code",
            file=str(name),
            expected=f"a .safetensors file in models/{folder}",
            found=str(name),
            fix="download the model as .safetensors",
        )
    raise Flux1Error(
        "Value not in list: the model file is missing",
        file=str(name),
        expected=f"{name} in {searched}",
        found=", ".join(names(folder)) or "no .safetensors file there",
        fix=f"download it{source_of(str(name))} into models/{folder}, then refresh the page with R",
    )


def source_of(name: str) -> str:
    """In words, where a file is to be had: the bundled workflows say so of those that they use."""
    urls: dict[str, str] = {}

    def note(part: dict[str, Any]) -> dict[str, Any]:
        if {"name", "url", "directory"} <= part.keys():
            urls[part["name"]] = part["url"]
        return part

    for workflow in WORKFLOWS.glob("*.json"):
        json.loads(workflow.read_text(encoding="utf-8"), object_hook=note)
    url = urls.get(os.path.basename(name))
    return f" from {url}" if url else " (the workflow's note says where)"


def folders(kind: str) -> dict[str, Path]:
    """By name, the folders below models/`kind` and below what the user's own configuration of ComfyUI adds to it."""
    return {
        folder.name: folder
        for place in reversed(places(kind))
        if place.is_dir()
        for folder in sorted(place.iterdir())
        if folder.is_dir()
    }


def places(kind: str) -> list[Path]:
    """Where folders of a `kind` that ComfyUI itself does not know are looked for."""
    added, _ = folder_paths.folder_names_and_paths.get(kind, ([], set()))
    return list(dict.fromkeys([Path(folder_paths.models_dir) / kind, *map(Path, added)]))


def folder_of(kind: str, name: str, download: str) -> Path:
    """The folder of that name, which must be one of `folders`; `download` says what belongs in it and where it is.

    Raises Flux1Error otherwise: no path from a prompt reaches the file system unseen.
    """
    found = folders(kind)
    if name in list(found):
        return found[name]
    raise Flux1Error(
        "Value not in list: the model's folder is missing",
        file=str(name),
        expected=f"a folder {name} in {', '.join(map(str, places(kind)))}",
        found=", ".join(found) or "no folder there",
        fix=f"download {download} into models/{kind}/{name}, then refresh the page with R",
    )


def verdict(check: Callable[..., object], *args: object) -> bool | str:
    """What `validate_inputs` answers: the refusal's text, or True.

    True also where an argument is None: it comes from another node then, and is known when this one runs.
    """
    if None in args:
        return True
    try:
        check(*args)
    except Flux1Error as refusal:
        return str(refusal)
    return True


def whole_numbers(*values: object) -> bool:
    """Whether `validate_inputs` can judge these; what is no number ComfyUI itself refuses."""
    return all(isinstance(value, int) for value in values)


def check_choice(name: str, value: object, options: Iterable[str]) -> None:
    """Raises Flux1Error where the value of input `name` is none of its options, as ComfyUI does for inputs of its own."""
    options = list(options)
    if value not in options:
        raise Flux1Error(
            f"Value not in list: {name}",
            expected=f"one of {', '.join(options)}",
            found=str(value),
            fix="choose one of these",
        )
