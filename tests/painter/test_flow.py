"""The laws that training leans on."""

import torch

from painter.family import new_transformer
from painter.train.flow import Batch, fill_channels, narrowed, noise_levels, pad_bias, velocity
from painter.train.loop import Ema
from painter.train.pairs import Words


def words(batch: int, tokens: int, length: int) -> tuple[Words, Words]:
    """The same words with all their pads, and with one pad that stands for all."""
    spoken, pooled = torch.randn(batch, tokens - 1, 64), torch.randn(batch, 64)
    pad = torch.randn(1, 1, 64).expand(batch, -1, -1)
    return (
        Words(torch.cat([spoken, pad.expand(-1, length - tokens + 1, -1)], dim=1), pooled),
        Words(torch.cat([spoken, pad], dim=1), pooled),
    )


def test_one_pad_with_a_raised_logit_is_as_good_as_all_of_them():
    torch.manual_seed(0)
    model, x, t, guidance = new_transformer("dev"), torch.randn(2, 64, 64), torch.tensor([0.2, 0.9]), torch.ones(2)
    every, one = words(2, 12, 256)
    with torch.no_grad():
        long = velocity(model, x, t, Batch(x, every), guidance, 256)
        short = velocity(model, x, t, Batch(x, one), guidance, 256)
    torch.testing.assert_close(short, long, atol=2e-5, rtol=1e-4)


def test_no_pad_is_raised_when_the_text_is_as_long_as_its_length():
    assert not pad_bias(48, 48, 112).any()


def test_a_model_without_fills_channels_paints_as_with_empty_ones():
    torch.manual_seed(0)
    model, x, t, guidance = new_transformer("fill"), torch.randn(1, 64, 64), torch.tensor([0.5]), torch.ones(1)
    _, said = words(1, 8, 8)
    with torch.no_grad():
        wide = velocity(model, x, t, Batch(x, said, extra=torch.zeros(1, 64, 320)), guidance, 8)
        narrow = velocity(narrowed(model), x, t, Batch(x, said), guidance, 8)
    torch.testing.assert_close(narrow, wide, atol=1e-5, rtol=1e-4)


def test_fill_sees_the_picture_first_then_each_pixel_of_the_mask():
    mask = torch.zeros(1, 128, 128, dtype=torch.bool)
    mask[:, :16, :16] = True
    channels = fill_channels(torch.full((1, 64, 64), 7.0), mask)
    assert channels.shape == (1, 64, 320)
    assert (channels[..., :64] == 7).all()
    assert (channels[0, 0, 64:] == 1).all() and not channels[0, 1:, 64:].any()


def test_noise_levels_stay_between_picture_and_noise():
    t = noise_levels(1000)
    assert t.min() >= 0 and t.max() <= 1 and 0.5 < t.mean() < 0.8


def test_swapping_the_running_mean_twice_changes_nothing():
    model = torch.nn.Linear(3, 3)
    before, ema = model.weight.clone(), Ema(model)
    with torch.no_grad():
        model.weight += 1
    ema.update()
    ema.swap()
    ema.swap()
    torch.testing.assert_close(model.weight, before + 1)
