"""Numbers written in one input, one for each picture of another: 1, 0.5."""

from __future__ import annotations

import math

from ..flux_core.errors import Flux1Error


def parsed(text: str, name: str = "weights", most: float = math.inf) -> list[float]:
    """Numbers from 0 to `most`, separated by commas or space. Raises Flux1Error."""
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        numbers = [math.nan]
    if not all(0 <= number <= most and number < math.inf for number in numbers):
        expected = "numbers from 0 up" if most == math.inf else f"numbers from 0 to {most:g}"
        raise Flux1Error(f"{name} can't be read", expected=f"{expected}, such as 1, 0.5", found=text, fix="correct it")
    return numbers


def padded(numbers: list[float], count: int, name: str = "weights", default: float = 1.0) -> list[float]:
    """A number for each of `count` pictures, `default` where none is given. Raises Flux1Error when there are more."""
    if len(numbers) > count:
        raise Flux1Error(
            f"There are more {name} than pictures",
            expected=f"at most {count} {name}",
            found=f"{len(numbers)}",
            fix=f"connect the other pictures, or remove {name}",
        )
    return numbers + [default] * (count - len(numbers))
