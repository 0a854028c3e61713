"""The family's files: released names and number types, small enough, and the same numbers back."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from painter.family import FILES, VARIANTS, load_autoencoder, load_transformer, to_scaled_fp8, write_random_family


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    write_random_family(folder)
    return folder


def test_all_files_together_stay_below_48_megabytes(folder: Path):
    assert sum((folder / name).stat().st_size for name in FILES.values()) < 48e6


def test_a_seed_always_gives_the_same_files(folder: Path, tmp_path: Path):
    write_random_family(tmp_path)
    for name in ("dev", "kontext"):
        assert (folder / FILES[name]).read_bytes() == (tmp_path / FILES[name]).read_bytes()


def test_only_schnell_has_no_guidance(folder: Path):
    for variant in VARIANTS:
        has = any(key.startswith("guidance_in") for key in load_file(folder / FILES[variant]))
        assert has == (variant != "schnell")


def test_norms_are_named_as_in_the_released_files(folder: Path):
    names = load_file(folder / FILES["dev"])
    assert "double_blocks.0.img_attn.norm.query_norm.scale" in names
    assert not any(name.endswith("_norm.weight") for name in names)


def test_every_transformer_loads_and_its_velocity_is_sane(folder: Path):
    for variant, params in VARIANTS.items():
        model = load_transformer(folder / FILES[variant], variant)
        extra = torch.randn(1, 64, params.in_channels - 64) if params.in_channels > 64 else None
        velocity = model(
            torch.randn(1, 64, 64), torch.zeros(64, 3), torch.randn(1, 20, 64), torch.tensor([0.5]), torch.randn(1, 64),
            torch.tensor([3.5]), extra=extra,
        )  # fmt: skip
        assert velocity.isfinite().all() and 0.5 < velocity.std() < 2


def test_scaled_fp8_keeps_a_matrix_to_within_its_three_bits():
    matrix = torch.randn(64, 64)
    stored = to_scaled_fp8({"single_blocks.0.linear1.weight": matrix})
    back = stored["single_blocks.0.linear1.weight"].float() * stored["single_blocks.0.linear1.scale_weight"]
    assert (back - matrix).norm() / matrix.norm() < 0.04
    assert stored["scaled_fp8"].numel() == 0


def test_the_autoencoder_gives_flux_latents(folder: Path):
    model = load_autoencoder(folder / FILES["ae"])
    latents = model.encode(torch.randn(1, 3, 64, 32))
    assert latents.shape == (1, 16, 8, 4)
    assert model.decode(latents).shape == (1, 3, 64, 32)
