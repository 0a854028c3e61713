"""A loader takes the file it is for and refuses every other one in words that show the way out."""

import re
from collections.abc import Callable

import pytest
import torch

from flux_core.checkpoint import Header, check_tensors, expect_transformer, expect_vae, identify, text_encoder_slots
from flux_core.errors import Flux1Error
from tests.flux_core.checkpoint_samples import clip, diffusers_flux, flux, header, t5, vae

Loader = Callable[..., object]
Maker = Callable[[], dict[str, torch.Tensor]]
MAKERS = {"flux": flux, "t5": t5, "clip": clip, "vae": vae}


@pytest.fixture(scope="module")
def headers() -> dict[str, Header]:
    return {name: header(make(), f"{name}.safetensors") for name, make in MAKERS.items()}


def refusal(action: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(Flux1Error) as caught:
        action(*arguments)
    text = str(caught.value)
    assert all(part in text for part in ("File:", "Expected:", "Found:", "Fix:"))
    return text


@pytest.mark.parametrize(
    ("loader", "file", "words"),
    [
        (expect_transformer, "vae", ["vae", "autoencoder", "Flux1LoadVAE"]),
        (expect_transformer, "t5", ["t5", "Flux1LoadTextEncoders", "Flux1LoadModel"]),
        (expect_transformer, "clip", ["clip", "Flux1LoadTextEncoders"]),
        (expect_vae, "flux", ["diffusion model|transformer", "Flux1LoadModel", "Flux1LoadVAE"]),
        (expect_vae, "t5", ["t5", "Flux1LoadTextEncoders"]),
    ],
)
def test_file_in_the_wrong_loader_is_sent_to_the_right_one(
    headers: dict[str, Header], loader: Loader, file: str, words: list[str]
) -> None:
    text = refusal(loader, headers[file])
    assert f"{file}.safetensors" in text
    assert all(re.search(word, text, re.IGNORECASE) for word in words)


def test_each_loader_takes_its_own(headers: dict[str, Header]) -> None:
    assert expect_transformer(headers["flux"]).variant == "dev"
    assert expect_vae(headers["vae"]).latent_channels == 16
    t5_first = text_encoder_slots(headers["t5"], headers["clip"])
    assert [checkpoint.kind for checkpoint in t5_first] == ["t5", "clip_l"]
    assert text_encoder_slots(headers["clip"], headers["t5"]) == t5_first


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("clip", "clip", ["clip", "t5"]),
        ("t5", "t5", ["clip", "t5"]),
        ("t5", "vae", ["vae", "Flux1LoadVAE", "t5"]),
        ("flux", "clip", ["transformer", "Flux1LoadModel", "t5"]),
    ],
)
def test_pair_that_is_not_one_t5_and_one_clip_is_refused(
    headers: dict[str, Header], first: str, second: str, words: list[str]
) -> None:
    text = refusal(text_encoder_slots, headers[first], headers[second])
    assert all(re.search(word, text, re.IGNORECASE) for word in [*words, "Flux1LoadTextEncoders"])


def test_vae_of_another_model_is_refused_by_its_latent_channels() -> None:
    text = refusal(expect_vae, header(vae(4), "sdxl_vae.safetensors"))
    assert all(word in text for word in ("16", "4 latent channels", "XL", "sdxl_vae.safetensors"))


@pytest.mark.parametrize(
    ("channels", "variant", "words"),
    [
        (64, "fill", ["fill", "384", "64"]),
        (384, "kontext", ["kontext", "384", "64"]),
        (128, "dev", ["dev", "128", "64"]),
        (64, "schnell", ["schnell", "guidance"]),
    ],
)
def test_file_that_can_not_be_the_chosen_variant_is_refused(channels: int, variant: str, words: list[str]) -> None:
    with torch.device("meta"):
        found = header(flux(channels=channels))
    text = refusal(expect_transformer, found, variant)
    assert all(word in text for word in words)


@pytest.mark.parametrize(("channels", "variant"), [(64, "krea"), (64, "kontext"), (64, "lite"), (128, "depth")])
def test_user_may_choose_any_twin(channels: int, variant: str) -> None:
    with torch.device("meta"):
        found = header(flux(channels=channels))
    assert expect_transformer(found, variant).params.in_channels == channels


def checked(weights: dict[str, torch.Tensor]) -> None:
    check_tensors(identify(header(weights)))


def told_by_others(weights: dict[str, torch.Tensor]) -> list[str]:
    """The tensors that others tell the shape of: in a text encoder, those that each block has."""
    if any("text_model" in name or "SelfAttention" in name for name in weights):
        return [name for name in weights if re.search(r"(block|layers)\.\d", name) and "relative_attention" not in name]
    return list(weights)


@pytest.mark.parametrize("make", [flux, diffusers_flux, t5, clip])
def test_every_missing_tensor_is_named(make: Maker) -> None:
    with torch.device("meta"):
        weights = make()
    for name in told_by_others(weights):
        text = refusal(checked, {other: tensor for other, tensor in weights.items() if other != name})
        assert "missing" in text
        assert name in text


