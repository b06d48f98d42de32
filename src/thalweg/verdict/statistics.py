"""The numbers behind a verdict: an interval for a mean over seeds, a paired test, Holm's correction.

A race has few seeds, five by default, which limits what can be concluded.

- The plain percentile bootstrap of five values covers its mean about 83 % of the time instead of 95 %.  `interval`
  is the *expanded* percentile bootstrap (Hesterberg 2015, "What teachers should know about the bootstrap", section
  4.3.2), which covers about 93 %.  Being made of resampled means it can never be wider than the values' own range,
  and n values have their median within their range with probability 1 − 2¹⁻ⁿ: see `reach`.
- No rank or permutation test can show anything with five pairs: Wilcoxon's and the exact sign-flip test have 2⁵
  outcomes, so p is never below 2/32 = 0.06.  `paired_test` is the paired t-test, which can, at the price of taking
  the differences between two entries, seed by seed, as normal.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import scipy  # which loads its own modules when they are first used: workers use none, and they take a second

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """The ends of an interval."""

    low: float
    high: float


NO_INTERVAL = Interval(float("nan"), float("nan"))


def interval(values: Sequence[float]) -> Interval:
    """The 95 % interval of the mean of `values`, by the expanded percentile bootstrap; nan for fewer than two."""
    x, n = np.asarray(values, dtype=float), len(values)
    if n < 2:
        return NO_INTERVAL
    if _constant(x):
        return Interval(float(x[0]), float(x[0]))
    t = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    tail = float(scipy.stats.norm.cdf(-np.sqrt(n / (n - 1)) * t))
    found: Any = scipy.stats.bootstrap(
        (x,), np.mean, confidence_level=1 - 2 * tail, method="percentile", rng=np.random.default_rng(0)
    )
    return Interval(float(found.confidence_interval.low), float(found.confidence_interval.high))


def reach(n: int) -> float:
    """The largest coverage of an `interval` of n values: the probability that their range contains the median."""
    return 1 - 2.0 ** (1 - n)


class Paired(NamedTuple):
    """The mean of paired differences, its 95 % interval by Student's t, and the two-sided p."""

    mean: float
    low: float
    high: float
    p: float


def rounding(values: Sequence[float]) -> float:
    """The largest spread of differences of these metrics that rounding alone can cause.

    It assumes float32's rounding, in which models predict and most metrics are computed, whatever the type afterwards.
    A metric is rounded several times: in sums, divisions and scalings.
    """
    return 8 * float(np.finfo(np.float32).eps) * max(map(abs, values), default=0.0)


def paired_test(differences: Sequence[float], *, exact: bool = False, rounding: float = 0.0) -> Paired:
    """Whether the mean of paired differences is 0: the paired t-test.

    If all differences are equal, t is infinite and any difference would be significant.  That happens with a coarse
    metric, such as the accuracy on a few hundred examples.  Then p is the smallest of the sign-flip test, 2¹⁻ⁿ.

    Args:
        differences: one per seed.
        exact: nothing was random in the two entries' runs, so that the differences are known, not estimated.
        rounding: differences with at most this spread count as equal, and within this distance of 0 as 0; see
            `rounding`.
    """
    d, n = np.asarray(differences, dtype=float), len(differences)
    if n == 0:
        return Paired(*[float("nan")] * 4)
    mean = float(d.mean())
    if float(np.ptp(d)) <= rounding:
        mean = mean if abs(mean) > rounding else 0.0
        d = np.full(n, mean)
    if exact:
        return Paired(mean, mean, mean, float(mean == 0))
    if n == 1:
        return Paired(mean, *NO_INTERVAL, float("nan"))
    if _constant(d):
        return Paired(mean, mean, mean, 1.0 if mean == 0 else 2.0 ** (1 - n))
    test: Any = scipy.stats.ttest_1samp(d, 0.0)
    ends: Any = test.confidence_interval(CONFIDENCE)
    return Paired(mean, float(ends.low), float(ends.high), float(test.pvalue))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): adjusted p-values; nan stands for no test and stays nan."""
    p = np.asarray(ps, dtype=float)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    p[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return cast("list[float]", p.tolist())


def _constant(x: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    # Differences of equal metrics may differ in the last bits; the variance of tiny differences may underflow to 0.
    return float(np.ptp(x)) <= 1e-12 * float(np.max(np.abs(x))) or float(np.var(x)) == 0
