"""Any rule as a ``torch.optim.Optimizer``."""

from thalweg.optimizer.optimizer import RANGES, Nonfinite, Optimizer

__all__ = ["RANGES", "Nonfinite", "Optimizer"]
