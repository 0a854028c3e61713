"""The laws of the house: who may import whom, what a node must say of itself."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parent.parent
PACK = [ROOT / "__init__.py", *(ROOT / "nodes").rglob("*.py"), *(ROOT / "flux_core").rglob("*.py")]
# ComfyUI's own modules, by their top-level names.
COMFYUI = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "latent_preview", "node_helpers", "nodes", "server",
           "execution"}  # fmt: skip
# What a module below nodes/ other than the bridge may use of ComfyUI: its public node API, and where files are.
PUBLIC = {"comfy_api", "folder_paths"}


def imports(file: Path) -> set[str]:
    """Absolute names as they are; relative ones from the pack's root, marked with a dot: `.flux_core`."""
    found = set()
    here = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1]
            first = [*base, *(node.module or "").split("."), *[alias.name for alias in node.names]]
            found.add("." + next(part for part in first if part))
    return found


@pytest.mark.parametrize("file", (ROOT / "flux_core").rglob("*.py"), ids=lambda file: file.name)
def test_flux_core_knows_neither_comfyui_nor_nodes(file):
    assert not imports(file) & (COMFYUI | {".nodes", "diffusers", "transformers"})


@pytest.mark.parametrize("file", (ROOT / "nodes").rglob("*.py"), ids=lambda file: file.name)
def test_nodes_reach_comfyui_s_internals_through_the_bridge_alone(file):
    allowed = COMFYUI if "bridge" in file.parts else PUBLIC
    assert imports(file) & COMFYUI <= allowed


def test_the_door_imports_nothing_at_once():
    statements = ast.parse((ROOT / "__init__.py").read_text()).body
    assert not [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("file", PACK, ids=lambda file: file.name)
def test_a_file_says_first_what_it_is(file):
    assert ast.get_docstring(ast.parse(file.read_text()))


def test_importing_the_pack_is_quick_and_defines_nodes_only(comfyui, models):
    """In a process of its own; what ComfyUI itself brings (torch, kornia and so on) is imported before the clock runs."""
    script = f"""
import sys, time, asyncio, importlib.util
sys.path.insert(0, {str(comfyui)!r})
import comfy.cli_args; comfy.cli_args.args.cpu = True
import nodes, server, latent_preview, node_helpers, folder_paths, comfy.sd, comfy.samplers, comfy_api.latest
import kornia, einops, tqdm.auto, comfy_extras.nodes_canny
threads, modules = __import__('threading').active_count(), set(sys.modules)
start = time.process_time()
spec = importlib.util.spec_from_file_location('flux1', {str(ROOT / "__init__.py")!r})
pack = sys.modules['flux1'] = importlib.util.module_from_spec(spec); spec.loader.exec_module(pack)
nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
seconds = time.process_time() - start
assert __import__('threading').active_count() == threads
print(len(nodes), seconds, sorted({{name.split('.')[0] for name in set(sys.modules) - modules}}))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    count, seconds, modules = out.splitlines()[-1].split(maxsplit=2)
    assert int(count) > 0
    assert float(seconds) < 0.3
    assert "flux1" in modules


def test_every_node_explains_itself(pack):
    from flux1.nodes import NODES

    for node in NODES:
        schema = node.GET_SCHEMA()
        assert schema.node_id == node.__name__ and schema.node_id.startswith("Flux1")
        assert schema.category.startswith("FLUX.1/") and schema.search_aliases and schema.description
        for port in [*schema.inputs, *schema.outputs]:
            assert port.tooltip, f"{schema.node_id}.{port.id}"
        for number in schema.inputs:
            if number.io_type in ("INT", "FLOAT"):
                assert number.min is not None and number.max is not None, f"{schema.node_id}.{number.id}"


def test_the_comfyui_group_is_what_comfyui_asks_for(checkout):
    """Each requirement of ComfyUI 0.30.0 stands in the group, as it is or pinned."""
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["comfyui"]
    asked = [line.strip() for line in (checkout / "requirements.txt").read_text().splitlines()]
    asked = {line for line in asked if line and not line.startswith("#")}
    name = re.compile(r"[A-Za-z0-9_.-]+")
    assert {name.match(line)[0].lower() for line in asked} == {name.match(line)[0].lower() for line in group}
    pinned = {line for line in asked if not name.fullmatch(line)}
    assert pinned <= set(group)


def test_the_pack_asks_for_nothing_that_comfyui_does_not_bring():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"] == []


def test_the_code_is_clean():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, str(ROOT)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
