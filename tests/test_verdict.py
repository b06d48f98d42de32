"""Verdicts: who is ahead, in words that hold for any race, and the statistics behind them."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thalweg import verdict
from thalweg.store import Curve, EntryPlan, Plan, ProblemPlan, Results, Run, Space, Status
from thalweg.verdict import statistics

PROBLEM = ProblemPlan("digits", "f" * 64, "accuracy", True, 64, 1000, 300, 300, target=0.9)
RATES = [0.001, 0.01, 0.1, 1.0]


def entry(name: str) -> EntryPlan:
    return EntryPlan(name, "SGD(lr=0.01)", 64, 100, len(RATES), {"lr": Space("log", 0.001, 1.0)})


def trial(name: str, i: int, metric: float = 0.5, status: Status = "finished") -> Run:
    numbers = {"lr": RATES[i]}
    return Run(f"{name}-tune-{i}", name, "tune", i, 0, numbers, f"SGD(lr={RATES[i]})", status, 100, metric, 1.0)


def final(name: str, seed: int, metric: float, status: Status = "finished", best: int = 1) -> Run:
    curve = Curve((0, 50, 100), (0, 3200, 6400), (0.0, 1.0, 2.0), (2.0, 1.0, 0.5), (2.0, 1.0, 0.5), (0.1, 0.8, metric))
    loss = 1 - metric + 1e-3 * seed
    return Run(
        f"{name}-final-{seed}", name, "final", best, seed, {"lr": RATES[best]}, f"SGD(lr={RATES[best]})", status, 100,
        metric, loss, metric, loss, curve, seconds=2.0,
    )  # fmt: skip


def race(higher: bool = True, best: int = 1, **metrics: Sequence[float]) -> Results:
    """A race whose entries reached these metrics, one per seed; nan stands for a run that diverged."""
    runs: list[Run] = []
    for name, values in metrics.items():
        runs += [trial(name, i) for i in range(len(RATES))]
        runs += [final(name, s, v, "diverged" if math.isnan(v) else "finished", best) for s, v in enumerate(values)]
    seeds = max(len(values) for values in metrics.values())
    plan = Plan(replace(PROBLEM, higher_is_better=higher), tuple(map(entry, metrics)), len(RATES), seeds, 100, 6400, 0)
    return Results(plan, tuple(runs))


HIGH = [0.950, 0.955, 0.948, 0.951, 0.957]
NEAR = [0.951, 0.949, 0.953, 0.949, 0.955]
LOW = [0.801, 0.812, 0.795, 0.807, 0.803]
nan = math.nan


@pytest.mark.parametrize(
    ("results", "order", "leaders", "headline"),
    [
        (race(a=LOW, b=HIGH), ["b", "a"], ["b"], "b is ahead of every other entry: accuracy 0.9522"),
        (race(a=NEAR, b=HIGH), ["b", "a"], ["b", "a"], "No difference is shown between b and a"),
        (race(a=LOW, b=HIGH, c=NEAR), ["b", "c", "a"], ["b", "c"], "b has the best mean, accuracy 0.9522"),
        (race(higher=False, a=LOW, b=HIGH), ["a", "b"], ["a"], "a is ahead of every other entry: accuracy 0.8036"),
        (race(a=HIGH), ["a"], ["a"], "a reaches accuracy 0.9522 on test data (95 % interval"),
        (race(a=[0.9], b=[0.8]), ["a", "b"], ["a", "b"], "a has the best accuracy 0.9 on test data, but nothing is"),
        (race(a=HIGH, b=HIGH, c=HIGH), ["a", "b", "c"], ["a", "b", "c"], "No difference is shown between a, b and c"),
        (race(a=[nan] * 5, b=LOW), ["b", "a"], ["b"], "b reaches accuracy 0.8036"),
        (race(a=[nan, *HIGH[1:]], b=LOW, c=NEAR), ["c", "b", "a"], ["c"], "c is ahead of b: accuracy 0.9514"),
        (race(a=[nan, *HIGH[1:]], b=[*LOW[:4], nan]), ["a", "b"], ["a", "b"], "a has the best accuracy 0.9527"),
        (race(a=[], b=[]), ["a", "b"], [], "No verdict yet: no final run has finished"),
    ],
)
def test_who_is_ahead(results: Results, order: list[str], leaders: list[str], headline: str):
    found = verdict.judge(results)
    assert [row.entry for row in found.rows] == order
    assert list(found.leaders) == leaders
    assert found.headline.startswith(headline)
    assert "nan" not in " ".join((found.headline, *found.sentences, *found.warnings))


def test_those_behind_are_named_with_difference_interval_and_p():
    found = verdict.judge(race(a=LOW, b=HIGH, c=NEAR))
    p = float(cast(Any, stats).ttest_rel(HIGH, LOW).pvalue)
    pair = next(pair for pair in found.pairs if (pair.ahead, pair.behind) == ("b", "a"))
    assert pair.difference == pytest.approx(0.1486)
    assert (pair.p, pair.p_holm) == (pytest.approx(p), pytest.approx(3 * p))
    assert found.sentences[0].startswith("a is behind b by 0.1486 (95 % interval 0.14")


def test_a_difference_among_the_others_is_reported_too():
    wide = [1.5, 0.5, 1.3, 0.6, 1.0]  # the best mean, and too far apart to be shown ahead of anything
    found = verdict.judge(race(a=LOW, b=HIGH, c=wide))
    assert found.leaders == ("c", "b", "a")
    assert "no difference is shown between it and b and a" in found.headline
    assert [s.split(" by ")[0] for s in found.sentences[:-1]] == ["a is behind b"]
    assert "5 seeds and 3 comparisons, corrected together," in found.sentences[-1]  # why no more is shown


def test_no_run_at_all_and_none_that_finished():
    empty = Results(race(a=[], b=[]).plan, ())
    assert verdict.judge(empty).headline == "No verdict yet: no run has ended."
    lost = Results(empty.plan, tuple(trial(n, i, nan, "diverged") for n in "ab" for i in range(len(RATES))))
    found = verdict.judge(lost)
    assert found.headline == "No verdict: every run diverged or failed."
    assert found.warnings == tuple(f"{n} has no result: of its 4 runs 4 diverged and 0 failed." for n in "ab")
    assert [(row.diverged, row.seeds) for row in found.rows] == [(4, 0), (4, 0)]


@pytest.mark.parametrize(("best", "edges"), [(0, {"lr": "lowest"}), (1, {}), (2, {}), (3, {"lr": "highest"})])
def test_a_best_rate_at_the_edge_is_reported(best: int, edges: dict[str, str]):
    found = verdict.judge(race(best=best, a=HIGH, b=LOW))
    assert all(row.edges == edges for row in found.rows)
    assert any("the lowest of those tried: a lower one" in w for w in found.warnings) == (best == 0)
    assert any("the highest of those tried: a higher one" in w for w in found.warnings) == (best == 3)
    assert sum("of those tried" in w for w in found.warnings) == (best in (0, 3))  # one for all entries


def test_what_has_not_run_yet_is_not_lost():
    results = race(a=HIGH, b=LOW)
    tuned = tuple(run for run in results.runs if run.entry == "a" or run.phase == "tune")
    assert not any("no result" in warning for warning in verdict.judge(Results(results.plan, tuned)).warnings)


def test_an_unfinished_race_and_few_seeds_are_reported():
    results = race(a=HIGH, b=LOW[:3])
    warnings = verdict.judge(results).warnings
    assert warnings[0].startswith("The race is not finished: 16 runs have ended")
    assert warnings[1] == "With 3 seeds an interval covers at most 75 %, not 95 %; run at least 5."


def test_the_same_run_for_every_seed_is_known_not_estimated():
    runs = [
        replace(final(n, s, m), test_loss=m, validation_loss=m) for n, m in (("a", 2.0), ("b", 1.0)) for s in (0, 1)
    ]
    found = verdict.judge(Results(race(a=[2.0, 2.0], b=[1.0, 1.0]).plan, tuple(runs)))
    assert found.pairs[0].shown
    assert "nothing in their runs is random" in found.sentences[0]
    # The same metrics from runs that differ show nothing with so few seeds.
    assert not verdict.judge(race(a=[2.0, 2.0], b=[1.0, 1.0])).pairs[0].shown


FLOAT32 = [float(np.float32(x)) for x in HIGH]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-3])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_spread_of_rounding_is_no_spread(kind: Any, scale: float, seeds: int):
    """The difference is the same in every seed, except for the rounding of metrics to float32."""

    def rounded(values: Sequence[float]) -> list[float]:
        return [scale * float(kind(x)) for x in values[:seeds]]

    [pair] = verdict.judge(race(a=rounded(HIGH), b=rounded([x - 0.28 for x in HIGH]))).pairs
    assert pair.p == 2.0 ** (1 - seeds)
    assert not pair.shown
    assert pair.difference == pytest.approx(scale * 0.28, rel=1e-6)
    [pair] = verdict.judge(race(a=rounded(HIGH), b=rounded([float(np.nextafter(kind(x), 2)) for x in HIGH]))).pairs
    assert (pair.p, pair.difference) == (1.0, 0.0)


def test_a_spread_above_rounding_is_one():
    differences = [0.01, 0.0103, 0.0099, 0.0102, 0.0101]
    [pair] = verdict.judge(race(a=FLOAT32, b=[a - d for a, d in zip(FLOAT32, differences, strict=True)])).pairs
    assert pair.p < 1e-5
    steps = [240 / 256, 241 / 256, 239 / 256, 240 / 256, 242 / 256]
    [pair] = verdict.judge(race(a=steps, b=[x - d / 256 for x, d in zip(steps, [9, 8, 9, 10, 9], strict=True)])).pairs
    assert pair.p == pytest.approx(float(cast(Any, stats).ttest_1samp([9, 8, 9, 10, 9], 0).pvalue))


def test_a_p_value_that_underflows_is_shown_as_small():
    rng = np.random.default_rng(0)
    a = list(rng.normal(0.9, 0.001, 400))
    found = verdict.judge(race(a=a, b=list(rng.normal(0.5, 0.001, 400))))
    assert found.pairs[0].p == 0  # smaller than the smallest float
    assert "p = less than 0.0001" in found.sentences[0]


values = st.sampled_from([0.5, 0.9, 0.95, nan])
metrics = st.lists(st.one_of(values, st.floats(0, 1)), min_size=3, max_size=3)


@given(st.lists(metrics, min_size=2, max_size=4), st.data(), st.booleans())
@settings(max_examples=300)
def test_the_words_are_true_however_far_the_race_has_come(means: list[list[float]], data: st.DataObject, higher: bool):
    named: dict[str, Any] = dict(zip("abcd", means, strict=False))
    whole = race(higher, **named)
    stopped = data.draw(st.integers(0, len(whole.runs)))
    order = data.draw(st.permutations(whole.runs))
    tuned = {e.name for e in whole.plan.entries if sum(r.entry == e.name for r in order[:stopped]) >= len(RATES)}
    results = Results(
        whole.plan,
        tuple(r for r in whole.runs if r in order[:stopped] or (r.phase == "tune" and r.entry in tuned)),
    )
    found = verdict.judge(results)
    rows = {row.entry: row for row in found.rows}
    sign = 1 if higher else -1
    said = " ".join((found.headline, *found.sentences))
    assert " by -" not in said
    assert "nan" not in said
    assert results.complete or found.headline.startswith(("So far ", "No verdict"))
    behind = {pair.behind for pair in found.pairs if pair.ahead == found.rows[0].entry and pair.shown}
    if "is ahead of every other entry" in found.headline:
        assert behind == rows.keys() - {found.rows[0].entry}
    elif "is ahead of" in found.headline:
        names = found.headline.split(" is ahead of ")[1].split(":")[0]
        assert set(names.replace(" and ", ", ").split(", ")) == behind
    best = max((sign * row.test_metric for row in found.rows if row.seeds), default=nan)
    for row in found.rows:
        if row.seeds and sign * row.test_metric == best and row.entry not in found.headline:
            assert f"The mean of {row.entry}, " in said  # an entry with a better mean is always mentioned
        if row.seeds and row.entry in found.leaders and sign * row.test_metric < best:
            assert f" {row.entry} has the best mean" not in f" {found.headline}" or "The mean of" in said


def test_entries_with_lost_or_unfinished_seeds_are_mentioned():
    found = verdict.judge(race(a=[nan, *HIGH[1:]], b=LOW, c=NEAR))
    assert (
        "The mean of a, 0.9527 over the 4 that finished, is no worse; it lost 1 of its final runs"
        in found.sentences[-1]
    )
    found = verdict.judge(race(a=HIGH[1:], b=LOW, c=NEAR))
    assert found.headline.startswith("So far c is ahead of b: accuracy")
    assert "is no worse; it has 1 of its final runs left and is not compared." in found.sentences[-1]
    found = verdict.judge(race(a=HIGH[:3], b=[*LOW[:2]], c=LOW[:1]))
    assert found.headline.startswith("So far a reaches")


def test_a_tie_is_nobodys():
    found = verdict.judge(race(a=HIGH, b=[0.9], c=HIGH))
    assert "the best mean of these is a's and c's" in found.headline
    assert verdict.judge(race(a=[0.9], b=[0.9])).headline.startswith("a and b have the best accuracy")


def test_time_to_target_is_a_median_that_counts_runs_that_never_reach_it():
    times = {t.entry: t for t in verdict.judge(race(a=HIGH, b=[0.95, 0.95, 0.95, 0.5, 0.5], c=[0.5] * 5)).times}
    assert [(times[n].reached, times[n].seeds) for n in "abc"] == [(5, 5), (3, 5), (0, 5)]
    assert (times["b"].step, times["b"].examples, times["b"].seconds) == (100, 6400, 2.0)
    assert math.isnan(times["c"].seconds)
    assert verdict.time_to_target(race(a=HIGH), target=0.8)[0].step == 50


def test_csv_has_the_columns_and_empty_cells_for_unknown_values():
    names: dict[str, Any] = {'a,"x"': HIGH, "b": [nan] * 5}
    text = verdict.to_csv(verdict.judge(race(**names)).rows)
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = ["entry", "test_metric", "low", "high", "lr", "trials", "seeds", "diverged", "seconds"]
    assert [c for c in rows[0] if c in columns] == columns
    assert (rows[0]["entry"], float(rows[0]["test_metric"])) == ('a,"x"', np.mean(HIGH))
    assert (rows[1]["test_metric"], rows[1]["low"], rows[1]["diverged"]) == ("", "", "5")


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # R: p.adjust(c(.01, .04, .03, .005), "holm")
        ([0.01, nan, 0.04], [0.02, nan, 0.04]),
        ([0.9, 0.8], [1.0, 1.0]),
    ],
)
def test_holm_against_known_numbers(p: list[float], adjusted: list[float]):
    assert verdict.holm(p) == pytest.approx(adjusted, nan_ok=True)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p: list[float]):
    adjusted = verdict.holm(p)
    assert all(x <= y <= min(1, len(p) * x) * (1 + 1e-12) for x, y in zip(p, adjusted, strict=True))
    assert all(b >= a for (x, a) in zip(p, adjusted, strict=True) for (y, b) in zip(p, adjusted, strict=True) if y > x)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=7), st.floats(-10, 10))
@settings(max_examples=40)
def test_an_interval_holds_the_mean_lies_within_the_values_and_moves_with_them(x: list[float], shift: float):
    low, high = verdict.interval(x)
    assert min(x) - 1e-9 <= low <= float(np.mean(x)) + 1e-9
    assert float(np.mean(x)) - 1e-9 <= high <= max(x) + 1e-9
    moved = verdict.interval([v + shift for v in x])
    assert moved == pytest.approx((low + shift, high + shift), abs=1e-6)


@pytest.mark.parametrize("values", [[], [0.9]])
def test_fewer_than_two_values_have_no_interval(values: list[float]):
    assert all(map(math.isnan, verdict.interval(values)))


def test_the_interval_of_five_covers_about_as_much_as_it_says():
    rng = np.random.default_rng(1)
    found = [verdict.interval(list(rng.normal(0.9, 0.02, 5))) for _ in range(300)]
    covered = np.mean([low <= 0.9 <= high for low, high in found])
    # 93 % within three standard deviations; the plain percentile bootstrap covers 83 %.
    assert 0.885 <= covered <= 0.975


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.0] * 5, 1.0),
        ([0.1] * 5, 1 / 16),
        ([0.1 + 0.2, 0.3, 0.3], 1 / 4),
        ([0.0, 0.0, 5e-324], 1.0),
        ([0.1], nan),
        ([], nan),
    ],
)
def test_a_paired_test_without_spread_or_values(differences: list[float], p: float):
    assert verdict.paired_test(differences).p == pytest.approx(p, nan_ok=True)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8))
def test_negated_differences_negate_the_interval_and_keep_p(d: list[float]):
    one, other = verdict.paired_test(d), verdict.paired_test([-x for x in d])
    assert other.p == pytest.approx(one.p)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))


def test_reach():
    assert [statistics.reach(n) for n in (2, 3, 5)] == [0.5, 0.75, 0.9375]
