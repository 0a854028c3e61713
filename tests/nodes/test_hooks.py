"""Everything ComfyUI can hang into a FLUX, on our transformer and on its own: the same output, the same calls."""

import pytest
import torch

CONFIG = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 32, "context_in_dim": 48,
    "hidden_size": 256, "mlp_ratio": 4.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 3,
    "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True,
    "txt_ids_dims": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def transformers(pack):
    """Ours and ComfyUI's with the same weights."""
    import comfy.ldm.flux.model
    import comfy.ops
    from flux1.nodes.bridge.transformer import ComfyTransformer

    factory = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}
    ours = ComfyTransformer(**CONFIG, yak_mlp=False, txt_norm=False, **factory)
    theirs = comfy.ldm.flux.model.Flux(**CONFIG, **factory)
    torch.manual_seed(0)
    weights = {
        name: torch.randn(tensor.shape) * tensor.shape[-1] ** -0.5
        if tensor.ndim == 2
        else 1 + 0.1 * torch.randn(tensor.shape)
        for name, tensor in theirs.state_dict().items()
    }
    assert ours.state_dict().keys() == weights.keys()
    for model in (ours, theirs):
        model.load_state_dict(weights)
        model.eval().requires_grad_(False)
    return ours, theirs


def call(model, options=None, **extra) -> torch.Tensor:
    torch.manual_seed(1)
    given = {
        "x": torch.randn(2, 16, 8, 6), "timestep": torch.rand(2), "context": torch.randn(2, 7, 48),
        "y": torch.randn(2, 32), "guidance": torch.full((2,), 3.5),
    }  # fmt: skip
    return model(**given, transformer_options=options or {}, **extra)


def same(transformers, options=lambda log: {}, changes=True, **extra) -> None:
    """The same output and the same log of calls on both; and, if `changes`, not the output without."""
    logs = [], []
    ours, theirs = (
        call(model, options(log), **{k: v() if callable(v) else v for k, v in extra.items()})
        for model, log in zip(transformers, logs, strict=True)
    )
    assert ((ours - theirs).norm() / theirs.norm()).item() <= 1e-5
    assert logs[0] == logs[1]
    if changes:
        assert not torch.allclose(ours, call(transformers[0]), atol=1e-3)


KEYS = ("block_type", "block_index", "total_blocks", "img_slice", "reference_image_num_tokens")


def noted(log: list, what: str, options: dict) -> None:
    log.append((what, *(str(options.get(key)) for key in KEYS)))


def test_attention_patches(transformers):
    def options(log):
        def before(q, k, v, pe=None, attn_mask=None, extra_options=None):
            noted(log, "attn1", extra_options)
            start, end = extra_options["img_slice"]
            q = q.clone()
            q[:, :, start:end] *= 1.5
            return {"q": q, "k": k * 0.9, "v": v}

        def after(attended, extra_options):
            noted(log, "attn1_output", extra_options)
            return attended * 1.1

        return {"patches": {"attn1_patch": [before], "attn1_output_patch": [after]}}

    same(transformers, options)


def test_post_input_patch_moves_positions_and_adds_tokens(transformers):
    def options(log):
        def patch(args):
            noted(log, "post_input", args["transformer_options"])
            txt = torch.cat([args["txt"], args["txt"][:, :2]], dim=1)
            txt_ids = torch.cat([args["txt_ids"], args["txt_ids"][:, :2]], dim=1)
            return {"img": args["img"] * 1.2, "txt": txt, "img_ids": args["img_ids"] + 1, "txt_ids": txt_ids}

        return {"patches": {"post_input": [patch]}}

    same(transformers, options)


def test_replaced_blocks(transformers):
    def options(log):
        def double(args, extra):
            noted(log, "double", args["transformer_options"])
            out = extra["original_block"]({**args, "vec": args["vec"] * 1.1})
            return {"img": out["img"] * 0.9, "txt": out["txt"]}

        def single(args, extra):
            noted(log, "single", args["transformer_options"])
            before = args["img"].clone()  # ComfyUI's block adds to what it is given, in place
            return {"img": extra["original_block"](args)["img"] + before}

        return {"patches_replace": {"dit": {("double_block", 1): double, ("single_block", 0): single}}}

    same(transformers, options)


