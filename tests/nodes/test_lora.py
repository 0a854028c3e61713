"""Load LoRA through /prompt: a LoRA, in whatever dialect, is the weights it stands for, and nothing once it is gone."""

import itertools
from collections.abc import Callable

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from painter.family import PARAMS, load_transformer, released_names
from tests.flux_core import lora_samples as samples
from tests.nodes.graphs import GraphBuilder, difference, encoders, ksampler, model, prompt
from workflows.client import Client, Result, RunError
from workflows.graph import Link
from workflows.server import Server

DEV, FP8 = "flux1-dev.safetensors", "flux1-dev-kontext_fp8_scaled.safetensors"
TOLERANCE = 1e-5
CONTROL = "flux1-canny-dev-lora.safetensors"

DIALECTS: dict[str, Callable[[samples.Pairs], dict[str, torch.Tensor]]] = {
    "BFL": samples.bfl,
    "BFL in ComfyUI": lambda pairs: samples.bfl(pairs, prefix="diffusion_model."),
    "PEFT": lambda pairs: samples.bfl(pairs, prefix="base_model.model."),
    "ai-toolkit": lambda pairs: samples.diffusers(pairs, PARAMS),
    "PEFT on diffusers": lambda pairs: samples.diffusers(pairs, PARAMS, "base_model.model.", ".default"),
    "OneTrainer": lambda pairs: samples.onetrainer(pairs, PARAMS),
    "kohya": samples.kohya,
    "XLabs": lambda pairs: samples.xlabs(pairs, PARAMS),
}


def merged(weights: dict[str, torch.Tensor], pairs: samples.Pairs, strength: float = 1.0) -> dict[str, torch.Tensor]:
    """The weights with the LoRA in them, in float32, img_in as wide as the LoRA has it."""
    out = {name: tensor.float() for name, tensor in weights.items()}
    for name, (up, down) in pairs.items():
        weight = out[f"{name}.weight"]
        wide = torch.zeros(len(weight), max(weight.shape[1], down.shape[1]))
        wide[:, : weight.shape[1]] = weight
        wide[:, : down.shape[1]] += strength * up @ down
        out[f"{name}.weight"] = wide
    return out


