"""The FLUX.1 transformer; `transformer.py` is the place to start reading."""

from .hooks import Hooks
from .modulation import Row, Table
from .transformer import Prepared, Transformer

__all__ = ["Hooks", "Prepared", "Row", "Table", "Transformer"]
