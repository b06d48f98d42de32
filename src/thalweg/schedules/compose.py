"""Compositions of schedules, returned by `Schedule`'s methods and ``*``, and functions for common compositions."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from thalweg.schedules.base import FORMS, Schedule
from thalweg.schedules.forms import Decay, Shape, constant, cosine, linear, polynomial, warmup
from thalweg.schedules.settings import Nonnegative, Number, Offset, Period, Stretch, Whole, real, whole


class Then(Schedule):
    """`first`, followed by `next` from its end or from step `at`; `next` starts at its own t = 0."""

    method = True
    first: Schedule
    next: Schedule
    at: Period | None = None
    _end: ClassVar[float]

    def prepare(self) -> None:
        """Raise ``ValueError`` if the two cannot be chained.

        A schedule of values cannot follow one of factors, nor the reverse, and nothing can follow a schedule that
        never ends.
        """
        if self.first.absolute != self.next.absolute:
            values, factors = (self.first, self.next) if self.first.absolute else (self.next, self.first)
            raise ValueError(f"{values!r} gives values and {factors!r} factors of the base value; use one of the two")
        end = self._real_end(0)
        if end is None:
            raise ValueError(f"{self.first!r} never ends; say at which step the next begins, as in .then(…, at=1000)")
        self._keep("_end", end)
        self._keep("_absolute", self.first.absolute)

    def evaluate(self, t: float) -> float:
        """The value of the active part."""
        return self.first.evaluate(t) if t < self._end else self.next.evaluate(t - self._end)

    def span(self, total: float) -> float | None:
        """The end of the last part."""
        rest = self.next.span(total)
        return None if rest is None else (self._real_end(total) or 0) + rest

    def settle(self, total: int, start: float) -> Schedule:
        """Resolve both; the second begins where the first ends."""
        if self.resolved:
            return self
        first = self.first.settle(total, start)
        at = None if self.at is None else whole(self.at, total, start)
        return Then(first, self.next.settle(total, start + (self._real_end(total) or 0)), at)

    def observe(self, metric: float, t: int | None = None) -> None:
        """Pass the metric to the part active at `t`, or to both."""
        if t is None or t < self._end:
            self.first.observe(metric, t)
        if t is None or t >= self._end:
            self.next.observe(metric, None if t is None else t - int(self._end))

    def _real_end(self, total: float) -> float | None:
        return self.first.span(total) if self.at is None else real(self.at, total)


class Product(Schedule):
    """Two schedules multiplied, of which one may give values.  torch's ``ChainedScheduler``."""

    infix = True
    left: Schedule
    right: Schedule

    def prepare(self) -> None:
        """Raise ``ValueError`` if both give values."""
        if self.left.absolute and self.right.absolute:
            raise ValueError(f"{self.left!r} and {self.right!r} both give values; multiply by a factor instead")
        self._keep("_absolute", self.left.absolute or self.right.absolute)

    def evaluate(self, t: float) -> float:
        """The product of both."""
        return self.left.evaluate(t) * self.right.evaluate(t)

    def span(self, total: float) -> float | None:
        """The step at which both have ended; constant factors do not count."""
        spans = [part.span(total) for part in self.parts if not _mere(part)]
        return None if not spans or None in spans else max(s for s in spans if s is not None)

    def text(self, write: Callable[[Any], str]) -> str:
        """``left * right``, of which one may be a number."""
        right = f"({write(self.right)})" if self.right.infix else write(self.right)
        if isinstance(self.right, constant) and _mere(self.right):
            return f"{write(self.left)} * {self.right.factor!r}"
        if isinstance(self.left, constant) and _mere(self.left):
            return f"{self.left.factor!r} * {right}"
        return f"{write(self.left)} * {right}"


def _mere(schedule: Schedule) -> bool:
    return isinstance(schedule, constant) and schedule.steps is None


class Shift(Schedule):
    """`inner`, `steps` later, with its first value until then; earlier if `steps` is negative."""

    method = True
    inner: Schedule
    steps: Offset

    def prepare(self) -> None:
        """A shifted schedule of values gives values."""
        self._keep("_absolute", self.inner.absolute)

    def evaluate(self, t: float) -> float:
        """inner(t − steps)."""
        return self.inner.evaluate(t - self.steps if t > self.steps else 0)

    def span(self, total: float) -> float | None:
        """`steps` later."""
        inner = self.inner.span(total)
        return None if inner is None else max(inner + real(self.steps, total), 0)

    def settle(self, total: int, start: float) -> Schedule:
        """The inner one begins where the shift ends."""
        if self.resolved:
            return self
        return Shift(self.inner.settle(total, start + real(self.steps, total)), whole(self.steps, total, start))

    def observe(self, metric: float, t: int | None = None) -> None:
        """Pass the metric on, at the inner schedule's own time."""
        self.inner.observe(metric, None if t is None else int(max(t - self.steps, 0)))