@pytest.mark.parametrize("make", [flux, diffusers_flux, t5, clip])
def test_every_misshapen_tensor_is_named_with_both_shapes(make: Maker) -> None:
    """One size of the shape is one more than right, as far as other tensors can tell."""
    with torch.device("meta"):
        weights = make()
    free = ("txt_in.weight", "context_embedder.weight", "vector_in.in_layer.weight", "text_embedder.linear_1.weight")
    for name in told_by_others(weights):
        shape = list(weights[name].shape)
        for axis in range(1 if name.endswith(free) else len(shape)):  # their columns are the file's own choice
            wrong = [size + (axis == i) for i, size in enumerate(shape)]
            changed = weights | {name: torch.empty(wrong, device="meta")}
            text = refusal(checked, changed)
            assert name in text
            assert str(wrong) in text
            assert str(shape) in text


@pytest.mark.parametrize(
    ("make", "name"), [(t5, "encoder.final_layer_norm.weight"), (clip, "text_model.final_layer_norm.bias")]
)
def test_text_encoder_without_its_last_norm_is_refused(make: Maker, name: str) -> None:
    assert f"missing: {name}" in refusal(checked, {other: tensor for other, tensor in make().items() if other != name})


def test_lost_tensor_is_noticed_with_two_blocks_only() -> None:
    weights = {name: tensor for name, tensor in t5().items() if ".block.2." not in name}
    checked(weights)
    name = "encoder.block.1.layer.1.DenseReluDense.wi_1.weight"
    assert f"missing: {name}" in refusal(checked, {other: t for other, t in weights.items() if other != name})


def test_marked_int8_without_its_scale_is_refused() -> None:
    weights = flux()
    weights["img_in.weight"] = weights["img_in.weight"].to(torch.int8)
    weights["img_in.comfy_quant"] = torch.zeros(9, dtype=torch.uint8)
    assert "scale of img_in" in refusal(checked, weights)
    checked(weights | {"img_in.weight_scale": torch.ones(())})


def test_extra_tensors_are_tolerated(headers: dict[str, Header]) -> None:
    with torch.device("meta"):
        weights = flux() | {"extra": torch.zeros(1), "double_blocks.0.extra.weight": torch.zeros(3)}
    expect_transformer(header(weights))


def test_part_of_a_model_in_several_files_is_called_so() -> None:
    weights = {name: t for name, t in diffusers_flux().items() if not name.startswith("single_transformer_blocks.5")}
    weights.pop("proj_out.weight")
    text = refusal(expect_transformer, header(weights, "diffusion_pytorch_model-00001-of-00003.safetensors"))
    assert "one part of several" in text


def scaled(weights: dict[str, torch.Tensor], scale: str) -> dict[str, torch.Tensor]:
    matrices = [name for name, tensor in weights.items() if name.endswith(".weight") and tensor.dim() == 2]
    fp8 = {name: weights[name].to(torch.float8_e4m3fn) for name in matrices}
    return weights | fp8 | {name.removesuffix("weight") + scale: torch.ones(()) for name in matrices}


@pytest.mark.parametrize("make", [flux, t5])
@pytest.mark.parametrize("layout", "bcd")
def test_marked_fp8_without_its_scales_is_refused(make: Maker, layout: str) -> None:
    marker, metadata = torch.zeros(2, dtype=torch.float8_e4m3fn), {}
    weights = scaled(make(), "scale_weight" if layout == "b" else "weight_scale")
    layers = [name.removesuffix(".weight_scale") for name in weights if name.endswith(".weight_scale")]
    if layout == "b":
        weights["scaled_fp8"] = marker
    elif layout == "c":
        weights |= {f"{layer}.comfy_quant": marker.view(torch.uint8) for layer in layers}
    else:
        entries = ", ".join(f'"{layer}": {{"format": "float8_e4m3fn"}}' for layer in layers)
        metadata = {"_quantization_metadata": f'{{"layers": {{{entries}}}}}'}
    whole = identify(header(weights, **metadata))
    check_tensors(whole)
    assert whole.fp8 == layout
    scales = [name for name in weights if name.endswith("scale") or name.endswith("scale_weight")]
    scales = [name for name in scales if weights[name].dim() == 0]
    for lost in (scales, scales[-1:]):
        stripped = identify(header({k: t for k, t in weights.items() if k not in lost}, **metadata))
        assert "scale" in refusal(check_tensors, stripped)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"layers": 1}', '{"layers": {"x": 1}}', '{"layers": {"x": {}}}', "[" * 99_999]
)
def test_malformed_quantization_metadata_is_refused(text: str) -> None:
    with pytest.raises(Flux1Error, match="malformed"):
        check_tensors(identify(header(flux(), _quantization_metadata=text)))
