"""Looks at a training before it is raced: `look` for ``thalweg try``, `sweep` for ``thalweg range``."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from thalweg import lifelines
from thalweg.problems import Problem, Training
from thalweg.race import looped, trying
from thalweg.race.entry import Entry
from thalweg.race.inspecting import Inspection, Trial
from thalweg.race.job import Source
from thalweg.rule import Log

_SMOOTH = 0.9
_RISE = 4.0
"""A loss has diverged if it is above the lowest one by so many times the fall before."""


@dataclass(frozen=True)
class Look:
    """What is seen of a training in three short runs, of which the first two have the same seed.

    Attributes:
        training: the training, with what it says of itself: its metric, its steps.
        trials: what was seen of the runs.
    """

    training: Training
    trials: tuple[Trial, ...]

    @property
    def seen(self) -> Inspection:
        """What was seen of the first run."""
        return cast(Inspection, self.trials[0].seen)

    @property
    def step(self) -> float:
        """The seconds of a step, the median."""
        return statistics.median(self.seen.seconds or [math.nan])

    @property
    def stepping(self) -> float:
        """The seconds of a step in the optimizer, the median."""
        return statistics.median(self.seen.stepping or [math.nan])

    def run(self) -> float:
        """The seconds that a run of all steps takes, with as many evaluations in proportion."""
        seconds = self.training.steps * self.step
        reports = self.seen.reports
        if len(reports) > 1:
            every = max(reports[1][0] - reports[0][0], 1)
            seconds += self.training.steps / every * statistics.median(self.seen.evaluating)
        return seconds

    @property
    def repeats(self) -> bool:
        """Whether two runs of one seed are equal bit for bit: weights and reports."""
        one, other = (cast(Inspection, trial.seen) for trial in self.trials[:2])
        return (one.first, one.last, one.reports) == (other.first, other.last, other.reports)

    @property
    def varies(self) -> tuple[bool, bool]:
        """Whether another seed has other first weights, and whether it ends with others."""
        one, other = (cast(Inspection, trial.seen) for trial in (self.trials[0], self.trials[2]))
        return one.first != other.first, one.last != other.last


def look(text: str, entry: Entry, *, steps: int = 30, patience: float | None = None) -> Look:
    """Three short runs of a training with a rule, two of them of one seed.

    Args:
        text: the training or the problem, as in ``my_training.py:train``.
        entry: the rule, with its default settings.
        steps: of a run, or more until there are two reports.

    Raises:
        ValueError: it cannot be read, fails, or reports nothing.
    """
    source, training, parts = _loaded(text)
    with lifelines.holding():
        found = trying.run(source, training, entry, parts, Trial(steps, seen=Inspection()), patience, seeds=(0, 0, 1))
    trials = tuple(trial for _, _, trial in found)
    for status, message, trial in found:
        if status == "failed" or not trial.metric or not cast(Inspection, trial.seen).steps:
            raise ValueError(message or f"{training.name} has taken no step with the optimizer of run.optimizer()")
    return Look(trying.told(training, trials[0]), trials)


@dataclass(frozen=True)
class Sweep:
    """Losses against learning rates, in one run for each seed, in which the rate rises from step to step.

    Attributes:
        rates: the rates.
        losses: for each run the loss at each rate, as far as it went.
    """

    entry: Entry
    rates: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]

    def lowest(self, k: int) -> float:
        """The rate at which the smoothed loss of a run is lowest."""
        return self.rates[int(np.argmin(self.smooth(k)))]

    def smooth(self, k: int) -> Any:
        """The losses of a run, each an average of those up to it, of which older ones count less."""
        x = np.array([loss for loss in self.losses[k] if math.isfinite(loss)])
        weights = _SMOOTH ** np.arange(len(x))[::-1]
        return np.array([np.average(x[: i + 1], weights=weights[-i - 1 :]) for i in range(len(x))])

    def fall(self, k: int) -> tuple[float, float]:
        """How far the smoothed loss of a run falls, and its noise: the deviation of losses from those before."""
        smooth = self.smooth(k)
        at = int(np.argmin(smooth))
        x = np.array(self.losses[k][: max(at, 2) + 1])
        return float(smooth[0] - smooth[at]), float(np.std(np.diff(x))) / math.sqrt(2)

    def falls(self, k: int) -> float:
        """The rate from which on the smoothed loss of a run has made a tenth of its fall."""
        smooth = self.smooth(k)
        fall, _ = self.fall(k)
        return self.rates[int(np.argmax(smooth <= smooth[0] - 0.1 * fall))]

    @property
    def space(self) -> tuple[float, float]:
        """The space to search: from where the loss begins to fall to where it is lowest, the widest of the runs."""
        runs = range(len(self.losses))
        return min(self.falls(k) for k in runs), max(self.lowest(k) for k in runs)

    @property
    def doubts(self) -> list[str]:
        """What speaks against it; empty if nothing does."""
        runs = range(len(self.losses))
        falls = [self.fall(k) for k in runs]
        found: list[str] = []
        if any(fall < 2 * noise for fall, noise in falls):
            found.append("the loss falls by less than twice its noise: take more --steps, or larger batches")
        best = [self.lowest(k) for k in runs]
        if max(best) > 10 * min(best):
            found.append(f"the runs are lowest at rates that are {max(best) / min(best):.0f} times apart")
        if any(
            len(losses) == len(self.rates) and self.lowest(k) == self.rates[-1] for k, losses in enumerate(self.losses)
        ):
            found.append("the loss falls up to the highest rate: raise --high")
        if any(self.falls(k) == self.rates[0] for k in runs):
            found.append("the loss falls from the lowest rate on: lower --low")
        return found


def sweep(
    text: str,
    entry: Entry,
    *,
    steps: int = 100,
    low: float | None = None,
    high: float | None = None,
    runs: int = 3,
    patience: float | None = None,
) -> Sweep:
    """A learning-rate range test (Smith 2017, Section 3.3), once for each of several seeds.

    Args:
        text: the training or the problem, as in ``my_training.py:train``.
        entry: the rule; its other settings stay.
        steps: of a run, in each of which the rate is higher by the same factor.
        low, high: the first and the last rate; by default ten times as far as the rule's search space reaches.
        runs: the number of seeds.

    Raises:
        ValueError: the training cannot be read or fails, or the rates are none.
    """
    source, training, parts = _loaded(text)
    space = entry.search.get("lr")
    if not isinstance(space, Log):
        raise ValueError(f"{entry.name} has no learning rate to tune; leave lr out of it")
    low, high = low or space.low / 10, high or min(space.high * 10, 1e6)
    if not 0 < low < high or steps < 10:
        raise ValueError(
            f"the rates are {low:g} to {high:g} in {steps} steps; the first must be less, in 10 steps or more"
        )
    factor = (high / low) ** (1 / (steps - 1))
    rising = Entry(entry.rule.replace(lr=low), entry.name, search={}, schedule=f"exponential({factor!r})")
    with lifelines.holding():
        found = trying.run(
            source, training, rising, parts, Trial(steps, seen=Inspection(most=steps)), patience,
            seeds=range(runs), steps=steps,
        )  # fmt: skip
    losses: list[tuple[float, ...]] = []
    for status, message, trial in found:
        seen = cast(Inspection, trial.seen)
        if status == "failed" and len(seen.losses) < steps:
            raise ValueError(message)
        losses.append(_until(tuple(statistics.fmean(parts) for _, parts in sorted(seen.losses.items()))))
        if len(losses[-1]) < 3:
            raise ValueError(f"{training.name} calls backward on no number, so there are no losses to show")
    return Sweep(entry, tuple(low * factor**k for k in range(steps)), tuple(losses))


def _until(losses: Sequence[float]) -> tuple[float, ...]:
    """The losses until they diverge."""
    found: list[float] = []
    for loss in losses:
        lowest = min(found, default=loss)
        if not math.isfinite(loss) or (
            len(found) > 3 and loss > lowest + _RISE * max(found[0] - lowest, abs(found[0]))
        ):
            break
        found.append(loss)
    return tuple(found)


def _loaded(text: str) -> tuple[Source, Training, dict[str, str]]:
    source = Source(text)
    with lifelines.holding():
        problem = source.load()
        parts = problem.parts()
        if isinstance(problem, Problem):
            problem.check()
            parts |= problem.files()
    return source, looped.training(problem), parts
