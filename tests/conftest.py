"""What the tests share: ComfyUI in this process, the pack as ComfyUI loads it, tiny models, and a running server."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from painter.painter import Painter
    from tests.faults.running import Place
    from workflows.client import Client
    from workflows.server import Server

ROOT = Path(__file__).resolve().parent.parent

# Last on the path: `import flux_core` works, and `import nodes` stays ComfyUI's own.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT] + [str(ROOT)]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the tiny random family and its companions under the released files' names."""
    from painter.family import write_random_family
    from tests.companions import write_companions

    folder = tmp_path_factory.mktemp("models")
    write_random_family(folder)
    write_companions(folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a module's tests put among the shared models is gone after them: the next module finds the family alone."""
    here = (item for item in request.session.items if item.getparent(pytest.Module) is request.node)
    if not any("models" in item.fixturenames for item in here):
        yield
        return
    models: Path = request.getfixturevalue("models")
    before = {*models.rglob("*")}
    yield
    for path in sorted({*models.rglob("*")} - before, reverse=True):  # a folder's files before the folder
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.fixture(scope="session")
def checkout() -> Path:
    """ComfyUI's source folder."""
    from workflows.comfyui import find_comfyui

    return find_comfyui()


@pytest.fixture(scope="session")
def comfyui(checkout: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI importable in this process, on the CPU, listing the tiny models; returns its folder."""
    import torch

    sys.path.insert(0, str(checkout))
    from comfy.cli_args import args

    args.cpu, args.fp32_unet = True, True  # the same numbers on every processor
    args.base_directory = str(tmp_path_factory.mktemp("comfyui"))  # input, output and user folders
    args.models_directory = str(models)
    torch.set_num_threads(1)  # tiny tensors lose time on more
    return checkout


@pytest.fixture(scope="session")
def pack(comfyui: Path) -> ModuleType:
    """The pack as ComfyUI loads it, under the name `flux1`: a test can then say `from flux1.nodes import ...`."""
    spec = importlib.util.spec_from_file_location("flux1", ROOT / "__init__.py")
    assert spec and spec.loader
    module = sys.modules["flux1"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def running(checkout: Path, models: Path) -> "Iterator[Server]":
    """A ComfyUI server with the pack and the tiny models: its process, folders and log."""
    from painter.redux import LOADERS
    from workflows.server import quiet_editor, serve

    settings = quiet_editor() | {"Comfy.Locale": "en"}
    options = ("--cpu", "--fp32-unet", *LOADERS)
    with serve(models, comfyui=checkout, settings=settings, options=options) as server:
        yield server


@pytest.fixture(scope="session")
def server(running: "Server") -> "Client":
    """A client of the running server."""
    from workflows.client import Client

    return Client(running.address)


@pytest.fixture(scope="session")
def faulty_running(checkout: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """A second server, with nodes beside the pack that make things go wrong."""
    from workflows.server import NAME, serve

    paths = tmp_path_factory.mktemp("faulty") / "paths.yaml"
    paths.write_text(f"faulty: {{custom_nodes: {ROOT / 'tests/faults/custom_nodes'}}}")
    options = ["--extra-model-paths-config", str(paths), "--whitelist-custom-nodes", NAME, "faulty"]
    with serve(models, comfyui=checkout, options=("--cpu", "--fp32-unet", *options)) as server:
        yield server


@pytest.fixture(scope="session")
def place(faulty_running: "Server") -> "Place":
    """Where things go wrong."""
    from tests.faults.running import Place
    from workflows.client import Client

    return Place(faulty_running, Client(faulty_running.address))


@pytest.fixture(scope="session")
def reference(running: "Server", server: "Client") -> "Place":
    """Where they are as they should be."""
    from tests.faults.running import Place

    return Place(running, server)


@pytest.fixture
def alive(place: "Place", reference: "Place") -> Iterator[None]:
    """After the test the server in it paints what another one does."""
    from tests.faults.running import assert_same

    yield
    assert_same(place, reference)


@pytest.fixture(scope="session")
def painter(checkout: Path) -> "Iterator[Painter]":
    """A server of its own with the trained family."""
    from painter.painter import WEIGHTS, Painter
    from painter.redux import LOADERS
    from workflows.client import Client
    from workflows.server import serve

    with serve(WEIGHTS, comfyui=checkout, options=("--cpu", "--fp32-unet", *LOADERS)) as server:
        yield Painter(Client(server.address))
