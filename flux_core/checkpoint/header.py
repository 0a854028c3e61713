"""Reads the header of a safetensors file, and nothing else, and says in words what is wrong with a broken one.

A safetensors file is 8 bytes (the header's length, little endian), a JSON header that gives each tensor a dtype, a
shape and a byte range, and the tensors' bytes, back to back. https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NoReturn

import torch

from ..errors import Flux1Error

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 10_000_000  # a tenth of safetensors' own limit; the largest released FLUX.1 has some 0.3 MB
MAX_HEADER_ITEMS = (
    220_000  # brackets and commas; the released FLUX.1 has about 6,000. Both bound what parsing allocates
)
MAX_DIMENSIONS = 64  # torch's own limit
MAX_DIMENSION = 2**48

DTYPES = {  # the dtypes that ComfyUI's own reader knows
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
}  # fmt: skip

FOREIGN = (  # how other files begin
    (rb"\s*<(!doctype|html|head|\?xml|!--)", "an HTML web page", "the download saved an error or login page"),
    (rb"version https://git-lfs", "a git-lfs pointer, not the file itself", "run `git lfs pull`, or download the file"),
    (rb"GGUF", "a GGUF file", "GGUF needs a GGUF loader node; this pack reads .safetensors"),
    (rb"PK\x03\x04", "a zip archive, as .pt and .ckpt files are", "pickles can run code and are never opened"),
    (rb"\x80[\x01-\x05]", "a Python pickle (.pt, .ckpt, .bin)", "pickles can run code and are never opened"),
    (rb"[\t\n\r -~]{8}", "a text file", "the download may have saved an error message"),
)
DOWNLOAD = "download the file again and compare its size with the source's"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header describes it: dtype as safetensors spells it ("BF16"), shape, size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself."""

    file: str
    """The file's base name, as error texts show it."""
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of the safetensors file at `path`; the tensors' bytes are never touched.

    Raises Flux1Error for everything that is not a whole, well-formed safetensors file: a missing, cut, foreign or
    hostile one. Nothing is allocated before its size is bounded.
    """
    name = os.path.basename(os.fspath(path))
    try:
        size = _size_of_file(Path(path), name)
        with open(path, "rb") as file:
            return parse_header(file, name, size)
    except Flux1Error:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        _refuse(name, "The file can't be read", found=reason, fix="check the name, the folder and the permissions")


def header_digest(path: str | os.PathLike[str]) -> str:
    """Changes when the header of the safetensors file at `path` does. Raises Flux1Error or OSError without one."""
    name = os.path.basename(os.fspath(path))
    size = _size_of_file(Path(path), name)
    with open(path, "rb") as file:
        return hashlib.sha256(_header_text(file, name, size)).hexdigest()


def parse_header(file: BinaryIO, name: str, size: int) -> Header:
    """The checked header of an open safetensors file of `size` bytes; `name` is what error texts call it."""
    text = _header_text(file, name, size)
    entries, metadata = _parse(text, name)
    spans = {tensor: _checked_entry(name, tensor, entry) for tensor, entry in entries.items()}
    _check_layout(name, spans, data_start=LENGTH_BYTES + len(text), size=size)
    return Header(name, {tensor: info for tensor, (info, _, _) in spans.items()}, metadata)


def quoted(name: str) -> str:
    """A name out of an untrusted file, short and printable."""
    return ascii(name if len(name) <= 120 else name[:117] + "...")


def _refuse(file: str, problem: str, *, found: str, fix: str, expected: str = "a whole .safetensors file") -> NoReturn:
    raise Flux1Error(problem, file=file, expected=expected, found=found, fix=fix)


def _size_of_file(path: Path, name: str) -> int:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        _refuse(name, "A folder, not a file", found="a folder (directory)", fix="choose a file inside it")
    if not stat.S_ISREG(status.st_mode):
        _refuse(name, "Not an ordinary file", found="a device, pipe or socket", fix="choose a .safetensors file")
    if status.st_size == 0:
        _refuse(name, "The file is empty", found="0 bytes", fix=DOWNLOAD)
    return status.st_size


def _header_text(file: BinaryIO, name: str, size: int) -> bytes:
    """The header's bytes, after its length has been held against the file's size and the format's limit."""
    start = file.read(512)
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if start[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{" or length > MAX_HEADER_BYTES:
        _refuse_foreign(name, start)
    if size < LENGTH_BYTES + 2:
        _refuse(name, "The file is cut inside its header", found=f"only {size} bytes", fix=DOWNLOAD)
    if length > MAX_HEADER_BYTES:
        found = f"a header of {length:,} bytes, over the limit of {MAX_HEADER_BYTES:,}"
        _refuse(name, "The header's length is absurd", found=found, fix=DOWNLOAD)
    if LENGTH_BYTES + length > size:
        found = f"{size:,} bytes, truncated inside a header that ends at byte {LENGTH_BYTES + length:,}"
        _refuse(name, "The file is cut inside its header", found=found, fix=DOWNLOAD)
    file.seek(LENGTH_BYTES)
    return file.read(length)


def _refuse_foreign(name: str, start: bytes) -> None:
    for pattern, what, advice in FOREIGN:
        if re.match(pattern, start, re.IGNORECASE):
            _refuse(name, "Not a safetensors file", found=what, fix=f"{advice}; get the .safetensors file")


def _parse(text: bytes, name: str) -> tuple[dict[str, object], dict[str, str]]:
    """The header's JSON as (tensor entries, metadata)."""
    if not text.startswith(b"{"):
        _refuse(name, "The header is not JSON", found=f"a header that begins with {text[:16]!r}", fix=DOWNLOAD)
    if (items := sum(map(text.count, (b"[", b"{", b",")))) > MAX_HEADER_ITEMS:
        found = f"{items:,} brackets and commas"
        _refuse(name, "The header holds too much", expected=f"at most {MAX_HEADER_ITEMS:,}", found=found, fix=DOWNLOAD)
    try:
        header = read_json(text.decode("utf-8"))
    except ValueError as error:
        _refuse(name, "The header is not readable JSON", found=str(error)[:200], fix=DOWNLOAD)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(name, "The header's __metadata__ is malformed", expected="text values", found="others", fix=DOWNLOAD)
    return header, metadata


def read_json(text: str) -> object:
    """The JSON in an untrusted text. Raises ValueError for all that is wrong with it."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("lists or objects nested without end") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique: dict[str, object] = {}
    for key, value in pairs:
        if key in unique:
            raise ValueError(f"the name {quoted(key)} is a duplicate: it appears twice")
        unique[key] = value
    return unique


def _checked_entry(file: str, tensor: str, entry: object) -> tuple[TensorInfo, int, int]:
    """One header entry as (tensor, first byte, byte after the last), or a refusal that names the tensor."""
    title = f"The header's entry for {quoted(tensor)} is wrong"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        _refuse(file, title, expected="dtype, shape and data_offsets", found="something else", fix=DOWNLOAD)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        found = f"dtype {quoted(dtype) if isinstance(dtype, str) else 'that is no text'}"
        fix = "get the file in bf16, fp16, fp32 or fp8; other formats need their own loader"
        _refuse(file, title, expected="one of " + ", ".join(DTYPES), found=found, fix=fix)
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS or not all(0 <= n <= MAX_DIMENSION for n in shape):
        _refuse(file, title, expected="a shape of whole numbers", found="a malformed shape", fix=DOWNLOAD)
    if not _whole_numbers(offsets) or len(offsets) != 2:
        _refuse(file, title, expected="two whole numbers as data_offsets", found="others", fix=DOWNLOAD)
    start, end = offsets
    if not 0 <= start <= end < 2**63:
        found = f"a negative, reversed or absurd byte range, offsets {quoted(str(start))} to {quoted(str(end))}"
        _refuse(file, title, expected="a byte range inside the file", found=found, fix=DOWNLOAD)
    info = TensorInfo(dtype, tuple(shape), end - start)
    if info.parameters * DTYPES[dtype].itemsize != info.bytes:
        found = f"shape {list(shape)[:8]} of {dtype} in {info.bytes:,} bytes"
        _refuse(file, title, expected="a byte range as large as the shape says", found=found, fix=DOWNLOAD)
    return info, start, end


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int for number in value)  # True is an int: not here


def _check_layout(file: str, spans: dict[str, tuple[TensorInfo, int, int]], *, data_start: int, size: int) -> None:
    """The tensors' byte ranges lie back to back from the first data byte to the file's last."""
    ordered = sorted((start, end, tensor) for tensor, (_, start, end) in spans.items())
    for (_, before, first), (start, _, second) in pairwise([(0, 0, "the header"), *ordered]):
        if start != before:
            what = "overlap" if start < before else "leave a hole"
            found = f"{quoted(second)} begins at byte {start:,} where {quoted(first)} ends at {before:,}"
            _refuse(file, f"The tensors' byte ranges {what}", expected="ranges back to back", found=found, fix=DOWNLOAD)
    whole = data_start + (ordered[-1][1] if ordered else 0)
    if size < whole:
        found = f"{size:,} bytes ({size}): tensors lie beyond the file's end"
        _refuse(file, "The file is truncated", expected=f"{whole:,} bytes ({whole})", found=found, fix=DOWNLOAD)
    if size > whole:
        found = f"{size:,} bytes: {size - whole:,} trailing bytes not covered by any tensor"
        _refuse(file, "The file has trailing bytes", expected=f"{whole:,} bytes", found=found, fix=DOWNLOAD)
