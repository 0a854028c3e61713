"""The header reader takes what safetensors writes and refuses everything else in words."""

import io
import os
import random
import re
import resource
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flux_core.checkpoint import header_digest, parse_header, read_header
from flux_core.errors import Flux1Error
from tests.flux_core.checkpoint_samples import write

TENSOR = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
DATA = bytes(16)


def refusal(path: Path) -> str:
    with pytest.raises(Flux1Error) as caught:
        read_header(path)
    text = str(caught.value)
    assert os.path.basename(path) in text
    assert all(part in text for part in ("File:", "Expected:", "Found:", "Fix:"))
    assert str(path.parent) not in text
    return text


def test_header_says_what_safetensors_wrote(tmp_path: Path) -> None:
    tensors = {
        "a": torch.zeros(3, 5, dtype=torch.bfloat16),
        "b.weight": torch.zeros(2, dtype=torch.float8_e4m3fn),
        "empty": torch.zeros(0, 4),
        "number": torch.zeros(()),
    }
    save_file(tensors, tmp_path / "模型 é.safetensors", metadata={"note": "[{,"})
    header = read_header(tmp_path / "模型 é.safetensors")
    assert header.file == "模型 é.safetensors"
    assert header.metadata == {"note": "[{,"}
    found = {name: (info.dtype, info.shape, info.bytes) for name, info in header.tensors.items()}
    assert found == {
        "a": ("BF16", (3, 5), 30),
        "b.weight": ("F8_E4M3", (2,), 2),
        "empty": ("F32", (0, 4), 0),
        "number": ("F32", (), 4),
    }


