"""What the pack never does: run code that it was given, reach for the network, write files, ship scripts."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACK = [ROOT / "__init__.py", *(ROOT / "nodes").rglob("*.py"), *(ROOT / "flux_core").rglob("*.py")]
WORKFLOWS = [*(ROOT / "workflows").rglob("*.json"), *(ROOT / "subgraphs").rglob("*.json")]

MODULES = {
    *(
        "pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "marshal",
        "shelve",
        "joblib",
        "code",
        "codeop",
        "runpy",
        "importlib",
    ),
    *("subprocess", "multiprocessing", "pty", "ctypes", "pip", "ensurepip", "venv"),
    *("socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "xmlrpc"),
    *("websocket", "websockets", "huggingface_hub", "webbrowser"),
}
CALLS = {
    *("eval", "exec", "compile", "__import__", "torch.load", "torch.hub.load", "torch.jit.load", "torch.save"),
    *("numpy.load", "np.load", "os.system", "os.popen", "os.startfile", "os.fork", "os.mkdir", "os.makedirs"),
    *("os.remove", "os.unlink", "os.rename", "os.replace", "os.rmdir", "save_file"),
}
METHODS = {"write_text", "write_bytes", "mkdir", "unlink", "touch", "symlink_to", "rmdir", "save_pretrained"}
OPENERS = {"open", "read_text", "read_bytes", "iterdir", "glob", "rglob", "walk"}
READERS = {
    *("flux_core/checkpoint/header.py", "flux_core/depth.py", "flux_core/doctor/files.py", "flux_core/mapped.py"),
    "nodes/files.py",
}
"""All that look into files or folders by themselves; models are read by ComfyUI and transformers."""
CALLS_THE_SYSTEM = {"flux_core/mapped.py": ["ctypes"]}  # madvise, which Python has for its own mappings only


def violations(source: str) -> Iterator[str]:
    """What of `source` a node pack must not do."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=module, level=0, names=names):
                yield from {module} if module.split(".")[0] in MODULES else ()
                yield from (f"{module}.{alias.name}" for alias in names if f"{module}.{alias.name}" in CALLS)
            case ast.Call(func=function, args=args, keywords=keywords):
                name, given = ast.unparse(function), {key.arg: ast.unparse(key.value) for key in keywords}
                if name in CALLS or re.match(r"os\.(exec|spawn|posix_spawn)", name) or name.split(".")[-1] in METHODS:
                    yield name
                place = 0 if name.endswith(".open") and name != "os.open" else 1  # Path.open is not given the path
                mode = given.get("mode", ast.unparse(args[place]) if len(args) > place else "'r'")
                if name.endswith("open") and not re.fullmatch("'rb?'", mode):
                    yield "a file opened for writing"
                if name.endswith("from_pretrained") and given.get("local_files_only") != "True":
                    yield "a download"
                if given.get("trust_remote_code", "False") != "False" or given.get("allow_pickle", "False") != "False":
                    yield "code from elsewhere"


@pytest.mark.parametrize("file", PACK, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_runs_code_reaches_the_network_or_writes_files(file):
    assert list(violations(file.read_text())) == CALLS_THE_SYSTEM.get(file.relative_to(ROOT).as_posix(), [])


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from urllib.request import urlopen", "import torch\ntorch.load(file)", "from torch import load",
     "eval('1')", "import os; os.execv('a', [])", "open('a', 'w')", "open('a', mode='w')", "path.open('a')",
     "path.write_text('')", "import pip._internal",
     "Model.from_pretrained('a')", "Model.from_pretrained('a', local_files_only=True, trust_remote_code=True)"],
)  # fmt: skip
def test_what_must_not_be_is_seen(source):
    assert list(violations(source))


@pytest.mark.parametrize("file", PACK, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_are_looked_into_in_few_places(file):
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)}
    opens = {call for call in calls if call.split(".")[-1] in OPENERS}
    assert not opens or file.relative_to(ROOT).as_posix() in READERS, opens


def texts(part: object) -> Iterator[str]:
    """All text in a JSON value, keys too."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict | list):
        for inner in (*part.keys(), *part.values()) if isinstance(part, dict) else part:
            yield from texts(inner)


ACTIVE = re.compile(r"<\s*[a-z!/?]|javascript:|vbscript:|data:|\bon[a-z]+\s*=|&#", re.IGNORECASE)
LINK = re.compile(r"\b[a-z][a-z+.-]*://[^\s)\"]*", re.IGNORECASE)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: str(file.relative_to(ROOT)))
def test_workflows_hold_no_html_no_script_and_link_to_model_pages_only(file):
    for text in texts(json.loads(file.read_text(encoding="utf-8"))):
        assert not ACTIVE.search(text), text
        assert all(link.startswith("https://huggingface.co/") for link in LINK.findall(text)), text


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=alert(1)>", "</script >", "[a](javascript:alert(1))", "a onload = b"]
)
def test_html_and_script_are_seen(text):
    assert ACTIVE.search(text)
