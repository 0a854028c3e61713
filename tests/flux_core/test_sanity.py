"""The checks of a run: what they refuse, and how little they cost at FLUX.1's real size."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flux_core import sanity, schedule
from flux_core.errors import Flux1Error
from flux_core.model import Transformer
from flux_core.variants import VARIANTS

NAN, INFINITY = float("nan"), float("inf")
NOT_FINITE = pytest.mark.parametrize("bad", [NAN, INFINITY, -INFINITY])
READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.stack.default)
"""A number taken from the device, and many at once, which torch on a CPU does without an operator: they are stacked."""


class Counting(TorchDispatchMode):
    """Counts the bytes that operators take and give, and how often a number is read from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        self.bytes += sum(tensor.nbytes for tensor in tensors)
        self.reads += func in READS
        return out


def test_watching_a_step_moves_less_than_a_thousandth_of_the_weights_that_the_step_reads():
    """At FLUX.1's width and 1024 x 1024 pixels, weights in float8, modulations not counted; what attention and the
    layers' results move comes on top."""
    with torch.device("meta"):
        model = Transformer(VARIANTS["dev"].params)
    unread = {weight for layer in model.modulation_layers() for weight in layer.parameters()}
    read = sum(weight.numel() for weight in set(model.parameters()) - unread)
    assert read > 8.6e9
    steps = sanity.Steps()
    with Counting() as counting:
        for _ in range(20):
            steps.see(torch.zeros(1, 16, 128, 128))
    assert 0 < counting.bytes / 20 < read / 1000


@pytest.mark.parametrize("count", [4, 20, 50])
def test_the_device_is_waited_for_a_few_times_in_a_whole_run(count):
    steps = sanity.Steps()
    with Counting() as counting:
        for _ in range(count):
            steps.see(torch.zeros(1, 16, 8, 8))
        steps.end(torch.zeros(1, 16, 8, 8))
    assert count.bit_length() <= counting.reads <= count.bit_length() + 2


@NOT_FINITE
@pytest.mark.parametrize("step", range(1, 8))
def test_the_first_step_that_is_not_finite_is_named(step, bad):
    def run() -> None:
        steps = sanity.Steps()
        for number in range(1, 8):
            clean = torch.zeros(2, 16, 4, 4)
            clean[1, 3, 2, 1] = bad if number >= step else 0.0
            steps.see(clean)
        steps.end(torch.zeros(2, 16, 4, 4))

    with pytest.raises(Flux1Error, match=f"step {step}\\."):
        run()


@NOT_FINITE
def test_a_result_that_is_not_finite_is_found_though_no_step_showed_it(bad):
    with pytest.raises(Flux1Error, match="non-finite.*the end"):
        sanity.Steps().end(torch.full((1, 16, 4, 4), bad))


@pytest.mark.parametrize("sigmas", [
    [1.0, NAN, 0.0], [14.6, 1.0, 0.0], [1.0, 0.5, -0.1], [1.0, 1.0, 1.0, 0.0], [INFINITY, 0.0],
])  # fmt: skip
def test_levels_that_make_no_picture_are_refused(sigmas):
    with pytest.raises(Flux1Error, match="sigmas.*Expected.*Found.*shift"):
        sanity.check_levels(torch.tensor(sigmas))


@pytest.mark.parametrize("sigmas", [
    schedule.sigmas(4, 1.15), schedule.sigmas(1), schedule.sigmas(50, 3.23), schedule.sigmas(4, inverted=True),
    schedule.sigmas(20, 0.5)[10:], schedule.sigmas(20, 0.5) * 1.1, torch.ones(1),
])  # fmt: skip
def test_every_schedule_of_ours_and_a_part_of_one_is_let_through(sigmas):
    sanity.check_levels(sigmas)


@pytest.mark.parametrize("latent", [torch.zeros(1, 4, 8, 8), torch.zeros(1, 16, 1, 8, 8), torch.zeros(1, 1, 1024)])
def test_a_latent_of_another_model_is_refused(latent):
    with pytest.raises(Flux1Error, match="16 channels"):
        sanity.check_latent(latent)


@NOT_FINITE
def test_a_latent_that_is_not_finite_is_refused(bad):
    latent = torch.zeros(1, 16, 8, 8)
    latent[0, 3, 2, 1] = bad
    with pytest.raises(Flux1Error, match="latent.*non-finite.*1 NaN or infinite of 1024"):
        sanity.check_latent(latent)


def test_a_conditioning_may_say_no_with_infinity_but_not_be_nan():
    sanity.check_conditioning("attention_mask", torch.tensor([0.0, -INFINITY]))
    sanity.check_conditioning("attention_mask", torch.tensor([True, False]))
    with pytest.raises(Flux1Error, match="cross_attn.*1 NaN of 2"):
        sanity.check_conditioning("cross_attn", torch.tensor([0.0, NAN]))


def test_a_damaged_weight_of_a_vae_is_named_in_any_type():
    damaged = {"a.weight": torch.zeros(3), "b.weight": torch.tensor([1.0, NAN])}
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        with pytest.raises(Flux1Error, match="b.weight.*File: mine.safetensors"):
            sanity.check_vae_weights({name: weight.to(dtype) for name, weight in damaged.items()}, "mine.safetensors")
