"""LoRA dialects: what diffusers' own converters read in a file, we read in it too."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from diffusers.loaders import lora_conversion_utils as theirs
from torch import Tensor

from flux_core.checkpoint import header_of
from flux_core.errors import Flux1Error
from flux_core.lora import Lora, expect_lora, read_lora
from flux_core.variants import VARIANTS
from painter.family import PARAMS
from tests.flux_core import lora_samples as samples

DEV = VARIANTS["dev"].params


def effect(lora: Lora) -> dict[str, Tensor]:
    """What the LoRA does to each parameter: the change of a weight times one random vector, of a bias itself."""
    out: dict[str, Tensor] = {}
    for label, target in lora.targets.items():
        parts = {key.removeprefix(f"{label}."): t for key, t in lora.tensors.items() if key.startswith(f"{label}.")}
        if "lora_up.weight" in parts:
            up, down = parts["lora_up.weight"].double(), parts["lora_down.weight"].double()
            vector = torch.randn(4096 * 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            change = up @ (down @ vector[: down.shape[1]])
            change = change * (parts["alpha"].item() / len(down) if "alpha" in parts else 1)
        else:
            change = parts.get("diff", parts.get("set_weight")).double()
        change = torch.cat(change.chunk(2)[::-1]) if target.swapped else change
        whole = out.setdefault(target.parameter, torch.zeros(32_768, dtype=torch.float64))
        start = target.narrow[1] if target.narrow and target.narrow[0] == 0 else 0
        whole[start : start + len(change)] += change
    return out


def assert_same(ours: Lora, other: Lora) -> None:
    first, second = effect(ours), effect(other)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def pairs() -> samples.Pairs:
    torch.manual_seed(0)
    return samples.random_lora(DEV, rank=1)


def kohya(pairs: samples.Pairs) -> dict[str, Tensor]:
    """diffusers leaves out the alphas of the final layer, and needs the name of every block."""
    weights = samples.kohya(pairs, alpha=0.5)
    return {name: 1 + 0 * t if "final_layer" in name and name.endswith("alpha") else t for name, t in weights.items()}


def kontext(pairs: samples.Pairs) -> dict[str, Tensor]:
    trained = {name: pair for name, pair in pairs.items() if "_blocks" in name or name == "final_layer.linear"}
    return samples.bfl(trained, prefix="base_model.model.")


def control_to_diffusers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' converter swaps halves of the final modulation's rows, rightly, and of its ranks, which only one of the
    two factors takes part in: that is undone."""
    converted = theirs._convert_bfl_flux_control_lora_to_diffusers(weights)
    name = "transformer.norm_out.linear.lora_A.weight"
    return converted | {name: theirs.swap_scale_shift(converted[name])}


ORACLES: dict[str, tuple[Callable, Callable]] = {
    "kohya": (kohya, theirs._convert_kohya_flux_lora_to_diffusers),
    "XLabs": (
        lambda pairs: samples.xlabs(samples.attention_only(pairs, DEV), DEV),
        theirs._convert_xlabs_flux_lora_to_diffusers,
    ),
    "BFL": (
        lambda pairs: samples.bfl_control(*samples.random_control(DEV, rank=2)),
        control_to_diffusers,
    ),
    "PEFT": (kontext, theirs._convert_fal_kontext_lora_to_diffusers),
}


@pytest.mark.parametrize("dialect", ORACLES)
def test_a_dialect_means_what_diffusers_reads_in_it(dialect: str, pairs: samples.Pairs) -> None:
    write, convert = ORACLES[dialect]
    weights = write(pairs)
    ours, converted = read_lora(weights, DEV), read_lora(convert(dict(weights)), DEV)
    assert_same(ours, converted)
    assert ours.loaded == {dialect: len(weights)} and not ours.ignored
    assert set(converted.loaded) == {"diffusers"} and not converted.ignored


def tiny(rank: int = samples.RANK) -> samples.Pairs:
    torch.manual_seed(1)
    return samples.random_lora(PARAMS, rank)


