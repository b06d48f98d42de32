"""The table of conventions: one module per framework or book."""

from thalweg.conventions.frameworks.keras import KERAS
from thalweg.conventions.frameworks.optax import OPTAX
from thalweg.conventions.frameworks.textbook import TEXTBOOK
from thalweg.conventions.frameworks.torch import TORCH
from thalweg.conventions.meaning import Framework

__all__ = ["TABLE"]

TABLE: dict[str, Framework] = {column.name: column for column in (TORCH, KERAS, OPTAX, TEXTBOOK)}
"""The names of all frameworks."""
