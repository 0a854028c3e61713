"""Memory of mapped tensors goes, their values stay, whoever wrote into them."""

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from flux_core.mapped import release

BYTES = 32 << 20


@pytest.fixture
def mapped(tmp_path: Path) -> torch.Tensor:
    save_file({"weight": torch.randn(BYTES // 4)}, tmp_path / "file.safetensors")
    with safe_open(tmp_path / "file.safetensors", "pt") as file:
        return file.get_tensor("weight")


def file_memory() -> int:
    """Bytes of mapped files in this process's memory."""
    return int(re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10


def test_memory_goes_and_values_stay(mapped: torch.Tensor):
    before, empty = mapped.clone(), file_memory()
    assert BYTES - 8192 <= release([mapped]) <= BYTES
    assert empty - file_memory() > 0.9 * BYTES
    assert torch.equal(mapped, before)


def test_what_was_written_is_never_lost(mapped: torch.Tensor):
    mapped[12345] = 42
    before = mapped.clone()
    assert release([mapped]) == 0
    assert torch.equal(mapped, before)


def test_tensors_of_their_own_are_left_alone():
    own = torch.randn(BYTES // 4)
    before = own.clone()
    assert release([own, torch.empty(BYTES, device="meta")]) == 0
    assert torch.equal(own, before)