DIALECTS: dict[str, Callable[[samples.Pairs], dict[str, Tensor]]] = {
    "BFL": samples.bfl,
    "BFL in ComfyUI": lambda pairs: samples.bfl(pairs, prefix="diffusion_model."),
    "PEFT": lambda pairs: samples.bfl(pairs, prefix="base_model.model.", within=".default"),
    "PEFT on diffusers": lambda pairs: samples.diffusers(pairs, PARAMS, "base_model.model.", ".default"),
    "diffusers": lambda pairs: samples.diffusers(pairs, PARAMS),
    "diffusers, bare": lambda pairs: samples.diffusers(pairs, PARAMS, prefix=""),
    "OneTrainer": lambda pairs: samples.onetrainer(pairs, PARAMS),
    "kohya": samples.kohya,
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_says_the_same(dialect: str) -> None:
    weights = DIALECTS[dialect](tiny())
    lora = read_lora(weights, PARAMS)
    assert_same(lora, read_lora(samples.bfl(tiny()), PARAMS))
    assert lora.loaded.total() == len(weights) and not lora.ignored
    assert lora.loaded.keys() == {re.split(",| on| in", dialect)[0]}


def test_an_alpha_in_diffusers_metadata_counts() -> None:
    pairs = {"double_blocks.0.img_attn.proj": tiny()["double_blocks.0.img_attn.proj"]}
    pairs["double_blocks.1.img_attn.proj"] = pairs["double_blocks.0.img_attn.proj"]
    config = {"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"transformer_blocks.1.attn.to_out.0": 2.0}}

    def read(config: Mapping) -> dict[str, Tensor]:
        metadata = {"lora_adapter_metadata": json.dumps(config)}
        return effect(read_lora(samples.diffusers(pairs, PARAMS), PARAMS, metadata))

    plain, scaled, by_root = read({}), read(config), read(config | {"transformer.use_rslora": True})
    for block, alpha in ((0, 8), (1, 2)):
        name = f"double_blocks.{block}.img_attn.proj.weight"
        torch.testing.assert_close(scaled[name], plain[name] * alpha / samples.RANK)
        torch.testing.assert_close(by_root[name], plain[name] * alpha / samples.RANK**0.5)
    with pytest.raises(Flux1Error, match="malformed"):
        read({"transformer.lora_alpha": "much"})


def test_the_bias_of_an_upper_half_is_scaled_as_that_is() -> None:
    up, down = tiny()["txt_in"]
    weights = {"txt_in.lora_B.weight": up, "txt_in.lora_A.weight": down, "txt_in.lora_B.bias": torch.ones(len(up))}
    found = effect(read_lora(weights | {"txt_in.alpha": torch.tensor(1.0)}, PARAMS))
    assert found["txt_in.bias"][0] == 1 / samples.RANK


def test_a_control_lora_widens_img_in_and_has_its_preset() -> None:
    weights = samples.bfl_control(*samples.random_control(PARAMS))
    lora = read_lora(weights, PARAMS)
    assert (lora.widened, lora.is_control, lora.preset) == ((64, 128), True, 0.85)
    assert "img_in widened from 64 to 128" in lora.report(0.85)
    again = read_lora(weights, replace(PARAMS, in_channels=128))
    assert (again.widened, again.is_control) == (None, True)
    assert read_lora(samples.bfl(tiny()), PARAMS).preset == 1.0


def test_a_lora_of_dev_on_a_model_with_more_channels_changes_the_first_ones() -> None:
    fill = replace(PARAMS, in_channels=384)
    lora = read_lora(samples.bfl(tiny()), fill)
    assert lora.targets["img_in.weight (1, 0, 64)"].narrow == (1, 0, 64)


def test_what_became_of_every_key_is_said() -> None:
    pairs = {name: pair for name, pair in tiny().items() if name.startswith(("guidance_in", "double_blocks.0"))}
    weights = samples.kohya(pairs)
    del weights["lora_unet_double_blocks_0_img_mlp_0.lora_up.weight"]
    text = {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(4, 4)}
    twice = samples.bfl({"double_blocks.0.txt_attn.qkv": pairs["double_blocks.0.txt_attn.qkv"]})
    other = {"single_blocks.99.linear2.lora_A.weight": torch.ones(4, 4), "img_in.weight": torch.ones(128, 64)}
    lora = read_lora(weights | text | twice | other, replace(PARAMS, guidance_embed=False))
    loaded = 3 * len(pairs) - 2 * 3 - 3  # without guidance_in's two layers and what is left of img_mlp.0
    assert lora.loaded == {"kohya": loaded}
    count = len(weights) + 5
    said = lora.report(1.0)
    assert said.startswith(f"LoRA at strength 1; {loaded} of {count} keys loaded (kohya {loaded})")
    assert "8 ignored, unknown, or for a layer that this model lacks ('img_in.weight')" in said
    assert "2 ignored, without the other half ('lora_unet_double_blocks_0_img_mlp_0.alpha')" in said
    assert "2 ignored, in the file twice" in said
    assert "1 ignored, of a text encoder, no CLIP connected ('lora_te1_" in said
    with_clip = lora.report(1.0, in_clip=list(text))
    assert f"{loaded + 1} of {count} keys loaded (kohya {loaded}, text encoder 1)" in with_clip
    assert "text encoder, " not in lora.report(1.0, in_clip=list(text))
    assert "none that the CLIP has" in lora.report(1.0, in_clip=[])


FOREIGN = {
    "SDXL": "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k.lora_down.weight",
    "SD1.5": "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_ff_net_0_proj.lora_up.weight",
    "HunyuanVideo": "transformer.double_blocks.0.img_attn_qkv.lora_A.weight\ntransformer.double_blocks.0.img_mlp.fc1.lora_A.weight",
    "Qwen-Image": "transformer.transformer_blocks.40.attn.to_q.lora_A.weight\ntransformer_blocks.0.attn.to_q.lora_A.weight",
    "FLUX.2": "single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_A.weight\ndouble_blocks.0.img_attn.proj.lora_A.weight",
    "Wan": "diffusion_model.blocks.0.cross_attn.k.lora_A.weight",
    "LoRA, keys such as 'something": "something.lora_A.weight",
    "T5": "encoder.block.0.layer.0.SelfAttention.q.weight",
}  # fmt: skip


@pytest.mark.parametrize("family", FOREIGN)
def test_a_lora_of_another_model_is_named(family: str) -> None:
    weights = {name: torch.zeros(2, 2) for name in FOREIGN[family].split("\n")}
    for check in (lambda: read_lora(weights, PARAMS, file="x.safetensors"), lambda: expect_lora(header_of(weights))):
        with pytest.raises(Flux1Error, match=f"0 of {len(weights)} keys.*{re.escape(family)}"):
            check()


def test_a_whole_model_is_no_lora() -> None:
    from painter.family import new_transformer, released_names

    with pytest.raises(Flux1Error, match=r"0 of .* keys.*FLUX\.1"):
        expect_lora(header_of(released_names(new_transformer("dev"))))


def test_a_lora_that_does_not_fit_is_refused_with_key_and_both_shapes() -> None:
    torch.manual_seed(0)
    big = samples.bfl({"double_blocks.0.img_attn.proj": (torch.randn(3072, 4), torch.randn(4, 3072))})
    with pytest.raises(Flux1Error, match=r"double_blocks\.0\.img_attn\.proj\.lora_B.*\[128, 128\].*\[3072, 3072\]"):
        read_lora(big, PARAMS)
    with pytest.raises(Flux1Error, match=r"img_in.*\[128, 384\].*\[128, 128\]"):  # a control LoRA on Fill
        read_lora(samples.bfl_control(*samples.random_control(PARAMS)), replace(PARAMS, in_channels=384))
    torn = {"txt_in.lora_A.weight": torch.ones(3, 64), "txt_in.lora_B.weight": torch.ones(128, 4)}
    with pytest.raises(Flux1Error, match=r"\[128, 4\] and \[3, 64\]"):
        read_lora(torn, PARAMS)
    with pytest.raises(Flux1Error, match=r"txt_in\.diff_b.*\[128\].*\[5\]"):
        read_lora({"txt_in.diff_b": torch.ones(5)}, PARAMS)
