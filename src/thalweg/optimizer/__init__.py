"""Any rule as a ``torch.optim.Optimizer``."""

from thalweg.optimizer.optimizer import Nonfinite, Optimizer

__all__ = ["Nonfinite", "Optimizer"]
