"""Text to image, from nothing."""

from painter.train.flow import train_stage


def train(steps: int = 3000) -> None:
    train_stage("dev", steps, lr=2e-3)
