"""Text, Fill and Kontext nodes: lengths, sizes, batches, and nothing changed that was given."""

import pytest
import torch


@pytest.fixture(scope="module")
def clip(pack):
    from flux1.nodes.loaders import Flux1LoadTextEncoders

    return Flux1LoadTextEncoders.execute("clip_l.safetensors", "t5xxl_fp16.safetensors")[0]


@pytest.fixture(scope="module")
def vae(pack):
    from flux1.nodes.loaders import Flux1LoadVAE

    return Flux1LoadVAE.execute("ae.safetensors")[0]


def model(name: str):
    from flux1.nodes.loaders import Flux1LoadModel

    return Flux1LoadModel.execute(name, "default", "auto")[0]


def encoded(clip, prompt: str, **settings) -> tuple[torch.Tensor, dict, str]:
    from flux1.nodes.text import Flux1TextEncode

    output = Flux1TextEncode.execute(clip, prompt, **{"guidance": 3.5, **settings})
    states, values = output[0][0]
    return states, values, output.ui.as_dict()["text"][0]


def painted(file: str, conditioning: list, latent: dict, vae) -> torch.Tensor:
    from flux1.nodes.decode import Flux1DecodeImage
    from flux1.nodes.sampling import Flux1Sampler

    sampled = Flux1Sampler.execute(model(file), conditioning, latent, seed=3, steps=2, strength=1.0)[0]
    return Flux1DecodeImage.execute(sampled, vae)[0]


@pytest.mark.parametrize(
    ("file", "length", "guidance"),
    [
        ("flux1-dev.safetensors", 512, 3.5),
        ("flux1-schnell.safetensors", 256, 0.0),
        ("flux1-fill-dev.safetensors", 128, 30.0),
        ("flux1-dev-kontext_fp8_scaled.safetensors", 512, 2.5),
    ],
)
def test_the_model_brings_length_and_guidance(pack, clip, file, length, guidance):
    states, values, _ = encoded(clip, "a lake", model=model(file), guidance=7.0)
    assert states.shape[1] == length and values["guidance"] == guidance
    _, values, _ = encoded(clip, "a lake", model=model(file), guidance=7.0, guidance_by_model=False)
    assert values["guidance"] == 7.0


@pytest.mark.parametrize("length", ["128", "256", "512"])
def test_text_is_padded_or_cut_to_its_length(pack, clip, length):
    long = "snow on the mountains and a red sky over the lake " * 80
    states, _, report = encoded(clip, long, t5_length=length)
    assert states.shape[1] == int(length)
    assert f"only {length} fit" in report and "cut off from" in report
    states, _, report = encoded(clip, "a lake", t5_length=length)
    assert states.shape[1] == int(length) and "cut" not in report


def test_cut_text_is_what_transformers_truncation_keeps(pack, clip):
    long = "snow on the mountains and a red sky over the lake " * 80
    tokens, _ = tokenized(clip, long, 128)
    theirs = clip.tokenizer.t5xxl.tokenizer(long, truncation=True, max_length=128)["input_ids"]
    assert [token for token, _ in tokens["t5xxl"][0]] == theirs


def tokenized(clip, text: str, length: int | None):
    from flux1.nodes.bridge import tokenize

    return tokenize(clip, text, text, length)


def test_as_comfyui_is_what_comfyui_s_node_gives(pack, clip):
    from comfy_extras.nodes_flux import CLIPTextEncodeFlux

    for text in ("", "a lake", "snow on the mountains " * 100):
        states, values, _ = encoded(clip, text, t5_length="as ComfyUI")
        (theirs, their_values), *_ = CLIPTextEncodeFlux.execute(clip, text, text, 3.5)[0]
        assert torch.equal(states, theirs)
        assert torch.equal(values["pooled_output"], their_values["pooled_output"])


