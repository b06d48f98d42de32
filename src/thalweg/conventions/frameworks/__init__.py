"""What each framework and book means by a name: the table, a column a module."""

from thalweg.conventions.frameworks.keras import KERAS
from thalweg.conventions.frameworks.optax import OPTAX
from thalweg.conventions.frameworks.textbook import TEXTBOOK
from thalweg.conventions.frameworks.torch import TORCH
from thalweg.conventions.meaning import Framework

__all__ = ["TABLE"]

TABLE: dict[str, Framework] = {column.name: column for column in (TORCH, KERAS, OPTAX, TEXTBOOK)}
"""Every name of every framework."""
