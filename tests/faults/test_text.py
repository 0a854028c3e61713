"""Prompts of every kind and length: encoded or refused, never cut without a word, and no file is opened for one."""

import pytest
import torch
from safetensors.torch import save_file

from flux_core.errors import Flux1Error
from tests.faults.conftest import Faulty
from tests.faults.graphs import (
    VAE,
    Painting,
    alike,
    check_finite,
    check_words,
    empty,
    load_model,
    paint,
    refusal,
    refused_at_once,
    refused_while_running,
    run,
    said_by,
    text_encode,
)
from tests.nodes.graphs import encoders
from workflows.client import Client
from workflows.graph import GraphBuilder

pytestmark = pytest.mark.usefixtures("unharmed")
WORDS = " ".join(["snow on the mountains"] * 150)


def prompted(add: GraphBuilder, prompt: object, seed: int = 1, **settings: object) -> Painting:
    clip, vae = encoders(add)
    return paint(add, load_model(add), text_encode(add, clip, prompt, **settings), empty(add), vae, seed)


PROMPTS = {
    "T01 empty": "",
    "T01 spaces": "   ",
    "T06": "a lake\0 below\r\n\tthree mountains",
    "T08 above": "embedding:../../../etc/passwd x",
    "T08 absolute": "embedding:/etc/passwd",
    "T09 open": "a lake ((((",
    "T09 escaped": "a \\(lake\\( \\",
    "T09 closed": "))))] [a:b:",
}


@pytest.mark.parametrize("row", PROMPTS)
def test_any_text_is_a_prompt(row, faulty: Faulty, client: Client):
    """And none makes the server open a file outside of the embeddings folder."""
    before = len(faulty.seen())
    add = GraphBuilder()
    check_finite(run(client, add, prompted(add, PROMPTS[row])))
    opened = [event[1] for event in faulty.seen()[before:] if event[0] == "open"]
    assert opened and not [path for path in opened if "passwd" in path]


def test_t02_what_is_cut_is_said(client: Client):
    """The tail of 600 words can't be seen by a model of 512 tokens; the node says from where on."""
    add = GraphBuilder()
    clip, vae = encoders(add)
    text = text_encode(add, clip, WORDS + " with a red tail", t5_length="512")
    paint(add, load_model(add), text, empty(add), vae)
    check_words(said_by(client.run(add.graph), text[0]), "512", "tokens", "red tail")


def test_t02_all_of_it_counts_where_nothing_is_cut(client: Client):
    pictures = []
    for tail in ("", " with a red tail"):
        add = GraphBuilder()
        pictures.append(run(client, add, prompted(add, WORDS + tail, t5_length="as ComfyUI")))
    assert not alike(*pictures)


@pytest.mark.parametrize("field", ["prompt", "clip_prompt"])
@pytest.mark.parametrize("length", [100_000, 1_000_000])
def test_t03_a_prompt_of_a_hundred_thousand_letters_costs_little(length, field, faulty: Faulty, client: Client):
    text = ("lake " * length)[:length]

    def refuse() -> None:
        add = GraphBuilder()
        prompted(add, **{"prompt": "a lake", field: text})
        if field == "prompt" or length > 262_144:
            refused_while_running(client, add, "Flux1TextEncode", "tokens")
        else:
            client.run(add.graph)  # CLIP reads the longest text 77 tokens at a time

    seconds, memory = faulty.cost(refuse)
    assert seconds < 5 and memory < 500e6


@pytest.mark.parametrize("field", ["prompt", "clip_prompt"])
@pytest.mark.parametrize("value", [5, {"a": 1}, True], ids=repr)
def test_t10_what_is_no_text_is_no_prompt(value, field, client: Client):
    add = GraphBuilder()
    prompted(add, **{"prompt": "a lake", field: value})
    refused_at_once(client, add, "Flux1TextEncode", "string")


@pytest.mark.parametrize("field", ["prompt", "clip_prompt"])
def test_t10_null_is_refused_when_it_runs(field, client: Client):
    """When a prompt is queued, ComfyUI shows a node no difference between null and a link."""
    add = GraphBuilder()
    prompted(add, **{"prompt": "a lake", field: None})
    refused_while_running(client, add, "Flux1TextEncode", "string")


def test_a_text_that_another_node_gives_is_a_prompt(client: Client):
    add = GraphBuilder()
    linked = run(client, add, prompted(add, add("PrimitiveString", value="a lake")[0], seed=10))
    client.post("/free", {"free_memory": True})
    add = GraphBuilder()
    assert alike(linked, run(client, add, prompted(add, "a lake", seed=10)))


@pytest.mark.parametrize("value", [["a", "b"], ["a", "b", "c"], []], ids=repr)
def test_t10_a_list_is_taken_for_a_link_and_refused(value, client: Client):
    add = GraphBuilder()
    prompted(add, value)
    status, _ = client.post("/prompt", {"prompt": add.graph})
    assert status == 400
    with pytest.raises(Flux1Error, match="not \\[node id, number of its output\\]"):  # ours doesn't even send it
        client.run(add.graph)


@pytest.mark.parametrize("guidance", [1e9, -1])
def test_t12_guidance_has_a_range(guidance, client: Client):
    add = GraphBuilder()
    prompted(add, "a lake", guidance=guidance)
    error = refusal(client, add)
    assert error.status == 400
    check_words(str(error), "guidance", "(smaller|bigger) than")


def test_t13_without_text_encoders_nothing_is_queued(client: Client):
    add = GraphBuilder()
    add("PreviewAny", source=add("Flux1TextEncode", prompt="a lake", guidance=3.5)[0])
    error = refusal(client, add)
    assert error.status == 400
    check_words(str(error), "required.*clip")


def test_t13_text_encoders_of_another_model_are_refused(faulty: Faulty, client: Client):
    """Stable Diffusion's, in ComfyUI's own loader: one layer of CLIP-L at its real width."""
    width, mlp = 768, 3072
    layer = "text_model.encoder.layers.0"
    shapes = {
        "text_model.embeddings.token_embedding.weight": (49408, width),
        f"{layer}.mlp.fc1.weight": (mlp, width),
        f"{layer}.mlp.fc2.weight": (width, mlp),
    }
    tensors = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    save_file(tensors, faulty.models / "text_encoders" / "sd.safetensors")
    add = GraphBuilder()
    clip = add("CLIPLoader", clip_name="sd.safetensors", type="stable_diffusion")[0]
    vae = add("Flux1LoadVAE", vae_name=VAE)[0]
    paint(add, load_model(add), text_encode(add, clip), empty(add), vae)
    refused_while_running(client, add, "Flux1TextEncode", "4096", "768")