def test_header_is_read_without_the_tensors(tmp_path: Path) -> None:
    """A sparse file of 24 GB is read in no time."""
    size = 24 * 10**9
    path = write(tmp_path / "big.safetensors", {"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    os.truncate(path, path.stat().st_size + size)
    start = time.process_time()
    assert read_header(path).tensors["x"].bytes == size
    assert time.process_time() - start < 0.1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty|0 bytes"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "html"),
        (b"\n<HTML><body>Sign in</body></HTML>", "html"),
        (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 23802932552\n", "git-lfs"),
        (b'{"error":"Access to model FLUX.1-dev is restricted"}', "text file"),
        (b"Entry not found", "text file"),
        (b"GGUF\x03\x00\x00\x00" + bytes(40), "GGUF"),
        (b"PK\x03\x04" + bytes(60), "zip.*pickle"),
        (b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00hi\x85R.", "pickle"),
        (b"\x80\x05\x95" + bytes(60), "pickle"),
        (b"\x07\x00", "header"),
        (bytes(64), "header"),
    ],
)
def test_foreign_file_is_named(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    assert re.search(words, refusal(tmp_path / "x.safetensors"), re.IGNORECASE)


def test_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    assert "folder" in refusal(tmp_path / "folder.safetensors").split("Found:")[1]
    os.symlink(tmp_path / "loop.safetensors", tmp_path / "loop.safetensors")
    assert "symbolic link" in refusal(tmp_path / "loop.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "pipe" in refusal(tmp_path / "pipe.safetensors").split("Found:")[1]
    assert "No such file" in refusal(tmp_path / "absent.safetensors")
    assert "null" in refusal(tmp_path / "nul\0.safetensors")
    assert "long" in refusal(tmp_path / ("a" * 300))


def test_truncated_download_names_both_sizes(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1000)}, tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").stat().st_size
    os.truncate(tmp_path / "x.safetensors", whole // 2)
    text = refusal(tmp_path / "x.safetensors")
    assert "truncated" in text
    assert f"({whole})" in text
    assert f"({whole // 2})" in text


@pytest.mark.parametrize("size", [1, 8, 9, 30])
def test_file_cut_inside_its_header_is_refused(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "x.safetensors", {"x": TENSOR}, DATA)
    os.truncate(path, size)
    assert "cut inside its header" in refusal(path)


def test_absurd_header_length_costs_nothing(tmp_path: Path) -> None:
    absurd = write(tmp_path / "x.safetensors", {"x": TENSOR}, DATA, length=2**63)
    large = write(tmp_path / "y.safetensors", {"x": TENSOR}, DATA, length=150_000_000)
    os.truncate(large, 200_000_000)
    tracemalloc.start()
    assert "header" in refusal(absurd)
    assert "limit of 10,000,000" in refusal(large)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"[" * 200_000, "header"),
        (b'{"x":' + b"[" * 200_000, "nested"),
        (b'{"x":[' + b"[]," * 111_000, "holds too much"),
        (b'{"x": }', "header.*JSON"),
        (b'{"x": \xff}', "header.*JSON"),
        (b'{"x": ' + b"9" * 5000 + b"}", "header.*JSON"),
        (b'["x"]', "header.*JSON"),
        (b'{"x": 1, "x": 1}', "duplicate"),
        ({"x": 1}, "'x'.*data_offsets"),
        ({"x": {"dtype": "F32", "shape": [4]}}, "'x'.*data_offsets"),
        ({"x": TENSOR, "__metadata__": {"a": 1}}, "metadata"),
        ({"x": TENSOR, "__metadata__": []}, "metadata"),
        ({"x": TENSOR | {"dtype": "Q8"}}, "dtype 'Q8'"),
        ({"x": TENSOR | {"dtype": "F4"}}, "dtype 'F4'"),
        ({"x": TENSOR | {"dtype": None}}, "dtype"),
        ({"x": TENSOR | {"shape": [2**38], "data_offsets": [0, 0]}}, "as large as the shape"),
        ({"x": TENSOR | {"shape": [4, True]}}, "malformed shape"),
        ({"x": TENSOR | {"shape": [-2, -2]}}, "malformed shape"),
        ({"x": TENSOR | {"shape": [4] + [1] * 64}}, "malformed shape"),
        ({"x": TENSOR | {"shape": [0, 2**49], "data_offsets": [0, 0]}}, "malformed shape"),
        ({"x": TENSOR | {"shape": 4}}, "malformed shape"),
        ({"x": TENSOR | {"data_offsets": [-16, 0]}}, "negative"),
        ({"x": TENSOR | {"data_offsets": [16, 0]}}, "reversed"),
        ({"x": TENSOR | {"data_offsets": [0, 10**4000]}}, "absurd"),
        ({"x": TENSOR | {"data_offsets": [0, 16.0]}}, "whole numbers"),
        ({"x": TENSOR | {"data_offsets": [0]}}, "whole numbers"),
        ({"x": TENSOR | {"shape": [2, 3], "data_offsets": [0, 24]}}, "truncated|beyond"),
        ({"x": TENSOR | {"shape": [3], "data_offsets": [4, 16]}}, "hole"),
        ({"x": TENSOR, "y": TENSOR}, "overlap"),
        ({"x": TENSOR, "y": TENSOR | {"shape": [2], "data_offsets": [8, 16]}}, "overlap"),
        ({"x": TENSOR | {"shape": [2], "data_offsets": [0, 8]}}, "trailing|not covered"),
        ({}, "trailing|not covered"),
        ({"x\n\x1b[31m\ud800" + "y" * 9999: 1}, r"x\\n\\x1b\[31m\\ud800y+\.\.\."),
    ],
)  # fmt: skip
def test_malformed_header_is_refused_in_words(tmp_path: Path, header: bytes | dict, words: list[str]) -> None:
    start = time.process_time()
    text = refusal(write(tmp_path / "x.safetensors", header, DATA))
    assert re.search(words, text)
    assert text.isprintable()
    assert len(text) < 1000
    assert time.process_time() - start < 1


MANY = 215_000  # brackets and commas: just below what is read
WORST = {
    "names": ("{" + ",".join(f'"{number}":0' for number in range(MANY)) + "}").encode(),
    "lists": b'{"x":[' + b"[]," * (MANY // 2) + b"0]}",
    "numbers": b'{"x":[' + b"1e9," * MANY + b"0]}",
    "tensors": (
        "{" + ",".join(
            f'"{number}":{{"dtype":"U8","shape":[1],"data_offsets":[{number},{number + 1}]}}'
            for number in range(MANY // 7)
        ) + "}"
    ).encode(),
    "wide letters": b'{"__metadata__":{"a":"' + b"a" * 9_900_000 + "\N{GRINNING FACE}".encode() + b'"}}',
}  # fmt: skip


@pytest.mark.parametrize("name", WORST)
def test_the_largest_headers_that_are_read_stay_below_a_second_and_100_mb(name, tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", WORST[name])
    if name == "tensors":
        os.truncate(path, path.stat().st_size + MANY // 7)

    def read() -> None:
        with suppress(Flux1Error):
            read_header(path)

    start = time.process_time()
    read()
    assert time.process_time() - start < 1
    tracemalloc.start()
    read()
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_the_digest_changes_with_the_header_and_with_nothing_else(tmp_path: Path) -> None:
    first, second, other = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "other"))
    save_file({"x": torch.zeros(3)}, first)
    save_file({"x": torch.ones(3)}, second)
    save_file({"y": torch.zeros(3)}, other)
    assert header_digest(first) == header_digest(second) != header_digest(other)


def peak_memory() -> int:
    """Bytes of this process that were in memory at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mutated(rng: random.Random, good: bytes) -> bytes:
    """A file with a few bytes changed, cut, doubled, or numbers and words of its header replaced."""
    length = int.from_bytes(good[:8], "little")
    text, data = bytearray(good[8 : 8 + length]), good[8 + length :]
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(text))
        match rng.randrange(5):
            case 0:
                text[place] = rng.randrange(256)
            case 1:
                del text[place : place + rng.randint(1, 40)]
            case 2:
                text[place:place] = text[place : place + rng.randint(1, 40)]
            case 3:
                text[place:place] = rng.choice(
                    [b"[", b"{", b'"', b"null", b"-1", b"1e999", b"NaN", b"\\ud800", b"9" * 99]
                )
            case 4:
                numbers = list(re.finditer(rb"\d+", text))
                number = rng.choice(numbers) if numbers else None
                if number:
                    text[number.start() : number.end()] = str(rng.choice([-1, 0, 1, 2**31, 2**63, 2**64])).encode()
    new_length = rng.choice([len(text)] * 8 + [length, rng.randrange(2**64)])
    return new_length.to_bytes(8, "little") + bytes(text) + data[: rng.choice([len(data)] * 8 + [3])]


def test_mutated_headers_raise_nothing_but_flux1error(tmp_path: Path) -> None:
    rng = random.Random(20)
    entries, end = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, size in (("a", "F32", [2, 3], 24), ("b.weight", "BF16", [4], 8), ("c", "F8_E4M3", [5], 5)):
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end := end + size]}
    good, refused = write(tmp_path / "x.safetensors", entries, bytes(end)).read_bytes(), 0
    memory, slowest = peak_memory(), 0.0
    for _ in range(10_000):
        bad = mutated(rng, good)
        start = time.process_time()
        try:
            header = parse_header(io.BytesIO(bad), "x.safetensors", len(bad))
            assert sum(info.bytes for info in header.tensors.values()) < len(bad)
        except Flux1Error as error:
            str(error).encode()
            refused += 1
        slowest = max(slowest, time.process_time() - start)
    assert slowest < 1
    assert peak_memory() - memory < 100 * 2**20
    assert refused > 5_000