def test_clip_may_read_another_prompt(pack, clip):
    states, values, _ = encoded(clip, "a lake", clip_prompt="a forest")
    same_states, others, _ = encoded(clip, "a lake")
    assert torch.equal(states, same_states)
    assert not torch.equal(values["pooled_output"], others["pooled_output"])


def test_the_tokenizer_given_is_not_changed(pack, clip):
    encoded(clip, "a lake", t5_length="512")
    assert len(clip.tokenize("a lake")["t5xxl"][0]) == 256


@pytest.mark.parametrize("loader", ["stock", "ours"])
def test_clip_only_paints_what_zeroed_t5_states_paint(pack, clip, loader):
    """ComfyUI's text node with its T5 states zeroed, ComfyUI's sampler."""
    from comfy_extras.nodes_flux import CLIPTextEncodeFlux

    from nodes import KSampler, UNETLoader

    flux = (
        UNETLoader().load_unet("flux1-dev.safetensors", "default")[0]
        if loader == "stock"
        else model("flux1-dev.safetensors")
    )

    def painted_from(conditioning: list) -> torch.Tensor:
        latent = {"samples": torch.zeros(1, 16, 8, 8)}
        return KSampler().sample(flux, 5, 2, 1.0, "euler", "simple", conditioning, conditioning, latent)[0]["samples"]

    (theirs, values), *_ = CLIPTextEncodeFlux.execute(clip, "a lake", "a lake", 3.5)[0]
    states, ours, _ = encoded(clip, "a lake", t5_length="256", clip_only=True)
    assert torch.equal(states, torch.zeros_like(theirs))
    mine, zeroed, whole = map(painted_from, ([[states, ours]], [[states, values]], [[theirs, values]]))
    assert torch.equal(mine, zeroed)
    assert (mine - whole).abs().max() > 0.01


def test_clip_only_leaves_t5_alone_and_says_what_clip_does_not_see(pack, clip):
    asked = []
    hook = clip.cond_stage_model.t5xxl.transformer.register_forward_pre_hook(lambda *_: asked.append(1))
    try:
        states, _, report = encoded(clip, "a lake", model=model("flux1-dev.safetensors"), clip_only=True)
        assert states.shape[1] == 512 and "CLIP alone" in report and "77" not in report
        _, _, report = encoded(clip, "a lake below snowy mountains " * 30, clip_only=True)
        assert "only the first 77" in report
        assert not asked
        encoded(clip, "a lake")
        assert asked
    finally:
        hook.remove()


def test_a_prompt_of_100000_characters_is_refused(pack, clip):
    from flux1.flux_core.errors import Flux1Error

    with pytest.raises(Flux1Error, match="tokens"):
        encoded(clip, "lake " * 20_000)


def picture_and_mask(width=71, height=57, batch=1) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    mask = torch.zeros(1, height, width)
    mask[:, 8:24, 20:50] = 1
    return torch.rand(batch, height, width, 3), mask


@pytest.mark.parametrize("size", [(64, 64), (71, 57), (16, 16), (33, 95)])
def test_fill_gives_back_the_picture_s_size(pack, clip, vae, size):
    from flux1.nodes.fill import Flux1FillConditioning
    from flux1.nodes.text import Flux1TextEncode

    image, _ = picture_and_mask(*size)
    mask = torch.zeros(image.shape[:3])
    mask[:, :8] = 1
    before = image.clone(), mask.clone()
    prompt = Flux1TextEncode.execute(clip, "a lake", 30.0)[0]
    conditioning, latent = Flux1FillConditioning.execute(prompt, vae, image, mask, grow=2, feather=2).args
    result = painted("flux1-fill-dev.safetensors", conditioning, latent, vae)
    assert result.shape == image.shape
    assert torch.equal(image, before[0]) and torch.equal(mask, before[1])
    assert "concat_mask" not in prompt[0][1]


