"""Bad input through /prompt: each refusal names node, file, expected, found and the fix, and the next run is fine."""

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.nodes.graphs import GraphBuilder, encoders, ksampler, latent_of, model, prompt
from workflows.client import Client, RunError
from workflows.server import Server

T5, CLIP, VAE = "t5xxl_fp16.safetensors", "clip_l.safetensors", "ae.safetensors"


@pytest.fixture(scope="module")
def bad_files(models) -> None:
    """Broken and misplaced files beside the good ones."""
    folder = models / "diffusion_models"
    whole = (folder / "flux1-dev.safetensors").read_bytes()
    (folder / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "page.safetensors").write_text("<!DOCTYPE html><html><body>Please log in</body></html>")
    torch.save({"weight": torch.zeros(3)}, folder / "pickle.pt")
    torch.save({"weight": torch.zeros(3)}, folder / "renamed_pickle.safetensors")
    sdxl = {"input_blocks.0.0.weight": (320, 4, 3, 3), "label_emb.0.0.weight": (1280, 2816),
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
            "middle_block.1.transformer_blocks.0.attn1.to_q.weight": (1280, 1280),
            "out.2.weight": (4, 320, 3, 3), "time_embed.0.weight": (1280, 320)}  # fmt: skip
    unet = {f"model.diffusion_model.{name}": torch.zeros(shape, dtype=torch.bfloat16) for name, shape in sdxl.items()}
    save_file(unet, folder / "sdxl.safetensors")
    weights = load_file(folder / "flux1-dev.safetensors")
    del weights["single_blocks.1.linear2.weight"]
    save_file(weights, folder / "gap.safetensors")
    for source, target in ((CLIP, "second_clip.safetensors"),):
        (models / "text_encoders" / target).write_bytes((models / "text_encoders" / source).read_bytes())
    (models / "vae" / T5).write_bytes((models / "text_encoders" / T5).read_bytes())
    (models / "diffusion_models" / VAE).write_bytes((models / "vae" / VAE).read_bytes())


def load_model(name: str, **settings: str) -> Callable:
    def graph(add: GraphBuilder):
        clip, _ = encoders(add)
        flux = add("Flux1LoadModel", **{"model_name": name, "weight_dtype": "default", "variant": "auto", **settings})[
            0
        ]
        text = prompt(add, clip)
        return ksampler(add, flux, text, text, add("EmptySD3LatentImage", width=64, height=64, batch_size=1)[0])

    return graph


def load_encoders(t5: str, clip: str) -> Callable:
    def graph(add: GraphBuilder):
        clip_link = add("Flux1LoadTextEncoders", t5_name=t5, clip_name=clip)[0]
        text = prompt(add, clip_link)
        latent = add("EmptySD3LatentImage", width=64, height=64, batch_size=1)[0]
        return ksampler(add, model(add, "Flux1LoadModel"), text, text, latent)

    return graph


def load_vae(name: str) -> Callable:
    def graph(add: GraphBuilder):
        vae = add("Flux1LoadVAE", vae_name=name)[0]
        return add("VAEEncode", pixels=add("EmptyImage", width=64, height=64, batch_size=1, color=0)[0], vae=vae)[0]

    return graph


def fill(picture: str, mask: str, file: str = "flux1-fill-dev.safetensors") -> Callable:
    def graph(add: GraphBuilder):
        clip, vae = encoders(add)
        conditioning, latent = add(
            "Flux1FillConditioning", conditioning=prompt(add, clip), vae=vae, image=add("LoadImage", image=picture)[0],
            mask=add("LoadImageMask", image=mask, channel="red")[0],
        )[:2]  # fmt: skip
        return add(
            "Flux1Sampler", model=model(add, "Flux1LoadModel", file), positive=conditioning, latent=latent, seed=1,
            steps=2, strength=1.0,
        )[0]  # fmt: skip

    return graph


def sampled(file: str = "flux1-dev.safetensors", **settings) -> Callable:
    def graph(add: GraphBuilder):
        clip, _ = encoders(add)
        latent = add("Flux1EmptyLatent", preset="custom", width=64, height=64, batch_size=1)[0]
        inputs = {"seed": 1, "steps": 2, "strength": 1.0, "latent": latent, **settings}
        return add("Flux1Sampler", model=model(add, "Flux1LoadModel", file), positive=prompt(add, clip), **inputs)[0]

    return graph


