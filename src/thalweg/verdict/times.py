"""The time to a target: who reaches a value of the metric sooner, where some may never reach it.

A replicate that has not reached the target when its run ends is *censored*: all that is known is that it would have
taken longer.  One that was lost never reaches it.  Two entries are compared by the log-rank test (Mantel 1966), whose
statistic is a sum of scores, one of each replicate; its distribution comes from all ways to share the replicates out
between the two, so that it holds for any number of them, and p-values are corrected for all pairs (Holm 1979).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import scipy  # which loads its own modules when they are first used

from thalweg.store import Results, Run
from thalweg.verdict import statistics
from thalweg.verdict.board import Row
from thalweg.verdict.statistics import Array

Measure = Literal["steps", "seconds"]
MEASURES: tuple[Measure, ...] = ("steps", "seconds")
_WAYS = 9_999
"""The ways to share replicates out that are tried where there are more."""
_MANY = 100
"""From how many replicates on that distribution is known without drawing any."""
_AT_ONCE = 2**21
"""Numbers in memory at once while they are tried."""


@dataclass(frozen=True)
class TimeToTarget:
    """The cost of the run that each replicate of an entry keeps, until the validation metric first reached the target.

    Attributes:
        entry: its name.
        reached: number of replicates that reached it, of `seeds`.
        seeds: number of replicates.
        step, examples, seconds: the median over the replicates, where one that never reaches it counts as longest;
            nan if the median run never reaches it.
    """

    entry: str
    reached: int
    seeds: int
    step: float
    examples: float
    seconds: float


@dataclass(frozen=True)
class Sooner:
    """Two entries compared by their time to the target.

    Attributes:
        first, second: their names, the one that reaches the target sooner first.
        measure: ``steps`` or ``seconds`` of training.
        p: the p-value of the log-rank test, adjusted for all pairs.
        shown: whether a difference is shown: p < 0.05.
    """

    first: str
    second: str
    measure: Measure
    p: float
    shown: bool


def time_to_target(results: Results, target: float | None = None) -> tuple[TimeToTarget, ...]:
    """The time to the `target`, by default the problem's, for each entry; empty without a target."""
    target = results.plan.problem.target if target is None else target
    if target is None:
        return ()
    return tuple(_time(results, entry.name, target) for entry in results.plan.entries)


def _time(results: Results, entry: str, target: float) -> TimeToTarget:
    finals = results.replicates(entry)
    times = [time for run in finals if (time := _first(run, target, results.plan.problem.higher_is_better))]
    never = [(math.inf,) * 3] * (len(finals) - len(times))
    medians = np.median([*times, *never], axis=0) if finals else [math.inf] * 3
    step, examples, seconds = (float(m) if math.isfinite(m) else math.nan for m in medians)
    return TimeToTarget(entry, len(times), len(finals), step, examples, seconds)


def _first(run: Run, target: float, higher: bool) -> tuple[float, float, float] | None:
    c = run.curve
    for *time, metric in zip(c.step, c.examples, c.seconds, c.validation_metric, strict=True):
        if metric >= target if higher else metric <= target:
            return (float(time[0]), float(time[1]), float(time[2]))
    return None


def sooner(results: Results, rows: Sequence[Row]) -> tuple[Sooner, ...]:
    """Each pair of entries that are compared, in steps and in seconds; empty without a target, or if all miss it."""
    target = results.plan.problem.target
    names = [row.entry for row in rows if row.whole and row.seeds + row.lost >= statistics.FEWEST]
    if target is None:
        return ()
    return tuple(found for measure in MEASURES for found in _sooner(results, names, target, measure))


def _sooner(results: Results, names: Sequence[str], target: float, measure: Measure) -> Iterator[Sooner]:
    higher = results.plan.problem.higher_is_better
    times = {name: [_censored(run, target, higher, measure) for run in results.replicates(name)] for name in names}
    pairs: list[tuple[str, str]] = []
    of: list[Array] = []
    n = len(times[names[0]]) if names else 0  # as many for all, since all are whole
    for a, b in combinations(names, 2):
        scores = log_rank_scores(*zip(*times[a], *times[b], strict=True))
        if not scores.any():
            continue  # neither ever reaches it
        # Larger scores are of those that reach it sooner.
        pairs.append((a, b) if scores[:n].mean() >= scores[n:].mean() else (b, a))
        of.append(scores)
    if not of:
        return
    both = np.array(of)
    for (first, second), p in zip(pairs, _holm(p_values(both[:, :n], both[:, n:])), strict=True):
        yield Sooner(first, second, measure, p, p < statistics.ALPHA)


def _censored(run: Run, target: float, higher: bool, measure: Measure) -> tuple[float, bool]:
    """The time at which a run reaches the target, or until which it is known not to, and whether it does."""
    at = MEASURES.index(measure) * 2
    if (found := _first(run, target, higher)) is not None:
        return found[at], True
    if run.status != "finished":
        return math.inf, False
    return float((run.curve.step, run.curve.examples, run.curve.seconds)[at][-1]), False


def log_rank_scores(times: Sequence[float], reached: Sequence[bool]) -> Array:
    """The scores whose sum over one of two groups is the log-rank statistic: 1 if the target was reached, less the
    Nelson–Aalen estimate of the cumulative hazard at that time in both groups together.
    """
    t, events = np.asarray(times, dtype=float), np.asarray(reached, dtype=bool)
    moments, happened = np.unique(t[events], return_counts=True)
    waiting = len(t) - np.searchsorted(np.sort(t), moments, side="left")
    hazard = np.concatenate([[0.0], np.cumsum(happened / waiting)])
    return events - hazard[np.searchsorted(moments, t, side="right")]


def p_values(a: Array, b: Array) -> list[float]:
    """The two-sided p-values of differences between the mean scores of pairs, from all ways to share them out.

    The ways are the same for all pairs, since to draw them takes longer than all else.  From `_MANY` in each group on,
    the distribution over all ways is normal for all that is shown of it.

    Args:
        a, b: the scores of the two groups, shape (pairs, scores).
    """
    if min(a.shape[1], b.shape[1]) >= _MANY:
        deviation = np.hstack([a, b]).std(-1, ddof=1) * math.sqrt(1 / a.shape[1] + 1 / b.shape[1])
        return (2 * scipy.stats.norm.sf(abs(a.mean(-1) - b.mean(-1)) / deviation)).tolist()

    def difference(x: Any, y: Any, axis: int) -> Any:
        return np.mean(x, axis=axis) - np.mean(y, axis=axis)

    found: Any = scipy.stats.permutation_test(
        (a, b), difference, n_resamples=_WAYS, vectorized=True, axis=-1, rng=np.random.default_rng(0),
        batch=max(_AT_ONCE // (a.size + b.size), 1),
    )  # fmt: skip
    return found.pvalue.tolist()


def _holm(p: Sequence[float]) -> list[float]:
    adjusted, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(p[i] * (len(p) - rank), 1.0))
        adjusted[i] = least
    return adjusted
