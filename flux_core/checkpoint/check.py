"""Holds a file against what a loader needs and refuses, before anything is loaded, what would come out wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NoReturn

from ..errors import Flux1Error
from ..variants import VARIANTS
from .fp8 import marked_layers
from .header import Header
from .identify import FP8_DTYPES, Checkpoint, identify
from .layers import Layer, layers
from .looks import without_prefix
from .sizes import refuse_tensor

LATENT_CHANNELS = 16  # of FLUX.1's VAE
FIRST_ONLY = "relative_attention_bias.weight"  # only the first of T5's blocks has it
OUTER_TENSORS = {  # what a text encoder needs outside its blocks, beside the embeddings that its sizes are read from
    "t5": ("encoder.final_layer_norm.weight",),
    "clip_l": ("text_model.final_layer_norm.weight", "text_model.final_layer_norm.bias"),
}
EMBEDDING = re.compile(r"(^|\.)(shared|embed_tokens|token_embedding|position_embedding)$")
PACKED_DTYPES = ("U8", "I8")  # two 4-bit weights to the byte: half the columns

LOADERS = {
    "transformer": "Flux1LoadModel",
    "checkpoint": "Flux1LoadModel, or Load Checkpoint (CheckpointLoaderSimple) for all its parts",
    "t5": "Flux1LoadTextEncoders",
    "clip_l": "Flux1LoadTextEncoders",
    "autoencoder": "Flux1LoadVAE",
    "lora": "Flux1LoadLora",
    "redux": "Load Style Model (StyleModelLoader)",
    "clip_vision": "Load CLIP Vision (CLIPVisionLoader)",
    "controlnet": "Load ControlNet Model (ControlNetLoader)",
}


def expect_transformer(header: Header, variant: str | None = None) -> Checkpoint:
    """The FLUX.1 transformer in this file, whole, and able to be `variant` if that is given.

    An all-in-one checkpoint with such a transformer inside will do. Raises Flux1Error otherwise.
    """
    checkpoint = identify(header)
    if checkpoint.params is None:
        _refuse_kind(checkpoint, "a FLUX.1 transformer (diffusion model)", "Flux1LoadModel")
    check_tensors(checkpoint)
    if variant is not None:
        _check_variant(checkpoint, variant)
    return checkpoint


def expect_vae(header: Header) -> Checkpoint:
    """FLUX.1's VAE in this file. Raises Flux1Error for any other file, VAEs with other latent channels among them."""
    checkpoint = identify(header)
    if checkpoint.kind != "autoencoder":
        _refuse_kind(checkpoint, "FLUX.1's VAE (ae.safetensors)", "Flux1LoadVAE")
    if checkpoint.latent_channels != LATENT_CHANNELS:
        raise Flux1Error(
            "This VAE belongs to another model",
            file=header.file,
            expected=f"FLUX.1's VAE with {LATENT_CHANNELS} latent channels",
            found=f"a VAE with {checkpoint.latent_channels} latent channels{_owner(checkpoint.latent_channels)}",
            fix="choose FLUX.1's ae.safetensors in Flux1LoadVAE",
        )
    return checkpoint


def text_encoder_slots(first: Header, second: Header) -> tuple[Checkpoint, Checkpoint]:
    """The T5 and the CLIP-L, in this order, in two files given in any order. Raises Flux1Error for any other pair."""
    pair = [identify(first), identify(second)]
    for checkpoint in pair:
        if checkpoint.kind not in ("t5", "clip_l"):
            _refuse_kind(checkpoint, "one T5-XXL and one CLIP-L text encoder", "Flux1LoadTextEncoders")
        check_tensors(checkpoint)
    by_kind = {checkpoint.kind: checkpoint for checkpoint in pair}
    if len(by_kind) == 1:
        missing = "CLIP-L" if "t5" in by_kind else "T5-XXL"
        raise Flux1Error(
            f"The {missing} text encoder is missing",
            file=f"{first.file}, {second.file}",
            expected="one T5-XXL and one CLIP-L text encoder, in any order",
            found=f"{pair[0].what} twice",
            fix=f"choose a {missing} file in one of the two inputs of Flux1LoadTextEncoders",
        )
    return by_kind["t5"], by_kind["clip_l"]


def check_tensors(checkpoint: Checkpoint) -> None:
    """Raise Flux1Error for the first tensor that is missing, misshapen or, in scaled fp8, without its scale.

    A transformer is held against what its sizes imply, a text encoder's blocks against one another. Tensors that
    nobody asked for are tolerated.
    """
    if checkpoint.params:
        _check_transformer(checkpoint)
    elif checkpoint.kind in OUTER_TENSORS:
        _check_text_encoder(checkpoint)
    _check_scales(checkpoint)


def _check_transformer(checkpoint: Checkpoint) -> None:
    channels = {variant.params.in_channels for variant in VARIANTS.values()}
    if checkpoint.params.in_channels not in channels:
        name = checkpoint.prefix + ("img_in.weight" if checkpoint.layout == "bfl" else "x_embedder.weight")
        width = checkpoint.params.hidden_size
        refuse_tensor(checkpoint.header, name, " or ".join(str([width, count]) for count in sorted(channels)))
    for layer in layers(checkpoint.params):
        for names, shape in _tensors_of(layer, checkpoint.layout):
            _check_shape(checkpoint, [checkpoint.prefix + name for name in names], shape)


