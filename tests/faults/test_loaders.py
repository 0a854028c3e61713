"""Model files that are broken, hostile, misplaced or lacking: refused when queued, by name and with the way out."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from skimage.metrics import peak_signal_noise_ratio

from flux_core.model import Transformer
from flux_core.variants import VARIANTS
from painter.family import released_names
from tests.faults.conftest import Faulty, References
from tests.faults.graphs import (
    CLIP,
    DEV,
    FILL,
    KONTEXT,
    T5,
    VAE,
    Painting,
    alike,
    empty,
    load_model,
    paint,
    pixels,
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

pytestmark = pytest.mark.usefixtures("unharmed")
BASE = FILL
BAD = "bad.safetensors"
LOST = "single_blocks.1.linear2.weight"

Change = Callable[[dict], None]
Write = Callable[[Path], None]
"""Writes a model file; the family's Fill model lies beside it."""


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


MISPLACED: dict[str, tuple[Callable[[GraphBuilder], object], str, list[str]]] = {
    "L21": (lambda add: vae_graph(add, DEV), "Flux1LoadVAE", ["diffusion|transformer", "Flux1LoadModel"]),
    "L22": (lambda add: vae_graph(add, "sdxl.safetensors"), "Flux1LoadVAE", ["16", r"\b4\b", "channel"]),
    "L23": (lambda add: encoders_graph(add, CLIP), "Flux1LoadTextEncoders", ["clip", "t5"]),
    "L27": (lambda add: model_graph(add, DEV, variant="fill"), "Flux1LoadModel", ["fill", "384", "64"]),
    "L28": (lambda add: model_graph(add, FILL, variant="kontext"), "Flux1LoadModel", ["kontext", "384"]),
    "L41": (
        lambda add: model_graph(add, "flux1-schnell-nowhere.safetensors"), "Flux1LoadModel",
        ["flux1-schnell-nowhere.safetensors", "diffusion_models", "note says where"],
    ),
    "L41 released": (
        lambda add: encoders_graph(add, "sub/t5xxl_fp16.safetensors"), "Flux1LoadTextEncoders",
        ["t5xxl_fp16.safetensors", "text_encoders", "https://huggingface.co/comfyanonymous/flux_text_encoders"],
    ),
    "L45 loop": (lambda add: model_graph(add, "loop.safetensors"), "Flux1LoadModel", ["loop.safetensors", "link"]),
    "L45 folder": (lambda add: model_graph(add, "folder.safetensors"), "Flux1LoadModel", ["folder.safetensors"]),
    "L47": (
        lambda add: model_graph(add, KONTEXT, weight_dtype="fp8_e5m2"), "Flux1LoadModel", ["weight_dtype", "default"],
    ),
    "unknown dtype": (lambda add: model_graph(add, DEV, weight_dtype={"a": 1}), "Flux1LoadModel", ["weight_dtype"]),
    "unknown variant": (lambda add: model_graph(add, DEV, variant="klein"), "Flux1LoadModel", ["variant", "kontext"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def misplaced(faulty: Faulty) -> None:
    models = faulty.models / "diffusion_models"
    (faulty.models / "vae" / DEV).write_bytes((models / DEV).read_bytes())
    save_file(diffusers_vae(4), faulty.models / "vae" / "sdxl.safetensors")
    (models / "loop.safetensors").symlink_to(models / "loop.safetensors")
    (models / "folder.safetensors").mkdir()


@pytest.mark.parametrize("row", MISPLACED)
def test_what_a_loader_is_not_for_is_refused_when_queued(row, client: Client, misplaced):
    graph, node, words = MISPLACED[row]
    add = GraphBuilder()
    graph(add)
    refused_at_once(client, add, node, *words)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: str):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


OUTSIDE = {
    "L39 pt": "evil.pt",
    "L39 ckpt": "evil_raw.ckpt",
    "L40 above": "../vae/ae.safetensors",
    "L40 absolute": "/etc/passwd",
    "L40 backslash": "..\\x",
    "L40 object": {"a": 1},
    "L40 number": 5,
}
LOADERS = {
    "model": (model_graph, "Flux1LoadModel"),
    "vae": (vae_graph, "Flux1LoadVAE"),
    "encoders": (encoders_graph, "Flux1LoadTextEncoders"),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("row", OUTSIDE)
def test_only_names_from_the_list_are_taken(row, loader, faulty: Faulty, client: Client):
    """Also no pickle that would run code when it is opened."""
    marker = faulty.models / "marker"
    evil = b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    for folder in ("diffusion_models", "vae", "text_encoders"):
        torch.save({"weight": Evil(str(marker))}, faulty.models / folder / "evil.pt")
        (faulty.models / folder / "evil_raw.ckpt").write_bytes(evil)
    add, (graph, node) = GraphBuilder(), LOADERS[loader]
    graph(add, OUTSIDE[row])
    refused_at_once(client, add, node, "not in list")
    assert not marker.exists()


def fill_with(name: str, write: Write, **settings: str) -> Callable[[Faulty, GraphBuilder, int], Painting]:
    """The base run on a file written beside the family's."""

    def graph(faulty: Faulty, add: GraphBuilder, seed: int) -> Painting:
        path = faulty.models / "diffusion_models" / name
        path.parent.mkdir(exist_ok=True)
        write(path)
        return text_to_image(add, name, [seed], **settings)[0]

    return graph


def with_swapped_encoders(faulty: Faulty, add: GraphBuilder, seed: int) -> Painting:
    clip = add("Flux1LoadTextEncoders", t5_name=CLIP, clip_name=T5)[0]
    vae = add("Flux1LoadVAE", vae_name=VAE)[0]
    return paint(add, load_model(add, FILL), text_encode(add, clip), empty(add), vae, seed)


SAME = {
    "L26": with_swapped_encoders,
    "L33": fill_with("extra.safetensors", tensors_of(lambda tensors: tensors.update(extra=torch.ones(3)))),
    "L44": fill_with(
        "通义 模型/fill é.safetensors", lambda path: path.write_bytes((path.parents[1] / FILL).read_bytes())
    ),
}


@pytest.mark.parametrize("row", SAME)
def test_what_does_no_harm_paints_the_same(row, faulty: Faulty, client: Client, references: References):
    seed, reference = references.take(FILL)
    add = GraphBuilder()
    assert alike(run(client, add, SAME[row](faulty, add, seed)), reference)


def plain_fp8(tensors: dict) -> None:
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and "blocks." in name:
            tensors[name] = tensor.to(torch.float8_e4m3fn)


def test_l36_plain_fp8_paints_nearly_the_same(faulty: Faulty, client: Client, references: References):
    seed, reference = references.take(FILL)
    add = GraphBuilder()
    painted = run(client, add, fill_with("plain_fp8.safetensors", tensors_of(plain_fp8))(faulty, add, seed))
    assert not alike(painted, reference)
    assert peak_signal_noise_ratio(reference, painted) > 25


def test_l38_nan_in_a_weight_is_an_error_and_no_picture(faulty: Faulty, client: Client):
    add = GraphBuilder()
    fill_with("nan.safetensors", tensors_of(lambda tensors: tensors[LOST].fill_(torch.nan)))(faulty, add, 1)
    refused_while_running(client, add, "Flux1Sampler", "nan|non-finite")


def test_l04_a_file_of_24_gb_is_refused_as_quickly(faulty: Faulty, client: Client):
    """FLUX.1 Fill at its full size, the last byte missing; the bytes are a hole in the disk."""
    with torch.device("meta"):
        weights = Transformer(VARIANTS["fill"].params).to(torch.bfloat16)
    header, end = {}, 0
    for name, tensor in released_names(weights).items():
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    path = faulty.models / "diffusion_models" / "full size.safetensors"
    path.write_bytes(joined(header, b""))
    os.truncate(path, path.stat().st_size + end - 1)
    assert path.stat().st_size > 23e9
    add = GraphBuilder()
    model_graph(add, path.name)
    seconds, memory = faulty.cost(lambda: refused_at_once(client, add, "Flux1LoadModel", "truncated", str(end)[:3]))
    assert seconds < 1 and memory < 50e6
    path.unlink()


@pytest.mark.parametrize("part", ["diffusion_models", "text_encoders", "vae"])
def test_a_file_replaced_on_disk_is_loaded_anew(part, faulty: Faulty, client: Client):
    """Under the same name and with the same seed; put back, it paints what it did at first."""
    file = {"diffusion_models": "replaced.safetensors", "text_encoders": T5, "vae": VAE}[part]
    path = faulty.models / part / file
    if part == "diffusion_models":
        path.write_bytes((path.parent / FILL).read_bytes())
    content, pictures = path.read_bytes(), []
    for change in (None, scaled, None):
        if change:
            tensors = load_file(path)
            changed = {name: change(tensor) for name, tensor in tensors.items()}
            with safe_open(path, "pt") as opened:
                save_file(changed, path.with_suffix(".new"), opened.metadata())
        else:
            path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").replace(path)
        add = GraphBuilder()
        (painted,) = text_to_image(add, "replaced.safetensors" if part == "diffusion_models" else FILL, [77])
        pictures.append(run(client, add, painted) if part != "vae" else pixels(client.run(add.graph), painted.saver))
    first, other, again = pictures
    assert alike(first, again) and not alike(first, other)


def scaled(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.float() * 0.9).to(tensor.dtype)


@pytest.mark.parametrize("name", ["../x.safetensors", FILL])
def test_a_name_that_another_node_gives_is_judged_when_it_runs(name, client: Client, references: References):
    seed, reference = references.take(FILL)
    add = GraphBuilder()
    given = add("PrimitiveString", value=name)[0]
    (painted,) = text_to_image(add, add("ComfySwitchNode", switch=True, on_true=given, on_false=given)[0], [seed])
    if name == FILL:
        assert alike(run(client, add, painted), reference)
    else:
        refused_while_running(client, add, "Flux1LoadModel", "not in list")


def test_l40_null_is_refused_when_it_runs(client: Client):
    """When a prompt is queued, ComfyUI shows a node no difference between null and a link."""
    add = GraphBuilder()
    model_graph(add, None)
    refused_while_running(client, add, "Flux1LoadModel", "not in list")
