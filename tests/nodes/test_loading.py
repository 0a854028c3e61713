"""Loading: sizes from the file, every weight_dtype, unloading and loading again."""

import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flux_core.model import Transformer
from flux_core.variants import FluxParams
from painter.family import released_names
from tests.nodes.graphs import GraphBuilder, difference, encoders, ksampler, latent_of, prompt
from workflows.client import Client
from workflows.server import Server

KONTEXT = "flux1-dev-kontext_fp8_scaled.safetensors"


def test_other_heads_than_the_released_are_read_from_the_file(pack, models):
    """ComfyUI takes every head to be 128 wide; here it is the norm's width, and the axes can be set in metadata."""
    from flux1.nodes.loaders import Flux1LoadModel

    params = FluxParams(
        vec_in_dim=32, context_in_dim=64, hidden_size=128, num_heads=4, depth=2, depth_single_blocks=2, mlp_ratio=3.0,
        axes_dim=(8, 12, 12),
    )  # fmt: skip
    torch.manual_seed(0)
    weights = released_names(Transformer(params))
    save_file(weights, models / "diffusion_models" / "heads.safetensors", {"flux1.axes_dim": "[8, 12, 12]"})
    model = Flux1LoadModel.execute("heads.safetensors", "default", "auto")[0]
    assert asdict(model.model.diffusion_model.params) == asdict(params)


def painted(running: Server, client: Client, file: str, seed: int = 5, dtype: str = "default", lora: str | None = None):
    add = GraphBuilder()
    clip, _ = encoders(add)
    flux = add("Flux1LoadModel", model_name=file, weight_dtype=dtype, variant="auto")[0]
    if lora:
        flux = add("LoraLoaderModelOnly", model=flux, lora_name=lora, strength_model=1.0)[0]
    latent = add("EmptySD3LatentImage", width=64, height=64, batch_size=1)[0]
    text = prompt(add, clip)
    return latent_of(running, client, add, ksampler(add, flux, text, text, latent, seed=seed))


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp8_e4m3fn", "fp8_e5m2"])
def test_every_weight_dtype_paints_nearly_the_same(dtype, running: Server, server: Client):
    default = painted(running, server, "flux1-dev.safetensors")
    cast = painted(running, server, "flux1-dev.safetensors", dtype=dtype)
    error = difference(cast, default)
    assert error < (0.05 if "16" in dtype else 2.0)
    assert "16" in dtype or error > 1e-3  # fp8 loses something, or it was not used


@pytest.mark.parametrize("file", ["flux1-dev.safetensors", KONTEXT])
def test_unloaded_and_loaded_again_it_paints_the_same(file, running: Server, server: Client):
    """ComfyUI's own loader fails for ever once a scaled fp8 model was unloaded. Seeds are new: nothing is cached."""
    before = painted(running, server, file, seed=901)
    server.post("/free", {"unload_models": True})
    painted(running, server, file, seed=902)
    server.post("/free", {"unload_models": True, "free_memory": True})
    assert torch.equal(painted(running, server, file, seed=901), before)


@pytest.mark.parametrize("file", ["flux1-dev.safetensors", KONTEXT])
def test_a_lora_leaves_no_trace(file, running: Server, server: Client, models):
    (models / "loras").mkdir(exist_ok=True)
    torch.manual_seed(1)
    down, up = torch.randn(4, 128), torch.randn(128, 4)
    name = "lora_unet_double_blocks_0_img_attn_proj"
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, models / "loras" / "trace.safetensors")
    before = painted(running, server, file, seed=911)
    assert difference(painted(running, server, file, seed=911, lora="trace.safetensors"), before) > 0.01
    server.post("/free", {"unload_models": True})
    painted(running, server, file, seed=912, lora="trace.safetensors")
    server.post("/free", {"free_memory": True})
    assert torch.equal(painted(running, server, file, seed=911), before)


@pytest.mark.parametrize("name", ["nowhere.safetensors", None, 5, {"a": 1}, "../x", "nul\0.safetensors"])
def test_a_fingerprint_never_raises(name, pack):
    from flux1.nodes.loaders import stamp

    assert stamp("diffusion_models", name) == stamp("diffusion_models", name)


def test_a_stamp_sees_time_size_and_header_each_by_itself(pack, models):
    from flux1.nodes.loaders import stamp

    path, stamps = models / "vae" / "stamped.safetensors", set()
    for tensor, time, more in (("x", 0, b""), ("x", 1, b""), ("x", 0, b"more"), ("y", 0, b"")):
        save_file({tensor: torch.zeros(3)}, path)
        path.write_bytes(path.read_bytes() + more)
        os.utime(path, ns=(time, time))
        stamps.add(stamp("vae", path.name))
    assert len(stamps) == 4


