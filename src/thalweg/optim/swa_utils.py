"""Torch's averages of weights over a training: ``torch.optim.swa_utils``, under this package's name."""

from torch.optim.swa_utils import *  # noqa: F403 # pyright: ignore -- all that torch has there
