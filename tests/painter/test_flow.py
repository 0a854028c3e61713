"""The laws that training leans on."""

import numpy as np
import torch

from painter.family import new_transformer
from painter.language import KINDS
from painter.scenes import held_out, random_scene
from painter.train.batches import Batch, fill_channels
from painter.train.few_steps import few_steps_loss
from painter.train.flow import flow_loss, guidance_loss, noise_levels, pad_bias, velocity
from painter.train.loop import Ema
from painter.train.pairs import Words, new_edit


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


def test_a_few_tokens_of_a_picture_stand_for_all_that_say_the_same():
    torch.manual_seed(0)
    model, x, t, guidance = new_transformer("dev"), torch.randn(2, 64, 64), torch.tensor([0.2, 0.9]), torch.ones(2)
    few, said = torch.randn(2, 81, 64), words(2, 2, 256)[1]
    with torch.no_grad():
        all_of_them = velocity(model, x, t, Batch(x, said, shown=few.repeat_interleave(9, 1)), guidance, 256)
        some = velocity(model, x, t, Batch(x, said, shown=few), guidance, 256)
        unseen = velocity(model, x, t, Batch(x, said), guidance, 256)
    torch.testing.assert_close(some, all_of_them, atol=2e-5, rtol=1e-4)
    assert (some - unseen).abs().max() > 1e-2


def test_no_pad_is_raised_when_the_text_is_as_long_as_its_length():
    assert not pad_bias(48, 48, 112).any()


def test_a_teacher_is_its_own_pupil_only_where_guidance_asks_for_nothing_more():
    """At guidance 1 the target is the plain velocity; beyond it, what the prompt changes counts more."""
    torch.manual_seed(0)
    model, said = new_transformer("dev").requires_grad_(False), words(4, 12, 64)[1]
    empty = words(1, 12, 64)[1]
    loss = guidance_loss(model, model, Batch(torch.randn(4, 64, 64), said), empty)
    silent = Words(empty.states.expand(4, -1, -1), empty.pooled.expand(4, -1))
    nothing = guidance_loss(model, model, Batch(torch.randn(4, 64, 64), silent), empty)
    assert loss > 1e-4 and nothing < 1e-8


def test_the_loss_is_that_of_the_straight_way_from_noise_to_picture():
    """A model that always says zero is off by noise minus picture, whose mean square is two."""
    torch.manual_seed(0)
    model, said = new_transformer("dev").requires_grad_(False), words(64, 12, 64)[1]
    model.final_layer.linear.weight.zero_()
    model.final_layer.linear.bias.zero_()
    loss = flow_loss(model, Batch(torch.randn(64, 64, 64), said), words(1, 12, 64)[1])
    assert 1.95 < loss < 2.05


def test_schnell_learns_the_way_to_the_next_of_the_teachers_points():
    """Points on one straight line have one velocity: a model that says just that has no loss."""
    torch.manual_seed(0)
    model, said = new_transformer("schnell").requires_grad_(False), words(8, 12, 64)[1]
    model.final_layer.linear.weight.zero_()
    model.final_layer.linear.bias.copy_(torch.arange(64) / 64)
    t = torch.linspace(1, 0, 5)[None, :, None, None]
    points = torch.randn(8, 1, 64, 64) + t * model.final_layer.linear.bias
    assert few_steps_loss(model, points, said) < 1e-4
    assert few_steps_loss(model, points.flip(1), said) > 0.1


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


def test_training_never_sees_the_combinations_that_are_kept_for_the_scores():
    rng = np.random.default_rng(0)
    told = [new_edit(kind, rng) for kind in KINDS for _ in range(20)]
    assert not any(held_out(scene) for t in told for scene in (t.before, t.after))
    assert sum(held_out(random_scene(rng)) for _ in range(900)) > 50
