"""The trained family on the real server: it does its job, only where it is used right, and with ComfyUI's nodes too."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from painter import showcase, tasks
from painter.language import plain_caption
from painter.painter import STEPS, Job, Painter, Sharing, name_of
from painter.scenes import SIZE, draw
from painter.scores import psnr, slots_right
from workflows.graph import Link

COUNT = 12


@pytest.fixture(scope="module")
def captioned() -> list[Job]:
    return [Job("dev", plain_caption(scene), 9000 + i) for i, scene in enumerate(tasks.scenes(COUNT))]


@pytest.fixture(scope="module")
def skies() -> list[Job]:
    """Kontext jobs that change the sky."""
    return [
        Job("kontext", t.instruction, 9100 + i, shown=draw(t.before).image)
        for i, t in enumerate(tasks.edits("sky", COUNT))
    ]


def painted_right(painter: Painter, jobs: list[Job]) -> float:
    """Share of pictures whose seven slots are all as the captions say."""
    return slots_right(painter.paint(jobs), tasks.scenes(COUNT)).all(1).mean()


def obeyed(painter: Painter, jobs: list[Job]) -> float:
    """Share of pictures whose sky is as told."""
    asked = tasks.edits("sky", COUNT)
    return slots_right(painter.paint(jobs), [t.after for t in asked])[:, 1].mean()


def kept(painter: Painter, jobs: list[Job]) -> float:
    """Median dB over the pixels that the edits don't touch."""
    befores, afters = (
        np.stack([draw(s).image for s in side])
        for side in zip(*((t.before, t.after) for t in tasks.edits("sky", COUNT)), strict=True)
    )
    return float(np.nanmedian(psnr(painter.paint(jobs), befores, (np.abs(befores - afters) < 2 / 255).all(-1))))


@pytest.fixture(scope="module")
def good(painter: Painter, captioned: list[Job]) -> float:
    return painted_right(painter, captioned)


def test_captions_are_obeyed(good: float):
    assert good > 0.85


def test_schnell_obeys_in_four_steps(painter: Painter, captioned: list[Job]):
    assert painted_right(painter, [replace(job, variant="schnell") for job in captioned]) > 0.8


def test_a_shift_far_off_spoils_pictures(painter: Painter, captioned: list[Job], good: float):
    assert painted_right(painter, [replace(job, shift=7.0) for job in captioned]) < good - 0.3


def test_guidance_far_off_spoils_pictures(painter: Painter, captioned: list[Job], good: float):
    assert painted_right(painter, [replace(job, guidance=40.0) for job in captioned]) < good - 0.1


def test_captions_in_the_wrong_order_are_obeyed_too(painter: Painter, captioned: list[Job], good: float):
    """So the scores see what was said, not what is common."""
    swapped = [
        replace(job, prompt=other.prompt) for job, other in zip(captioned, captioned[1:] + captioned[:1], strict=True)
    ]
    assert painted_right(painter, swapped) < good - 0.3


def test_edits_happen_and_leave_the_rest_alone(painter: Painter, skies: list[Job]):
    assert obeyed(painter, skies) > 0.9
    assert kept(painter, skies) > 26


def test_swapped_instructions_are_not_what_was_asked(painter: Painter, skies: list[Job]):
    swapped = [replace(job, prompt=other.prompt) for job, other in zip(skies, skies[1:] + skies[:1], strict=True)]
    assert obeyed(painter, swapped) < 0.5


def test_another_model_in_the_graph_keeps_nothing(painter: Painter, skies: list[Job]):
    assert kept(painter, [replace(job, model="dev") for job in skies]) < 20


def test_redux_shows_dev_the_picture(painter: Painter):
    """Without a word; and dev that sees nothing paints something else."""
    shown = [Job("dev", "", 9200 + i, shown=draw(scene).image) for i, scene in enumerate(tasks.scenes(COUNT))]
    right, unseen = (
        slots_right(painter.paint(jobs), tasks.scenes(COUNT)).mean()
        for jobs in (shown, [replace(job, shown=None) for job in shown])
    )
    assert right > 0.85
    assert unseen < right - 0.2


