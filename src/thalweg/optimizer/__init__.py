"""Any rule as a ``torch.optim.Optimizer``."""

from thalweg.optimizer.optimizer import Optimizer
from thalweg.optimizer.settings import RANGES, Nonfinite

__all__ = ["RANGES", "Nonfinite", "Optimizer"]
