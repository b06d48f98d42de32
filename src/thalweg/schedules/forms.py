"""The closed forms, one class each, with settings, formula and source.

Their names are in lower case, as they are used: ``warmup(500).then(cosine(9500))``.  Unless said otherwise they
give a factor of the base value and hold their last value after their end.  x = t / steps is the progress.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import ClassVar, Literal

from thalweg.schedules.base import FORMS, Schedule
from thalweg.schedules.settings import (
    Nonnegative,
    Number,
    Period,
    Positive,
    Steps,
    Times,
)

Shape = Literal["linear", "cosine", "1-sqrt"]

RISES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "cosine": lambda x: (1 - math.cos(math.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - math.sqrt(1 - x),
}
"""The completed share of a rise, from 0 to 1, after a share x of its steps."""


class constant(Schedule):
    """`factor`, for ever, or for `steps`.  torch's ``ConstantLR(f, n)`` is ``constant(f, n).then(constant())``."""

    factor: Number = 1.0
    steps: Steps | None = None

    def evaluate(self, t: float) -> float:
        """The factor."""
        return self.factor


class step(Schedule):
    """`factor` once more every so many steps: factor^⌊t / every⌋.  torch's ``StepLR``."""

    every: Period
    factor: Nonnegative = 0.1

    def evaluate(self, t: float) -> float:
        """factor^⌊t / every⌋."""
        return self.factor ** (t // self.every)


class multistep(Schedule):
    """`factor` once more at each milestone.  torch's ``MultiStepLR``."""

    milestones: Times
    factor: Nonnegative = 0.1

    def prepare(self) -> None:
        """Sort the milestones; a milestone given twice counts twice, as in torch."""
        self._keep("milestones", tuple(sorted(self.milestones)) if self.resolved else self.milestones)

    def evaluate(self, t: float) -> float:
        """The factor to the power of the number of milestones passed."""
        return self.factor ** bisect_right(self.milestones, t)


class exponential(Schedule):
    """factor^(t / every), smoothly.  torch's ``ExponentialLR``, without its drift."""

    factor: Nonnegative
    every: Period = 1

    def evaluate(self, t: float) -> float:
        """factor^(t / every)."""
        return self.factor ** (t / self.every)


class inverse_sqrt(Schedule):
    """min(t / warmup, √(warmup / t)).  Vaswani et al. 2017 §5.3; the lectures.

    With a `timescale` τ the decay is √(τ / (t + τ − warmup)), as in transformers' ``get_inverse_sqrt_schedule``;
    ``inverse_sqrt(0, timescale=1)`` is 1 / √(t + 1).
    """

    warmup: Steps
    timescale: Period | None = None
    _scale: ClassVar[float]

    def prepare(self) -> None:
        """Without a time scale, use the length of the warm-up."""
        if self.timescale is None and self.warmup == 0:
            raise ValueError("inverse_sqrt's warmup is 0; allowed is >= 1, or give a timescale too")
        self._keep("_scale", self.timescale or self.warmup)

    def evaluate(self, t: float) -> float:
        """The rise to 1 at `warmup`, then the decay."""
        return t / self.warmup if t < self.warmup else math.sqrt(self._scale / (t + self._scale - self.warmup))


class warmup(Schedule):
    """start + (1 − start)·x, then 1.  torch's ``LinearLR(start, 1, steps)``; transformers' ``…_with_warmup``.

    The `shape` of the rise is x, (1 − cos πx)/2 or 1 − √(1 − x).
    """

    steps: Steps
    start: Number = 0.0
    shape: Shape = "linear"

    def evaluate(self, t: float) -> float:
        """From `start` to 1."""
        return self.start + (1 - self.start) * RISES[self.shape](t / self.steps) if t < self.steps else 1.0


class anneal(Schedule):
    """From `start` to `end`: the value itself, not a factor, as for a momentum that goes from 0.5 to 0.9."""

    start: Number
    end: Number
    steps: Steps
    shape: Shape = "linear"
    _absolute = True

    def evaluate(self, t: float) -> float:
        """Start + (end − start)·x."""
        return self.start + (self.end - self.start) * RISES[self.shape](t / self.steps) if t < self.steps else self.end


class Decay(Schedule, form=False):
    """end + (1 − end)·shape(x), where the shape goes from 1 to 0; it can have `restarts`."""

    steps: Steps
    end: Number = 0.0

    def shape(self, x: float) -> float:
        """The remaining share after a share `x` of the steps."""
        raise NotImplementedError(f"{type(self).__name__} has no shape")

    def evaluate(self, t: float) -> float:
        """From 1 to `end`."""
        return self.end + (1 - self.end) * self.shape(t / self.steps if t < self.steps else 1.0)

    def restarts(self, cycles: int | None = None, mult: float = 1, decay: float = 1, fit: bool = False) -> Schedule:
        """The same repeatedly, each cycle `mult` times as long as the last and starting `decay` times as high.

        Args:
            cycles: the number of cycles, after which it holds `end`; None for no end.
            mult: ≥ 1.
            decay: the factor from each start to the next.
            fit: `steps` is the length of all cycles together, not of the first; only with ``mult=1``.
        """
        return FORMS["restarts"](self, cycles, mult, decay, fit)


class linear(Decay):
    """1 − x.  torch's ``LinearLR(1, end, steps)``; transformers' ``get_linear_schedule_with_warmup``; the lectures."""

    def shape(self, x: float) -> float:
        """1 − x."""
        return 1 - x


class cosine(Decay):
    """(1 + cos 2π·cycles·xᵏ)/2: with half a cycle, the fall from 1 to `end`.  Loshchilov & Hutter 2017, equation 5.

    torch's ``CosineAnnealingLR(T)``, which rises again after T steps, is ``cosine(n, cycles=n / (2 * T))`` for n ≥ T;
    transformers' ``get_cosine_schedule_with_warmup`` has the same `cycles`; `k` is timm's ``k_decay``.
    """

    cycles: Positive = 0.5
    k: Positive = 1.0

    def shape(self, x: float) -> float:
        """(1 + cos 2π·cycles·xᵏ)/2."""
        return (1 + math.cos(2 * math.pi * self.cycles * x**self.k)) / 2


class polynomial(Decay):
    """(1 − xᵏ)^power.  torch's ``PolynomialLR``; transformers' ``get_polynomial_decay_schedule_with_warmup``; timm's.

    ``polynomial(n, k=0.5)`` is the fall by 1 − √x (Hägele et al. 2024).
    """

    power: Positive = 1.0
    k: Positive = 1.0

    def shape(self, x: float) -> float:
        """(1 − xᵏ)^power."""
        return (1 - x**self.k) ** self.power


class tanh(Decay):
    """(1 − tanh(low·(1 − x) + high·x))/2, which ends a little above `end`.  Hsueh et al. 2019; timm's ``TanhLR``."""

    low: Number = -7.0
    high: Number = 3.0

    def shape(self, x: float) -> float:
        """(1 − tanh(low·(1 − x) + high·x))/2."""
        return (1 - math.tanh(self.low * (1 - x) + self.high * x)) / 2
