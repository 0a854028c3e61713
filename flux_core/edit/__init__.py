"""Edits that lose nothing: a part of a picture out to the model and back, its surroundings bit for bit as they were."""
