"""Load LoRA through /prompt: a LoRA, in whatever dialect, is the weights it stands for, and nothing once it is gone."""

import itertools
from collections.abc import Callable
from functools import cache

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from painter.family import PARAMS, load_transformer, released_names
from tests.flux_core import lora_samples as samples
from tests.nodes.graphs import GraphBuilder, difference, encoders, ksampler, latent_of, model, prompt
from workflows.client import Client, RunError
from workflows.graph import Link
from workflows.server import Server

DEV, FP8 = "flux1-dev.safetensors", "flux1-dev-kontext_fp8_scaled.safetensors"
TOLERANCE = 1e-5
CONTROL = "canny in BFL.safetensors"

DIALECTS: dict[str, Callable[[samples.Pairs], dict[str, torch.Tensor]]] = {
    "BFL": samples.bfl,
    "BFL in ComfyUI": lambda pairs: samples.bfl(pairs, prefix="diffusion_model."),
    "PEFT": lambda pairs: samples.bfl(pairs, prefix="base_model.model."),
    "ai-toolkit": lambda pairs: samples.diffusers(pairs, PARAMS),
    "PEFT on diffusers": lambda pairs: samples.diffusers(pairs, PARAMS, "base_model.model.", ".default"),
    "OneTrainer": lambda pairs: samples.onetrainer(pairs, PARAMS),
    "kohya": samples.kohya,
    "kohya on diffusers": lambda pairs: samples.underscored(samples.diffusers(pairs, PARAMS, ""), "lora_unet_"),
    "LyCORIS": lambda pairs: samples.underscored(samples.diffusers(pairs, PARAMS, ""), "lycoris_"),
    "XLabs": lambda pairs: samples.xlabs(pairs, PARAMS),
}
SAID = {  # whose naming the report says it is, where that is not the dialect's own name
    "BFL in ComfyUI": "BFL", "ai-toolkit": "diffusers", "PEFT on diffusers": "PEFT", "kohya on diffusers": "kohya",
}  # fmt: skip


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


def painted(
    running: Server, client: Client, file: str, *steps: Callable, loader: str = "Flux1LoadModel", picture: bool = False
) -> torch.Tensor:
    """The latent of a small picture; its sampler never comes out of the server's cache."""
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
    (saved,) = result.outputs[saver]["latents"]
    return load_file(running.output / saved["subfolder"] / saved["filename"])["latent_tensor"]


@pytest.fixture(scope="module")
def known(running: Server, server: Client, files, edges) -> Callable[..., torch.Tensor]:
    """The pictures that much is compared with, each painted once: of a model file, with or without a control picture."""
    return cache(lambda file, picture=False: painted(running, server, file, picture=picture))


def report(client: Client, step: Callable) -> str:
    """What the node says, without a picture."""
    add = GraphBuilder()
    flux = step(add, model(add, "Flux1LoadModel"))
    add("PreviewAny", source=flux)
    return client.run(add.graph).outputs[flux[0]]["text"][0]


@pytest.fixture(scope="module")
def edges(server: Client) -> None:
    server.upload(Image.effect_noise((64, 64), 80).convert("RGB"), "edges.png")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_the_merged_weights(dialect, running: Server, server: Client, known):
    ours = painted(running, server, DEV, lora(f"{dialect}.safetensors"))
    assert difference(ours, known("merged attention.safetensors")) <= TOLERANCE
    assert difference(ours, known(DEV)) > 0.01


@pytest.mark.parametrize(
    ("name", "loader"),
    [
        ("style.safetensors", "Flux1LoadModel"),
        ("style in diffusers.safetensors", "Flux1LoadModel"),
        ("style.safetensors", "UNETLoader"),
    ],
)
def test_every_layer_takes_part(name, loader, running: Server, server: Client, known):
    ours = painted(running, server, DEV, lora(name), loader=loader)
    assert difference(ours, known("merged style.safetensors")) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "strength"), [(CONTROL, None), (CONTROL, 0.5), ("depth in diffusers.safetensors", None)]
)
def test_a_control_lora_is_a_control_model(name, strength, running: Server, server: Client, known):
    """By file it has the strength of Black Forest Labs' code, 0.85."""
    ours = painted(running, server, DEV, lora(name, strength), picture=True)
    file = f"merged canny {strength or 0.85}.safetensors"
    assert difference(ours, known(file, picture=True)) <= TOLERANCE
    assert difference(ours, known(file)) > 0.01  # the control picture counts


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


def test_loha_lokr_and_whole_differences_are_what_they_say(pack, models, files):
    """On rows of a fused layer, as LyCORIS trains diffusers' layers."""
    from flux1.nodes.loaders import Flux1LoadModel
    from flux1.nodes.lora import Flux1LoadLora

    torch.manual_seed(2)
    a, b, c, d = (torch.randn(shape) for shape in ((128, 4), (4, 128), (128, 4), (4, 128)))
    small, big, whole = torch.randn(8, 16), torch.randn(16, 8), torch.randn(512, 128)
    name = "lycoris_single_transformer_blocks_1_"
    parts = {"attn_to_q.hada_w1_a": a, "attn_to_q.hada_w1_b": b, "attn_to_q.hada_w2_a": c, "attn_to_q.hada_w2_b": d,
             "attn_to_v.lokr_w1": small, "attn_to_v.lokr_w2": big, "proj_mlp.diff": whole}  # fmt: skip
    save_file({name + part: tensor for part, tensor in parts.items()}, models / "loras" / "lycoris.safetensors")
    plain = Flux1LoadModel.execute(DEV, "default", "auto")[0]
    changed = Flux1LoadLora.execute(plain, "lycoris.safetensors", {"strength": "by file"})[0]
    weight = plain.model.diffusion_model.single_blocks[1].linear1.weight.detach().clone()
    changed.patch_model(torch.device("cpu"))
    difference = changed.model.diffusion_model.single_blocks[1].linear1.weight - weight
    expected = torch.cat([(a @ b) * (c @ d), torch.zeros(128, 128), torch.kron(small, big), whole])
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=1e-4)
    changed.unpatch_model(torch.device("cpu"))


