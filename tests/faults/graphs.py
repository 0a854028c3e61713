"""Graphs that a fault is put into, the pictures they give, and what a refusal has to say."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.nodes.graphs import encoders
from workflows.client import Client, Result, RunError
from workflows.graph import GraphBuilder, Link

DEV, FILL, KONTEXT = "flux1-dev.safetensors", "flux1-fill-dev.safetensors", "flux1-dev-kontext_fp8_scaled.safetensors"
CANNY, T5, CLIP, VAE = "flux1-canny-dev.safetensors", "t5xxl_fp16.safetensors", "clip_l.safetensors", "ae.safetensors"
CONTRACT = ("Expected: .", "Found: .", "Fix: .")


class Painting(NamedTuple):
    """Ids of the node that samples and the node that saves."""

    sampler: str
    saver: str


def load_model(add: GraphBuilder, file: Any = DEV, **settings: Any) -> Link:
    return add("Flux1LoadModel", **{"model_name": file, "weight_dtype": "default", "variant": "auto", **settings})[0]


def text_encode(add: GraphBuilder, clip: Link, prompt: Any = "a lake", **settings: Any) -> Link:
    return add("Flux1TextEncode", **{"clip": clip, "prompt": prompt, "guidance": 3.5, "t5_length": "128", **settings})[
        0
    ]


def empty(add: GraphBuilder, batch_size: int = 1, width: int = 64, height: int = 64) -> Link:
    return add("Flux1EmptyLatent", preset="custom", width=width, height=height, batch_size=batch_size)[0]


def load_image(add: GraphBuilder, name: str) -> Link:
    return add("LoadImage", image=name)[0]


def load_mask(add: GraphBuilder, name: str) -> Link:
    return add("LoadImageMask", image=name, channel="red")[0]


def saved(add: GraphBuilder, image: Link) -> str:
    return add("SaveImage", images=image, filename_prefix="faults/picture")[0][0]


def paint(
    add: GraphBuilder, model: Link, positive: Link, latent: Link, vae: Link, seed: int = 1, **settings: Any
) -> Painting:
    sampled = add(
        "Flux1Sampler", model=model, positive=positive, latent=latent, seed=seed, **{"steps": 2, "strength": 1.0, **settings}
    )[0]  # fmt: skip
    return Painting(sampled[0], saved(add, add("Flux1DecodeImage", latent=sampled, vae=vae)[0]))


def text_to_image(add: GraphBuilder, file: str = DEV, seeds: Iterable[int] = (1,), **settings: Any) -> list[Painting]:
    """64 pixels, two steps, as many pictures as seeds; `settings` are the model loader's."""
    clip, vae = encoders(add)
    model, positive, latent = load_model(add, file, **settings), text_encode(add, clip), empty(add)
    return [paint(add, model, positive, latent, vae, seed) for seed in seeds]


def pixels(result: Result, saver: str) -> np.ndarray:
    """What a node has saved, `(b, height, width, 3)` uint8."""
    savers = [node for node, output in result.outputs.items() for _ in output.get("images", [])]
    return np.stack([np.asarray(image) for node, image in zip(savers, result.images, strict=True) if node == saver])


def run(client: Client, add: GraphBuilder, painting: Painting) -> np.ndarray:
    """The pixels of a run whose sampler really ran."""
    result = client.run(add.graph)
    assert painting.sampler not in result.cached
    return pixels(result, painting.saver)


def alike(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ours.shape == theirs.shape and bool((ours == theirs).all())


def check_finite(picture: np.ndarray) -> None:
    """Neither black nor white nor flat, as a picture of NaN would be."""
    assert 0 < picture.mean() < 255 and picture.std() > 0


def refusal(client: Client, add: GraphBuilder) -> RunError:
    with pytest.raises(RunError) as caught:
        client.run(add.graph)
    return caught.value


def refused_at_once(client: Client, add: GraphBuilder, node: str, *words: str) -> None:
    """Answered by 400 before anything runs, with the node named and the contract kept."""
    error = refusal(client, add)
    assert error.status == 400, error
    (entry,) = (entry for entry in error.node_errors.values() if entry["errors"])
    assert entry["class_type"] == node
    check_words(" ".join(each["details"] for each in entry["errors"]), *CONTRACT, *words)


def refused_while_running(client: Client, add: GraphBuilder, node: str, *words: str) -> None:
    error = refusal(client, add)
    assert error.node_type == node, error
    check_words(error.answer["exception_message"], *CONTRACT, *words)


def check_words(text: str, *words: str) -> None:
    assert all(re.search(word, text, re.IGNORECASE) for word in words), text


def said_by(result: Result, node: str) -> str:
    """What a node has said under itself; nothing where it did not have to run."""
    return " ".join(result.outputs.get(node, {}).get("text", []))


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture of soft random colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
