"""FLUX.1's transformer: packed latents, text and a noise level in, velocity out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..variants import FluxParams
from .attention import finite_in_half
from .blocks import DoubleStreamBlock, LastLayer, SingleStreamBlock
from .embedding import TIME_CHANNELS, MLPEmbedder, rotary, sinusoid
from .hooks import Hooks
from .modulation import Row, Table, rows_for


@dataclass(frozen=True)
class Prepared:
    """All that a run's steps share."""

    txt: Tensor
    """`(b, text tokens, hidden)`, projected."""
    vec: tuple[Tensor, ...]
    """What is added to the noise level's embedding: guidance (if embedded), then pooled text; `(b, hidden)` each."""
    extra: Tensor | None
    """`(b, tokens, in_channels - 64)`: Fill's and the control models' channels beside the noisy picture."""
    references: Tensor | None
    """`(b, reference tokens, hidden)`, projected."""
    img_ids: Tensor
    txt_ids: Tensor
    pe: Tensor
    mask: Tensor | None


class Transformer(nn.Module):
    """The released transformer, parameter for parameter.

    `operations` is the namespace that Linear, LayerNorm and RMSNorm are taken from: torch.nn, or a runtime's own that
    loads, casts and offloads weights. Released files load as they are (`load_state_dict`), their norms' `scale` becoming
    `weight`.
    """

    def __init__(self, params: FluxParams, operations: Any = nn, **factory: Any):
        super().__init__()
        if params.hidden_size != params.num_heads * sum(params.axes_dim):
            raise ValueError(
                f"hidden_size {params.hidden_size} must be num_heads {params.num_heads} x sum of axes_dim {params.axes_dim}"
            )
        self.params = params
        dim = params.hidden_size
        self.img_in = operations.Linear(params.in_channels, dim, bias=True, **factory)
        self.time_in = MLPEmbedder(TIME_CHANNELS, dim, operations, **factory)
        self.vector_in = MLPEmbedder(params.vec_in_dim, dim, operations, **factory)
        self.guidance_in = MLPEmbedder(TIME_CHANNELS, dim, operations, **factory) if params.guidance_embed else None
        self.txt_in = operations.Linear(params.context_in_dim, dim, bias=True, **factory)
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(dim, params.num_heads, params.mlp_ratio, params.qkv_bias, operations, **factory)
            for _ in range(params.depth)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(dim, params.num_heads, params.mlp_ratio, operations, **factory)
            for _ in range(params.depth_single_blocks)
        )
        self.final_layer = LastLayer(dim, params.out_channels, operations, **factory)

    def forward(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        timesteps: Tensor,
        y: Tensor,
        guidance: Tensor | None = None,
        *,
        extra: Tensor | None = None,
        references: Sequence[tuple[Tensor, Tensor]] = (),
        mask: Tensor | None = None,
        hooks: Hooks = Hooks(),
    ) -> Tensor:
        """Velocity `(b, tokens, 64)` of packed latents `img` `(b, tokens, 64)` at noise level `timesteps` `(b,)`.

        The rest is as in `prepare`, of which, with `step`, this is the two in a row.
        """
        prepared = self.prepare(img_ids, txt, y, guidance, extra=extra, references=references, mask=mask)
        return self.step(img, timesteps, prepared, hooks)

    def prepare(
        self,
        img_ids: Tensor,
        txt: Tensor,
        y: Tensor,
        guidance: Tensor | None = None,
        *,
        extra: Tensor | None = None,
        references: Sequence[tuple[Tensor, Tensor]] = (),
        mask: Tensor | None = None,
    ) -> Prepared:
        """Compute once what every step of a run shares.

        img_ids: positions `(tokens, 3)` of the picture's tokens.
        txt: T5 states `(b, text tokens, context_in_dim)`; y: CLIP's pooled vector `(b, vec_in_dim)`.
        guidance: `(b,)`, e.g. 3.5; ignored by a model without guidance embedding.
        extra: further channels of each token `(b, tokens, in_channels - 64)`.
        references: (packed latents `(b, n, 64)`, positions `(n, 3)`) of each reference picture.
        mask: attention mask over text, picture and references, broadcastable to `(b, heads, all, all)`.
        """
        batch = len(txt)
        img_ids = torch.cat([img_ids, *(ids for _, ids in references)]).expand(batch, -1, -1)
        txt_ids = img_ids.new_zeros(batch, txt.shape[1], img_ids.shape[-1])
        return Prepared(
            txt=self.txt_in(txt),
            vec=self.told(y, guidance),
            extra=extra,
            references=self._project_references([tokens for tokens, _ in references], extra) if references else None,
            img_ids=img_ids,
            txt_ids=txt_ids,
            pe=self._positions(txt_ids, img_ids),
            mask=mask,
        )

    def step(self, img: Tensor, timesteps: Tensor, prepared: Prepared, hooks: Hooks = Hooks()) -> Tensor:
        """Velocity `(b, tokens, 64)` of packed latents `img` at noise level `timesteps` `(b,)` in [0, 1]."""
        target = img.shape[1]
        vec = self.vec(timesteps, prepared.vec) if hooks.table is None else hooks.table.vec
        img = self.img_in(img if prepared.extra is None else torch.cat([img, prepared.extra], dim=-1))
        if prepared.references is not None:
            img = torch.cat([img, prepared.references], dim=1)

        img, txt, img_ids, txt_ids = hooks.enter(img, prepared.txt, prepared.img_ids, prepared.txt_ids)
        unmoved = img_ids is prepared.img_ids and txt_ids is prepared.txt_ids
        pe = prepared.pe if unmoved else self._positions(txt_ids, img_ids)
        text_tokens = txt.shape[1]

        for index, block in enumerate(self.double_blocks):
            img, txt = hooks.double_block(index, block, img, txt, vec, pe, prepared.mask)

        x, painted = torch.cat([txt, finite_in_half(img)], dim=1), slice(text_tokens, text_tokens + target)
        for index, block in enumerate(self.single_blocks):
            last = block is self.single_blocks[-1]
            x = hooks.single_block(
                index, block, x, text_tokens, vec, pe, prepared.mask, painted if last else slice(None)
            )

        return self.final_layer(x if x.shape[1] == target else x[:, painted], vec, hooks)

    def told(self, y: Tensor, guidance: Tensor | None) -> tuple[Tensor, ...]:
        """What stands in `vec` beside the noise level: guidance `(b,)`, if embedded, and pooled text `(b, vec_in_dim)`."""
        pooled = self.vector_in(y)
        if self.guidance_in is None or guidance is None:
            return (pooled,)
        return self.guidance_in(sinusoid(guidance).to(y.dtype)), pooled

    def vec(self, timesteps: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        """What every modulation comes from, `(b, hidden)`: the noise level's embedding and what was `told`."""
        vec = self.time_in(sinusoid(timesteps).to(told[0].dtype))
        for part in told:
            vec = vec + part
        return vec

    def modulation_layers(self) -> list[nn.Module]:
        """All that read `vec`, in the order of their use; each gives `(b, its width)`."""
        layers = [layer for block in self.double_blocks for layer in (block.img_mod, block.txt_mod)]
        return [*layers, *(block.modulation for block in self.single_blocks), self.final_layer.adaLN_modulation]

    def rows(self, samples: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> list[Row]:
        """All modulations of each sample (noise level, pooled text, guidance), each of the three `(1, ...)`."""
        vecs = [self.vec(timestep, self.told(y, guidance)) for timestep, y, guidance in samples]
        return rows_for(self.modulation_layers(), vecs)

    def table(self, rows: Sequence[Row]) -> Table:
        """One step's table for a batch of `rows`."""
        dim = self.params.hidden_size
        widths = [6 * dim] * (2 * len(self.double_blocks)) + [3 * dim] * len(self.single_blocks) + [2 * dim]
        return Table(self.modulation_layers(), widths, rows)

    def _project_references(self, references: Sequence[Tensor], extra: Tensor | None) -> Tensor:
        """Reference tokens have no masked or control picture of their own: those channels are zero."""
        tokens = torch.cat(list(references), dim=1)
        return self.img_in(tokens if extra is None else pad(tokens, (0, extra.shape[-1])))

    def _positions(self, txt_ids: Tensor, img_ids: Tensor) -> Tensor:
        return rotary(torch.cat([txt_ids, img_ids], dim=1), self.params.axes_dim, self.params.theta)
