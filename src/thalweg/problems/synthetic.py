"""Problems whose best answer is known, because their data are drawn from it."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.hyperparameters import check
from thalweg.problems.networks import whole
from thalweg.problems.problem import Problem
from thalweg.rule import Positive

Array = NDArray[np.float64]

_NOISE = 0.6
_SAMPLES = 1000
_DEEP_TEST = 896
"""The samples of its test set that DeepOBS uses: seven batches of 128."""


class Point(nn.Module):
    """A point that is trained: it predicts itself for every sample.  It begins at 1 in all coordinates."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(dimensions))

    def forward(self, x: Tensor) -> Tensor:
        """The point for each sample: (N, …) → (N, dimensions)."""
        return self.theta.expand(len(x), -1)


class Quadratic:
    """The mean of ½ (θ − x)ᵀ Q (θ − x) over samples x, for a point θ that is the same in each row.

    Args:
        hessian: Q, symmetric and positive definite, (dimensions, dimensions).
    """

    def __init__(self, hessian: Tensor) -> None:
        self.hessian = hessian

    def loss(self, theta: Tensor, x: Tensor) -> Tensor:
        """The mean over samples, (N, dimensions)."""
        return self._of(theta - x)

    def excess(self, theta: Tensor, x: Tensor) -> Tensor:
        """The loss less the lowest possible, which θ has at the mean of the samples."""
        return self._of(theta[:1] - x.mean(0, keepdim=True))

    def _of(self, distance: Tensor) -> Tensor:
        return 0.5 * ((distance @ self.hessian) * distance).sum(1).mean()


def noisy_quadratic(*, dimensions: Any = 50, condition: Any = 1e3, noise: Any = 0.6) -> Problem:
    """A quadratic with eigenvalues from 1/condition to 1 and noisy gradients, whose lowest value is known: 0."""
    name = "noisy-quadratic"
    n = whole(name, "dimensions", dimensions, 10_000)
    most: float = check(f"{name}'s condition", condition, Positive)
    spread: float = check(f"{name}'s noise", noise, Positive)
    eigenvalues = np.logspace(-math.log10(most), 0, n) if n > 1 else np.ones(1)
    rng = np.random.default_rng(0)
    quadratic = Quadratic(torch.tensor(_turned(eigenvalues, _rotation(n, rng)), dtype=torch.float32))

    def pair() -> tuple[Tensor, Tensor]:
        half = torch.tensor(rng.normal(0, spread, (_SAMPLES // 2, n)), dtype=torch.float32)
        x = torch.cat([half, -half])  # their mean is 0, so the lowest point is 0 in every split
        return x, x

    train, validation, test = pair(), pair(), pair()
    return Problem(
        name=name,
        model=lambda: Point(n),
        loss=quadratic.loss,
        train=train,
        validation=validation,
        test=test,
        metric=quadratic.excess,
        metric_name="excess loss",
        higher_is_better=False,
        batch_size=32,
        target=0.1,
        source=f"½ (θ − x)ᵀ Q (θ − x) with {n} dimensions, condition {most:g} and x from N(0, {spread:g}²); "
        "the metric is the loss less the lowest possible",
        steps=500,
    )


def quadratic_deep() -> Problem:
    """The noisy quadratic of DeepOBS and of Crowded Valley: 90 eigenvalues in (0, 1) and 10 in (30, 60)."""
    # As in deepobs.tensorflow.testproblems.quadratic_deep, in the first run of a process: one generator draws the
    # eigenvalues, then the rotation.
    rng = np.random.RandomState(42)
    eigenvalues = np.concatenate([rng.uniform(0, 1, 90), rng.uniform(30, 60, 10)])
    quadratic = Quadratic(torch.tensor(_turned(eigenvalues, _rotation(100, rng)), dtype=torch.float32))

    def pair(seed: int, samples: int = _SAMPLES) -> tuple[Tensor, Tensor]:
        drawn = np.random.RandomState(seed).normal(0, _NOISE, (_SAMPLES, 100))[:samples]
        x = torch.tensor(drawn, dtype=torch.float32)
        return x, x

    return Problem(
        name="quadratic-deep",
        model=lambda: Point(100),
        loss=quadratic.loss,
        train=pair(42),
        validation=pair(44),
        test=pair(43, _DEEP_TEST),
        metric=quadratic.loss,
        metric_name="loss",
        higher_is_better=False,
        batch_size=128,
        target=100.0,
        source="DeepOBS's quadratic_deep (Schneider, Balles & Hennig 2019), raced in Crowded Valley (Schmidt, "
        "Schneider & Hennig 2021)",
        steps=700,  # 100 epochs of seven batches
    )


def _turned(eigenvalues: Array, rotation: Array) -> Array:
    return rotation.T @ np.diag(eigenvalues) @ rotation


def _rotation(n: int, rng: Any) -> Array:
    """A rotation drawn uniformly, one dimension after another (Diaconis & Shahshahani 1987, the subgroup algorithm)."""
    if n == 1:
        return np.ones((1, 1))
    angle = 2 * math.pi * rng.uniform()
    found: Array = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    for d in range(2, n):
        towards: Array = rng.normal(size=(d + 1, 1))
        away: Array = -towards / np.linalg.norm(towards)
        away[0] += 1
        away /= np.linalg.norm(away)
        inside: Array = np.eye(d + 1)
        inside[1:, 1:] = found
        found = inside - 2 * away @ (away.T @ inside)
    return -found


class Bag(nn.Module):
    """Logistic regression on the features that are present: the sum of their weights and a bias.

    Args:
        features: how many there are.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weights = nn.Embedding(features, 1)
        self.bias = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.weights.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The score of each sample, (N, present) → (N,), from the numbers of its features."""
        return self.weights(x).sum((1, 2)) + self.bias


def sparse_logistic(*, features: Any = 2000, present: Any = 20) -> Problem:
    """Logistic regression with sparse features, a few frequent and most rare, where AdaGrad may shine."""
    name = "sparse-logistic"
    many, few = whole(name, "features", features), whole(name, "present", present, 10_000)
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, many + 1)  # Zipf's law
    edges = np.cumsum(frequency / frequency.sum())
    true = rng.normal(0, 1, many)

    def pair(samples: int) -> tuple[Tensor, Tensor]:
        x = np.minimum(np.searchsorted(edges, rng.uniform(size=(samples, few))), many - 1)
        score = true[x].sum(1)
        y = rng.uniform(size=samples) < 1 / (1 + np.exp(-score))
        return torch.tensor(x), torch.tensor(y, dtype=torch.float32)

    train, validation, test = pair(6000), pair(2000), pair(2000)
    return Problem(
        name=name,
        model=lambda: Bag(many),
        loss=nn.functional.binary_cross_entropy_with_logits,
        train=train,
        validation=validation,
        test=test,
        metric=nn.functional.binary_cross_entropy_with_logits,
        metric_name="loss",
        higher_is_better=False,
        batch_size=32,
        target=0.45,
        source=f"10,000 drawn samples with {few} of {many:,} features each, whose frequencies follow Zipf's law; the "
        "labels are drawn from a logistic model (after Duchi, Hazan & Singer 2011)",
        steps=400,
    )