def test_several_add_up(running: Server, server: Client, known):
    both = painted(running, server, DEV, lora("style.safetensors"), lora("BFL.safetensors", 0.5))
    assert difference(both, known("merged both.safetensors")) <= TOLERANCE
    steps = [lora("style.safetensors"), lora(CONTROL, None)]  # the one knows img_in as it was, the other widens it
    for order in (steps, steps[::-1]):
        ours = painted(running, server, DEV, *order, picture=True)
        assert difference(ours, known("merged canny and style.safetensors", picture=True)) <= TOLERANCE


@pytest.mark.parametrize("file", [DEV, FP8])
def test_strength_zero_and_a_lora_that_is_gone_leave_no_bit(file, running: Server, server: Client, known):
    before, both = known(file), [lora("style.safetensors"), lora(CONTROL)]
    off = [lora("style.safetensors", 0.0), lora(CONTROL, 0.0)]
    assert torch.equal(painted(running, server, file, *off), before)
    assert not torch.equal(painted(running, server, file, *both), before)
    assert torch.equal(painted(running, server, file), before)
    server.post("/free", {"unload_models": True})
    painted(running, server, file, *both)
    server.post("/free", {"unload_models": True})
    assert torch.equal(painted(running, server, file), before)


def test_on_scaled_fp8_it_is_the_merged_weights_but_for_fp8_s_rounding(running: Server, server: Client, known):
    ours, merged = painted(running, server, FP8, lora("style.safetensors")), known("merged fp8.safetensors")
    assert (ours - merged).norm() < 0.1 * (known(FP8) - merged).norm()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_report_counts_every_key_of_the_file(dialect, server: Client, models, files):
    keys = len(load_file(models / "loras" / f"{dialect}.safetensors"))
    said = report(server, lora(f"{dialect}.safetensors"))
    assert said == f"LoRA at strength 1; {keys} of {keys} keys loaded ({SAID.get(dialect, dialect)} {keys})"


def test_the_report_counts(server: Client, files):
    keys = len(samples.linear_layers(PARAMS)) * 3
    said = report(server, lora("style.safetensors"))
    assert said == f"LoRA at strength 1; {keys} of {keys} keys loaded (kohya {keys})"
    said = report(server, lora("with text.safetensors", None))
    attention = 3 * 20
    assert f"{attention} of {attention + 4} keys loaded (kohya {attention})" in said
    assert "4 ignored, of a text encoder, no CLIP connected" in said
    said = report(server, lambda add, flux: lora("with text.safetensors", clip=encoders(add)[0])(add, flux))
    assert f"{attention + 4} of {attention + 4} keys loaded (kohya {attention}, text encoder 4)" in said
    assert "control LoRA at strength 0.85" in report(server, lora(CONTROL, None))


def test_the_text_encoders_take_their_part(running: Server, server: Client, files):
    """As ComfyUI's own LoRA loader gives it to them."""

    def with_text(loader: str, **inputs) -> torch.Tensor:
        add = GraphBuilder()
        clip, _ = encoders(add)
        name = "with text.safetensors"
        flux, changed = add(loader, model=model(add, "Flux1LoadModel"), lora_name=name, clip=clip, **inputs)[:2]
        text = prompt(add, changed)
        latent = add("EmptySD3LatentImage", width=64, height=64, batch_size=1)[0]
        return latent_of(running, server, add, ksampler(add, flux, text, text, latent, steps=2))

    ours = with_text("Flux1LoadLora", strength="custom", **{"strength.value": 0.7})
    assert difference(ours, with_text("LoraLoader", strength_model=0.7, strength_clip=0.7)) <= TOLERANCE
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
        report(server, lambda add, flux: add("Flux1LoadLora", model=flux, lora_name="BFL.safetensors", strength=0.5)[0])
    assert caught.value.status == 400


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_nothing_is_refused(case, running: Server, server: Client, files):
    name, at_once, words = REFUSED[case]
    with pytest.raises(RunError) as caught:
        report(server, lora(name))
    text = str(caught.value)
    assert caught.value.status == (400 if at_once else None)
    assert all(word.lower() in text.lower() for word in [*words, "Expected:", "Found:", "Fix:"]), text


def test_a_control_picture_without_the_control_lora_is_refused(running: Server, server: Client, files, edges):
    with pytest.raises(RunError, match=r"Canny or Depth model.*in_channels 128.*in_channels 64"):
        painted(running, server, DEV, lora("style.safetensors"), picture=True)
