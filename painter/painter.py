"""The family loaded from its files and run with flux_core alone: prompts in, pictures out. No ComfyUI."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from flux_core.conditioning import mask_to_cells
from flux_core.packing import image_ids, pack, unpack
from flux_core.sampling import euler
from flux_core.schedule import shift_for, sigmas
from painter.family import FILES, load_autoencoder, load_clip, load_t5, load_transformer
from painter.tokens import clip_tokens, t5_tokens

GUIDANCE = {"dev": 3.5, "schnell": 0.0, "fill": 30.0, "kontext": 2.5, "canny": 30.0, "depth": 10.0}
GRID = image_ids(8, 8), image_ids(8, 8, 1)  # 128 x 128 pixels: 64 tokens, and those of a reference


class Painter:
    """folder: the one with diffusion_models, text_encoders and vae in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.t5, self.clip = load_t5(folder / FILES["t5"]), load_clip(folder / FILES["clip"])
        self.ae = load_autoencoder(folder / FILES["ae"])
        self.models = {
            name: load_transformer(folder / FILES[name], name) for name in GUIDANCE if (folder / FILES[name]).exists()
        }

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """(n, 3, 128, 128) in [0, 1] -> packed latents (n, 64, 64)."""
        return pack(self.ae.encode(pictures * 2 - 1))

    @torch.no_grad()
    def decode(self, packed: Tensor) -> Tensor:
        """Packed latents -> pictures in [0, 1]."""
        return ((self.ae.decode(unpack(packed, 16, 16)) + 1) / 2).clamp(0, 1)

    def fill_channels(self, pictures: Tensor, masks: Tensor) -> Tensor:
        """Pictures in [0, 1] and masks (n, 128, 128), 1 where to paint -> Fill's (n, 64, 320)."""
        hidden = (pictures - 0.5) * (1 - masks[:, None].float()) + 0.5
        return torch.cat([self.encode(hidden), pack(mask_to_cells(masks[:, None].float()))], dim=-1)

    @torch.no_grad()
    def paint(
        self,
        variant: str,
        prompts: Sequence[str],
        steps: int = 16,
        seed: int = 0,
        extra: Tensor | None = None,
        reference: Tensor | None = None,
        text_tokens: int = 256,
    ) -> Tensor:
        """One picture (3, 128, 128) in [0, 1] per prompt; extra and reference as the transformer takes them, packed."""
        model, count = self.models[variant], len(prompts)
        states = self.t5(input_ids=t5_tokens(prompts, text_tokens)).last_hidden_state
        pooled = self.clip(input_ids=clip_tokens(prompts)).pooler_output
        guidance = torch.full((count,), GUIDANCE[variant])
        references = () if reference is None else [(reference, GRID[1])]
        prepared = model.prepare(GRID[0], states, pooled, guidance, extra=extra, references=references)
        noise = torch.stack(
            [torch.randn(64, 64, generator=torch.Generator().manual_seed(seed + i)) for i in range(count)]
        )
        schedule = sigmas(steps, None if variant == "schnell" else shift_for(64))
        return self.decode(euler(lambda x, t: model.step(x, t.expand(count), prepared), noise, schedule))
