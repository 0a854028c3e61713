"""How fast and how small: the pack against others on the same weights, in one process, in turns."""
