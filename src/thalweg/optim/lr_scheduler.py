"""Torch's learning rate schedulers, ``torch.optim.lr_scheduler``, under this package's name."""

from torch.optim.lr_scheduler import *  # noqa: F403 # pyright: ignore -- everything in torch's module