def test_fill_conditioning_is_comfyui_s_for_a_binary_mask(pack, clip, vae):
    """On sizes that need no padding; ComfyUI rounds soft masks, Fill's own code does not."""
    from flux1.nodes.fill import Flux1FillConditioning

    import nodes

    image, mask = picture_and_mask(64, 48)
    prompt = [[torch.zeros(1, 4, 64), {}]]
    ours, latent = Flux1FillConditioning.execute(prompt, vae, image, mask, noise_mask=True).args
    theirs, _, their_latent = nodes.InpaintModelConditioning().encode(prompt, prompt, image, vae, mask, True)
    for key in ("concat_latent_image", "concat_mask"):
        assert torch.allclose(ours[0][1][key].squeeze(), theirs[0][1][key].squeeze(), atol=1e-5)
    assert torch.allclose(latent["samples"], their_latent["samples"], atol=1e-5)
    assert torch.equal(latent["noise_mask"].squeeze(), their_latent["noise_mask"].squeeze())


def test_fill_takes_one_mask_for_a_batch_of_pictures(pack, clip, vae):
    from flux1.nodes.fill import Flux1FillConditioning
    from flux1.nodes.text import Flux1TextEncode

    image, mask = picture_and_mask(64, 48, batch=2)
    prompt = Flux1TextEncode.execute(clip, "a lake", 30.0)[0]
    conditioning, latent = Flux1FillConditioning.execute(prompt, vae, image, mask).args
    assert painted("flux1-fill-dev.safetensors", conditioning, latent, vae).shape == (2, 48, 64, 3)


def test_noise_mask_holds_the_latent_outside(pack, clip, vae):
    from flux1.nodes.fill import Flux1FillConditioning
    from flux1.nodes.sampling import Flux1Sampler
    from flux1.nodes.text import Flux1TextEncode

    image, mask = picture_and_mask(64, 48)
    prompt = Flux1TextEncode.execute(clip, "a lake", 30.0)[0]
    kept = {}
    for noise_mask in (True, False):
        conditioning, latent = Flux1FillConditioning.execute(prompt, vae, image, mask, noise_mask=noise_mask).args
        fill = model("flux1-fill-dev.safetensors")
        out = Flux1Sampler.execute(fill, conditioning, latent, seed=3, steps=2, strength=1.0)[0]["samples"]
        kept[noise_mask] = (out - latent["samples"])[:, :, 4:].abs().max().item()
    assert kept[True] < 1e-4 < 0.1 < kept[False]


KONTEXT = "flux1-dev-kontext_fp8_scaled.safetensors"


def encoded_prompt(clip, text: str) -> list:
    from flux1.nodes.text import Flux1TextEncode

    return Flux1TextEncode.execute(clip, text, 2.5)[0]


def kontext(vae, clip, images: dict, sizing="own size", **settings):
    from flux1.nodes.kontext import Flux1KontextReference

    prompt = encoded_prompt(clip, "make the sky pink")
    return Flux1KontextReference.execute(prompt, vae, images, sizing, **settings).args


def test_kontext_references_keep_their_own_sizes(pack, clip, vae):
    image, _ = picture_and_mask(96, 64)
    conditioning, latent = kontext(vae, clip, {"image0": image, "image1": image[:, :, :48]})
    references = conditioning[0][1]["reference_latents"]
    assert [tuple(reference.shape[-2:]) for reference in references] == [(8, 12), (8, 6)]
    assert torch.equal(latent["samples"], references[0])
    one, _ = kontext(vae, clip, {"image0": image})
    assert not torch.equal(painted(KONTEXT, conditioning, latent, vae), painted(KONTEXT, one, latent, vae))


def test_smaller_references_cost_less_and_leave_the_canvas_as_it_is(pack, clip, vae):
    image, _ = picture_and_mask(128, 64)
    conditioning, latent = kontext(vae, clip, {"image0": image}, scale=0.5)
    (reference,) = conditioning[0][1]["reference_latents"]
    assert tuple(latent["samples"].shape[-2:]) == (8, 16) and tuple(reference.shape[-2:]) == (4, 8)
    assert conditioning[0][1]["reference_latents_method"] == "canvas"
    small = painted(KONTEXT, conditioning, latent, vae)
    assert tuple(small.shape[1:3]) == (64, 128) and small.isfinite().all()
    whole, _ = kontext(vae, clip, {"image0": image})
    assert not torch.equal(small, painted(KONTEXT, whole, latent, vae))


