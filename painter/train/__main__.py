"""`python -m painter.train STAGE [--steps N]`: one stage, resumed where a killed run stopped."""

import argparse
from importlib import import_module

from painter.train import transformers

OTHERS = ("autoencoder", "text", "pairs", "decoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "stage", choices=[*OTHERS, *transformers.STAGES], metavar="STAGE", help="%(choices)s, in this order"
    )
    parser.add_argument("--steps", type=int, help="default: the number that the released weights were trained for")
    arguments = parser.parse_args()
    chosen = {} if arguments.steps is None else {"steps": arguments.steps}
    if arguments.stage in OTHERS:
        import_module(f"painter.train.{arguments.stage}").train(**chosen)
    else:
        transformers.train(arguments.stage, **chosen)


if __name__ == "__main__":
    main()
