"""The course of one run: its curve, its best point, and whether it has diverged."""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from thalweg.store import Curve

RUNAWAY = 1000.0
"""A run has diverged if its validation loss has grown by this many times 1 + |the initial loss|."""


class Ended(BaseException):
    """The race ends a run.  Not an ``Exception``, so that code that handles all of these does not go on training."""


class Diverged(Ended):
    """The loss or the metric diverged; the message says which, and when."""


Measured = tuple[float | None, float]
"""A loss, if there is one, and a metric."""


class Recording:
    """The points that a run has reported.

    Args:
        metric: the name of the metric that decides.
        higher_is_better: which way it is better.

    Attributes:
        columns: those of the run's `thalweg.store.Curve`.
        measured: the results of the best point, as fields of `thalweg.store.Run`.
        last: those of the last point.
    """

    def __init__(self, metric: str, higher_is_better: bool) -> None:
        self.metric, self.higher = metric, higher_is_better
        self.columns: dict[str, list[Any]] = {f.name: [] for f in fields(Curve)}
        self.best = (math.inf, math.inf)
        self.watched = ("", math.nan, math.inf)  # what may not grow, its last value, and the most that is allowed
        self.measured: dict[str, Any] = {}
        self.last: dict[str, Any] = {}

    @property
    def curve(self) -> Curve:
        """The points as a curve."""
        return Curve(**{name: tuple(column) for name, column in self.columns.items()})

    def point(
        self,
        step: int,
        examples: int,
        seconds: float,
        train_loss: float | None,
        measure: Callable[[], Measured],
        test: Callable[[], Measured] | None,
    ) -> bool:
        """Add a point, with what `measure` returns for the validation data; returns whether it is the best so far.

        Args:
            step, examples, seconds, train_loss: as in `thalweg.store.Curve`; a loss of None is not known.
            measure: called once, unless the training loss is not finite.
            test: called if the point is the best so far.

        Raises:
            Diverged: a loss or metric is not finite, or the loss has grown far beyond the first.
        """
        row = [step, examples, seconds, math.nan if train_loss is None else train_loss, math.nan, math.nan]
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)
        if train_loss is not None and not math.isfinite(train_loss):
            raise self.diverged(step, f"the training loss is {train_loss}")
        loss, metric = self._finite("validation", step, measure())
        self._watch(loss, metric)
        known = math.nan if loss is None else loss
        self.columns["validation_loss"][-1], self.columns["validation_metric"][-1] = known, metric
        self.last = {"best_step": step, "validation_loss": known, "validation_metric": metric}
        score = (-metric if self.higher else metric, loss or 0.0)
        best = score < self.best
        if best:
            self.best, self.measured = score, dict(self.last)
            if test is not None:
                self.tested(step, test())
        return best

    def tested(self, step: int, found: Measured) -> None:
        """Add the results on the test data to those of the best point."""
        loss, metric = self._finite("test", step, found)
        self.measured |= {"test_loss": math.nan if loss is None else loss, "test_metric": metric}

    def check_growth(self, step: int) -> None:
        """Raise `Diverged` if the loss, or without one a metric of which less is better, has grown beyond the limit."""
        name, value, limit = self.watched
        if value > limit:
            raise self.diverged(step, f"the validation {name} has grown to {value:.3g}")

    def diverged(self, step: int, what: str) -> Diverged:
        """What to raise."""
        return Diverged(f"{what} at step {step:,}")

    def _watch(self, loss: float | None, metric: float) -> None:
        name, value = ("loss", loss) if loss is not None else (self.metric, math.nan if self.higher else metric)
        first = self.watched[0] != name
        self.watched = (name, value, value + RUNAWAY * (1 + abs(value)) if first else self.watched[2])

    def _finite(self, split: str, step: int, found: Measured) -> Measured:
        loss, metric = found
        for name, value in (("loss", loss), (self.metric, metric)):
            if value is not None and not math.isfinite(value):
                raise self.diverged(step, f"the {split} {name} is {value}")
        return found


def deciding(metrics: dict[str, Any], known: str | None) -> str:
    """The name of the metric that decides: the first that is not of training data, or the one that is `known` to.

    Raises:
        ValueError: there is no metric, or not the one that decides.
    """
    names = [name for name in metrics if not name.startswith("train")] or list(metrics)
    if not names:
        raise ValueError("run.report() needs a metric, as in run.report(validation=accuracy(model, data))")
    if known is None:
        return names[0]
    if known not in metrics:
        raise ValueError(
            f"run.report() was given {', '.join(metrics)}, and {known}, which decides this race, is missing"
        )
    return known


def number(name: str, value: Any) -> float:
    """A metric as a number; `value` may be a function that returns it.

    Raises:
        ValueError: it is not one number.
    """
    value = value() if callable(value) else value
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} is {value!r}; wanted is one number") from None
