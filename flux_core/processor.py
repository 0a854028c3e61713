"""What this processor does well, measured once: no list of names is ever complete."""

from __future__ import annotations

import time
from functools import cache

import torch


@cache
def bf16_pays(size: int = 512) -> bool:
    """Whether matrices multiply at least twice as fast in bfloat16 as in float32 on the CPU; takes some milliseconds."""

    def seconds(dtype: torch.dtype) -> float:
        a, times = torch.ones(size, size, dtype=dtype), []
        for _ in range(6):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.float32) > 2 * seconds(torch.bfloat16)