def test_wrappers_get_positional_arguments(transformers):
    def options(log):
        def wrapper(executor, x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs):
            log.append((tuple(x.shape), ref_latents is None, control is None, sorted(kwargs)))
            return executor(
                x * 1.1, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs
            )

        return {"wrappers": {"diffusion_model": {"test": [wrapper]}}}

    same(transformers, options)


def test_control_residuals(transformers):
    def control():
        torch.manual_seed(4)
        return {"input": [torch.randn(2, 12, 256)], "output": [None, torch.randn(2, 12, 256)]}

    same(transformers, control=control)


def test_attention_mask(transformers):
    torch.manual_seed(5)
    same(transformers, attention_mask=torch.randn(19, 19))


def test_rope_options(transformers):
    rope = {"scale_x": 0.5, "scale_y": 2.0, "shift_t": 1.0, "shift_x": 3.0, "shift_y": -2.0}
    references = [torch.ones(2, 16, 6, 4)]
    same(transformers, lambda log: {"rope_options": rope}, ref_latents=references)


@pytest.mark.parametrize("method", ["offset", "index", "uxo"])
def test_references(transformers, method):
    def options(log):
        def note(attended, extra_options):
            noted(log, "attn", extra_options)
            return attended

        return {"patches": {"attn1_output_patch": [note]}}

    torch.manual_seed(6)
    references = [torch.randn(2, 16, 6, 4), torch.randn(2, 16, 4, 10)]
    same(transformers, options, ref_latents=references, ref_latents_method=method)


def test_all_at_once(transformers):
    def options(log):
        return {
            "patches": {
                "post_input": [lambda args: {**args, "img": args["img"] * 1.1}],
                "attn1_patch": [lambda q, k, v, **rest: {"q": q * 1.1}],
                "attn1_output_patch": [lambda attended, extra: attended * 0.9],
            },
            "patches_replace": {"dit": {("double_block", 0): lambda args, extra: extra["original_block"](args)}},
            "rope_options": {"scale_x": 0.5},
        }

    torch.manual_seed(7)
    references, residual = [torch.randn(2, 16, 6, 4)], torch.randn(2, 12, 256)
    control = lambda: {"input": [residual.clone()], "output": [residual.clone()]}  # noqa: E731
    same(transformers, options, ref_latents=references, control=control)


def test_inputs_are_left_alone(transformers):
    x, context = torch.randn(1, 16, 8, 6), torch.randn(1, 7, 48)
    before = x.clone(), context.clone()
    residual = torch.randn(1, 12, 256)
    transformers[0](x, torch.ones(1), context, torch.randn(1, 32), control={"input": [residual]})
    assert torch.equal(x, before[0]) and torch.equal(context, before[1])


def test_odd_sizes_do_not_see_the_opposite_edge(transformers):
    """ComfyUI pads circularly: there, a change in the first row reaches the padding below the last."""

    def reach(model) -> bool:
        torch.manual_seed(8)
        x = torch.randn(1, 16, 7, 6)
        seen = []
        note = {"patches": {"post_input": [lambda args: seen.append(args["img"]) or args]}}
        for changed in (x, torch.cat([x[:, :, :1] + 1, x[:, :, 1:]], dim=2)):
            model(changed, torch.ones(1), torch.randn(1, 7, 48), torch.randn(1, 32), transformer_options=note)
        last_row = slice(9, 12)
        return not torch.equal(seen[0][:, last_row], seen[1][:, last_row])

    ours, theirs = transformers
    assert reach(theirs) and not reach(ours)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"context": torch.randn(2, 7, 40)}, ["48", "40"]),
        ({"ref_latents": [torch.randn(2, 4, 8, 8)]}, ["16 channels", "4 channels"]),
        ({"ref_latents": [torch.randn(2, 16, 8, 8)], "ref_latents_method": "index_timestep_zero"}, ["offset", "index"]),
    ],
)
def test_what_does_not_fit_is_refused_in_words(transformers, extra, words):
    from flux1.flux_core.errors import Flux1Error

    given = {"x": torch.randn(2, 16, 8, 6), "timestep": torch.rand(2), "context": torch.randn(2, 7, 48), **extra}
    with pytest.raises(Flux1Error) as refusal:
        transformers[0](**given)
    assert all(word in str(refusal.value) for word in [*words, "Expected:", "Found:", "Fix:"])
