"""How hard an entry was to tune: what a smaller budget would have given, and how many settings are near the best."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from thalweg.store import Results, Run
from thalweg.verdict import statistics


@dataclass(frozen=True)
class Tuning:
    """What an entry's trials say about tuning it.

    Attributes:
        entry: its name.
        low, high: the lowest and highest learning rate of its finalists that is not shown to be worse, on validation
            data, than the best one; nan where nothing could be shown.
        expected: the validation metric to expect of the best of 1, 2, 4 … of its trials, drawn at random; a lost trial
            counts as a model without training (Dodge et al. 2019, "Show your work", with trials drawn only once).
        within: the share of its trials, lost ones included, whose validation metric is within 1 % and 5 % of the best.
    """

    entry: str
    low: float
    high: float
    expected: Mapping[int, float]
    within: Mapping[int, float]


def tuning(results: Results) -> tuple[Tuning, ...]:
    """What the trials of each entry with something to tune say, in the order of the plan."""
    names = [entry.name for entry in results.plan.entries if entry.search and results.best(entry.name)]
    return tuple(_tuning(results, name) for name in names)


def _tuning(results: Results, name: str) -> Tuning:
    sign = 1.0 if results.plan.problem.higher_is_better else -1.0
    trials = results.of(name, "tune")
    ended = ("finished", "stopped")  # a trial that was stopped has got so far
    finished = [sign * run.validation_metric for run in trials if run.status in ended]
    lost = [_untrained(run, sign, min(finished)) for run in trials if run.status not in ended]
    best = max(finished)
    within = {percent: sum(x >= best - percent / 100 * abs(best) for x in finished) / len(trials) for percent in (1, 5)}
    expected = {k: sign * x for k, x in expected_best([*finished, *lost]).items()}
    return Tuning(name, *_rates(results, name, sign), expected, within)


def _untrained(run: Run, sign: float, worst: float) -> float:
    first = run.curve.validation_metric[0] if run.curve.validation_metric else math.nan
    return worst if math.isnan(first) else min(sign * first, worst)


def expected_best(scores: list[float]) -> dict[int, float]:
    """The expected maximum of 1, 2, 4 … of these values, drawn without replacement."""
    ordered, n = sorted(scores, reverse=True), len(scores)
    budgets = [2**i for i in range(n.bit_length()) if 2**i < n] + [n]
    return {k: float(np.dot(ordered, _best_of(k, n))) for k in budgets}


def _best_of(k: int, n: int) -> statistics.Array:
    """The probabilities that the best of k of n values, drawn without replacement, is the best, the second best …"""
    # That of the value below j others is C(n − 1 − j, k − 1) / C(n, k).  Each is computed from the one before, since
    # such numbers are too large for floats from 1,030 values on.
    j = np.arange(1.0, n)
    return np.cumprod([k / n, *np.maximum(n - k - j + 1, 0.0) / (n - j)], dtype=float)


def _rates(results: Results, name: str, sign: float) -> tuple[float, float]:
    """The range of learning rates that are not shown to be worse than the best one."""
    rates = {run.trial: run.settings["lr"] for run in results.finalists(name) if "lr" in run.settings}
    scores: dict[int, dict[int, float]] = {trial: {} for trial in rates}
    for run in results.of(name, "final"):
        if run.trial in rates:
            finished = run.status == "finished"
            scores[run.trial][run.seed] = sign * run.validation_metric if finished else -math.inf
    seeds = [run.seed for run in results.replicates(name)]
    if len(scores) < 2 or len(seeds) < statistics.FEWEST or "lr" not in results.plan.entry(name).search:
        return math.nan, math.nan
    x = np.array([[of[seed] for of in scores.values()] for seed in seeds])
    best = max(range(x.shape[1]), key=lambda i: statistics.median(x[:, i]))
    found = statistics.compare(x, resolution=statistics.resolution(x, results.plan.problem.validation))
    worse = {
        b if a == best else a
        for a, b, low, high in zip(*np.triu_indices(x.shape[1], 1), found.low, found.high, strict=True)
        if (a == best and low > 0) or (b == best and high < 0)
    }
    kept = [rate for i, rate in enumerate(rates.values()) if i not in worse]
    return min(kept), max(kept)