AT_ONCE = {  # refused by the server before anything runs: the graph, the node, words in the text
    "truncated": (load_model("half.safetensors"), "Flux1LoadModel", ["half.safetensors", "truncated"]),
    "web page": (load_model("page.safetensors"), "Flux1LoadModel", ["page.safetensors", "HTML"]),
    "pickle": (load_model("pickle.pt"), "Flux1LoadModel", ["pickle.pt", "not in list", ".safetensors"]),
    "renamed pickle": (load_model("renamed_pickle.safetensors"), "Flux1LoadModel", ["renamed_pickle", "pickle"]),
    "missing file": (load_model("nowhere.safetensors"), "Flux1LoadModel", ["nowhere.safetensors", "diffusion_models"]),
    "path": (load_model("../vae/ae.safetensors"), "Flux1LoadModel", ["not in list"]),
    "absolute path": (load_model("/etc/passwd"), "Flux1LoadModel", ["not in list"]),
    "SDXL model": (load_model("sdxl.safetensors"), "Flux1LoadModel", ["sdxl.safetensors", "SDXL"]),
    "VAE as model": (load_model(VAE), "Flux1LoadModel", [VAE, "Flux1LoadVAE"]),
    "tensor missing": (load_model("gap.safetensors"), "Flux1LoadModel", ["gap", "single_blocks.1.linear2.weight"]),
    "dev as Fill": (load_model("flux1-dev.safetensors", variant="fill"), "Flux1LoadModel", ["fill", "384", "64"]),
    "Fill as Kontext": (load_model("flux1-fill-dev.safetensors", variant="kontext"), "Flux1LoadModel", ["384"]),
    "scaled fp8 cast": (
        load_model("flux1-dev-kontext_fp8_scaled.safetensors", weight_dtype="fp8_e5m2"), "Flux1LoadModel",
        ["weight_dtype", "default"],
    ),
    "T5 as VAE": (load_vae(T5), "Flux1LoadVAE", [T5, "T5", "Flux1LoadTextEncoders"]),
    "two CLIP-Ls": (load_encoders(CLIP, "second_clip.safetensors"), "Flux1LoadTextEncoders", ["second_clip", "T5"]),
}  # fmt: skip

WHILE_RUNNING = {  # known only once pictures and models are there
    "mask of another size": (fill("picture.png", "small.png"), "Flux1FillConditioning", ["71 x 57", "32 x 48"]),
    "empty mask": (fill("picture.png", "black.png"), "Flux1FillConditioning", ["empty", "0 pixels"]),
    "tiny picture": (fill("tiny.png", "tiny.png"), "Flux1FillConditioning", ["16", "200 x 8"]),
    "Fill graph on dev": (
        fill("picture.png", "white.png", "flux1-dev.safetensors"), "Flux1Sampler", ["Fill model", "in_channels", "384"],
    ),
    "cfg without negative": (sampled(cfg=3.0), "Flux1Sampler", ["negative"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(server: Client) -> None:
    noise = Image.effect_noise((71, 57), 80).convert("RGB")
    for name, picture in {
        "picture.png": noise,
        "small.png": Image.new("RGB", (32, 48), "white"),
        "black.png": Image.new("RGB", (71, 57)),
        "white.png": Image.new("RGB", (71, 57), "white"),
        "tiny.png": Image.new("RGB", (200, 8), "white"),
    }.items():
        server.upload(picture, name)


def refusal(running: Server, server: Client, graph: Callable) -> RunError:
    add = GraphBuilder()
    with pytest.raises(RunError) as caught:
        latent_of(running, server, add, graph(add))
    return caught.value


def check(text: str, words: list[str]) -> None:
    assert all(word.lower() in text.lower() for word in [*words, "Expected:", "Found:", "Fix:"]), text


@pytest.mark.parametrize("case", AT_ONCE)
def test_refused_before_anything_runs(case, running: Server, server: Client, bad_files):
    graph, node, words = AT_ONCE[case]
    error = refusal(running, server, graph)
    assert error.status == 400
    (entry,) = (entry for entry in error.node_errors.values() if entry["errors"])
    assert entry["class_type"] == node
    check(" ".join(each["details"] for each in entry["errors"]), words)


@pytest.mark.parametrize("case", WHILE_RUNNING)
def test_refused_by_the_node(case, running: Server, server: Client, pictures):
    graph, node, words = WHILE_RUNNING[case]
    error = refusal(running, server, graph)
    assert error.node_type == node
    check(error.answer["exception_message"], words)


def test_after_all_that_the_server_paints_as_before(running: Server, server: Client):
    add = GraphBuilder()
    assert latent_of(running, server, add, sampled(seed=77)(add)).isfinite().all()


def test_an_interrupted_run_leaves_no_trace(running: Server, server: Client):
    """The same prompt, run after an interruption, gives the same latent bit for bit; its sampler really ran."""
    import threading
    import time

    def run(seed: int, steps: int = 6) -> torch.Tensor:
        add = GraphBuilder()
        return latent_of(running, server, add, sampled(seed=seed, steps=steps)(add))

    before = run(501)

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not server.get("/queue")["queue_running"]:
            time.sleep(0.05)
        time.sleep(1.0)
        server.post("/interrupt")

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pytest.raises(RunError, match="interrupted"):
        run(502, steps=2000)
    helper.join()
    run(503)  # another seed: the next one must not come out of the server's cache
    assert torch.equal(run_fresh(running, server, 501), before)


def run_fresh(running: Server, server: Client, seed: int) -> torch.Tensor:
    """As `sampled`, on nodes that the server has not cached."""
    server.post("/free", {"unload_models": True, "free_memory": True})
    add = GraphBuilder()
    latent = sampled(seed=seed, steps=6)(add)
    saver = add("SaveLatent", samples=latent, filename_prefix="test/fresh")[0][0]
    result = server.run(add.graph)
    assert latent[0] not in result.cached
    (saved,) = result.outputs[saver]["latents"]
    return load_file(running.output / saved["subfolder"] / saved["filename"])["latent_tensor"]
