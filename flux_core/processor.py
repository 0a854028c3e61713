"""What this processor does well, measured once: no list of names is ever complete."""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import Tensor


@cache
def bf16_pays(size: int = 512, rounds: int = 4, tries: int = 10) -> bool:
    """Whether matrices multiply at least twice as fast in bfloat16 as in float32 on the CPU.

    A busy machine must not change the answer: what counts is the quickest of some tries, and where bfloat16 loses it is
    given other rounds, a moment later. Takes some hundredths of a second where it wins.
    """
    matrices = [torch.ones(size, size, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]

    def seconds(matrix: Tensor) -> float:
        start = time.perf_counter()
        matrix @ matrix
        return time.perf_counter() - start

    for _ in range(rounds):
        fp32, bf16 = zip(*([seconds(matrix) for matrix in matrices] for _ in range(tries)), strict=True)
        if min(fp32) > 2 * min(bf16):
            return True
        time.sleep(0.05)
    return False
