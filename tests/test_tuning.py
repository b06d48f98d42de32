"""How hard entries were to tune, against all orders of their trials and planted settings."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from test_verdict import RATES, Results, Run, entry, final, nan, race, trial
from thalweg import verdict
from thalweg.verdict.tuning import expected_best, tuning


def tried(metrics: list[float], higher: bool = True) -> Results:
    runs = [trial("a", i, x, "diverged" if np.isnan(x) else "finished") for i, x in enumerate(metrics)]
    plan = race(higher, a=[0.5]).plan
    return Results(replace(plan, entries=(entry("a"),)), tuple(runs))


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("metrics", [[0.5, 0.9, 0.7, 0.9], [0.2, nan, 0.99, 0.98], [0.5, nan, nan, nan]])
def test_the_expected_best_is_the_mean_over_all_choices_of_trials(metrics: list[float], higher: bool):
    (found,) = tuning(tried(metrics, higher))
    best = max if higher else min
    finished = [x for x in metrics if not np.isnan(x)]
    filled = [(min if higher else max)(finished) if np.isnan(x) else x for x in metrics]
    assert sorted(found.expected) == [1, 2, 4]
    for k, expected in found.expected.items():
        assert expected == pytest.approx(np.mean([best(few) for few in itertools.combinations(filled, k)]))


def test_the_expected_best_of_very_many_trials_is_that_of_the_discrete_uniform_distribution():
    n = 3_000  # there are more ways to choose half of these than a float can be
    found = expected_best([float(i) for i in range(1, n + 1)])
    assert found == pytest.approx({k: k * (n + 1) / (k + 1) for k in found}, rel=1e-12)
    assert list(found)[-2:] == [2048, n]


def test_trials_near_the_best_are_counted_and_lost_ones_are_not_near():
    (found,) = tuning(tried([0.9, 0.895, 0.86, nan]))
    assert found.within == {1: 0.5, 5: 0.75}
    (found,) = tuning(tried([0.1, 0.1005, 0.104, 0.2], higher=False))
    assert found.within == {1: 0.5, 5: 0.75}


def test_a_rate_that_is_worse_in_every_replicate_is_not_in_the_range():
    runs: list[Run] = [trial("a", i, 0.9 - 0.01 * abs(i - 1)) for i in range(4)]
    noise = [0.001, -0.002, 0.0, 0.003, -0.001]
    for i, level in enumerate([0.91, 0.912, 0.911, 0.7]):
        for seed in range(5):
            one = final("a", seed, level + noise[(seed + i) % 5], best=i)
            runs.append(replace(one, key=f"{one.key}-{i}"))
    plan = replace(race(a=[0.5] * 5).plan, finalists=4)
    (found,) = tuning(Results(plan, tuple(runs)))
    assert (found.low, found.high) == (RATES[0], RATES[2])
    (few,) = tuning(Results(plan, tuple(run for run in runs if run.seed < 4)))
    assert np.isnan(few.low)
    assert verdict.judge(Results(plan, tuple(runs))).tuning == (found,)