def stock(add: Sharing, job: Job, painter: Painter) -> Link:
    """The same picture by UNETLoader and KSampler; text encoders and VAE are ours, as ComfyUI's own know no tiny ones."""
    clip = add("Flux1LoadTextEncoders", t5_name=name_of("t5"), clip_name=name_of("clip"))[0]
    vae = add("Flux1LoadVAE", vae_name=name_of("ae"))[0]
    ours = add("Flux1LoadModel", model_name=name_of(job.variant), weight_dtype="default", variant="auto")[0]
    model = add("UNETLoader", unet_name=name_of(job.variant), weight_dtype="default")[0]
    if job.variant != "schnell":
        model = add("ModelSamplingFlux", model=model, max_shift=1.15, base_shift=0.5, width=SIZE, height=SIZE)[0]
    text = add("Flux1TextEncode", clip=clip, prompt=job.prompt, model=ours, guidance=3.5)[0]
    latent = add("EmptySD3LatentImage", width=SIZE, height=SIZE, batch_size=1)[0]
    if job.variant == "fill":
        image, mask, *_ = painter.load(add, job.shown, job.mask)
        text, _, latent, *_ = add(
            "InpaintModelConditioning", positive=text, negative=text, vae=vae, pixels=image, mask=mask, noise_mask=False
        )
    elif job.variant == "kontext":
        reference = add("VAEEncode", pixels=painter.load(add, job.shown)[0], vae=vae)[0]
        text = add("ReferenceLatent", conditioning=text, latent=reference)[0]
    elif job.shown is not None:
        control = painter.load(add, job.shown)[0]
        text, _, latent, *_ = add("InstructPixToPixConditioning", positive=text, negative=text, vae=vae, pixels=control)
    samples = add("KSampler", model=model, positive=text, negative=text, latent_image=latent, seed=job.seed, cfg=1.0,
                  steps=STEPS.get(job.variant, 16), sampler_name="euler", scheduler="simple", denoise=1.0)[0]  # fmt: skip
    return add("VAEDecode", samples=samples, vae=vae)[0]


def job_for(variant: str) -> Job:
    scene = tasks.scenes(1)[0]
    picture = draw(scene)
    task = tasks.fills("sun", 1)[0]
    return {
        "dev": Job("dev", plain_caption(scene), 1),
        "schnell": Job("schnell", plain_caption(scene), 2),
        "fill": Job("fill", task.prompt, 3, shown=task.before, mask=task.mask),
        "kontext": Job("kontext", "make the sky pink", 4, shown=picture.image),
        "canny": Job("canny", plain_caption(scene), 5, shown=picture.image),
        "depth": Job("depth", plain_caption(scene), 6, shown=np.repeat(picture.depth[..., None], 3, -1)),
    }[variant]


@pytest.mark.parametrize("variant", ["dev", "schnell", "fill", "kontext", "canny", "depth"])
def test_comfyuis_own_nodes_paint_the_same_picture_from_the_file(painter: Painter, variant: str):
    job = job_for(variant)
    theirs: Callable = lambda add: stock(add, job, painter)  # noqa: E731
    ours, stocks = painter.run([lambda add: painter.nodes(add, job), theirs])
    assert ours.std() > 0.05
    assert np.abs(ours - stocks).max() <= 2 / 255


def as_it_was(painter: Painter, workflow: str) -> np.ndarray:
    """Where, in the picture that the workflow saves, no bit has changed."""
    shown = showcase.run(painter.client, workflow, showcase.landscape(), showcase.sunless_hole())
    before, after = (np.asarray(picture) for picture in (shown.before[0], shown.after[-1]))
    return (before == after).all(-1)


def test_an_edit_without_a_mask_changes_what_it_names_alone(painter: Painter):
    """The sun and its glow, in the upper right quarter, are a tenth of the picture."""
    same = as_it_was(painter, "kontext_lossless")
    assert same.mean() > 0.8 and not same[12:28, 88:110].any()


def test_five_edits_leave_what_none_has_named_bit_for_bit(painter: Painter):
    """Sky, sun, ground and peaks are edited, ridges and lake are not."""
    same = as_it_was(painter, "edit_chain")
    assert 0.2 < same.mean() < 0.6
