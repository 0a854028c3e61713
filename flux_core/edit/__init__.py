"""Edits that lose nothing: what an editor moved, changed and was asked to change."""
