"""Training, a stage per file: `python -m painter.train STAGE`."""