def test_each_reference_has_a_scale_and_a_budget_of_its_own(pack, clip, vae):
    image, _ = picture_and_mask(128, 64)
    images = {"image0": image, "image1": image, "image2": image}
    conditioning, latent = kontext(vae, clip, images, scales="1, 0.5", scale=0.75, budget=10)
    references = conditioning[0][1]["reference_latents"]
    assert tuple(latent["samples"].shape[-2:]) == (8, 16)
    counts = [reference.shape[-2] * reference.shape[-1] // 4 for reference in references]
    assert counts[1] == 8 and max(counts) <= 10
    unlimited, _ = kontext(vae, clip, images, scales="1, 0.5", scale=0.75)
    assert [tuple(one.shape[-2:]) for one in unlimited[0][1]["reference_latents"]] == [(8, 16), (4, 8), (6, 12)]


def test_a_reference_that_weighs_nothing_is_not_there_bit_for_bit(pack, clip, vae):
    image, _ = picture_and_mask(64, 64)
    other = image.flip(2)
    pair = {"image0": image, "image1": other}
    latent = kontext(vae, clip, {"image0": image})[1]
    for images, weights, same_images in ((pair, "1, 0", {"image0": image}), (pair, "1, 1", pair)):
        weighed, unweighed = kontext(vae, clip, images, weights=weights)[0], kontext(vae, clip, same_images)[0]
        assert torch.equal(painted(KONTEXT, weighed, latent, vae), painted(KONTEXT, unweighed, latent, vae))
    plain = encoded_prompt(clip, "make the sky pink")
    nothing, _ = kontext(vae, clip, pair, weights="0 0")
    assert torch.equal(painted(KONTEXT, nothing, latent, vae), painted(KONTEXT, plain, latent, vae))


def test_less_weight_leads_from_a_reference_to_none(pack, clip, vae):
    image, _ = picture_and_mask(64, 64)
    whole, latent = kontext(vae, clip, {"image0": image})
    full, none = (painted(KONTEXT, one, latent, vae) for one in (whole, encoded_prompt(clip, "make the sky pink")))
    steps = [
        painted(KONTEXT, kontext(vae, clip, {"image0": image}, weights=w)[0], latent, vae) for w in ("1e-9", "0.3")
    ]
    assert torch.allclose(steps[0], none, atol=1e-4) and not torch.allclose(full, none, atol=1e-3)
    assert all(not torch.allclose(steps[1], end, atol=1e-3) for end in (full, none))


def test_weights_stay_with_their_references_when_others_are_added(pack, clip, vae):
    import node_helpers
    from flux1.nodes.kontext import Flux1KontextReference

    image, _ = picture_and_mask(64, 64)
    first, latent = kontext(vae, clip, {"image0": image})
    both = Flux1KontextReference.execute(first, vae, {"image0": image}, "own size", weights="0.5")[0]
    assert both[0][1]["flux1_reference_weights"] == [1, 0.5]
    stock = {"reference_latents": [latent["samples"]]}
    three = node_helpers.conditioning_set_values(both, stock, append=True)
    assert painted(KONTEXT, three, latent, vae).isfinite().all()


@pytest.mark.parametrize("settings", [{"weights": "1, x"}, {"scales": "2"}, {"weights": "1 1"}])
def test_what_can_t_be_read_as_scales_or_weights_is_refused(pack, clip, vae, settings):
    image, _ = picture_and_mask(64, 64)
    with pytest.raises(ValueError, match=f"{next(iter(settings))}.*Expected:.*Found:.*Fix:"):
        kontext(vae, clip, {"image0": image}, **settings)


def test_control_conditioning_pads_its_map_and_starts_from_nothing(pack, clip, vae):
    from flux1.nodes.control import Flux1CannyEdges, Flux1ControlConditioning
    from flux1.nodes.text import Flux1TextEncode

    image, _ = picture_and_mask(71, 57)
    edges = Flux1CannyEdges.execute(image, 50, 200)[0]
    assert edges.shape == (*image.shape[:3], 3) and edges.unique().tolist() == [0, 1]
    prompt = Flux1TextEncode.execute(clip, "a house", 30.0)[0]
    conditioning, latent = Flux1ControlConditioning.execute(prompt, vae, edges).args
    assert tuple(latent["samples"].shape[-2:]) == (8, 10) and not latent["samples"].any()
    result = painted("flux1-canny-dev.safetensors", conditioning, latent, vae)
    assert tuple(result.shape[1:3]) == (57, 71)
    with pytest.raises(ValueError, match=r"Canny or Depth model.*Expected:.*128.*Found:.*64.*Fix:"):
        painted("flux1-dev.safetensors", conditioning, latent, vae)


@pytest.mark.parametrize("size", [(150, 100), (160, 90), (90, 160), (100, 100), (500, 40)])
def test_kontext_padding_is_cut_off_again(pack, size):
    """Without an autoencoder between: at Kontext's megapixel that takes half a minute."""
    from flux1.flux_core import image as pictures
    from flux1.nodes.bridge import cut_to_true_size, true_size

    sized = pictures.fit(picture_and_mask(*size)[0])
    cut = cut_to_true_size(sized.image, true_size(sized.size, sized.image))
    assert pictures.size_of(cut) == sized.size
    scaled_since = sized.image[:, ::2, ::2]
    assert cut_to_true_size(scaled_since, true_size(sized.size, sized.image)) is scaled_since


def test_kontext_adds_to_references_that_are_there(pack, clip, vae):
    from flux1.nodes.kontext import Flux1KontextReference

    image, _ = picture_and_mask(64, 64)
    first, _ = kontext(vae, clip, {"image0": image})
    second = Flux1KontextReference.execute(first, vae, {"image0": image}, "own size")[0]
    assert [len(c[0][1]["reference_latents"]) for c in (first, second)] == [1, 2]


def test_a_batch_of_two_paints_each_like_alone(pack, clip, vae):
    from flux1.nodes.sampling import Flux1Sampler

    image, _ = picture_and_mask(64, 64)
    conditioning, latent = kontext(vae, clip, {"image0": image})
    flux = model(KONTEXT)

    def run(latent: dict) -> torch.Tensor:
        return Flux1Sampler.execute(flux, conditioning, latent, seed=3, steps=2, strength=1.0)[0]["samples"]

    alone = run(latent)
    both = run({**latent, "samples": latent["samples"].repeat(2, 1, 1, 1)})
    assert len(both) == 2 and torch.allclose(both[:1], alone, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 48), (71, 57), (16, 16)])
def test_encode_then_decode_keeps_the_size(pack, vae, size):
    from flux1.nodes.decode import Flux1DecodeImage, Flux1EncodeImage

    image, _ = picture_and_mask(*size)
    latent = Flux1EncodeImage.execute(image, vae)[0]
    assert latent["samples"].shape[-1] % 2 == latent["samples"].shape[-2] % 2 == 0
    assert Flux1DecodeImage.execute(latent, vae)[0].shape == image.shape


@pytest.mark.parametrize("preset", ["custom", "16:9 (1344 x 768)", "1:1 largest (2048 x 2048)"])
def test_empty_latents_are_whole_tokens(pack, preset):
    from flux1.nodes.latent import PRESETS, Flux1EmptyLatent

    width, height = PRESETS.get(preset, (320, 208))
    latent = Flux1EmptyLatent.execute(preset, 320, 208, 3)[0]["samples"]
    assert latent.shape == (3, 16, height // 8, width // 8)
    assert all(side % 16 == 0 for size in PRESETS.values() for side in size)
