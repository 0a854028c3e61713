"""Small graphs for the server, and their results as latents."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from workflows.client import Client
from workflows.graph import GraphBuilder, Link
from workflows.server import Server

PROMPT = "a lake below three mountains, red evening sky"


def encoders(add: GraphBuilder) -> tuple[Link, Link]:
    """CLIP and VAE: ComfyUI's own loaders know no tiny ones."""
    clip = add("Flux1LoadTextEncoders", t5_name="t5xxl_fp16.safetensors", clip_name="clip_l.safetensors")[0]
    return clip, add("Flux1LoadVAE", vae_name="ae.safetensors")[0]


def model(add: GraphBuilder, loader: str, file: str = "flux1-dev.safetensors", **settings) -> Link:
    """MODEL by ours (`Flux1LoadModel`) or ComfyUI's loader (`UNETLoader`)."""
    if loader == "UNETLoader":
        return add("UNETLoader", unet_name=file, weight_dtype=settings.get("weight_dtype", "default"))[0]
    return add("Flux1LoadModel", model_name=file, weight_dtype="default", variant="auto", **settings)[0]


def prompt(add: GraphBuilder, clip: Link, text: str = PROMPT, guidance: float = 3.5) -> Link:
    """The prompt by ComfyUI's own node, the same for both arms of a comparison."""
    return add("CLIPTextEncodeFlux", clip=clip, clip_l=text, t5xxl=text, guidance=guidance)[0]


def ksampler(add: GraphBuilder, model: Link, positive: Link, negative: Link, latent: Link, **settings) -> Link:
    values = {"seed": 5, "steps": 3, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return add(
        "KSampler", model=model, positive=positive, negative=negative, latent_image=latent, **{**values, **settings}
    )[0]


def latent_of(running: Server, client: Client, add: GraphBuilder, latent: Link) -> torch.Tensor:
    """Run the graph and read the latent, every bit of it, from the file that SaveLatent writes."""
    saver = add("SaveLatent", samples=latent, filename_prefix="test/latent")[0][0]
    (saved,) = client.run(add.graph).outputs[saver]["latents"]
    file: Path = running.output / saved["subfolder"] / saved["filename"]
    return load_file(file)["latent_tensor"]


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, in units of the latents' own deviation."""
    assert theirs.isfinite().all() and theirs.std() > 0.1
    return ((ours - theirs).abs().max() / theirs.std()).item()
