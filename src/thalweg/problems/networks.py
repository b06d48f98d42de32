"""The networks and metrics that the built-in problems share."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from thalweg.rule import Decay, check


def mlp(name: str, inputs: int, outputs: int, hidden: Any, dropout: Any, batch_norm: Any) -> Callable[[], nn.Module]:
    """A factory of multilayer perceptrons: linear, batch normalisation if wanted, ReLU, dropout if wanted; … ; linear.

    Args:
        name: the problem's, for errors.
        inputs: number of features per sample.
        outputs: number of classes.
        hidden: the width of the hidden layer, or a sequence of widths; empty for none.
        dropout: the probability of dropping a hidden unit, in [0, 1).
        batch_norm: whether each hidden layer is normalised over the batch (Ioffe & Szegedy 2015).

    Raises:
        ValueError: a setting is out of its range; the message names setting, value and range.
    """
    widths = tuple(cast("list[Any]", hidden)) if isinstance(hidden, tuple | list) else (hidden,)
    if any(isinstance(w, bool) or not isinstance(w, int) or not 1 <= w <= 1_000_000 for w in widths):
        raise ValueError(f"{name}'s hidden is {hidden!r}; allowed are whole numbers in [1, 1000000], as in (128, 64)")
    rate = check(f"{name}'s dropout", dropout, Decay)
    normed = check(f"{name}'s batch_norm", batch_norm, bool)

    def model() -> nn.Module:
        layers: list[nn.Module] = []
        width = inputs
        for wide in widths:
            layers.append(nn.Linear(width, wide))
            if normed:
                layers.append(nn.BatchNorm1d(wide))
            layers.append(nn.ReLU())
            if rate:
                layers.append(nn.Dropout(rate))
            width = wide
        return nn.Sequential(*layers, nn.Linear(width, outputs))

    return model


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """The share of samples whose highest score, of shape (N, classes), is the target's, of shape (N,)."""
    return (prediction.argmax(1) == target).to(torch.float64).mean()
