"""The nodes; each module lists its own in NODES."""

from . import (
    control,
    decode,
    doctor,
    edit,
    edit_tools,
    fill,
    guidance,
    kontext,
    latent,
    loaders,
    lora,
    redux,
    refine,
    sampling,
    text,
)

NODES = [
    *loaders.NODES,
    *lora.NODES,
    *text.NODES,
    *latent.NODES,
    *fill.NODES,
    *kontext.NODES,
    *edit_tools.NODES,
    *redux.NODES,
    *control.NODES,
    *sampling.NODES,
    *refine.NODES,
    *guidance.NODES,
    *edit.NODES,
    *decode.NODES,
    *doctor.NODES,
]