NAMES = {
    "Flux1LoadModel": {"model_name": "diffusion_models/flux1-dev.safetensors"},
    "Flux1LoadTextEncoders": {
        "t5_name": "text_encoders/t5xxl_fp16.safetensors",
        "clip_name": "text_encoders/clip_l.safetensors",
    },
    "Flux1LoadVAE": {"vae_name": "vae/ae.safetensors"},
    "Flux1LoadLora": {"lora_name": "loras/stamped.safetensors"},
}
"""By loader the inputs that name its files, and the files."""


@pytest.mark.parametrize(("loader", "name"), [(loader, name) for loader, names in NAMES.items() for name in names])
def test_a_loader_s_fingerprint_changes_with_each_of_its_files(loader, name, pack, models):
    from flux1.nodes import NODES

    (models / "loras").mkdir(exist_ok=True)
    save_file({"x": torch.zeros(3)}, models / "loras" / "stamped.safetensors")
    (node,) = (node for node in NODES if node.__name__ == loader)
    given = {each: Path(file).name for each, file in NAMES[loader].items()}
    before, path = node.fingerprint_inputs(**given), models / NAMES[loader][name]
    assert node.fingerprint_inputs(**given) == before
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert node.fingerprint_inputs(**given) != before


def anonymous_memory() -> int:
    """Bytes of this process that no file stands behind."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def test_a_16_bit_file_is_mapped_not_copied(pack, models):
    """What is not needed, such as modulations after a run, the system can drop and read again."""
    from flux1.nodes.loaders import Flux1LoadModel

    params = FluxParams(hidden_size=1024, num_heads=8, depth=3, depth_single_blocks=4)
    weights = {k: v.to(torch.bfloat16) for k, v in released_names(Transformer(params)).items()}
    path = models / "diffusion_models" / "large.safetensors"
    save_file(weights, path)
    del weights
    before = anonymous_memory()
    model = Flux1LoadModel.execute(path.name, "default", "auto", "bf16")[0]
    assert model.model.diffusion_model.img_in.weight.dtype == torch.bfloat16
    assert anonymous_memory() - before < 0.1 * path.stat().st_size
    path.unlink()


@pytest.mark.parametrize("compute", ["bf16", "fp32"])
def test_it_computes_in_what_it_is_told(compute, pack):
    from flux1.nodes.loaders import Flux1LoadModel

    seen = []
    model = Flux1LoadModel.execute("flux1-dev.safetensors", "default", "auto", compute)[0]
    model.model.diffusion_model.img_in.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    text = [[torch.randn(1, 12, 64), {"pooled_output": torch.randn(1, 64), "guidance": 3.5}]]
    from flux1.nodes.sampling import Flux1Sampler

    Flux1Sampler.execute(model, text, {"samples": torch.zeros(1, 16, 8, 8)}, seed=1, steps=1, strength=1.0)
    assert set(seen) == {torch.bfloat16 if compute == "bf16" else torch.float32}


@pytest.fixture
def cramped(pack):
    """A model on a device that holds the blocks, but not all."""
    from flux1.nodes.loaders import Flux1LoadModel

    model = Flux1LoadModel.execute("flux1-dev.safetensors", "default", "auto")[0]
    flux = model.model.diffusion_model
    modulations = {part for layer in flux.modulation_layers() for part in layer.modules() if hasattr(part, "weight")}
    return model, modulations


def test_modulations_are_the_first_to_stay_outside(cramped):
    model, modulations = cramped
    for_casting = max(row[0] for row in model._load_list())
    room = model.model_size() - sum(module.weight.nbytes + module.bias.nbytes for module in modulations) + for_casting
    model.load(torch.device("cpu"), lowvram_model_memory=room)
    outside = {part for part in model.model.modules() if getattr(part, "comfy_cast_weights", False)}
    assert model.model.model_lowvram and len(outside) >= len(modulations) - 2
    assert outside <= modulations
    model.detach()


def test_modulations_are_the_last_that_dynamic_memory_keeps(cramped):
    model, modulations = cramped
    kept = [row[-2] for row in sorted(model._load_list(for_dynamic=True), key=lambda row: row[:-2])]
    assert set(kept[-len(modulations) :]) == modulations
