"""The course of one run: its curve, its best point, and whether it has diverged."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from thalweg.store import Curve

RUNAWAY = 1000.0
"""A run has diverged if its validation loss has grown by this many times 1 + |the initial loss|."""


class Ended(BaseException):
    """The race ends a run.  Not an ``Exception``, so that code that handles all of these does not go on training."""


class Diverged(Ended):
    """The loss or the metric diverged; the message says which, and when."""


class Measured(NamedTuple):
    """What is measured at a point of a run: a loss, if there is one, the metric that decides, and others by name."""

    loss: float | None
    metric: float
    others: Mapping[str, float] = {}


class Recording:
    """The points that a run has reported.

    Args:
        metric: the name of the metric that decides.
        higher_is_better: which way it is better.

    Attributes:
        columns: those of the run's `thalweg.store.Curve`.
        others: the metrics that do not decide, by name: a column each, as long as those of the curve.
        rungs: the best score up to each share of the steps after which trials are compared.
        measured: the results of the best point, as fields of `thalweg.store.Run`.
        last: those of the last point.
    """

    def __init__(self, metric: str, higher_is_better: bool) -> None:
        self.metric, self.higher = metric, higher_is_better
        self.columns: dict[str, list[Any]] = {f.name: [] for f in fields(Curve)}
        self.others: dict[str, list[float]] = {}
        self.rungs: dict[float, tuple[float, float]] = {}
        self.best = (math.inf, math.inf)
        self.watched = ("", math.nan, math.inf)  # what may not grow, its last value, and the most that is allowed
        self.measured: dict[str, Any] = {}
        self.last: dict[str, Any] = {}

    @property
    def curve(self) -> Curve:
        """The points as a curve."""
        return Curve(**{name: tuple(column) for name, column in self.columns.items()})

    @property
    def known(self) -> dict[str, Any]:
        """The curves, as fields of `thalweg.store.Run`."""
        return {"curve": self.curve, "others": {name: tuple(column) for name, column in self.others.items()}}

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
        for column in self.others.values():
            column.append(math.nan)
        if train_loss is not None and not math.isfinite(train_loss):
            raise self.diverged(step, f"the training loss is {train_loss}")
        loss, metric, others = self._finite("validation", step, measure())
        self._watch(loss, metric)
        known = math.nan if loss is None else loss
        self.columns["validation_loss"][-1], self.columns["validation_metric"][-1] = known, metric
        for name, value in others.items():
            column = self.others.setdefault(name, [math.nan] * len(self.columns["step"]))
            column[-1] = value if math.isfinite(value) else math.nan
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
        loss, metric, others = self._finite("test", step, found)
        self.measured |= {"test_loss": math.nan if loss is None else loss, "test_metric": metric}
        if others:
            self.measured["test_others"] = dict(others)

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
        for name, value in (("loss", found.loss), (self.metric, found.metric)):
            if value is not None and not math.isfinite(value):
                raise self.diverged(step, f"the {split} {name} is {value}")
        return found


class Report:
    """What a training reports at a point.

    Args:
        metrics: numbers, or functions that return them.
        known: the name of the metric that decides the race, if that is known.

    Attributes:
        name: the name of the metric that decides: the first that is not of training data, or the one that is known to.

    Raises:
        ValueError: there is no metric, or not the one that decides.
    """

    def __init__(self, metrics: Mapping[str, Any], known: str | None) -> None:
        names = [name for name in metrics if not name.startswith("train")] or list(metrics)
        if not names:
            raise ValueError("run.report() needs a metric, as in run.report(validation=accuracy(model, data))")
        if known is not None and known not in metrics:
            raise ValueError(
                f"run.report() was given {', '.join(metrics)}, and {known}, which decides this race, is missing"
            )
        self.metrics, self.name = metrics, names[0] if known is None else known

    @property
    def train_loss(self) -> float | None:
        """The training loss, if it was given."""
        given = self.metrics.get("train_loss")
        return None if given is None else number("train_loss", given)

    def measured(self) -> Measured:
        """The loss, if one was given, and the metrics."""
        metric = number(self.name, self.metrics[self.name])
        given = metric if "loss" in self.name else self.metrics.get("validation_loss")
        loss = None if given is None else number("validation_loss", given)
        own = (self.name, "train_loss", "validation_loss")
        return Measured(loss, metric, {name: number(name, x) for name, x in self.metrics.items() if name not in own})


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
