"""The layers of a FLUX.1 transformer: released (BFL) name, diffusers' name or names, and sizes.

One table serves three readers: the check of names and shapes, the conversion from diffusers, and the sizes themselves.
Where diffusers has several layers for one (q, k and v), BFL's rows are theirs, one below the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..variants import FluxParams

TIME_CHANNELS = 256  # width of the sinusoid of timestep and guidance (BFL)

OUTER = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
FINAL_MODULATION = "final_layer.adaLN_modulation.1"  # BFL: shift above scale; diffusers: scale above shift


class Stream(NamedTuple):
    """How diffusers names one stream's layers in a double block."""

    modulation: str
    qkv: tuple[str, str, str]
    out: str
    mlp: str
    norm: str


STREAMS = {
    "img": Stream("norm1.linear", ("attn.to_q", "attn.to_k", "attn.to_v"), "attn.to_out.0", "ff", "attn.norm_{}"),
    "txt": Stream(
        modulation="norm1_context.linear",
        qkv=("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        out="attn.to_add_out",
        mlp="ff_context",
        norm="attn.norm_added_{}",
    ),
}


class Layer(NamedTuple):
    """A linear layer or, with `columns` 0, a norm that has nothing but a scale."""

    name: str
    sources: tuple[str, ...]
    """The layers that make it up in diffusers' layout, in the order of their rows."""
    rows: tuple[int, ...]
    """Output width of each source; their sum is this layer's."""
    columns: int
    bias: bool = True

    @property
    def is_norm(self) -> bool:
        return not self.columns

    @property
    def is_modulation(self) -> bool:
        """Whether it sees nothing but noise level, guidance and pooled text: 27 % of FLUX.1, needed once a run."""
        return self.name.endswith(("_mod.lin", "modulation.lin", FINAL_MODULATION))


def layers(params: FluxParams) -> Iterator[Layer]:
    """Every layer of the transformer with these sizes, in the order in which a picture meets them."""
    width, mlp = params.hidden_size, round(params.hidden_size * params.mlp_ratio)
    yield from _outer_layers(params)
    for i in range(params.depth):
        for stream, theirs in STREAMS.items():
            yield from _stream_layers(f"double_blocks.{i}.{stream}", f"transformer_blocks.{i}.", theirs, params)
    for i in range(params.depth_single_blocks):
        ours, theirs = f"single_blocks.{i}.", f"single_transformer_blocks.{i}."
        yield Layer(ours + "modulation.lin", (theirs + "norm.linear",), (3 * width,), width)
        qkv_mlp = tuple(theirs + name for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"))
        yield Layer(ours + "linear1", qkv_mlp, (width, width, width, mlp), width)
        yield from _norms(ours + "norm", theirs + "attn.norm_{}", params)
        yield Layer(ours + "linear2", (theirs + "proj_out",), (width,), width + mlp)


def _stream_layers(ours: str, block: str, theirs: Stream, params: FluxParams) -> Iterator[Layer]:
    width, mlp = params.hidden_size, round(params.hidden_size * params.mlp_ratio)
    yield Layer(f"{ours}_mod.lin", (block + theirs.modulation,), (6 * width,), width)
    qkv = tuple(block + name for name in theirs.qkv)
    yield Layer(f"{ours}_attn.qkv", qkv, (width, width, width), width, params.qkv_bias)
    yield from _norms(f"{ours}_attn.norm", block + theirs.norm, params)
    yield Layer(f"{ours}_attn.proj", (block + theirs.out,), (width,), width)
    yield Layer(f"{ours}_mlp.0", (f"{block}{theirs.mlp}.net.0.proj",), (mlp,), width)
    yield Layer(f"{ours}_mlp.2", (f"{block}{theirs.mlp}.net.2",), (width,), mlp)


def _outer_layers(params: FluxParams) -> Iterator[Layer]:
    width = params.hidden_size
    sizes = {  # rows, columns
        "img_in": (width, params.in_channels),
        "txt_in": (width, params.context_in_dim),
        "time_in.in_layer": (width, TIME_CHANNELS),
        "time_in.out_layer": (width, width),
        "vector_in.in_layer": (width, params.vec_in_dim),
        "vector_in.out_layer": (width, width),
        "guidance_in.in_layer": (width, TIME_CHANNELS),
        "guidance_in.out_layer": (width, width),
        "final_layer.linear": (params.out_channels, width),
        FINAL_MODULATION: (2 * width, width),
    }
    for name, (rows, columns) in sizes.items():
        if params.guidance_embed or not name.startswith("guidance_in"):
            yield Layer(name, (OUTER[name],), (rows,), columns)


def _norms(ours: str, theirs: str, params: FluxParams) -> Iterator[Layer]:
    head_dim = params.hidden_size // params.num_heads
    yield Layer(f"{ours}.query_norm", (theirs.format("q"),), (head_dim,), 0)
    yield Layer(f"{ours}.key_norm", (theirs.format("k"),), (head_dim,), 0)
