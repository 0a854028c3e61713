"""The server: it lists the given models, keeps out of everything else, and never outlives its starter."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from flux_core.errors import Flux1Error
from workflows.client import Client
from workflows.server import Server, serve

ROOT = Path(__file__).parents[2]

# Answers like ComfyUI as far as the start asks, but is up in no time.
STAND_IN = """
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        module = "custom_nodes.flux1" if "--pack" in sys.argv else "nodes"
        answers = {"/system_stats": {"system": {"argv": sys.argv}}, "/object_info": {"Node": {"python_module": module}}}
        self.wfile.write(json.dumps(answers[self.path]).encode())

print("stand-in", flush=True)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

STARTER = """
import sys
from pathlib import Path
from workflows.server import serve
with serve(Path(sys.argv[2]), comfyui=Path(sys.argv[1]), options=["--pack"]) as server:
    print(server.home, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(STAND_IN)
    return tmp_path


@contextmanager
def starting(comfyui: Path, models: Path) -> Iterator[subprocess.Popen]:
    """Another process that is starting a server."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", STARTER, str(comfyui), str(models)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def child_of(starter: subprocess.Popen) -> psutil.Process:
    while not (children := psutil.Process(starter.pid).children()):
        time.sleep(0.05)
    return children[0]


def assert_gone(server: psutil.Process, home: Path) -> None:
    psutil.wait_procs([server], timeout=10)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    deadline = time.monotonic() + 5
    while home.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not home.exists()


def test_it_lists_the_given_models_and_has_its_own_folders(server: Client, running: Server, models: Path) -> None:
    for folder in ("diffusion_models", "text_encoders", "vae"):
        assert set(server.get(f"/models/{folder}")) == {file.name for file in (models / folder).iterdir()}
    argv = server.get("/system_stats")["system"]["argv"]
    assert str(running.home) in argv


def test_the_pack_is_loaded(server: Client) -> None:
    modules = {node["python_module"] for node in server.get("/object_info").values()}
    assert "custom_nodes.flux1" in modules


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_starter_that_ends_later_takes_the_running_server_with_it(
    stand_in: Path, models: Path, ending: signal.Signals
) -> None:
    with starting(stand_in, models) as starter:
        server = child_of(starter)
        assert starter.stdout
        home = Path(starter.stdout.readline().strip())
        assert home.is_dir()
        starter.send_signal(ending)
        starter.wait(timeout=20)
        assert_gone(server, home)


def test_the_starter_s_own_python_path_does_not_reach_the_server(
    stand_in: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lead to a `nodes` that isn't ComfyUI's."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with serve(models, comfyui=stand_in, options=["--pack"]) as server:
        assert "PYTHONPATH" not in psutil.Process(server.process.pid).environ()


def test_an_error_of_the_caller_stops_the_server_too(stand_in: Path, models: Path) -> None:
    with pytest.raises(ZeroDivisionError), serve(models, comfyui=stand_in, options=["--pack"]) as server:
        raise ZeroDivisionError
    assert server.process.returncode is not None
    assert not server.home.exists()


def test_a_server_that_does_not_start_shows_the_end_of_its_log(checkout: Path, models: Path) -> None:
    with (
        pytest.raises(Flux1Error, match="(?s)did not start.*code 2.*unrecognized arguments: --no-such-option"),
        serve(models, comfyui=checkout, options=("--no-such-option",)),
    ):
        pass


def test_a_server_that_takes_too_long_is_given_up(checkout: Path, models: Path) -> None:
    with pytest.raises(Flux1Error, match="no answer in 0 s"), serve(models, comfyui=checkout, patience=0):
        pass


def test_another_server_on_the_port_is_not_taken_for_ours(stand_in: Path, models: Path) -> None:
    options = {"comfyui": stand_in, "options": ["--pack"]}
    with serve(models, **options) as other:
        port = urlsplit(other.address).port
        with pytest.raises(Flux1Error, match="did not start"), serve(models, port=port, **options):
            pass


def test_a_server_without_the_pack_is_said_so_with_its_log(stand_in: Path, models: Path) -> None:
    with pytest.raises(Flux1Error, match="(?s)could not load the pack.*stand-in"), serve(models, comfyui=stand_in):
        pass
