"""The table of conventions: one module per framework or book."""

from thalweg.conventions.frameworks.keras import KERAS
from thalweg.conventions.frameworks.muons import C_OPTIM, DION, KELLER, MOONLIGHT, TIMM
from thalweg.conventions.frameworks.optax import OPTAX
from thalweg.conventions.frameworks.optax_contrib import OPTAX_CONTRIB
from thalweg.conventions.frameworks.prodigyopt import DADAPTATION, PRODIGYOPT
from thalweg.conventions.frameworks.pytorch_optimizer import PYTORCH_OPTIMIZER
from thalweg.conventions.frameworks.schedulefree import SCHEDULEFREE
from thalweg.conventions.frameworks.textbook import TEXTBOOK
from thalweg.conventions.frameworks.torch import TORCH
from thalweg.conventions.meaning import Framework

__all__ = ["TABLE"]

_COLUMNS = (
    TORCH, KERAS, OPTAX, OPTAX_CONTRIB, PYTORCH_OPTIMIZER, PRODIGYOPT, DADAPTATION, SCHEDULEFREE, KELLER, MOONLIGHT,
    DION, TIMM, C_OPTIM, TEXTBOOK,
)  # fmt: skip
TABLE: dict[str, Framework] = {column.name: column for column in _COLUMNS}
"""The names of all frameworks."""
