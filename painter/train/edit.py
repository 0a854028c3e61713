"""Fill and Kontext, one model for both, from text to image."""

from painter.train.flow import train_stage


def train(steps: int = 3000) -> None:
    train_stage("edit", steps, lr=1.5e-3)
