"""`python -m painter.train STAGE [--steps N]`: one stage, resumed where a killed run stopped."""

import argparse
from importlib import import_module

from painter.train import transformers

BEFORE, AFTER = ("autoencoder", "text", "pairs", "decoder"), ("redux",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "stage", choices=[*BEFORE, *transformers.STAGES, *AFTER], metavar="STAGE", help="%(choices)s, in this order"
    )
    parser.add_argument("--steps", type=int, help="default: the number that the released weights were trained for")
    arguments = parser.parse_args()
    chosen = {} if arguments.steps is None else {"steps": arguments.steps}
    if arguments.stage in transformers.STAGES:
        transformers.train(arguments.stage, **chosen)
    else:
        import_module(f"painter.train.{arguments.stage}").train(**chosen)


if __name__ == "__main__":
    main()
