"""Finding ComfyUI: a named folder is checked, an archive must be the known one and stay in its folder."""

import tarfile
from pathlib import Path

import pytest

from flux_core.errors import Flux1Error
from workflows import comfyui


def fake_checkout(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return folder


def archive_of(folder: Path, archive: Path, **more: bytes) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "package-1/vendor/ComfyUI")
        tar.add(folder, "package-1/other")
        for name in more:
            tar.addfile(tarfile.TarInfo(name))
    return archive


def test_the_named_folder_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = fake_checkout(tmp_path / "named", "0.30.0")
    from_environment = fake_checkout(tmp_path / "environment", "1.2.3")
    monkeypatch.setenv("COMFYUI_PATH", str(from_environment))
    assert comfyui.find_comfyui(named) == named
    assert comfyui.find_comfyui() == from_environment


@pytest.mark.parametrize("version, text", [("0.29.9", "Found: 0.29.9"), (None, "no main.py")])
def test_what_is_no_usable_comfyui_is_refused_by_name(tmp_path: Path, version: str | None, text: str) -> None:
    folder = fake_checkout(tmp_path / "old", version) if version else tmp_path
    with pytest.raises(Flux1Error, match=text) as error:
        comfyui.find_comfyui(folder)
    assert str(folder) in str(error.value)


def test_an_unknown_archive_is_not_unpacked(tmp_path: Path) -> None:
    archive = archive_of(fake_checkout(tmp_path / "in", "0.30.0"), tmp_path / "a.tar.gz")
    with pytest.raises(Flux1Error, match="sha256"):
        comfyui.unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_comfyui_is_unpacked_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fake_checkout(tmp_path / "in", "0.30.0")
    good = archive_of(source, tmp_path / "good.tar.gz")
    monkeypatch.setattr(comfyui, "SHA256", comfyui.hashlib.sha256(good.read_bytes()).hexdigest())
    comfyui.unpack(good, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["comfyui_version.py", "main.py"]

    evil = archive_of(source, tmp_path / "evil.tar.gz", **{"package-1/vendor/ComfyUI/../../../evil": b""})
    monkeypatch.setattr(comfyui, "SHA256", comfyui.hashlib.sha256(evil.read_bytes()).hexdigest())
    with pytest.raises(tarfile.OutsideDestinationError):
        comfyui.unpack(evil, tmp_path / "deep" / "down" / "out")
