"""Measurements, a command each: ratios against others on the same inputs, in turns, as a table and as JSON."""
