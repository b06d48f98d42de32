"""Torch's schedulers, which step any optimizer's rates: ``torch.optim.lr_scheduler``, under this package's name."""

from torch.optim.lr_scheduler import *  # noqa: F403 # pyright: ignore -- all that torch has there
