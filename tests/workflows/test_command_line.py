"""The command line: what can be set is listed, and what can't work is refused in words before the server is troubled."""

import copy
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from flux_core.errors import Flux1Error
from workflows.__main__ import DONE, GONE, UNFIT
from workflows.__main__ import main as command_line
from workflows.check import check_on_server
from workflows.client import Client
from workflows.graph import Graph, links, read_graph
from workflows.server import Server
from workflows.settable import settings, shortest, with_texts
from workflows.source import WORKFLOWS, bundled, find_source

SCHNELL = WORKFLOWS / "api" / "text_to_image_schnell.json"
SAVER, SAMPLER = "8", "6"  # node ids in it
PICTURE = {"9": {"class_type": "LoadImage", "inputs": {"image": "none.png"}}}


def main(arguments: list[str]) -> int:
    """The command line in a thread of its own, as a program has: the browser's tests leave an event loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(command_line, arguments).result()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where a connection, if anyone tries one, is noticed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def changed(key: str, **inputs: Any) -> Graph:
    """The bundled workflow, one of its nodes with other inputs."""
    graph = read_graph(SCHNELL)
    graph[key]["inputs"] |= inputs
    return graph


def written(tmp_path: Path, graph: Graph) -> str:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(graph))
    return str(file)


def refused(capsys: pytest.CaptureFixture, *patterns: str) -> None:
    """The text on standard error has all these in it, and is one of ours."""
    text = capsys.readouterr().err
    for pattern in (*patterns, "Expected:", "Found:", "Fix:"):
        assert re.search(pattern, text, re.S), text


UNFIT_FILES = {
    "UI format": ({"nodes": [], "links": []}, "UI format"),
    "empty list": ([], "empty list"),
    "null": (None, "NoneType"),
    "NaN": (changed(SAMPLER, cfg=float("nan")), "'cfg' of node 6 'Paint' .* is nan"),
    "infinity": (changed(SAMPLER, cfg=float("-inf")), "'cfg' of node 6 'Paint' .* is -inf"),
    "broken character": (changed(SAVER, filename_prefix="\ud800"), "'filename_prefix' of node 8 .*ud800"),
    "cycle": (changed(SAMPLER, latent=["7", 0]), "6 'Paint' .* -> node 7 'Decode'"),
    "dangling link": (changed(SAMPLER, latent=["77", 0]), "'latent' of node 6 'Paint' .*node 77, which is not there"),
    "half a link": (changed(SAMPLER, latent=["5"]), r"'latent' of node 6 'Paint' .*\[.5.\]"),
}  # fmt: skip
BROKEN_FILES = {"broken JSON": ('{"1": ', "line 1"), "endless nesting": ("[" * 200000, "can't be read")}
TEXTS = {name: (json.dumps(content), text) for name, (content, text) in UNFIT_FILES.items()} | BROKEN_FILES


@pytest.mark.parametrize("case", TEXTS)
def test_a_file_that_is_no_workflow_is_refused_before_anything_is_sent(
    case: str, nobody: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # comfy-cli would convert one of them
    content, text = TEXTS[case]
    (tmp_path / "mine.json").write_text(content)
    assert main(["run", str(tmp_path / "mine.json"), "--server", nobody, "--wait", "0"]) == UNFIT
    refused(capsys, text, "mine.json")


@pytest.mark.parametrize(
    "prefix",
    ["../../x", "/tmp/x", "~/x", "C:x", "a" * 300, "é" * 150, "a\0b", "..\\..\\x", "", "  ", "a/", "a/..", 5, None],
    ids=repr,
)
def test_a_file_name_that_leads_astray_is_refused_before_anything_is_sent(
    prefix: object, nobody: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = written(tmp_path, changed(SAVER, filename_prefix=prefix))
    assert main(["run", file, "--server", nobody, "--wait", "0"]) == UNFIT
    refused(capsys, "filename_prefix of node 8 'Save'")


@pytest.mark.parametrize(
    "options, texts",
    [
        (["--set", "sed=1"], ["No input .*'sed'", "seed, steps"]),
        (["--set", "seed"], ["NAME=VALUE"]),
        (["--set", "seed=many"], ["a number"]),
        (["--set", "steps=true"], ["a number"]),
        (["--set", "guidance_by_model=1"], ["true or false"]),
        (["--set", "cfg=1e999"], ["inf"]),
        (["--set", "filename_prefix=../x"], ["filename_prefix"]),
        (["--images", "."], ["'image'"]),
        (["--images", "prompt=."], ["prompt takes no picture"]),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused_before_anything_is_sent(
    options: list[str], texts: list[str], nobody: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["run", "text_to_image_schnell", *options, "--server", nobody, "--wait", "0"]) == UNFIT
    refused(capsys, *texts)


def test_a_name_that_two_inputs_have_is_refused_with_the_names_that_tell_them_apart(
    nobody: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["run", "kontext_edit", "--set", "seed=1", "--server", nobody, "--wait", "0"]) == UNFIT
    refused(capsys, "More than one input", "First edit: Paint.seed, Second edit: Paint.seed")


def test_an_unknown_workflow_is_answered_with_the_bundled_ones(nobody: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "no_such", "--server", nobody, "--wait", "0"]) == UNFIT
    refused(capsys, *bundled())


@pytest.mark.parametrize(
    "graph, texts",
    [
        (
            changed(SAMPLER) | {"9": {"class_type": "Nowhere", "inputs": {}, "_meta": {"title": "Gone"}}},
            ["node 9 'Gone' \\(Nowhere\\)", "ComfyUI Manager"],
        ),
        (changed(SAMPLER) | {"9": {"class_type": "Flux1OfTomorrow", "inputs": {}}}, ["the pack flux1"]),
        (changed(SAMPLER, latent=["5", 3]), ["'latent' of node 6 'Paint'", "output 3 of node 5 'Size'"]),
        (changed(SAMPLER, steps=1.5), ["steps = 1.5 of node 6 'Paint'"]),
        (
            changed("1", model_name="none.safetensors") | {"3": changed("3", vae_name="gone.safetensors")["3"]},
            ["models/diffusion_models: none.safetensors", "models/vae: gone.safetensors"],
        ),
        (changed(SAMPLER) | PICTURE, ["Pictures are missing", "'none.png' of node 9 'LoadImage'"]),
    ],
    ids=["unknown node", "node of this pack", "output index", "fraction", "models", "picture"],
)
def test_what_the_server_lacks_is_said_before_anything_is_queued(
    graph: Graph, texts: list[str], running: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = running.log.read_text().count("got prompt")
    options = ["--server", running.address, "--out", str(tmp_path / "out")]
    assert main(["run", written(tmp_path, graph), *options]) == UNFIT
    refused(capsys, *texts)
    assert running.log.read_text().count("got prompt") == before


@pytest.mark.parametrize("pack, text", [("comfy-core", "from a newer ComfyUI"), ("others", "from the pack others")])
def test_an_unknown_node_is_said_with_what_it_comes_from(pack: str, text: str) -> None:
    with pytest.raises(Flux1Error, match=text):
        check_on_server({"1": {"class_type": "Nowhere", "inputs": {}}}, {}, packs={"Nowhere": pack})


@contextmanager
def stranger(status: int, text: str) -> Iterator[str]:
    """The address of a server that answers this to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "status, text, code, said",
    [
        (200, "<!doctype html>", UNFIT, "This server is no ComfyUI.*no JSON"),
        (404, "", UNFIT, "This server is no ComfyUI.*status 404"),
        (502, "", GONE, "does not answer.*status 502"),
    ],
    ids=["another program", "nothing there", "a proxy whose server is gone"],
)
def test_a_server_that_is_no_comfyui_is_said_so_and_one_behind_a_proxy_is_waited_for(
    status: int, text: str, code: int, said: str, capsys: pytest.CaptureFixture
) -> None:
    with stranger(status, text) as address:
        assert main(["run", "text_to_image_schnell", "--server", address, "--wait", "0"]) == code
    refused(capsys, said)


