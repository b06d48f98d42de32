"""The verdict over several problems: who does better where, how often, and by how much.

Results of different problems have different scales.  The probability of improvement needs none: it is the share of
replicates, averaged over the problems, in which one entry does better than another.  All else uses results scaled so
that 0 is the worst and 1 the best replicate of a problem, with lost ones at 0 (Agarwal et al. 2021, "Deep
reinforcement learning at the edge of the statistical precipice").
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import numpy as np
import scipy  # which loads its own modules when they are first used

from thalweg.store import Results
from thalweg.verdict import statistics
from thalweg.verdict.board import leaderboard
from thalweg.verdict.looks import Course
from thalweg.verdict.statistics import Array

LEVELS = (0.25, 0.5, 0.75, 0.9)
"""The scaled results at which performance profiles are tabulated."""
_GRID = tuple(i / 50 for i in range(51))
_RESAMPLES = 4_000


@dataclass(frozen=True)
class Improvement:
    """How often one entry does better than another.

    Attributes:
        better, worse: their names, the one that does better more often first.
        probability: the mean over the problems of the share of replicates in which `better` does better, ties as half.
        low, high: an interval of that, from replicates resampled within each problem, or the exact one of a proportion
            where nothing varies; those of all pairs together hold with 95 %.
        shown: whether the interval lies above 1/2, and the exact one of a proportion, too.
    """

    better: str
    worse: str
    probability: float
    low: float
    high: float
    shown: bool


@dataclass(frozen=True)
class Standing:
    """An entry over all problems.

    Attributes:
        entry: its name.
        middle: the interquartile mean of its scaled results: without the lowest and the highest quarter.
        low, high: the ends of the 95 % interval of that, from resampled replicates of each problem.
        profile: the share of its replicates with at least each result of `LEVELS`, averaged over the problems.
        curve: the same at many results from 0 to 1.
    """

    entry: str
    middle: float
    low: float
    high: float
    profile: Mapping[float, float]
    curve: Mapping[float, float]


@dataclass(frozen=True)
class Overall:
    """The verdict over several problems.

    Attributes:
        headline: who is ahead over all, or that nobody is shown to be.
        sentences: the pairs that are shown to differ, and the entries that are left out, with the reason.
        standings: the entries that have results on all problems, by their interquartile mean.
        improvements: each pair of them.
    """

    headline: str
    sentences: tuple[str, ...]
    standings: tuple[Standing, ...]
    improvements: tuple[Improvement, ...]


def overall(races: Sequence[Results]) -> Overall:
    """The verdict over races of the same entries on several problems."""
    whole = [{row.entry for row in leaderboard(race) if row.whole} for race in races]
    names = [entry.name for entry in races[0].plan.entries]
    compared = [name for name in names if all(name in of for of in whole)]
    both = list(zip(races, whole, strict=True))
    missing = {name: [r.plan.problem.name for r, of in both if name not in of] for name in names}
    left = [f"{name} is left out: it is not compared on {', '.join(of)}." for name, of in missing.items() if of]
    if len(compared) < 2:
        return Overall("No verdict over all: no two entries have results on all problems.", tuple(left), (), ())
    tables = [_table(race, compared) for race in races]
    standings = tuple(sorted(_standings(tables, compared), key=lambda one: -one.middle))
    improvements = tuple(_improvements(tables, compared))
    return Overall(
        _headline(improvements, compared, len(races)), (*_said(improvements), *left), standings, improvements
    )


def _table(race: Results, names: Sequence[str]) -> Array:
    """The results on one problem, shape (replicates, entries): larger is better, −inf for a lost one."""
    course = Course(race)
    scores = [course.scores(name) for name in names]
    n = min(map(len, scores))  # entries that were decided rest
    return np.array([of[:n] for of in scores]).T


def _scaled(table: Array) -> Array:
    known = table[np.isfinite(table)]
    low, high = float(known.min()), float(known.max())
    return np.where(np.isfinite(table), (table - low) / (high - low) if high > low else 1.0, 0.0)


def _middle(tables: Sequence[Array]) -> Array:
    """The interquartile mean of each entry, from tables of shape (…, replicates, entries)."""
    together: Any = np.concatenate(tables, axis=-2)
    return scipy.stats.trim_mean(together, 0.25, axis=-2)


def _resampled(tables: Sequence[Array]) -> list[Array]:
    """Each problem's replicates, drawn anew from its own many times: (resamples, replicates, entries)."""
    rng = np.random.default_rng(0)
    return [x[rng.integers(len(x), size=(_RESAMPLES, len(x)))] for x in tables]


