"""Headers that are well formed and wrong: every loader's check takes them or refuses them in words, never crashes."""

import random
import time
from dataclasses import replace

import pytest

from flux_core.checkpoint import Header, TensorInfo, expect_transformer, expect_vae, text_encoder_slots
from flux_core.errors import Flux1Error
from flux_core.lora import expect_lora
from painter.family import PARAMS
from tests.flux_core.checkpoint_samples import clip, diffusers_flux, flux, header, t5, vae
from tests.flux_core.lora_samples import kohya, random_lora

MADE = {
    "flux": flux,
    "diffusers": diffusers_flux,
    "t5": t5,
    "clip": clip,
    "vae": vae,
    "lora": lambda: kohya(random_lora(PARAMS)),
}
CHECKS = {
    "model": expect_transformer,
    "vae": expect_vae,
    "text encoders": lambda found: text_encoder_slots(found, found),
    "lora": expect_lora,
}
TRIALS = 150
SIZES = [0, 1, 2, 3, 64, 2**31, 2**48]
DTYPES = ["F8_E4M3", "U8", "I8", "BF16", "I64", "C64"]
NAMES = ["scaled_fp8", "x.comfy_quant", "x.weight_scale", "vae.x", "", ".", "double_blocks.9999.img_attn.qkv.weight",
         "encoder.block.9999.layer.0.SelfAttention.q.weight", "x" * 10_000, "\ud800"]  # fmt: skip
METADATA = ["flux1.head_dim", "flux1.mlp_ratio", "flux1.axes_dim", "_quantization_metadata", "ss_network_alpha"]
VALUES = ["", "0", "-1", "nan", "1e999", "[]", "[" * 10_000, '{"layers": {"x": {"format": 1}}}', "3", "null"]


def mutated(rng: random.Random, good: Header) -> Header:
    """Tensors lost, renamed, added, reshaped or of another type; metadata that nobody wrote."""
    tensors, metadata = dict(good.tensors), dict(good.metadata)
    for _ in range(rng.randint(1, 5)):
        name = rng.choice(list(tensors) or [""])
        info = tensors.pop(name, TensorInfo("F32", (1,), 4))
        match rng.randrange(6):
            case 0:
                pass
            case 1:
                tensors[rng.choice(NAMES)] = info
            case 2:
                tensors[name[rng.randrange(len(name) + 1) :]] = info
            case 3:
                tensors[name] = replace(info, shape=tuple(rng.choice(SIZES) for _ in range(rng.randrange(6))))
            case 4:
                tensors[name] = replace(info, dtype=rng.choice(DTYPES))
            case 5:
                tensors[name] = info
                metadata[rng.choice(METADATA)] = rng.choice(VALUES)
    return replace(good, tensors=tensors, metadata=metadata)


@pytest.mark.parametrize("made", MADE)
def test_a_wrong_header_is_refused_in_words_or_taken(made):
    rng, good, slowest, refused = random.Random(21), header(MADE[made]()), 0.0, 0
    for _ in range(TRIALS):
        bad = mutated(rng, good)
        for check in CHECKS.values():
            start = time.process_time()
            try:
                check(bad)
            except Flux1Error as error:
                str(error).encode()
                refused += 1
            slowest = max(slowest, time.process_time() - start)
    assert slowest < 1
    assert refused > TRIALS