@pytest.mark.parametrize("name", bundled())
def test_a_server_without_models_is_told_all_that_it_lacks_with_folder_and_link(name: str, server: Client) -> None:
    source = find_source(name)
    with pytest.raises(Flux1Error) as refusal:
        check_on_server(source.graph, without_models(server.get("/object_info")), source.models, source.packs)
    assert len(source.models) >= 4  # a transformer, two text encoders, a VAE
    for model in source.models.values():
        assert f"{model['url']} to models/{model['directory']}: {model['name']}" in str(refusal.value)


def without_models(infos: dict[str, Any]) -> dict[str, Any]:
    """What a server of the same nodes says that has no model files yet."""
    infos = copy.deepcopy(infos)
    for info in infos.values():
        for kind, *options in info["input"].get("required", {}).values():
            choices = kind if isinstance(kind, list) else options[0].get("options", []) if kind == "COMBO" else []
            if any(".safetensors" in str(choice) for choice in choices):
                choices.clear()
    return infos


@pytest.mark.parametrize("name", bundled())
def test_every_input_of_a_bundled_workflow_is_listed_and_can_be_set(name: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["inputs", name]) == DONE
    listed = capsys.readouterr().out
    graph = find_source(name).graph
    every = settings(graph)
    assert len(every) == sum(len(node["inputs"]) - len(list(links(node))) for node in graph.values())
    for setting in every:
        called = shortest(setting, every)
        assert f"  {called} " in listed
        other = not setting.value if isinstance(setting.value, bool) else "7" if isinstance(setting.value, str) else 7
        after = with_texts(graph, [f"{called}={other if isinstance(other, str) else json.dumps(other)}"])
        assert after[setting.node]["inputs"][setting.input] == other
        after[setting.node]["inputs"][setting.input] = setting.value
        assert after == graph


@pytest.mark.parametrize("name", ["steps", " STEPS ", "paint.steps", "Flux1Sampler.steps", f"{SAMPLER}.steps"])
def test_an_input_is_known_by_its_name_alone_or_with_its_node_s_title_class_or_id(name: str) -> None:
    assert with_texts(read_graph(SCHNELL), [f"{name}=7"]) == changed(SAMPLER, steps=7)


def test_the_bundled_workflows_are_listed_with_what_they_do(capsys: pytest.CaptureFixture) -> None:
    assert main(["list"]) == DONE
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == sorted(file.stem for file in WORKFLOWS.glob("*.json"))
    assert all(len(line.split(maxsplit=1)) == 2 for line in listed)
