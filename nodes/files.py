"""Model files by name: where they are, and refusals that ComfyUI can show at queue time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import folder_paths

from ..flux_core.errors import Flux1Error


def names(folder: str) -> list[str]:
    """The .safetensors files of one of ComfyUI's model folders; the pack reads nothing that could run code."""
    return [name for name in folder_paths.get_filename_list(folder) if name.lower().endswith(".safetensors")]


def path_of(folder: str, name: str) -> str:
    """The path of `name`, which must be in the list the node offers.

    Raises Flux1Error otherwise: no path from a prompt reaches the file system unseen.
    """
    if name in names(folder):
        return folder_paths.get_full_path_or_raise(folder, name)
    searched = ", ".join(folder_paths.get_folder_paths(folder))
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
        fix=f"download it (the workflow's note says where) into models/{folder}, then refresh the page with R",
    )


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
    if name in found:
        return found[name]
    raise Flux1Error(
        "Value not in list: the model's folder is missing",
        file=str(name),
        expected=f"a folder {name} in {', '.join(map(str, places(kind)))}",
        found=", ".join(found) or "no folder there",
        fix=f"download {download} into models/{kind}/{name}, then refresh the page with R",
    )


def verdict(check: Callable[..., object], *args: object) -> bool | str:
    """What `validate_inputs` answers: True, or the refusal's text."""
    try:
        check(*args)
    except Flux1Error as refusal:
        return str(refusal)
    return True
