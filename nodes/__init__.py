"""The nodes; each module lists its own in NODES."""

from . import control, decode, edit, fill, guidance, kontext, latent, loaders, lora, redux, refine, sampling, text

NODES = [
    *loaders.NODES,
    *lora.NODES,
    *text.NODES,
    *latent.NODES,
    *fill.NODES,
    *kontext.NODES,
    *redux.NODES,
    *control.NODES,
    *sampling.NODES,
    *refine.NODES,
    *guidance.NODES,
    *edit.NODES,
    *decode.NODES,
]
