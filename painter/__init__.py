"""A tiny FLUX.1 family that paints landscapes: where its pictures, weights and scores come from."""