def _tensors_of(layer: Layer, layout: str | None) -> Iterator[tuple[list[str], list[int]]]:
    """The names under which a layer's tensors may stand in a layout, and each one's shape."""
    parts = [(layer.name, sum(layer.rows))] if layout == "bfl" else zip(layer.sources, layer.rows, strict=True)
    for name, rows in parts:
        if layer.is_norm:
            yield [f"{name}.scale", f"{name}.weight"] if layout == "bfl" else [f"{name}.weight"], [rows]
            continue
        yield [f"{name}.weight"], [rows, layer.columns]
        if layer.bias:
            yield [f"{name}.bias"], [rows]


def _check_shape(checkpoint: Checkpoint, names: list[str], shape: list[int]) -> None:
    tensors = checkpoint.header.tensors
    name = next((name for name in names if name in tensors), names[0])
    if name not in tensors:
        refuse_tensor(checkpoint.header, name, str(shape))
    found = list(tensors[name].shape)
    packed = tensors[name].dtype in PACKED_DTYPES and found[1:] == [size // 2 for size in shape[1:]]
    if found != shape and not (packed and found[0] == shape[0]):
        refuse_tensor(checkpoint.header, name, str(shape))


def _check_text_encoder(checkpoint: Checkpoint) -> None:
    """The blocks of a text encoder are alike: what most of them have, each has, in the shape that most have."""
    for name in OUTER_TENSORS[checkpoint.kind]:
        if checkpoint.prefix + name not in checkpoint.header.tensors and not _has_openai_names(checkpoint):
            refuse_tensor(checkpoint.header, checkpoint.prefix + name, f"[{checkpoint.text.width}]")
    blocks: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}
    for name, info in checkpoint.header.tensors.items():
        if found := re.fullmatch(r"(.*?\.(?:block|layers|resblocks))\.([0-9]{1,4})\.(.*)", name):
            stack, number, rest = found.groups()
            blocks.setdefault((stack, rest), {})[number] = info.shape
    for (stack, rest), shapes in blocks.items():
        usual, votes = Counter(shapes.values()).most_common(1)[0]
        numbers = range(checkpoint.text.layers)
        if votes * 2 < len(numbers) or "vision_model" in stack or rest.endswith(FIRST_ONLY):
            continue
        for number in map(str, numbers):
            if shapes.get(number) != usual:
                refuse_tensor(checkpoint.header, f"{stack}.{number}.{rest}", str(list(usual)))


def _has_openai_names(checkpoint: Checkpoint) -> bool:
    return any(name.startswith("transformer.resblocks.") for name in checkpoint.header.tensors)


def _check_scales(checkpoint: Checkpoint) -> None:
    if checkpoint.fp8 not in (None, "a"):
        for layer in _layers_without_scale(checkpoint):
            _refuse_scale(checkpoint, layer)


def _layers_without_scale(checkpoint: Checkpoint) -> Iterator[str]:
    """In a scaled file each fp8 matrix needs a scale, as does each layer that a marker names; embeddings do not."""
    names = {name: info for name, info in checkpoint.header.tensors.items() if name.startswith(checkpoint.prefix)}
    described = marked_layers(checkpoint.header.metadata, checkpoint.file)
    for name, info in names.items():
        layer, _, ending = name.rpartition(".")
        is_fp8 = info.dtype in FP8_DTYPES and len(info.shape) == 2 and not EMBEDDING.search(layer)
        if ending == "weight" and (is_fp8 or without_prefix(layer) in described):
            if not {f"{layer}.weight_scale", f"{layer}.scale_weight"} & names.keys():
                yield layer
        elif ending == "comfy_quant" and f"{layer}.weight_scale" not in names:
            yield layer


def _refuse_scale(checkpoint: Checkpoint, layer: str) -> NoReturn:
    old = checkpoint.fp8 == "b"
    raise Flux1Error(
        f"The scale of {layer} is missing from a scaled fp8 file: its weights would come out wrong",
        file=checkpoint.file,
        expected=f"a scale ({layer}.{'scale_weight' if old else 'weight_scale'}) for each fp8 weight",
        found="fp8 weights and a marker of scaled fp8, but no scale",
        fix="get the file again from its source: a conversion dropped the scales",
    )


def _check_variant(checkpoint: Checkpoint, variant: str) -> None:
    """The chosen variant takes as many channels as the file has, and guidance if the file does."""
    wanted, found = VARIANTS[variant].params, checkpoint.params
    if wanted.in_channels != found.in_channels:
        what, want, have = "img_in channels", wanted.in_channels, found.in_channels
    elif wanted.guidance_embed != found.guidance_embed:
        what, want, have = "a guidance embedding:", _yes(wanted.guidance_embed), _yes(found.guidance_embed)
    else:
        return
    raise Flux1Error(
        f"The file is not a FLUX.1 {variant} model",
        file=checkpoint.file,
        expected=f"{variant}: {what} {want}",
        found=f"{what} {have} ({checkpoint.what})",
        fix=f"choose a {variant} file, or another variant (auto reads it from the file)",
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _owner(latent_channels: int | None) -> str:
    return {4: " (Stable Diffusion 1, 2 or XL)", 32: " (FLUX.2)"}.get(latent_channels, "")


def _refuse_kind(checkpoint: Checkpoint, expected: str, node: str) -> NoReturn:
    right = LOADERS.get(checkpoint.kind)
    load = f"load this file with {right}; " if right and not right.startswith(node) else ""
    raise Flux1Error(
        "The file is another kind of model",
        file=checkpoint.file,
        expected=f"{expected} in {node}",
        found=checkpoint.description,
        fix=f"{load}choose {expected} in {node}",
    )
