"""What a server lacks for a workflow, all at once and before anything is sent: node types, outputs, models, pictures."""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from flux_core.errors import Flux1Error

from .graph import Graph, links, named
from .jobs import UPLOADS
from .parts import FILES
from .settable import Setting, settings
from .sheet import Info

PACK = "flux1"
CORE = "comfy-core"
WEIGHTS = {".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf"}
FOLDERS = {
    "unet_name": "diffusion_models", "model_name": "diffusion_models", "t5_name": "text_encoders",
    "clip_name": "text_encoders", "clip_name1": "text_encoders", "clip_name2": "text_encoders", "vae_name": "vae",
    "lora_name": "loras", "ckpt_name": "checkpoints", "control_net_name": "controlnet",
    "clip_vision_name": "clip_vision", "clip_vision": "clip_vision", "style_model_name": "style_models",
}  # fmt: skip
"""Where ComfyUI's and our loaders look, by the name of their input."""

Downloads = Mapping[str, Mapping[str, str]]
"""Folder (`directory`) and download link (`url`) by a model file's name."""


def check_on_server(
    graph: Graph, infos: Mapping[str, Info], files: Downloads = {}, packs: Mapping[str, str] = {}
) -> None:
    """Raises Flux1Error when a server whose `/object_info` is `infos` can't run the workflow.

    `files` and `packs` (names in ComfyUI's registry, by node type) are what the workflow's file says of itself.
    """
    if missing := [key for key, node in graph.items() if node["class_type"] not in infos]:
        found = "; ".join(f"{named(graph, key)}, from {pack_of(graph[key]['class_type'], packs)}" for key in missing)
        raise Flux1Error(
            "The server lacks node types", expected="all nodes of the workflow", found=found,
            fix="install what they come from and restart ComfyUI",
        )  # fmt: skip
    if faults := list(output_faults(graph, infos)):
        raise Flux1Error(
            "The workflow has links that lead nowhere", expected="outputs that there are", found="; ".join(faults),
            fix="connect these inputs again and export the workflow anew",
        )  # fmt: skip
    if faults := list(fraction_faults(graph, infos)):
        raise Flux1Error(
            "The server would cut numbers", expected="whole numbers", found="; ".join(faults), fix="round them"
        )
    if missing := list(missing_models(graph, infos, {file.name: file.link for file in FILES} | dict(files))):
        raise Flux1Error(
            "The server lacks model files", expected="each in its folder of ComfyUI",
            found="".join(f"\n  {line}" for line in dict.fromkeys(missing)), fix="download them and run this again",
        )  # fmt: skip
    if missing := list(missing_pictures(graph, infos)):
        raise Flux1Error(
            "Pictures are missing", expected="files here or in the server's input folder", found="; ".join(missing),
            fix="give your own, for example --set image=FILE or --images FOLDER",
        )  # fmt: skip


def pack_of(class_type: str, packs: Mapping[str, str]) -> str:
    pack = PACK if class_type.startswith("Flux1") else packs.get(class_type)
    if pack == CORE:
        return "a newer ComfyUI"
    return f"the pack {pack}" if pack else "a pack that the ComfyUI Manager finds with Install Missing Custom Nodes"


def output_faults(graph: Graph, infos: Mapping[str, Info]) -> Iterator[str]:
    for key, node in graph.items():
        for name, (source, slot) in links(node):
            outputs = len(infos[graph[source]["class_type"]]["output"])
            if slot >= outputs:
                yield (
                    f"input {name!r} of {named(graph, key)} comes from output {slot} of {named(graph, source)}, "
                    f"which has {outputs}, counted from 0"
                )


def widgets(graph: Graph, infos: Mapping[str, Info]) -> Iterator[tuple[Setting, Any, Mapping[str, Any]]]:
    """Every input with a value that the server describes: its kind and its options."""
    for setting in settings(graph):
        described = infos[graph[setting.node]["class_type"]]["input"]
        for part in ("required", "optional"):
            if setting.input in described.get(part, {}):
                kind, options = [*described[part][setting.input], {}][:2]
                yield setting, kind, options


def fraction_faults(graph: Graph, infos: Mapping[str, Info]) -> Iterator[str]:
    for setting, kind, _ in widgets(graph, infos):
        if kind == "INT" and isinstance(setting.value, float) and not setting.value.is_integer():
            yield f"{setting.input} = {setting.value} of {named(graph, setting.node)}"


def choices(graph: Graph, infos: Mapping[str, Info]) -> Iterator[tuple[Setting, bool]]:
    """Every file name that is not among those the server has, and whether it is an uploaded picture's."""
    for setting, kind, options in widgets(graph, infos):
        listed = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
        if listed is not None and isinstance(setting.value, str) and setting.value not in listed:
            yield setting, bool(options.get("image_upload"))


def missing_models(graph: Graph, infos: Mapping[str, Info], files: Downloads) -> Iterator[str]:
    for setting, picture in choices(graph, infos):
        file = PurePath(setting.value)
        if picture or file.suffix.lower() not in WEIGHTS:
            continue
        known = files.get(file.name, {})
        folder = known.get("directory") or FOLDERS.get(setting.input)
        where = f"models/{folder}" if folder else f"the folder of {named(graph, setting.node)}"
        yield f"{known.get('url', 'no link known')} to {where}: {setting.value}"


def missing_pictures(graph: Graph, infos: Mapping[str, Info]) -> Iterator[str]:
    """Names that the server lists no file for; it lists none in folders or, as ` [output]`, outside the input folder."""
    for setting, picture in choices(graph, infos):
        if picture and not setting.value.startswith(f"{UPLOADS}/") and not {"/", "["} & set(setting.value):
            yield f"{setting.value!r} of {named(graph, setting.node)}"
