"""A folder that is made once appears whole or not at all."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workflows.cache import made_once


def write(folder: Path) -> None:
    folder.mkdir()
    (folder / "first").touch()
    time.sleep(0.05)
    (folder / "second").touch()


def test_many_at_once_get_one_whole_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: made_once(tmp_path / "made", write), range(8)))
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"first", "second"}


def test_an_interrupted_attempt_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once(tmp_path / "made", fail)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    made_once(tmp_path / "made", write)
    assert made_once(tmp_path / "made", lambda _: pytest.fail("made again")) == tmp_path / "made"
