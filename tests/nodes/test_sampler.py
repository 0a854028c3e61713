"""Flux1Sampler against ComfyUI's SamplerCustomAdvanced and against diffusers' whole pipelines."""

import pytest
import torch
from safetensors.torch import save_file

SIZE = (6, 10)  # latent cells: 48 x 80 pixels
STEPS = 4


@pytest.fixture(scope="module")
def text() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"prompt_embeds": torch.randn(1, 12, 64), "pooled_prompt_embeds": torch.randn(1, 64)}


def conditioning(text: dict[str, torch.Tensor], **values) -> list:
    """What a text encode node gives, from embeddings at hand."""
    return [[text["prompt_embeds"], {"pooled_output": text["pooled_prompt_embeds"], **values}]]


def empty() -> dict[str, torch.Tensor]:
    return {"samples": torch.zeros(1, 16, *SIZE)}


def raw(latent: torch.Tensor) -> torch.Tensor:
    """A latent as the VAE gives it, from one as the transformer sees it."""
    return latent / 0.3611 + 0.1159


def sampled(pack, model, positive: list, latent: dict, **settings) -> torch.Tensor:
    from flux1.nodes.sampling import Flux1Sampler

    values = {"seed": 11, "steps": STEPS, "strength": 1.0, **settings}
    return Flux1Sampler.execute(model, positive, latent, **values)[0]["samples"]


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@torch.inference_mode()  # as the server runs nodes
def test_equals_sampler_custom_advanced(pack, text, cfg):
    from comfy_extras.nodes_custom_sampler import CFGGuider, KSamplerSelect, RandomNoise, SamplerCustomAdvanced
    from flux1.nodes.loaders import Flux1LoadModel
    from flux1.nodes.sampling import Flux1EulerSampler, Flux1Scheduler

    model = Flux1LoadModel.execute("flux1-dev.safetensors", "default", "auto")[0]
    positive = conditioning(text, guidance=3.5)
    negative = conditioning({name: -value for name, value in text.items()}, guidance=3.5)
    sigmas = Flux1Scheduler.execute(empty(), STEPS, 1.0, model)[0]
    ours = sampled(pack, model, positive, empty(), negative=negative, cfg=cfg)
    guider = CFGGuider.execute(model, positive, negative, cfg)[0]
    for sampler in (KSamplerSelect.execute("euler")[0], Flux1EulerSampler.execute()[0]):
        theirs = SamplerCustomAdvanced.execute(RandomNoise.execute(11)[0], guider, sampler, sigmas, empty())[0]
        assert torch.equal(ours, theirs["samples"])


@pytest.fixture(scope="module")
def twins(pack, models):
    """diffusers' transformer of 64 or 384 channels, and our MODEL loaded from its file, in diffusers' layout."""
    from diffusers import FluxTransformer2DModel
    from flux1.nodes.loaders import Flux1LoadModel

    made = {}
    for channels in (64, 384):
        torch.manual_seed(channels)
        theirs = FluxTransformer2DModel(
            in_channels=channels, out_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=128,
            num_attention_heads=1, joint_attention_dim=64, pooled_projection_dim=64, guidance_embeds=True,
        ).eval()  # fmt: skip
        torch.nn.init.normal_(theirs.proj_out.weight, std=0.1)
        name = f"diffusers_{channels}.safetensors"
        save_file(theirs.state_dict(), models / "diffusion_models" / name)
        made[channels] = theirs, Flux1LoadModel.execute(name, "default", "auto")[0]
    return made


@pytest.fixture(scope="module")
def vae():
    """A tiny autoencoder; its latents' deviation is next to nothing, so that encoding is not a draw."""
    from diffusers import AutoencoderKL

    torch.manual_seed(2)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=["DownEncoderBlock2D"] * 4, norm_num_groups=1,
        up_block_types=["UpDecoderBlock2D"] * 4, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159,
    )  # fmt: skip
    torch.nn.init.constant_(vae.quant_conv.bias[16:], -30.0)
    return vae.eval().requires_grad_(False)


