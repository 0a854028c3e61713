"""Measurements, a command each: ratios against the common alternatives, as a table and as JSON."""
