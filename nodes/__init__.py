"""The nodes; each module lists its own in NODES."""

from . import control, decode, doctor, fill, guidance, kontext, latent, loaders, lora, redux, refine, sampling, text

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
    *decode.NODES,
    *doctor.NODES,
]
