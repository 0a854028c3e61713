"""What the benchmark reports is what it says: counted bytes, intervals that hold the median, files that load."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from benchmarks import growth, lines, memory, modulation, plot, weights
from benchmarks.__main__ import table
from flux_core.checkpoint import expect_transformer, read_header


def test_a_step_touches_27_percent_fewer_weights_with_the_table():
    """All of FLUX.1-dev; without the table, all of it but the embeddings that are made once a run."""
    counted = modulation.counted()
    assert 0.265 <= counted["share_saved"] <= 0.28
    assert counted["bytes_without"] == pytest.approx(2 * 11.9e9, rel=0.01)


def test_the_table_changes_no_bit_at_real_width():
    assert modulation.bits() == {"same_bits_float32": True, "same_bits_bfloat16": True}


def test_the_file_is_a_whole_flux(tmp_path):
    params = replace(weights.shallow(1, 1), hidden_size=128, num_heads=1)
    path = weights.write(tmp_path / "flux1-dev.safetensors", params)
    assert expect_transformer(read_header(str(path))).params.depth_single_blocks == 1
    wanted = dict(weights.seeded(params))
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(wanted)
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in wanted.items())


def test_a_line_is_of_pairs():
    made = lines.line("x", [(1.0, 2.0), (2.0, 3.0), (1.0, 4.0)], 0.1, 0.2)
    assert (made.ratio, made.ratio_min, made.seconds, made.peer_seconds) == (2.0, 1.5, 1.0, 3.0)
    assert made.interval[0] <= made.ratio <= made.interval[1]


def test_the_exponent_is_that_of_the_power_law():
    rows = [{"tokens": n, "seconds": 3 * n**1.5} for n in (100, 200, 700)]
    assert math.isclose(growth.exponent(rows, "seconds"), 1.5)


def test_the_report_can_be_read_and_seen(tmp_path):
    one = lines.line("step.512.comfy-bf16", [(1.0, 2.0), (1.0, 3.0)], 1e-3, 2e-3).row()
    rows = [{"side": n, "tokens": n, "seconds": n / 9, "flops": 5 * n} for n in (256, 512)]
    report = {
        "lines": [one],
        "modulation": {"bytes": 1, "bytes_without": 2, "share_saved": 0.5, "same_bits_float32": True,
                       "same_bits_bfloat16": True},
        "growth": {"rows": rows, "exponent_seconds": 1.0, "exponent_flops": 1.0},
        "memory": {"file": 1 << 30} | {name: {"load": 1, "run": 2, "load_seconds": 3} for name in memory.RUNNERS},
        "cuda": "SKIP: no CUDA device",
    }  # fmt: skip
    text = table(json.loads(json.dumps(report)))
    assert "step.512.comfy-bf16" in text and "1.00e-03" in text and "SKIP" in text
    plot.draw(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
