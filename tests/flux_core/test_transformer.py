"""Our transformer against two that were written by others: ComfyUI's and diffusers'."""

from dataclasses import replace

import pytest
import torch

from flux_core import packing
from flux_core.checkpoint import to_bfl
from flux_core.model import Hooks, Transformer
from flux_core.variants import DEV, FluxParams

TINY = FluxParams(vec_in_dim=32, context_in_dim=48, hidden_size=256, num_heads=2, depth=2, depth_single_blocks=3)
REAL_WIDTH = replace(DEV, depth=1, depth_single_blocks=1)
TOLERANCE = 1e-5  # relative, in float32


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ((ours - theirs).norm() / theirs.norm()).item() <= TOLERANCE


def filled(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """A model made on the meta device, with weights cut from one stretch of noise: half a billion are too slow to draw.

    Matrices keep the scale of their inputs, norms' weights are about 1.
    """
    noise = torch.randn(10_000_019, generator=torch.Generator().manual_seed(seed))
    weights = {}
    for number, (name, tensor) in enumerate(model.state_dict().items()):
        stretch = noise[7919 * number :]
        stretch = stretch.repeat(-(-tensor.numel() // len(stretch))) if tensor.numel() > len(stretch) else stretch
        cut = stretch[: tensor.numel()].view(tensor.shape)
        weights[name] = cut * tensor.shape[-1] ** -0.5 if tensor.ndim == 2 else 1 + 0.1 * cut
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def transformer(params: FluxParams, seed: int = 0) -> Transformer:
    with torch.device("meta"):
        model = Transformer(params)
    return filled(model, seed)


def inputs(params: FluxParams, latent=(12, 8), references=(), batch=2, text=7, seed=1) -> dict:
    """Latents, text and noise level as ComfyUI hands them over."""
    torch.manual_seed(seed)
    channels = params.in_channels // 4
    return {
        "x": torch.randn(batch, channels, *latent),
        "timestep": torch.rand(batch),
        "context": torch.randn(batch, text, params.context_in_dim),
        "y": torch.randn(batch, params.vec_in_dim),
        "guidance": torch.full((batch,), 3.5) if params.guidance_embed else None,
        "ref_latents": [torch.randn(batch, 16, *size) for size in references] or None,
    }


def ours(model: Transformer, given: dict, placement="offset") -> torch.Tensor:
    height, width = given["x"].shape[-2:]
    noisy, extra = given["x"].tensor_split([16], dim=1)
    references = given["ref_latents"] or []
    ids = packing.reference_ids([r.shape[-2:] for r in references], (height, width), placement)
    tokens = model(
        packing.pack(noisy),
        packing.image_ids(*packing.grid_of(height, width)),
        given["context"],
        given["timestep"],
        given["y"],
        given["guidance"],
        extra=packing.pack(extra) if extra.shape[1] else None,
        references=[(packing.pack(r), i) for r, i in zip(references, ids, strict=True)],
    )
    return packing.unpack(tokens, height, width)


def stock(comfyui, model: Transformer):
    """ComfyUI's FLUX with the same weights."""
    import comfy.ldm.flux.model
    import comfy.ops

    p = model.params
    flux = comfy.ldm.flux.model.Flux(
        in_channels=p.in_channels // 4, out_channels=16, vec_in_dim=p.vec_in_dim, context_in_dim=p.context_in_dim,
        hidden_size=p.hidden_size, mlp_ratio=p.mlp_ratio, num_heads=p.num_heads, depth=p.depth,
        depth_single_blocks=p.depth_single_blocks, axes_dim=list(p.axes_dim), theta=p.theta, patch_size=2,
        qkv_bias=p.qkv_bias, guidance_embed=p.guidance_embed, txt_ids_dims=[],
        dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    flux.load_state_dict(model.state_dict(), assign=True)
    return flux.eval().requires_grad_(False)


CASES = {
    "text to image": (TINY, {}),
    "no guidance": (replace(TINY, guidance_embed=False), {}),
    "fill": (replace(TINY, in_channels=384), {}),
    "control": (replace(TINY, in_channels=128), {}),
    "one reference": (TINY, {"references": [(12, 8)]}),
    "two references of other sizes": (TINY, {"references": [(6, 10), (8, 4)]}),
    "real width": (REAL_WIDTH, {"batch": 1, "references": [(4, 6)]}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_comfyui(comfyui, case):
    params, kwargs = CASES[case]
    model, given = transformer(params), inputs(params, **kwargs)
    assert close(ours(model, given), stock(comfyui, model)(**given))


@pytest.mark.parametrize("placement", packing.COMFYUIS_PLACEMENTS)
def test_placements_equal_comfyui(comfyui, placement):
    model, given = transformer(TINY), inputs(TINY, references=[(6, 10), (8, 4), (10, 10)])
    theirs = stock(comfyui, model)(**given, ref_latents_method=placement)
    assert close(ours(model, given, placement), theirs)


def diffusers_twin(params: FluxParams):
    """diffusers' transformer with random weights of its own."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        twin = FluxTransformer2DModel(
            in_channels=params.in_channels, out_channels=64, num_layers=params.depth,
            num_single_layers=params.depth_single_blocks, attention_head_dim=params.hidden_size // params.num_heads,
            num_attention_heads=params.num_heads, joint_attention_dim=params.context_in_dim,
            pooled_projection_dim=params.vec_in_dim, guidance_embeds=params.guidance_embed,
            axes_dims_rope=params.axes_dim,
        )  # fmt: skip
    return filled(twin)


@pytest.mark.parametrize("case", CASES)
def test_equals_diffusers(case):
    params, kwargs = CASES[case]
    if len(kwargs.get("references", ())) > 1:
        kwargs = {**kwargs, "references": kwargs["references"][:1]}  # diffusers' Kontext has one
    twin, given = diffusers_twin(params), inputs(params, **kwargs)
    with torch.device("meta"):
        model = Transformer(params)
    model.load_state_dict(to_bfl(twin.state_dict()), assign=True)
    height, width = given["x"].shape[-2:]
    tokens, ids = packing.pack(given["x"]), packing.image_ids(*packing.grid_of(height, width))
    for reference in given["ref_latents"] or []:
        tokens = torch.cat([tokens, packing.pack(reference)], dim=1)
        ids = torch.cat([ids, packing.image_ids(*packing.grid_of(*reference.shape[-2:]), index=1)])
    theirs = twin(
        hidden_states=tokens,
        encoder_hidden_states=given["context"],
        pooled_projections=given["y"],
        timestep=given["timestep"],
        guidance=given["guidance"],
        img_ids=ids,
        txt_ids=packing.text_ids(given["context"].shape[1]),
    ).sample[:, : packing.token_count(height, width)]
    assert close(ours(model, given), packing.unpack(theirs, height, width))


def test_prepare_then_step_is_forward():
    model, given = transformer(TINY), inputs(TINY)
    tokens, ids = packing.pack(given["x"]), packing.image_ids(6, 4)
    prepared = model.prepare(ids, given["context"], given["y"], given["guidance"])
    for level in (1.0, 0.5, 0.1):
        t = torch.full((2,), level)
        whole = model(tokens, ids, given["context"], t, given["y"], given["guidance"])
        assert torch.equal(model.step(tokens, t, prepared), whole)


def test_odd_sizes_do_not_see_the_opposite_edge():
    """A change in the last row of a latent of odd height would reach the first row's tokens if padding were circular."""
    latent = torch.randn(1, 16, 7, 6)
    padded = packing.pad_to_patch(latent)
    assert torch.equal(padded[:, :, 7], latent[:, :, 6])
    assert torch.equal(packing.unpack(packing.pack(latent), 7, 6), latent)


def test_hooks_see_every_block_and_may_replace_it():
    class Skipping(Hooks):
        def __init__(self):
            super().__init__()
            self.seen = []

        def double_block(self, index, block, img, txt, vec, pe, mask):
            self.seen.append(("double", index))
            return img, txt

        def single_block(self, index, block, x, text_tokens, vec, pe, mask, needed):
            self.seen.append(("single", index))
            return x

    model, given = transformer(TINY), inputs(TINY)
    tokens, ids = packing.pack(given["x"]), packing.image_ids(6, 4)
    arguments = (tokens, ids, given["context"], given["timestep"], given["y"], given["guidance"])
    hooks = Skipping()
    skipped = model(*arguments, hooks=hooks)
    assert hooks.seen == [
        ("double", 0),
        ("double", 1),
        ("single", 0),
        ("single", 1),
        ("single", 2),
    ]
    assert not torch.allclose(skipped, model(*arguments))


class Whole(Hooks):
    """Asks the last block for everything, as if all of it were looked at."""

    def single_block(self, index, block, x, text_tokens, vec, pe, mask, needed):
        return block(x, text_tokens, vec, pe, mask, self)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_what_the_last_block_leaves_out_changes_no_bit(dtype: torch.dtype, masked: bool):
    torch.manual_seed(3)
    model, grid = transformer(TINY).to(dtype), 12
    tokens, context = torch.randn(2, grid**2, 64).to(dtype), torch.randn(2, 37, TINY.context_in_dim).to(dtype)
    reference = torch.randn(2, 64, 64).to(dtype), packing.image_ids(8, 8, 1)
    everything = 37 + grid**2 + 64
    arguments = (tokens, packing.image_ids(grid, grid), context, torch.tensor([0.7, 0.7]),
                 torch.randn(2, TINY.vec_in_dim).to(dtype), torch.tensor([3.5, 3.5]).to(dtype))  # fmt: skip
    mask = torch.randn(1, 1, everything, everything).to(dtype) if masked else None
    trimmed, whole = (model(*arguments, references=[reference], mask=mask, hooks=hooks) for hooks in (Hooks(), Whole()))
    assert torch.equal(trimmed, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sampling_from_a_table_changes_no_bit_and_needs_no_modulation_layer(dtype: torch.dtype):
    torch.manual_seed(3)
    model = transformer(TINY).to(dtype)
    arguments = {"y": torch.randn(1, TINY.vec_in_dim).to(dtype), "guidance": torch.tensor([3.5]).to(dtype)}
    tokens, context = torch.randn(1, 24, 64).to(dtype), torch.randn(1, 9, TINY.context_in_dim).to(dtype)
    prepared, t = model.prepare(packing.image_ids(6, 4), context, **arguments), torch.tensor([0.7])
    without = model.step(tokens, t, prepared)
    table = model.table(model.rows([(t, arguments["y"], arguments["guidance"])]))
    for layer in model.modulation_layers():
        for parameter in layer.parameters():
            parameter.data.fill_(float("nan"))
    assert torch.equal(model.step(tokens, t, prepared, Hooks(table)), without)
    assert model.step(tokens, t, prepared).isnan().all()


def test_a_tables_rows_are_its_samples_own():
    torch.manual_seed(3)
    model, pooled = transformer(TINY), torch.randn(2, TINY.vec_in_dim)
    t, guidance = torch.tensor([0.7, 0.2]), torch.tensor([3.5, 9.0])
    table = model.table(model.rows(list(zip(t.split(1), pooled.split(1), guidance.split(1), strict=True))))
    for layer in model.modulation_layers():
        torch.testing.assert_close(table.of[layer], layer(model.vec(t, model.told(pooled, guidance))))


def test_weights_load_under_the_released_names():
    model = transformer(TINY)
    released = {name.replace("_norm.weight", "_norm.scale"): tensor for name, tensor in model.state_dict().items()}
    other = transformer(TINY, seed=5)
    other.load_state_dict(released)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_parameters_are_as_many_as_released():
    """11,901,408,320 in dev and 11,902,391,360 in Fill, as their files have."""
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in Transformer(params).parameters()) for params in (DEV, replace(DEV, in_channels=384))
        ]
    assert counts == [11_901_408_320, 11_902_391_360]