def run(pipeline: type, transformer, vae, text: dict, **inputs) -> torch.Tensor:
    """A diffusers pipeline from our noise to latents, without text encoders."""
    import comfy.sample
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
    )
    pipe = pipeline(
        scheduler=scheduler, vae=vae, transformer=transformer, text_encoder=None, tokenizer=None, text_encoder_2=None,
        tokenizer_2=None,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    noise = comfy.sample.prepare_noise(torch.zeros(1, 16, *SIZE), 11)
    height, width = (8 * side for side in SIZE)
    packed = pipe(
        **text, **inputs, height=height, width=width, num_inference_steps=STEPS, output_type="latent",
        latents=pipe._pack_latents(noise, 1, 16, *SIZE),
    ).images  # fmt: skip
    return raw(pipe._unpack_latents(packed, height, width, 8))


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ((ours - theirs).abs().max() / theirs.std()).item() <= 1e-4


def test_equals_flux_pipeline(pack, text, twins, vae):
    from diffusers import FluxPipeline

    transformer, model = twins[64]
    theirs = run(FluxPipeline, transformer, vae, text, guidance_scale=3.5)
    assert close(sampled(pack, model, conditioning(text, guidance=3.5), empty()), theirs)


def test_equals_flux_kontext_pipeline(pack, text, twins, vae):
    from diffusers import FluxKontextPipeline

    transformer, model = twins[64]
    reference = torch.randn(1, 16, 8, 6)
    theirs = run(
        FluxKontextPipeline, transformer, vae, text, guidance_scale=2.5, image=reference, max_area=48 * 80,
        _auto_resize=False,
    )  # fmt: skip
    positive = conditioning(text, guidance=2.5, reference_latents=[raw(reference)])
    assert close(sampled(pack, model, positive, empty()), theirs)
    assert not close(sampled(pack, model, conditioning(text, guidance=2.5), empty()), theirs)


def test_equals_flux_fill_pipeline(pack, text, twins, vae):
    from diffusers import FluxFillPipeline

    transformer, model = twins[384]
    image, mask = torch.rand(1, 3, 48, 80), torch.zeros(1, 1, 48, 80)
    mask[..., 10:30, 21:60] = 1
    theirs = run(FluxFillPipeline, transformer, vae, text, guidance_scale=30.0, image=image, mask_image=mask)
    masked = vae.encode((image * 2 - 1) * (1 - mask)).latent_dist.mode()
    positive = conditioning(text, guidance=30.0, concat_latent_image=masked, concat_mask=mask)
    assert close(sampled(pack, model, positive, empty()), theirs)


def test_strength_zero_returns_the_latent_untouched(pack, text, twins):
    latent = {"samples": torch.randn(1, 16, *SIZE)}
    assert torch.equal(sampled(pack, twins[64][1], conditioning(text), latent, strength=0.0), latent["samples"])


def test_half_strength_runs_the_last_half_of_the_steps(pack, text, twins):
    """As Black Forest Labs count: the run from step 2 of 4 on, from noise mixed in at that level."""
    from flux1.nodes.sampling import Flux1Scheduler

    latent, positive = {"samples": torch.randn(1, 16, *SIZE)}, conditioning(text)
    model = twins[64][1]
    whole = Flux1Scheduler.execute(latent, STEPS, 1.0, model)[0]
    ours = sampled(pack, model, positive, latent, strength=0.5)
    assert torch.equal(ours, sampled(pack, model, positive, latent, sigmas=whole[2:]))
    assert not torch.equal(ours, sampled(pack, model, positive, latent))


def test_bfl_noise_is_drawn_in_bfloat16(pack, text, twins):
    latent = empty()
    assert not torch.allclose(
        sampled(pack, twins[64][1], conditioning(text), latent, noise="bfl"),
        sampled(pack, twins[64][1], conditioning(text), latent),
        atol=0.1,
    )


def test_a_step_reports_its_clean_guess(pack, text, twins, monkeypatch):
    """Previews: one per step, the last guess being the result."""
    import latent_preview

    guesses = []
    monkeypatch.setattr(latent_preview, "prepare_callback", lambda model, steps: lambda i, x0, x, n: guesses.append(x0))
    result = sampled(pack, twins[64][1], conditioning(text), empty())
    assert len(guesses) == STEPS
    assert close(raw(guesses[-1]), result)


def test_a_stock_model_is_sampled_too(pack, text):
    from flux1.nodes.loaders import Flux1LoadModel

    import nodes

    model = Flux1LoadModel.execute("flux1-dev.safetensors", "default", "auto")[0]
    stock = nodes.UNETLoader().load_unet("flux1-dev.safetensors", "default")[0]
    ours, theirs = (sampled(pack, m, conditioning(text, guidance=3.5), empty()) for m in (model, stock))
    assert close(ours, theirs)