def _tail(tables: Sequence[Array], alpha: float) -> float:
    """The share of resamples to leave out at each end of an interval.

    Few replicates resampled spread less than they should, by (n − 1) / n in variance, and have thin tails: the
    expanded percentile interval (Hesterberg 2015, section 4.3.2).
    """
    n = min(map(len, tables))
    if n < 2:
        return alpha / 2
    t = float(scipy.stats.t.ppf(1 - alpha / 2, sum(len(x) - 1 for x in tables)))
    return float(scipy.stats.norm.cdf(-math.sqrt(n / (n - 1)) * t))


def _standings(tables: Sequence[Array], names: Sequence[str]) -> list[Standing]:
    scaled = [_scaled(table) for table in tables]
    tail = _tail(scaled, statistics.ALPHA)
    low, high = cast(Any, np.quantile)(_middle(_resampled(scaled)), (tail, 1 - tail), axis=0)
    middle = _middle(scaled)

    def profile(i: int, levels: Sequence[float]) -> dict[float, float]:
        return {level: float(np.mean([np.mean(x[:, i] >= level) for x in scaled])) for level in levels}

    return [
        Standing(name, float(middle[i]), float(low[i]), float(high[i]), profile(i, LEVELS), profile(i, _GRID))
        for i, name in enumerate(names)
    ]


def _improvements(tables: Sequence[Array], names: Sequence[str]) -> list[Improvement]:
    pairs = len(names) * (len(names) - 1) // 2
    tail = _tail(tables, statistics.ALPHA / max(pairs, 1))
    better = [(np.sign(x[:, :, None] - x[:, None, :]) + 1) / 2 for x in map(_ranked, tables)]
    drawn = np.mean([x.mean(1) for x in _resampled(better)], axis=0)
    found: list[Improvement] = []
    for (a, first), (b, second) in combinations(enumerate(names), 2):
        probability = float(np.mean([x[:, a, b].mean() for x in better]))
        if probability < 0.5:
            (a, first), (b, second), probability = (b, second), (a, first), 1 - probability
        low, high = (float(end) for end in np.quantile(drawn[:, a, b], (tail, 1 - tail)))
        wins = float(np.mean([(x[:, a, b] == 1).mean() for x in better]))
        exact = _proportion(wins, sum(map(len, tables)), pairs)
        if low == high == 1:
            low = exact  # nothing varies that could be resampled
        found.append(Improvement(first, second, probability, low, high, min(low, exact) > 0.5))
    return found


def _ranked(table: Array) -> Array:
    """The results with lost ones finite, so that they can be subtracted."""
    return np.where(np.isfinite(table), table, -1e300)


def _proportion(share: float, runs: int, pairs: int) -> float:
    """The lower end of the exact interval of a probability (Clopper & Pearson 1934), corrected for all pairs by
    Bonferroni's method.

    The mean of the probabilities of several problems varies less than one probability does, so it holds for that, too.
    """
    test: Any = scipy.stats.binomtest(round(share * runs), runs)
    return float(test.proportion_ci(1 - statistics.ALPHA / pairs).low)


def _headline(improvements: Sequence[Improvement], names: Sequence[str], problems: int) -> str:
    for name in names:
        if sum(one.shown and one.better == name for one in improvements) == len(names) - 1:
            return f"Over {problems} problems {name} is ahead of every other entry that is compared on all of them."
    if not any(one.shown for one in improvements):
        return f"Over {problems} problems no difference is shown."
    return f"Over {problems} problems no entry is shown to be ahead of all others."


def _said(improvements: Sequence[Improvement]) -> list[str]:
    return [
        f"{one.better} does better than {one.worse} with probability {one.probability:.2f} (95 % interval "
        f"{one.low:.2f} to {one.high:.2f})."
        for one in improvements
        if one.shown
    ]


def to_csv(found: Overall) -> str:
    """The standings as CSV with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["entry", "interquartile_mean", "low", "high", *(f"share_above_{level}" for level in LEVELS)])
    for one in found.standings:
        writer.writerow([one.entry, one.middle, one.low, one.high, *one.profile.values()])
    return out.getvalue()