@pytest.fixture(scope="module")
def files(models) -> None:
    folder, loras = models / "diffusion_models", models / "loras"
    loras.mkdir(exist_ok=True)
    weights = released_names(load_transformer(folder / DEV, "dev"))
    torch.manual_seed(0)
    style = samples.random_lora(PARAMS, size=0.2)
    attention = samples.attention_only(style, PARAMS)
    for dialect, write in DIALECTS.items():
        save_file(write(attention), loras / f"{dialect}.safetensors")
    save_file(merged(weights, attention), folder / "merged attention.safetensors")
    save_file(samples.kohya(style), loras / "style.safetensors")
    save_file(samples.diffusers(style, PARAMS), loras / "style in diffusers.safetensors")
    save_file(merged(weights, style), folder / "merged style.safetensors")
    save_file(merged(merged(weights, style), attention, 0.5), folder / "merged both.safetensors")

    pairs, biases, norms = samples.random_control(PARAMS)
    save_file(samples.bfl_control(pairs, biases, norms), loras / CONTROL)
    translated = samples.diffusers(pairs, PARAMS)
    for name, source, bias, _ in samples.split({n: (b, b) for n, b in biases.items()}, PARAMS):
        swapped = torch.cat(bias.chunk(2)[::-1]) if name == "final_layer.adaLN_modulation.1" else bias
        translated[f"transformer.{source}.lora_B.bias"] = swapped
    translated |= {f"transformer.{samples.diffusers_norm(name)}.weight": scale for name, scale in norms.items()}
    save_file(translated, loras / "depth in diffusers.safetensors")
    for strength in (0.85, 0.5):
        control = merged(weights, pairs, strength)
        control |= {f"{name}.bias": control[f"{name}.bias"] + strength * bias for name, bias in biases.items()}
        control |= {f"{name}.scale": scale for name, scale in norms.items()}
        save_file(control, folder / f"merged canny {strength}.safetensors")
        if strength == 0.85:
            save_file(merged(control, style), folder / "merged canny and style.safetensors")

    fp8 = released_names(load_transformer(folder / FP8, "kontext"))
    save_file(merged(fp8, style), folder / "merged fp8.safetensors")
    text = {"lora_te1_text_model_encoder_layers_0_self_attn_q_proj": torch.randn(64, 4),
            "lora_te1_text_model_encoder_layers_1_mlp_fc1": torch.randn(256, 4)}  # fmt: skip
    both = samples.kohya(attention)
    for name, up in text.items():
        both |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": torch.randn(4, 64)}
    save_file(both, loras / "with text.safetensors")
    save_file({"lora_te3_encoder.lora_up.weight": torch.ones(2, 2), **samples.bfl(attention)}, loras / "t5.safetensors")
    sdxl = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k"
    save_file(
        {f"{sdxl}.lora_down.weight": torch.ones(4, 9), f"{sdxl}.alpha": torch.ones(())}, loras / "sdxl.safetensors"
    )
    big = samples.bfl({"double_blocks.0.img_attn.proj": (torch.randn(3072, 4), torch.randn(4, 3072))})
    save_file(big, loras / "released size.safetensors")
    whole = (loras / CONTROL).read_bytes()
    (loras / "half.safetensors").write_bytes(whole[: len(whole) // 2])


def lora(name: str, strength: float | None = 1.0, **inputs) -> Callable[[GraphBuilder, Link], Link]:
    """A step that adds a LoRA; strength None leaves it to the file."""
    how = {"strength": "by file"} if strength is None else {"strength": "custom", "strength.value": strength}
    return lambda add, flux: add("Flux1LoadLora", model=flux, lora_name=name, **how, **inputs)[0]


FRESH = itertools.count()


def run(client: Client, file: str, *steps: Callable, loader: str = "Flux1LoadModel", picture: bool = False):
    """The result of a small picture, and the id of SaveLatent; the sampler never comes out of the server's cache."""
    add = GraphBuilder()
    clip, vae = encoders(add)
    flux = model(add, loader, file)
    for step in steps:
        flux = step(add, flux)
    text = prompt(add, clip)
    latent = add("EmptySD3LatentImage", width=64, height=64, batch_size=1)[0]
    if picture:
        edges = add("LoadImage", image="edges.png")[0]
        text, latent = add("Flux1ControlConditioning", conditioning=text, vae=vae, control_image=edges)[:2]
    sampled = ksampler(add, flux, text, text, latent, steps=2, fresh=next(FRESH))
    saver = add("SaveLatent", samples=sampled, filename_prefix="test/lora")[0][0]
    result = client.run(add.graph)
    assert sampled[0] not in result.cached
    return result, saver


def painted(running: Server, client: Client, file: str, *steps: Callable, **settings) -> torch.Tensor:
    result, saver = run(client, file, *steps, **settings)
    (saved,) = result.outputs[saver]["latents"]
    return load_file(running.output / saved["subfolder"] / saved["filename"])["latent_tensor"]


def report(result: Result) -> str:
    return next(output["text"][0] for output in result.outputs.values() if "text" in output)


@pytest.fixture(scope="module")
def edges(server: Client) -> None:
    server.upload(Image.effect_noise((64, 64), 80).convert("RGB"), "edges.png")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_the_merged_weights(dialect, running: Server, server: Client, files):
    ours = painted(running, server, DEV, lora(f"{dialect}.safetensors"))
    assert difference(ours, painted(running, server, "merged attention.safetensors")) <= TOLERANCE
    assert difference(ours, painted(running, server, DEV)) > 0.01


@pytest.mark.parametrize("name", ["style.safetensors", "style in diffusers.safetensors"])
@pytest.mark.parametrize("loader", ["Flux1LoadModel", "UNETLoader"])
def test_every_layer_takes_part(name, loader, running: Server, server: Client, files):
    ours = painted(running, server, DEV, lora(name), loader=loader)
    assert difference(ours, painted(running, server, "merged style.safetensors")) <= TOLERANCE


@pytest.mark.parametrize("strength", [None, 0.5])
@pytest.mark.parametrize("name", [CONTROL, "depth in diffusers.safetensors"])
def test_a_control_lora_is_a_control_model(name, strength, running: Server, server: Client, files, edges):
    """By file it has the strength of Black Forest Labs' code, 0.85."""
    ours = painted(running, server, DEV, lora(name, strength), picture=True)
    theirs = painted(running, server, f"merged canny {strength or 0.85}.safetensors", picture=True)
    assert difference(ours, theirs) <= TOLERANCE
    assert difference(ours, painted(running, server, DEV, lora(name, strength))) > 0.01  # no picture


@pytest.mark.parametrize("memory", [0, 1])
def test_img_in_is_wide_however_little_memory_there_is(memory, pack, models, files):
    """ComfyUI patches what it keeps off the device only while that is used; 1 stands for a byte to load models into."""
    from flux1.nodes.loaders import Flux1LoadModel
    from flux1.nodes.lora import Flux1LoadLora

    plain = Flux1LoadModel.execute(DEV, "default", "auto")[0]
    wide = Flux1LoadLora.execute(plain, CONTROL, {"strength": "by file"})[0]
    wide.patch_model(torch.device("cpu"), lowvram_model_memory=memory)
    assert wide.model.model_lowvram == bool(memory)
    assert wide.model.diffusion_model.img_in.weight.shape[1] == 128
    wide.unpatch_model(torch.device("cpu"))
    assert plain.model.diffusion_model.img_in.weight.shape[1] == 64


def test_several_add_up(running: Server, server: Client, files, edges):
    steps = [lora("style.safetensors"), lora("BFL.safetensors", 0.5)]
    both = painted(running, server, "merged both.safetensors")
    for order in (steps, steps[::-1]):
        assert difference(painted(running, server, DEV, *order), both) <= TOLERANCE
    steps = [lora("style.safetensors"), lora(CONTROL, None)]  # one of img_in as it was, one of img_in widened
    both = painted(running, server, "merged canny and style.safetensors", picture=True)
    for order in (steps, steps[::-1]):
        assert difference(painted(running, server, DEV, *order, picture=True), both) <= TOLERANCE


@pytest.mark.parametrize("file", [DEV, FP8])
@pytest.mark.parametrize("name", ["style.safetensors", CONTROL])
def test_strength_zero_and_a_lora_that_is_gone_leave_no_bit(name, file, running: Server, server: Client, files):
    before = painted(running, server, file)
    assert torch.equal(painted(running, server, file, lora(name, 0.0)), before)
    assert not torch.equal(painted(running, server, file, lora(name)), before)
    assert torch.equal(painted(running, server, file), before)
    server.post("/free", {"unload_models": True})
    painted(running, server, file, lora(name))
    server.post("/free", {"unload_models": True})
    assert torch.equal(painted(running, server, file), before)


def test_on_scaled_fp8_it_is_the_merged_weights_but_for_fp8_s_rounding(running: Server, server: Client, files):
    ours = painted(running, server, FP8, lora("style.safetensors"))
    theirs = painted(running, server, "merged fp8.safetensors")
    plain = painted(running, server, FP8)
    assert (ours - theirs).norm() < 0.1 * (plain - theirs).norm()


def test_the_report_counts(running: Server, server: Client, files):
    keys = len(samples.linear_layers(PARAMS)) * 3
    said = report(run(server, DEV, lora("style.safetensors"))[0])
    assert said == f"LoRA at strength 1; {keys} of {keys} keys loaded (kohya {keys})"
    said = report(run(server, DEV, lora("with text.safetensors", None))[0])
    attention = 3 * 20
    assert f"{attention} of {attention + 4} keys loaded (kohya {attention})" in said
    assert "4 ignored, of a text encoder, no CLIP connected" in said
    assert "control LoRA at strength 0.85" in report(run(server, DEV, lora(CONTROL, None))[0])


def test_the_text_encoders_take_their_part(running: Server, server: Client, files):
    """As ComfyUI's own LoRA loader gives it to them."""

    def encoded(loader: str, **inputs) -> tuple[torch.Tensor, Result]:
        add = GraphBuilder()
        clip, _ = encoders(add)
        name = "with text.safetensors"
        flux, changed = add(loader, model=model(add, "Flux1LoadModel"), lora_name=name, clip=clip, **inputs)[:2]
        text = prompt(add, changed)
        latent = add("EmptySD3LatentImage", width=64, height=64, batch_size=1)[0]
        sampled = ksampler(add, flux, text, text, latent, steps=2)
        saver = add("SaveLatent", samples=sampled, filename_prefix="test/lora")[0][0]
        result = server.run(add.graph)
        (saved,) = result.outputs[saver]["latents"]
        return load_file(running.output / saved["subfolder"] / saved["filename"])["latent_tensor"], result

    ours, result = encoded("Flux1LoadLora", strength="custom", **{"strength.value": 0.7})
    theirs, _ = encoded("LoraLoader", strength_model=0.7, strength_clip=0.7)
    assert "64 of 64 keys loaded (kohya 60, text encoder 4)" in report(result)
    assert difference(ours, theirs) <= TOLERANCE
    assert difference(ours, painted(running, server, DEV, lora("with text.safetensors", 0.7))) > 1e-3


@pytest.mark.parametrize(("name", "guidance"), [(CONTROL, 30), ("depth in diffusers.safetensors", 10)])
def test_with_a_control_lora_dev_has_the_control_model_s_guidance(name, guidance, server: Client, files):
    add = GraphBuilder()
    clip, _ = encoders(add)
    flux = lora(name, None)(add, model(add, "Flux1LoadModel"))
    encode = add("Flux1TextEncode", clip=clip, prompt="a lake", guidance=3.5, model=flux)[0]
    add("PreviewAny", source=encode)
    assert f"guidance {guidance}" in server.run(add.graph).outputs[encode[0]]["text"][0]


REFUSED = {  # the file, whether already at queue time, words
    "SDXL": ("sdxl.safetensors", True, ["0 of 2 keys", "SDXL"]),
    "truncated": ("half.safetensors", True, ["half.safetensors", "truncated"]),
    "missing": ("nowhere.safetensors", True, ["not in list", "loras"]),
    "path": ("../vae/ae.safetensors", True, ["not in list"]),
    "other sizes": (
        "released size.safetensors",
        False,
        ["double_blocks.0.img_attn.proj", "[128, 128]", "[3072, 3072]"],
    ),
}


def test_a_number_where_the_choice_belongs_is_refused_with_the_right_spelling(server: Client, files):
    with pytest.raises(RunError, match=r'"strength": "custom", "strength.value"') as caught:
        run(
            server,
            DEV,
            lambda add, flux: add("Flux1LoadLora", model=flux, lora_name="BFL.safetensors", strength=0.5)[0],
        )
    assert caught.value.status == 400


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_nothing_is_refused(case, running: Server, server: Client, files):
    name, at_once, words = REFUSED[case]
    with pytest.raises(RunError) as caught:
        run(server, DEV, lora(name))
    text = str(caught.value)
    assert caught.value.status == (400 if at_once else None)
    assert all(word.lower() in text.lower() for word in [*words, "Expected:", "Found:", "Fix:"]), text


def test_a_control_picture_without_the_control_lora_is_refused(server: Client, files, edges):
    with pytest.raises(RunError, match=r"Canny or Depth model.*in_channels 128.*in_channels 64"):
        run(server, DEV, lora("style.safetensors"), picture=True)
