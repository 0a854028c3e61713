"""What this machine's processors do well, measured: no list of names is ever complete."""

from __future__ import annotations

import time
from functools import cache

import torch

SIDES = {"cpu": 1024}
"""Of the square matrices that show a device's speed, by its kind: large enough to keep it busy, 25 ms at most."""
LARGEST_SIDE = 4096


@cache
def bf16_pays(size: int = 1024, patience: float = 1.5) -> bool:
    """Whether matrices multiply at least twice as fast in bfloat16 as in float32 on the CPU.

    A busy machine must not change the answer: where bfloat16 loses it is tried again, for `patience` seconds. Where it
    wins this takes a tenth of a second.
    """
    cpu, end = torch.device("cpu"), time.monotonic() + patience
    while product_seconds(cpu, torch.float32, size) <= 2 * product_seconds(cpu, torch.bfloat16, size):
        if time.monotonic() > end:
            return False
    return True


def flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """What a product of matrices reaches on the device, a multiplication and an addition counted as two."""
    size = SIDES.get(device.type, LARGEST_SIDE)
    return 2 * size**3 / product_seconds(device, dtype, size)


def product_seconds(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """The shortest of ten products of square matrices with sides of `size`."""
    a, times = torch.ones(size, size, dtype=dtype, device=device), []
    for _ in range(10):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for devices that run behind
        times.append(time.perf_counter() - start)
    return min(times)
