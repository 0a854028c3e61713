"""FLUX.1 in plain torch: model, schedule, packing, conditioning, checkpoints. Knows nothing of ComfyUI."""
