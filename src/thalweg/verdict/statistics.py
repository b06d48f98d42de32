"""The comparison of entries by the results of their replicates, and the interval of one entry's typical result.

The claim that a verdict makes is about the *typical* replicate: A is ahead of B if it does better in more than half of
all replicates, those included that nobody has run.  So results are medians, and a lost run is simply the worst result.
A claim about means cannot be made with any certainty: an entry that fails badly in one run of ten shows no failure in
five runs more often than not, and no test can see what did not happen.

Two pieces of evidence are needed, and the interval of a difference is the smallest that contains both of theirs:

- the paired t-interval of the mean difference, whose variance is moderated by that of the other pairs (Smyth 2004,
  "Linear models and empirical Bayes methods", with `SHARED` prior degrees of freedom), for all pairs at once by Tukey's
  studentized range;
- the interval of the median difference from order statistics, which holds whatever the distribution (Hettmansperger &
  Sheather 1986, "Confidence intervals based on interpolated order statistics").  With five replicates it reaches from
  the lowest to the highest difference: 93.75 %.

Where a run was lost there is no mean, and signs alone decide, with Bonferroni's correction.  ``thalweg calibrate``
measures how often all this is wrong.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import scipy  # which loads its own modules when they are first used: workers use none, and they take a second
from numpy.typing import ArrayLike, NDArray

from thalweg.verdict import studentized

ALPHA = 0.05
SHARED = 4.0
"""The prior degrees of freedom of the variance that pairs share."""
FEWEST = 5
"""The replicates from which there are intervals and tests: with four, the range covers the median in 7 races of 8."""
POWER = 0.8
_RACES = 4_000
"""Simulated races from which the difference that could be shown is computed."""
_AT_ONCE = 2**20
"""Numbers of them in memory at once."""

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """The ends of an interval; infinite where lost runs leave an end open."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """All pairs of entries compared; the pairs, as ``itertools.combinations`` gives them, are along the last axis.

    Attributes:
        difference: the mean of the paired differences; their median where a run of the pair was lost.
        low, high: the ends of the interval, for all pairs together; nan with fewer than `FEWEST` replicates.
        spread: the moderated standard deviation of a paired difference; nan where a run of the pair was lost.
        clean: whether no run of the pair was lost.
        known: whether the difference is known, not estimated.
        differences: the paired differences, with the replicates along the axis before.
    """

    difference: Array
    low: Array
    high: Array
    spread: Array
    clean: NDArray[np.bool_]
    known: NDArray[np.bool_]
    differences: Array


def compare(
    scores: ArrayLike, *, resolution: float = 0.0, alpha: float = ALPHA, of: int | None = None,
    known: ArrayLike | None = None,
) -> Comparison:  # fmt: skip
    """Compare all pairs of entries, with intervals that cover all differences together with probability 1 − `alpha`.

    Args:
        scores: the results, shape (…, replicates, entries); larger is better, −inf for a lost run.
        resolution: the step of the results' scale, such as 1/360 for the accuracy on 360 images.  A rounded difference
            has an error of its own, so its variance, twice that of a number rounded to such a step, is added to the
            one observed; smaller differences are 0.
        alpha: the probability that any of the intervals is wrong.
        of: the number of entries to correct for, by default those of `scores`.
        known: whether each entry's results are known, not estimated, since nothing in its runs is random; shape
            (entries,).  The difference of two such entries is its own interval.
    """
    x = np.asarray(scores, dtype=float)
    n, entries = x.shape[-2:]
    a, b = np.triu_indices(entries, 1)
    given: Any = np.zeros(entries, dtype=bool) if known is None else np.asarray(known, dtype=bool)
    sure = given[a] & given[b]
    lost: Any = np.isinf(x[..., a]) | np.isinf(x[..., b])
    clean = ~lost.any(-2)
    d = _differences(x, a, b, resolution)
    entries = entries if of is None else of
    with np.errstate(invalid="ignore"):
        mean = np.where(clean, d.mean(-2), np.nan)
        variance = np.where(clean & ~sure, _variance(d), np.nan)
    difference = np.where(clean, mean, _median(d))
    spread = np.sqrt(_moderated(variance + resolution**2 / 6, n))
    if n < FEWEST:
        ends = np.where(sure, difference, np.nan)
        return Comparison(difference, ends, ends, spread, clean, sure, d)
    both, signs = _both(d, mean, spread, entries, alpha), _by_signs(d, alpha / _pairs(entries))
    low, high = np.where(clean, both.low, signs.low), np.where(clean, both.high, signs.high)
    low, high = (np.where(sure, difference, end) for end in (low, high))
    return Comparison(difference, low, high, spread, clean, sure, d)


def _both(d: Array, mean: Array, spread: Array, entries: int, alpha: float) -> "Arrays":
    """The smallest intervals that contain those of the means and those of the medians of differences `d`."""
    n = d.shape[-2]
    margin, middle = _critical(alpha, entries, n) * spread / math.sqrt(n), ordered(d, 1 - ALPHA)
    return Arrays(np.fmin(mean - margin, middle.low), np.fmax(mean + margin, middle.high))


def p_values(found: Comparison, of: int) -> Array:
    """The p-value of each pair, adjusted for all pairs of `of` entries; nan with fewer than `FEWEST` replicates.

    It is below `ALPHA` exactly where the pair's interval does not contain 0.
    """
    d, n = found.differences, found.differences.shape[-2]
    if n < FEWEST:
        return np.where(found.known, found.difference == 0, np.nan)
    pairs = _pairs(of)
    sign: Array = 2 * scipy.stats.binom.sf(np.maximum((d > 0).sum(-2), (d < 0).sum(-2)) - 1, n, 0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num(np.abs(found.difference) * math.sqrt(n) / found.spread, nan=0.0)
    p = studentized.sf(t * math.sqrt(2), of, _freedom(of, n))
    middle = ordered(d, 1 - ALPHA)
    # The median difference may be 0 though the mean one is not; then signs say how likely that is.
    held = (middle.low <= 0) & (middle.high >= 0)
    p = np.where(held, np.maximum(np.maximum(p, sign), ALPHA), p)
    p = np.clip(np.where(found.clean, p, pairs * sign), 0.0, 1.0)
    return np.where(found.known, found.difference == 0, p)


def _differences(x: Array, a: NDArray[np.intp], b: NDArray[np.intp], resolution: float) -> Array:
    with np.errstate(invalid="ignore"):
        d = x[..., a] - x[..., b]
    d[np.isnan(d)] = 0.0  # both were lost
    d[np.abs(d) < 0.99 * resolution] = 0.0
    return d


def _variance(d: Array) -> Array:
    return d.var(-2, ddof=1) if d.shape[-2] > 1 else np.full(d.shape[:-2] + d.shape[-1:], np.nan)


def _median(d: Array) -> Array:
    ordered = np.sort(d, axis=-2)
    n = d.shape[-2]
    low, high = ordered[..., (n - 1) // 2, :], ordered[..., n // 2, :]
    with np.errstate(invalid="ignore"):
        middle = (low + high) / 2
    return np.where(np.isnan(middle), 0.0, middle)


def _moderated(variance: Array, n: int) -> Array:
    """Each pair's variance, drawn towards the mean of all pairs'."""
    known = ~np.isnan(variance)
    count = known.sum(-1, keepdims=True)
    shared = np.where(known, variance, 0.0).sum(-1, keepdims=True) / np.maximum(count, 1)
    return (SHARED * shared + (n - 1) * variance) / (SHARED + n - 1)


def _freedom(entries: int, n: int) -> float:
    """The degrees of freedom of a moderated variance: its own, and of the shared ones those that are not its own.

    One less is shared than the variance is weighted with, since what is shared is an estimate, too.
    """
    return n - 1 + (SHARED - 1) * (entries - 2) / (entries - 1)


def _critical(alpha: float, entries: int, n: int) -> float:
    return studentized.isf(alpha, entries, _freedom(entries, n)) / math.sqrt(2)


def _pairs(entries: int) -> int:
    return entries * (entries - 1) // 2


class Arrays(NamedTuple):
    """The ends of several intervals."""

    low: Array
    high: Array


def ordered(x: Array, level: float) -> Arrays:
    """Intervals of the medians of columns, shape (…, n, columns), interpolated between order statistics."""
    j, between = _orders(x.shape[-2], level)
    s = np.sort(x, axis=-2)

    def at(outer: int, inner: int) -> Array:
        far, near = s[..., outer, :], s[..., inner, :]
        if between == 0:
            return far
        finite = np.isfinite(far) & np.isfinite(near)
        with np.errstate(invalid="ignore"):
            return np.where(finite, (1 - between) * far + between * near, far)

    return Arrays(at(j - 1, j), at(-j, -j - 1))


@cache
def _orders(n: int, level: float) -> tuple[int, float]:
    """The order statistic at which an interval of the median begins, and how far it moves to the next one."""
    coverage = 1 - 2 * scipy.stats.binom.cdf(np.arange(n // 2), n, 0.5)  # from the 1st, 2nd … to the same from above
    j = max(int((coverage >= level).sum()), 1)
    if j == len(coverage) or coverage[j - 1] < level:
        return j, 0.0
    share = (coverage[j - 1] - level) / (coverage[j - 1] - coverage[j])
    return j, float((n - j) * share / (j + (n - 2 * j) * share))


def _by_signs(d: Array, alpha: float) -> Arrays:
    """Intervals of the median differences from order statistics, exact; infinite where there are too few of them."""
    n = d.shape[-2]
    j = int((2 * scipy.stats.binom.cdf(np.arange(n // 2), n, 0.5) <= alpha).sum())
    if j == 0:
        ends = np.full(d.shape[:-2] + d.shape[-1:], np.inf)
        return Arrays(-ends, ends)
    s = np.sort(d, axis=-2)
    return Arrays(s[..., j - 1, :], s[..., -j, :])


def interval(values: ArrayLike) -> Interval:
    """The 95 % interval of the median of all results that there could be, from these; nan with fewer than `FEWEST`."""
    x = np.asarray(values, dtype=float)
    if len(x) < FEWEST:
        return Interval(math.nan, math.nan)
    found = ordered(x[:, None], 1 - ALPHA)
    return Interval(float(found.low[0]), float(found.high[0]))


def median(values: ArrayLike) -> float:
    """The median; of an even number of values, of which the lower is infinite, that one."""
    return float(_median(np.asarray(values, dtype=float)[:, None])[0])


@cache
def detectable(n: int, entries: int, alpha: float = ALPHA) -> float:
    """The difference that `compare` shows in 80 % of races, in standard deviations of a paired difference.

    It is computed from simulated races without a difference: one of size δ is shown where an interval, moved by δ,
    leaves 0.
    """
    if n < FEWEST:
        return math.inf
    rng, at_once = np.random.default_rng(0), max(_AT_ONCE // (n * entries), 1)
    parts = (min(at_once, _RACES - first) for first in range(0, _RACES, at_once))
    lows = [_low(rng.normal(0, math.sqrt(0.5), (races, n, entries)), alpha) for races in parts]
    return float(np.quantile(-np.concatenate(lows), POWER))


def _low(scores: Array, alpha: float) -> Array:
    """The lower ends of the intervals of `compare` for the first two entries of races without lost runs."""
    n, entries = scores.shape[-2:]
    a, b = np.triu_indices(entries, 1)
    centred = scores - scores.mean(-2, keepdims=True)
    with_each = np.einsum("rni,rnj->rij", centred, centred, optimize=True) / (n - 1)  # quicker than all differences
    own = np.diagonal(with_each, axis1=-2, axis2=-1)
    spread = np.sqrt(_moderated(own[:, a] + own[:, b] - 2 * with_each[:, a, b], n))[:, :1]
    d = scores[..., :1] - scores[..., 1:2]
    return _both(d, d.mean(-2), spread, entries, alpha).low[:, 0]


def wins_needed(n: int, entries: int) -> int | None:
    """The replicates of n in which an entry must do better where signs alone decide; None if n are too few."""
    wins = np.arange(n + 1)
    enough: NDArray[np.intp] = wins[_pairs(entries) * 2 * scipy.stats.binom.sf(wins - 1, n, 0.5) < ALPHA]
    return int(enough[0]) if n >= FEWEST and len(enough) else None


def resolution(values: ArrayLike, examples: int) -> float:
    """The step of a scale on which all `values` lie, such as an accuracy's: 1 or 100 divided by the examples.

    If they lie on none, or the number of examples is not known, which is then 0, it is the largest rounding that a
    metric may have, which models predict and most metrics compute in float32: in sums, divisions and scalings.
    """
    x: Any = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    most = float(np.abs(x).max()) if len(x) else 0.0
    rounding = 8 * float(np.finfo(np.float32).eps) * most
    for whole in (100.0, 1.0) if examples else ():
        step = whole / examples
        if most and step > 100 * rounding and abs(x - step * (x / step).round()).max() <= rounding:
            return step
    return rounding
