"""Torch's averages of the weights, ``torch.optim.swa_utils``, under this package's name."""

from torch.optim.swa_utils import *  # noqa: F403 # pyright: ignore -- everything in torch's module
