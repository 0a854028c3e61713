"""Tensors mapped from a file: their memory given back while they are not needed. Read again, they are fetched again."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ (\d+)")  # start-end, permissions, offset, device, inode


def release(tensors: Iterable[Tensor]) -> int:
    """Give back what these tensors take of this process's memory, so far as the file still holds it; returns bytes.

    Nothing is read from or written to the disk: the system keeps the file's pages as long as it has room. On Linux; does
    nothing elsewhere, nor to tensors on other devices, in memory of their own, or in a mapping that was written to.
    """
    if sys.platform != "linux":
        return 0
    mappings, page, released = list(untouched_mappings()), mmap.PAGESIZE, 0
    for tensor in (tensor for tensor in tensors if tensor.device.type == "cpu"):
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        first, last = -(-start // page) * page, end // page * page  # whole pages that are all the tensor's
        if first < last and any(start in mapping and end - 1 in mapping for mapping in mappings):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)
            released += last - first
    return released


def untouched_mappings() -> Iterator[range]:
    """Addresses of each mapped file of which no page was changed: `Anonymous` counts those that were."""
    start = end = inode = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if header := HEADER.match(line):
            start, end, inode = int(header[1], 16), int(header[2], 16), int(header[3])
        elif inode and re.fullmatch(r"Anonymous:\s+0 kB", line):
            yield range(start, end)
