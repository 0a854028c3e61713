"""Tensors mapped from a file: their memory given back while they are not needed. Read again, they are fetched again."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

MAPPING = re.compile(r"^(\w+)-(\w+) \S+ \S+ \S+ ([1-9]\d*) .*?^Anonymous: +(\d+) kB$", re.MULTILINE | re.DOTALL)
"""Of /proc/self/smaps: start-end, permissions, offset, device, inode of a file; how much of it was changed."""

WORTHWHILE = 16 << 20
"""Bytes; for less the list of mappings is not even read, which takes some milliseconds."""


def release(tensors: Iterable[Tensor]) -> int:
    """Give back what these tensors take of this process's memory, so far as the file still holds it; returns bytes.

    Nothing is read from or written to the disk: the system keeps the file's pages as long as it has room. On Linux; does
    nothing elsewhere, nor to tensors on other devices, in memory of their own, or in a mapping that was written to.
    """
    here = [tensor for tensor in tensors if tensor.device.type == "cpu"]
    if sys.platform != "linux" or sum(tensor.nbytes for tensor in here) < WORTHWHILE:
        return 0
    mappings, page, released = list(untouched_mappings()), mmap.PAGESIZE, 0
    for tensor in here:
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        first, last = -(-start // page) * page, end // page * page  # whole pages that are all the tensor's
        if first < last and any(start in mapping and end - 1 in mapping for mapping in mappings):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)
            released += last - first
    return released


def untouched_mappings() -> Iterator[range]:
    """Addresses of each mapped file of which no page was changed."""
    for start, end, _, changed in MAPPING.findall(Path("/proc/self/smaps").read_text()):
        if changed == "0":
            yield range(int(start, 16), int(end, 16))
