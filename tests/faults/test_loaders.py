"""Model files that are broken, hostile, misplaced or lacking: refused when queued, by name and with the way out."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from skimage.metrics import peak_signal_noise_ratio

from tests.faults.conftest import Faulty, References
from tests.faults.graphs import (
    CLIP,
    DEV,
    FILL,
    KONTEXT,
    T5,
    VAE,
    alike,
    check_finite,
    empty,
    load_model,
    paint,
    refused_at_once,
    refused_while_running,
    run,
    saved,
    text_encode,
    text_to_image,
)
from tests.flux_core.checkpoint_samples import vae as diffusers_vae
from workflows.client import Client
from workflows.graph import GraphBuilder, Link

BASE = FILL
BAD = "bad.safetensors"
LOST = "single_blocks.1.linear2.weight"

Change = Callable[[dict], None]
Write = Callable[[Path], None]
"""Writes a model file; what is given is the family's Fill model."""


def model_graph(add: GraphBuilder, file: object = BAD, **settings: str) -> None:
    text_to_image(add, file, **settings)


def vae_graph(add: GraphBuilder, file: object = BAD) -> None:
    picture = add("EmptyImage", width=64, height=64, batch_size=1, color=0)[0]
    vae = add("Flux1LoadVAE", vae_name=file)[0]
    saved(add, add("Flux1DecodeImage", latent=add("Flux1EncodeImage", image=picture, vae=vae)[0], vae=vae)[0])


def encoders_graph(add: GraphBuilder, t5: object, clip: object = CLIP) -> None:
    encode(add, add("Flux1LoadTextEncoders", t5_name=t5, clip_name=clip)[0])


def encode(add: GraphBuilder, clip: Link):
    vae = add("Flux1LoadVAE", vae_name=VAE)[0]
    return paint(add, load_model(add, FILL), text_encode(add, clip), empty(add), vae)


def parts(path: Path) -> tuple[dict, bytes]:
    """A file's header and its tensors' bytes."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def joined(header: dict | bytes, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def bytes_of(change: Callable[[bytes], bytes]) -> Write:
    return lambda path: path.write_bytes(change((path.parent / FILL).read_bytes()))


def header_of(change: Callable[[dict, list[str]], None]) -> Write:
    """`change` is given the header and the names of its tensors in the order of their bytes."""

    def write(path: Path) -> None:
        header, data = parts(path.parent / FILL)
        tensors = sorted(header.keys() - {"__metadata__"}, key=lambda name: header[name]["data_offsets"])
        change(header, tensors)
        path.write_bytes(joined(header, data))

    return write


def tensors_of(change: Change, file: str = FILL) -> Write:
    def write(path: Path) -> None:
        tensors = load_file(path.parent / file)
        change(tensors)
        save_file(tensors, path)

    return write


def moved(by: int) -> Callable[[dict, list[str]], None]:
    """The second tensor's bytes begin and end so much later."""

    def change(header: dict, names: list[str]) -> None:
        header[names[1]]["data_offsets"] = [place + by for place in header[names[1]]["data_offsets"]]

    return change


def doubled(header: dict, names: list[str]) -> None:
    last = header[names[-1]]
    start, end = last["data_offsets"]
    last["shape"][0] *= 2
    last["data_offsets"] = [start, end + end - start]


def entry(**values: object) -> Write:
    return header_of(lambda header, names: header[names[0]].update(values))


def without_scales(tensors: dict) -> None:
    for name in [name for name in tensors if name.endswith(".scale_weight")]:
        del tensors[name]


def wider(tensors: dict) -> None:
    tensors[LOST] = torch.zeros(128, 641, dtype=torch.bfloat16)


def copied(folder: str, file: str) -> Write:
    return lambda path: path.write_bytes((path.parent.parent / folder / file).read_bytes())


BROKEN: dict[str, tuple[Write, list[str]]] = {
    "L01": (lambda path: path.touch(), ["empty|0 bytes"]),
    "L02": (lambda path: path.write_text("<!DOCTYPE html><html><body>Please log in</body></html>"), ["html", "fix"]),
    "L04": (bytes_of(lambda whole: whole[: len(whole) // 2]), ["truncated|incomplete"]),
    "L05": (bytes_of(lambda whole: whole[:100]), ["header"]),
    "L07": (bytes_of(lambda whole: (2**63).to_bytes(8, "little") + whole[8:]), ["header"]),
    "L09": (header_of(moved(-2)), ["overlap"]),
    "L11": (header_of(doubled), ["truncated|beyond"]),
    "L12": (entry(data_offsets=[-8, 8]), ["negative"]),
    "L14": (bytes_of(lambda whole: whole + b"PK\x03\x04" + bytes(40)), ["trailing|not covered"]),
    "L15": (lambda path: path.write_bytes(joined(b"[" * 200_000, b"")), ["header", "^(?!.*recursion)"]),
    "L16 F4": (entry(dtype="F4"), ["dtype", "F4"]),
    "L16 Q8": (entry(dtype="Q8"), ["dtype", "Q8"]),
    "L17": (entry(shape=[2**38], data_offsets=[0, 0]), ["shape"]),
    "L18": (copied("vae", VAE), ["vae|autoencoder", "Flux1LoadVAE"]),
    "L19": (copied("text_encoders", T5), ["t5", "Flux1LoadTextEncoders"]),
    "L31": (tensors_of(lambda tensors: tensors.pop(LOST)), ["missing", re.escape(LOST)]),
    "L32": (tensors_of(wider), [re.escape(LOST), r"\[128, 640\]", r"\[128, 641\]"]),
    "L34": (tensors_of(without_scales, KONTEXT), ["scale"]),
    "pickle": (lambda path: torch.save({"weight": torch.zeros(3)}, path), ["pickle"]),
    "SDXL": (
        lambda path: save_file(
            {f"model.diffusion_model.{name}": torch.zeros(1) for name in ("input_blocks.0.0.weight", "label_emb.0.0.bias")},
            path,
        ),
        ["SDXL|Stable Diffusion XL"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", BROKEN)
def test_a_broken_or_misplaced_file_is_refused_when_queued(row, faulty: Faulty, client: Client):
    write, words = BROKEN[row]
    path = faulty.models / "diffusion_models" / BAD
    write(path)
    sizes = [str(path.stat().st_size), str((path.parent / FILL).stat().st_size)] if row == "L04" else []
    add = GraphBuilder()
    model_graph(add)
    seconds, memory = faulty.cost(
        lambda: refused_at_once(client, add, "Flux1LoadModel", re.escape(BAD), *words, *sizes)
    )
    assert seconds < 1 and memory < 50e6
    path.unlink()
