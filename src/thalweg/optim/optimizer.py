"""Torch's base class of optimizers and its hooks, ``torch.optim.optimizer``, under this package's name."""

from torch.optim.optimizer import *  # noqa: F403 # pyright: ignore -- everything in torch's module