class Clip(Schedule):
    """`inner`, no lower than `low` and no higher than `high`."""

    method = True
    inner: Schedule
    low: Number | None = None
    high: Number | None = None
    _bounds: ClassVar[tuple[float, float]]

    def prepare(self) -> None:
        """Raise ``ValueError`` if the bounds are not in order."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if low > high:
            raise ValueError(f"clip's low is {low:g}, above its high, {high:g}")
        self._keep("_bounds", (low, high))
        self._keep("_absolute", self.inner.absolute)

    def evaluate(self, t: float) -> float:
        """min(max(inner, low), high)."""
        low, high = self._bounds
        return min(max(self.inner.evaluate(t), low), high)

    def span(self, total: float) -> float | None:
        """The inner schedule's span."""
        return self.inner.span(total)


class Restarts(Schedule):
    """A repeated decay; see `Decay.restarts`.  Loshchilov & Hutter 2017."""

    method = True
    inner: Decay
    cycles: Whole | None = None
    mult: Stretch = 1.0
    decay: Nonnegative = 1.0
    fit: bool = False
    _log: ClassVar[float]

    def prepare(self) -> None:
        """Raise ``ValueError`` unless the settings of the cycles can be combined."""
        if self.fit and (self.mult != 1 or self.cycles is None):
            raise ValueError("cycles fit in the length only where there is a number of them, and mult is 1")
        if self.inner.steps == 0:
            raise ValueError(f"{self.inner!r} has no steps to repeat")
        self._keep("_log", math.log(self.mult))

    def evaluate(self, t: float) -> float:
        """End + (decayⁱ − end)·shape, in cycle i."""
        cycle, x = self._where(t)
        end = self.inner.end
        if self.cycles is not None and cycle >= self.cycles:
            return end
        return end + (self.decay**cycle - end) * self.inner.shape(x)

    def span(self, total: float) -> float | None:
        """The length of all cycles."""
        if self.cycles is None:
            return None
        first = real(self.inner.steps, total)
        if self.fit:
            return first
        return math.ceil(first * sum(self.mult**cycle for cycle in range(self.cycles)))

    def _where(self, t: float) -> tuple[int, float]:
        """The index of the cycle at `t`, and the completed share of it."""
        first = self.inner.steps
        if self.mult == 1:
            # In integers, so that a cycle of a third of the length begins exactly where it should.
            cycle, into = divmod(t * self.cycles if self.fit and self.cycles else t, first)
            return int(cycle), into / first
        # In units of the first cycle, cycle i has length mᶦ and begins at (mᶦ − 1) / (m − 1).
        grown = 1 + t * (self.mult - 1) / first
        cycle = int(math.log(grown) / self._log)
        # The logarithm may be off by one where a cycle begins.
        cycle += (self.mult ** (cycle + 1) <= grown) - (self.mult**cycle > grown)
        stretch = self.mult**cycle
        return cycle, min((grown - stretch) / (stretch * (self.mult - 1)), 1.0)


def cosine_restarts(
    steps: float, mult: float = 1, end: float = 0, decay: float = 1, cycles: int | None = None
) -> Schedule:
    """``cosine(steps, end).restarts(…)``.  torch's ``CosineAnnealingWarmRestarts(T_0=steps, T_mult=mult)``; timm's.

    transformers' ``get_cosine_with_hard_restarts_schedule_with_warmup``, where `steps` is the length of all
    cycles together, is ``cosine(steps).restarts(cycles, fit=True)``.
    """
    return Restarts(cosine(steps, end), cycles, mult, decay)


def warmup_stable_decay(
    warmup_steps: float,
    stable_steps: float,
    decay_steps: float,
    *,
    start: float = 0,
    end: float = 0,
    rise: Shape = "linear",
    fall: Literal["linear", "cosine", "1-sqrt"] = "cosine",
) -> Schedule:
    """Up, level, down.  Hu et al. 2024 (MiniCPM); transformers' ``get_wsd_schedule``, where `start` is `end`."""
    falls: dict[str, Callable[[], Schedule]] = {
        "linear": lambda: linear(decay_steps, end),
        "cosine": lambda: cosine(decay_steps, end),
        "1-sqrt": lambda: polynomial(decay_steps, end, k=0.5),
    }
    if fall not in falls:
        raise ValueError(f"warmup_stable_decay's fall is {fall!r}; allowed is {' or '.join(map(repr, falls))}")
    return warmup(warmup_steps, start, rise).then(constant(1.0, stable_steps)).then(falls[fall]())


FORMS["cosine_restarts"] = cosine_restarts
FORMS["warmup_stable_decay"] = warmup_stable_decay
