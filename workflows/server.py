"""A real ComfyUI server of our own: headless, on a free loopback port, gone as soon as its starter is gone."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flux_core.errors import Flux1Error

PACK = Path(__file__).resolve().parent.parent
GUARD = Path(__file__).parent / "guarded.py"
NAME = "flux1"  # the pack's folder below custom_nodes


@dataclass(frozen=True)
class Server:
    """A running server: where it answers, its process, its folders and its log."""

    address: str
    process: subprocess.Popen
    home: Path
    output: Path
    log: Path


@contextmanager
def serve(
    models: Path,
    *,
    comfyui: Path,
    pack: Path = PACK,
    output: Path | None = None,
    log: Path | None = None,
    settings: Mapping[str, object] | None = None,
    options: Sequence[str] = ("--cpu",),
    patience: float = 300,
    port: int | None = None,
) -> Iterator[Server]:
    """Starts ComfyUI with the pack and the given models folder, yields it once it answers, and stops it.

    Nothing is written outside a temporary folder, `output` and `log`. `settings` are the graph editor's, `options`
    go to ComfyUI's command line, `patience` is how many seconds the start may take, `port` a certain one instead of
    any free one. Raises Flux1Error with the end of the log when the server does not come up or can't load the pack.
    """
    with tempfile.TemporaryDirectory(prefix="comfyui-", ignore_cleanup_errors=True) as home_name:
        home = Path(home_name).resolve()
        output, log = output or home / "output", log or home / "comfyui.log"
        lay_out(home, pack, models.resolve(), output, settings or {})
        address = f"127.0.0.1:{port or free_port()}"
        command = command_line(comfyui, home, models.resolve(), output.resolve(), address, options)
        with open(log, "wb") as log_file:
            process = subprocess.Popen(
                command,
                cwd=home,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,  # Ctrl-C reaches the starter only, which then stops the server in order
            )
        try:
            server = Server(f"http://{address}", process, home, output, log)
            wait_until_up(server, patience)
            yield server
        finally:
            stop(process)


def quiet_editor() -> dict[str, object]:
    """Settings that keep the graph editor's tutorial and its news away."""
    return {"Comfy.TutorialCompleted": True, "Comfy.InstalledVersion": version("comfyui-frontend-package")}


def lay_out(home: Path, pack: Path, models: Path, output: Path, settings: Mapping[str, object]) -> None:
    """The folders that the server looks into, below `home`."""
    for folder in ("custom_nodes", "input", "temp", "user/default"):
        (home / folder).mkdir(parents=True)
    output.mkdir(parents=True, exist_ok=True)
    (home / "custom_nodes" / NAME).symlink_to(pack, target_is_directory=True)
    (home / "user/default/comfy.settings.json").write_text(json.dumps(dict(settings)))
    # A ComfyUI that the user already has may list further model folders of its own: ours come first.
    ours = {folder.name: folder.name for folder in models.iterdir() if folder.is_dir()}
    (home / "models.yaml").write_text(json.dumps({NAME: {"base_path": str(models), "is_default": True, **ours}}))


def command_line(
    comfyui: Path, home: Path, models: Path, output: Path, address: str, options: Sequence[str]
) -> list[str]:
    host, port = address.split(":")
    return [
        sys.executable, str(GUARD), str(home), str(comfyui / "main.py"),
        "--listen", host, "--port", port, "--disable-auto-launch",
        "--base-directory", str(home), "--output-directory", str(output), "--temp-directory", str(home),
        "--models-directory", str(models), "--extra-model-paths-config", str(home / "models.yaml"),
        "--database-url", "sqlite:///:memory:",
        "--disable-api-nodes", "--disable-all-custom-nodes", "--whitelist-custom-nodes", NAME,
        *options,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """The starter's environment without its PYTHONPATH, which may lead to a `nodes` that isn't ComfyUI's."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {"OMP_NUM_THREADS": "1", **inherited}  # many threads make tiny models ten times slower


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_up(server: Server, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not answers(server):
        ended = server.process.poll() is not None
        if ended or time.monotonic() > deadline:
            found = f"it ended with code {server.process.returncode}" if ended else f"no answer in {patience:.0f} s"
            raise failed("ComfyUI did not start", found, server.log)
        time.sleep(0.1)
    nodes = ask(server, "/object_info").values()
    if not any(node["python_module"] == f"custom_nodes.{NAME}" for node in nodes):
        raise failed("ComfyUI could not load the pack", "none of its nodes on the server", server.log)


def answers(server: Server) -> bool:
    """Whether this very server is up: another one that took the port meanwhile has another home folder."""
    try:
        return str(server.home) in ask(server, "/system_stats")["system"]["argv"]
    except OSError:  # nobody there, or somebody else
        return False


def ask(server: Server, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(server.address + path, timeout=30) as answer:
        return json.load(answer)


def failed(problem: str, found: str, log: Path) -> Flux1Error:
    text = re.sub(r"\x1b\[\d+m", "", log.read_text(errors="replace"))  # without the colours
    tail = "\n".join(text.splitlines()[-30:])
    return Flux1Error(
        problem, expected="a server that answers, with the pack loaded", found=found,
        fix=f"read the end of its log below\n{tail}",
    )  # fmt: skip


def stop(process: subprocess.Popen) -> None:
    """Ends the process: asked first, then forced; ComfyUI keeps nothing that it would have to save."""
    try:
        process.terminate()
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.stdin.close()
        process.wait()
