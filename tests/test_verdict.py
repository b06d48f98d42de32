"""Verdicts: who is ahead, in words that hold for any race, and the statistics behind them."""

import csv
import io
import itertools
import math
import re
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
from thalweg.verdict import times as times_of
from thalweg.verdict.board import leaderboard
from thalweg.verdict.times import log_rank_scores, sooner

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
        runs += [trial(name, i, 0.5 + 0.1 * (i == best) * (1 if higher else -1)) for i in range(len(RATES))]
        runs += [final(name, s, v, "diverged" if math.isnan(v) else "finished", best) for s, v in enumerate(values)]
    seeds = max(len(values) for values in metrics.values())
    plan = Plan(replace(PROBLEM, higher_is_better=higher), tuple(map(entry, metrics)), len(RATES), seeds, 100, 6400, 0)
    return Results(plan, tuple(runs))


HIGH = [0.950, 0.955, 0.948, 0.951, 0.957]
NEAR = [0.950, 0.949, 0.953, 0.949, 0.955]
LOW = [0.801, 0.812, 0.795, 0.807, 0.803]
nan = math.nan


@pytest.mark.parametrize(
    ("results", "order", "leaders", "headline"),
    [
        (race(a=LOW, b=HIGH), ["b", "a"], ["b"], "b is ahead of every other entry: accuracy 0.951 on test data (95 %"),
        (race(a=NEAR, b=HIGH), ["b", "a"], ["b", "a"], "No difference is shown between b and a"),
        (race(a=LOW, b=HIGH, c=NEAR), ["b", "c", "a"], ["b", "c"], "b has the best result, accuracy 0.951"),
        (race(higher=False, a=LOW, b=HIGH), ["a", "b"], ["a"], "a is ahead of every other entry: accuracy 0.803"),
        (race(a=HIGH), ["a"], ["a"], "a reaches accuracy 0.951 on test data (95 % interval 0.948 to 0.957)"),
        (race(a=[0.9], b=[0.8]), ["a", "b"], ["a", "b"], "a has the best result, accuracy 0.9 on test data, but noth"),
        (race(a=HIGH[:4], b=LOW[:4]), ["a", "b"], ["a", "b"], "a has the best result, accuracy 0.9505 on test data, b"),
        (race(a=HIGH, b=HIGH, c=HIGH), ["a", "b", "c"], ["a", "b", "c"], "No difference is shown between a, b and c"),
        (race(a=[nan] * 5, b=LOW), ["b", "a"], ["b"], "b reaches accuracy 0.803"),
        (race(a=[nan, *HIGH[1:]], b=LOW, c=NEAR), ["a", "c", "b"], ["a", "c", "b"], "a has the best result, accuracy"),
        (race(a=[nan, *HIGH[1:]], b=[*LOW[:4], nan]), ["a", "b"], ["a", "b"], "No difference is shown between a and b"),
        (race(a=[nan] * 3 + HIGH[:2], b=LOW), ["b", "a"], ["b", "a"], "No difference is shown between b and a"),
        (race(a=[nan] * 9 + [0.9], b=LOW * 2), ["b", "a"], ["b"], "b is ahead of every other entry: accuracy 0.803"),
        (race(a=[], b=[]), ["a", "b"], [], "No verdict yet: no final run has finished"),
    ],
)
def test_who_is_ahead(results: Results, order: list[str], leaders: list[str], headline: str):
    found = verdict.judge(results)
    assert [row.entry for row in found.rows] == order
    assert list(found.leaders) == leaders
    assert found.headline.startswith(headline)
    said = " ".join((found.headline, *found.sentences, *found.warnings))
    assert not re.search(r"\bnan\b|\binf\b", said)


def test_those_behind_are_named_with_difference_interval_and_p():
    found = verdict.judge(race(a=LOW, b=HIGH, c=NEAR))
    pair = next(pair for pair in found.pairs if (pair.ahead, pair.behind) == ("b", "a"))
    assert pair.difference == pytest.approx(0.1486)
    assert pair.p < 1e-6
    assert (pair.wins, pair.losses, pair.lost) == (5, 0, False)
    assert found.sentences[0].startswith("a is behind b by 0.1486 (95 % interval 0.14")
    assert found.sentences[-1].startswith("With 5 replicates and 3 comparisons, a difference of 0.0")


def test_a_difference_among_the_others_is_reported_too():
    wide = [0.98, 0.80, 0.97, 0.86, 0.96]  # the best result, and too far apart to be shown ahead of anything
    found = verdict.judge(race(a=[x - 0.15 for x in LOW], b=HIGH, c=wide))
    assert found.leaders == ("c", "b")
    assert "no difference is shown between it and b" in found.headline
    assert [s.split(" by ")[0] for s in found.sentences[:-1]] == ["a is behind c", "a is behind b"]
    assert "With 5 replicates and 3 comparisons" in found.sentences[-1]  # why no more is shown


def test_lost_replicates_count_as_worst_and_signs_decide():
    ten = [0.8 + 0.001 * i for i in range(10)]
    worse = [x - 0.1 for x in ten[:9]]
    found = verdict.judge(race(a=ten, b=[*worse, nan]))
    [pair] = found.pairs
    assert (pair.wins, pair.lost, pair.shown, pair.p) == (10, True, True, 2 / 2**10)
    assert found.sentences[0].startswith("a does better than b in 10 of 10 replicates, where a lost one counts as wors")
    assert "one must do better in 9 of 10" in found.sentences[-1]
    both = verdict.judge(race(a=[nan, *ten[1:]], b=[nan, *worse[1:], 0.5])).pairs[0]
    assert (both.wins, both.losses) == (9, 0)  # a seed that both lost is a tie


@pytest.mark.parametrize(("best", "edges"), [(0, {"lr": "lowest"}), (1, {}), (2, {}), (3, {"lr": "highest"})])
def test_an_entry_whose_best_rate_lies_at_an_edge_is_not_ranked(best: int, edges: dict[str, str]):
    found = verdict.judge(race(best=best, a=HIGH, b=LOW))
    assert all(row.edges == edges for row in found.rows)
    assert any("the lowest of those tried: a lower one" in w for w in found.warnings) == (best == 0)
    assert any("the highest of those tried: a higher one" in w for w in found.warnings) == (best == 3)
    assert sum("of those tried" in w for w in found.warnings) == (best in (0, 3))  # one for all entries
    assert bool(found.pairs) == (best in (1, 2))
    at_an_edge = "No verdict: the best setting of every entry lies at an edge of its space. a has the best result"
    assert found.headline.startswith(at_an_edge) == (best in (0, 3))


def test_the_others_are_ranked_and_a_better_one_at_an_edge_is_mentioned():
    at_edge, others = race(best=3, a=HIGH).runs, race(b=LOW, c=NEAR)
    plan = replace(others.plan, entries=(entry("a"), *others.plan.entries))
    found = verdict.judge(Results(plan, (*at_edge, *others.runs)))
    assert found.headline.startswith("c is ahead of b: ")
    assert "is no worse; its best lr lies at an edge and is not compared." in found.sentences[-1]
    bounded = replace(plan, entries=tuple(_with_most(e, 1.0) for e in plan.entries))
    found = verdict.judge(Results(bounded, (*at_edge, *others.runs)))
    assert found.rows[0].entry == "a"  # no rate above 1 is allowed, so that its best one lies at no edge
    assert not found.rows[0].edges


def _with_most(planned: EntryPlan, most: float) -> EntryPlan:
    return replace(planned, search={n: replace(space, most=most) for n, space in planned.search.items()})


def test_a_replicate_keeps_its_best_run_on_validation_data_and_is_lost_with_all_of_them():
    results = race(a=HIGH, b=LOW)
    plan = replace(results.plan, finalists=2)
    runs = [run for run in results.runs if run.phase == "tune"]
    for name in "ab":
        for seed in range(5):
            good, bad = final(name, seed, 0.9, best=1), final(name, seed, 0.1, best=0)
            if seed == 3:
                good, bad = replace(good, validation_metric=0.2), replace(bad, validation_metric=0.3)
            if seed == 4:
                good = replace(good, status="diverged")
                bad = replace(bad, status="diverged") if name == "b" else bad
            runs += [good, replace(bad, key=bad.key + "x")]
    found = verdict.judge(Results(plan, tuple(runs)))
    kept = {n: [(r.status, r.test_metric) for r in Results(plan, tuple(runs)).replicates(n)] for n in "ab"}
    assert kept["a"] == [("finished", 0.9)] * 3 + [("finished", 0.1)] * 2
    assert kept["b"] == [("finished", 0.9)] * 3 + [("finished", 0.1), ("diverged", 0.1)]
    assert {row.entry: row.lost for row in found.rows} == {"a": 0, "b": 1}
    partly = Results(plan, tuple(runs[:-1]))  # a replicate ends with the last of its runs
    assert {row.entry: row.left for row in verdict.judge(partly).rows} == {"a": 0, "b": 1}


def test_what_has_not_run_yet_is_not_lost():
    results = race(a=HIGH, b=LOW)
    tuned = tuple(run for run in results.runs if run.entry == "a" or run.phase == "tune")
    assert not any("no result" in warning for warning in verdict.judge(Results(results.plan, tuned)).warnings)


def test_an_unfinished_race_is_reported():
    results = race(a=HIGH, b=LOW[:3])
    assert verdict.judge(results).warnings[0].startswith("The race is not finished: 16 runs have ended")


def test_the_same_run_for_every_seed_is_known_not_estimated():
    runs = [
        replace(final(n, s, m), test_loss=m, validation_loss=m) for n, m in (("a", 2.0), ("b", 1.0)) for s in (0, 1)
    ]
    found = verdict.judge(Results(race(a=[2.0, 2.0], b=[1.0, 1.0]).plan, tuple(runs)))
    assert found.pairs[0].shown
    assert "nothing in their runs is random" in found.sentences[0]
    # Runs that differ in the metric are not the same, whatever their losses are.
    lossless = [replace(run, test_loss=nan, validation_loss=nan) for run in runs]
    assert verdict.judge(Results(race(a=[2.0, 2.0], b=[1.0, 1.0]).plan, tuple(lossless))).pairs[0].exact
    for losses in (1.0, nan):
        others = [
            replace(run, test_metric=run.test_metric + 1e-9 * run.seed, test_loss=losses, validation_loss=losses)
            for run in runs
        ]
        found = verdict.judge(Results(race(a=[2.0, 2.0], b=[1.0, 1.0]).plan, tuple(others)))
        assert not any(pair.exact or pair.shown for pair in found.pairs)
    # The same metrics from runs that differ show nothing with so few seeds.
    assert not verdict.judge(race(a=[2.0, 2.0], b=[1.0, 1.0])).pairs[0].shown


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-3])
def test_a_difference_of_rounding_is_none(kind: Any, scale: float):
    def rounded(values: Sequence[float]) -> list[float]:
        return [scale * float(kind(x)) for x in values]

    [pair] = verdict.judge(race(a=rounded(HIGH), b=rounded([float(np.nextafter(kind(x), 2)) for x in HIGH]))).pairs
    assert (pair.p, pair.difference) == (1.0, 0.0)
    [pair] = verdict.judge(race(a=rounded(HIGH), b=rounded([x - 0.28 for x in HIGH]))).pairs
    assert pair.difference == pytest.approx(scale * 0.28, rel=1e-6)
    assert pair.shown


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("images", [[3, 3, 3, 3, 3], [3, 3, 3, 3, 2], [3, 3, 3, 4, 3]])
def test_differences_of_a_few_images_that_happen_to_be_equal_are_judged_as_others(images: list[int], scale: float):
    of = PROBLEM.test
    steps = [290, 291, 288, 290, 289]
    a, b = [scale * x / of for x in steps], [scale * (x - d) / of for x, d in zip(steps, images, strict=True)]
    [pair] = verdict.judge(race(a=a, b=b)).pairs
    # The variance of the rounding of two counts is that of a uniform distribution, twice: 1/6.
    t = np.mean(images) / math.sqrt((np.var(images, ddof=1) + 1 / 6) / 5)
    assert pair.p == pytest.approx(2 * cast(Any, stats).t.sf(t, 4), rel=1e-3)
    assert 5e-5 < pair.p < 6e-4


def test_a_p_value_that_underflows_is_shown_as_small():
    rng = np.random.default_rng(0)
    a = list(rng.normal(0.9, 0.001, 400))
    found = verdict.judge(race(a=a, b=list(rng.normal(0.5, 0.001, 400))))
    assert found.pairs[0].p < 1e-12
    assert "p < 0.0001" in found.sentences[0]


def test_of_many_pairs_those_of_the_first_have_a_sentence_each():
    rng = np.random.default_rng(0)
    a, b, c, d, e, f, g = (list(rng.normal(x, 0.001, 10)) for x in (9, 9, 8, 7, 6, 5, 4))
    found = verdict.judge(race(a=a, b=b, c=c, d=d, e=e, f=f, g=g))
    assert sum(pair.shown for pair in found.pairs) == 20
    assert len(found.leaders) == 2
    behind = [re.match(r"(.) is behind . by", sentence) for sentence in found.sentences]
    assert [match[1] for match in behind if match] == list("cdefg")
    assert "15 other pairs are shown to differ; the report has a table of all." in found.sentences


def test_there_is_no_sentence_on_other_pairs_where_there_are_none():
    rng = np.random.default_rng(0)
    same = list(rng.normal(8, 0.01, 30))
    ahead, doubtful = list(rng.normal(9, 0.01, 30)), list(8.2 + 5 * np.linspace(-1, 1, 30))
    found = verdict.judge(race(a=ahead, b=doubtful, **dict.fromkeys("cdefghijklmnop", same)))  # pyright: ignore[reportArgumentType]
    assert {pair.ahead for pair in found.pairs if pair.shown} == {"a"}
    assert sum("is behind a by" in sentence for sentence in found.sentences) == 14
    assert "other pair" not in " ".join(found.sentences)


spread = st.sampled_from([0.0, 0.001, 0.002, -0.003, 0.2, nan])
levels = st.sampled_from([0.5, 0.8, 0.9, nan])
SEEDS = st.sampled_from([2, 5, 6, 10])


@st.composite
def races(draw: st.DrawFn) -> Results:
    """A race that has come some way: any of its runs may be missing, lost or equal to others."""
    seeds, higher = draw(SEEDS), draw(st.booleans())
    named = {
        name: [round(draw(levels) + x, 6) for x in draw(st.lists(spread, min_size=seeds, max_size=seeds))]
        if draw(st.booleans())
        else [draw(levels)] * seeds
        for name in "abcd"[: draw(st.integers(2, 4))]
    }
    whole = race(higher, **cast(Any, named))
    if draw(st.booleans()):
        return whole
    stopped = draw(st.integers(0, len(whole.runs)))
    order = draw(st.permutations(whole.runs))
    tuned = {e.name for e in whole.plan.entries if sum(r.entry == e.name for r in order[:stopped]) >= len(RATES)}
    kept = tuple(r for r in whole.runs if r in order[:stopped] or (r.phase == "tune" and r.entry in tuned))
    return Results(whole.plan, kept)


def scores_of(results: Results) -> dict[str, dict[int, float]]:
    """The result of each replicate from the records, larger better, a lost one at −1e9."""
    sign = 1 if results.plan.problem.higher_is_better else -1
    return {
        e.name: {
            run.seed: sign * run.test_metric if run.status == "finished" else -1e9
            for run in results.runs
            if run.entry == e.name and run.phase == "final"
        }
        for e in results.plan.entries
    }


@given(races())
@settings(max_examples=400, deadline=None)
def test_the_words_are_true_in_every_state_of_a_race(results: Results):
    found = verdict.judge(results)
    scores, seeds = scores_of(results), results.plan.seeds
    ended = {n for n, of in scores.items() if len(of) == seeds and max(of.values()) > -1e9}
    typical = {n: float(np.median(list(of.values()))) for n, of in scores.items() if of}
    typical = {n: x if x > -1e8 else -1e9 for n, x in typical.items()}  # between a result and a lost one: lost

    def wins(a: str, b: str) -> int:
        return sum(scores[a][s] > scores[b][s] for s in range(seeds))

    headline, *sentences = found.headline, *found.sentences
    said = " ".join((headline, *sentences, *found.warnings))
    assert not re.search(r"\bnan\b|\binf\b| by -|by 0 ", said)
    assert verdict.Course(results).complete or headline.startswith(("So far ", "No verdict"))
    if match := re.match(r"(?:So far )?(\w) is ahead of (.*?): ", headline):
        first, others = match.groups()
        others = ended - {first} if others == "every other entry" else set(re.findall(r"\b[a-d]\b", others))
        assert others == ended - {first}
        assert "every other entry" not in headline or len(others) == len(scores) - 1
        assert all(wins(first, other) > seeds / 2 for other in others)
    if match := re.search(r": (.*?) lost more than half of the runs", headline):
        assert all(typical[n] == -1e9 for n in re.findall(r"\b[a-d]\b", match[1]))
    if match := re.search(r"^(?:No verdict yet: .*\. )?(?:So far )?(.*?) ha(?:s|ve) the best result", headline):
        among = ended or {n for n, of in scores.items() if of and max(of.values()) > -1e9}
        best = max(typical[n] for n in among)
        assert set(re.findall(r"\b[a-d]\b", match[1])) == {n for n in among if typical[n] == best}
    if match := re.search(r"o difference is shown between (.*?)(?:;|\.$|$)", headline):
        assert {*re.findall(r"\b[a-d]\b", match[1])} <= ended
    if (match := re.search(r"accuracy ([\d.]+) on test", headline)) and (row := found.rows[0]).entry in headline:
        assert row.test_metric == pytest.approx(abs(typical[row.entry]))
    for sentence in sentences:
        if match := re.match(r"(\w) is behind (\w) by ([\d.e-]+)", sentence):
            behind, ahead = match[1], match[2]
            assert wins(ahead, behind) > seeds / 2 or "exactly" in sentence
            differences = [scores[ahead][s] - scores[behind][s] for s in range(seeds)]
            assert np.mean(differences) == pytest.approx(float(match[3]), rel=1e-3)
        if match := re.match(r"(\w) does better than (\w) in (\d+) of (\d+)", sentence):
            assert (wins(match[1], match[2]), seeds) == (int(match[3]), int(match[4]))
            assert 2 * cast(Any, stats).binom.sf(wins(match[1], match[2]) - 1, seeds, 0.5) < 0.05
        if match := re.match(r"The result of (\w), ", sentence):
            assert match[1] not in ended
            assert typical[match[1]] >= max(typical[n] for n in (ended or {match[1]})) - 1e-12
    reached = {time.entry: time.reached for time in found.times}
    assert not found.on_time or verdict.Course(results).complete
    for sentence in found.on_time:
        first, *others = re.findall(r"\b([a-d])(?: reaches| \(p)", sentence)
        assert {first, *others} <= ended
        assert all(reached[first] > reached[other] for other in others)  # they reach it in the last step or never
    for pair in found.pairs:
        assert {pair.ahead, pair.behind} <= ended
        assert (pair.wins, pair.losses) == (wins(pair.ahead, pair.behind), wins(pair.behind, pair.ahead))
        assert pair.shown == (pair.p < 0.05)
        if not math.isnan(pair.low):
            assert pair.low <= pair.difference <= pair.high
            assert pair.shown == (pair.low > 0)
        if pair.shown and not pair.exact:
            assert pair.wins > seeds / 2
    for name, of in scores.items():
        if n := sum(score == -1e9 for score in of.values()):
            assert re.search(rf"{name} lost {n} of {len(of)} replicates|{name} has no result", said)


@given(races(), st.sampled_from([0.001, 0.05, 0.5]))
@settings(max_examples=200, deadline=None)
def test_the_words_are_true_in_every_state_of_a_race_that_goes_on_until_it_is_decided(results: Results, margin: float):
    results = Results(replace(results.plan, margin=margin), results.runs)
    found, course = verdict.judge(results), verdict.Course(results)
    said = " ".join((found.headline, *found.sentences, *found.warnings))
    assert not re.search(r"\bnan\b|\binf\b| by -|by 0 ", said)
    assert course.complete or found.headline.startswith(("So far ", "No verdict"))
    outcomes = {frozenset((p.ahead, p.behind)): (p.shown, p.equal) for p in found.pairs}
    for pair in found.pairs:
        assert not (pair.shown and pair.equal)
        if not math.isnan(pair.low):
            assert pair.shown == (pair.low > 0)
            assert pair.equal == (not pair.shown and -margin < pair.low and pair.high < margin)
    if match := re.match(r"(?:So far )?(\w) is ahead of (.*?): ", found.headline):
        rest = course.compared if match[2] == "every other entry" else re.findall(r"\b[a-d]\b", match[2])
        assert all(outcomes[frozenset((match[1], other))][0] for other in rest if other != match[1])
    if match := re.match(r"(?:So far )?(.*) are equal to within", found.headline):
        names = re.findall(r"\b[a-d]\b", match[1])
        assert all(outcomes[frozenset(pair)] == (False, True) for pair in itertools.combinations(names, 2))
    sign = 1 if results.plan.problem.higher_is_better else -1
    typical = {row.entry: sign * row.test_metric for row in found.rows if any(row.entry in pair for pair in outcomes)}
    if typical and (match := re.search(r"^(?:So far )?(.*?) ha(?:s|ve) the best result", found.headline)):
        named = set(re.findall(r"\b[a-d]\b", match[1]))
        assert named == {n for n, x in typical.items() if x == max(x for x in typical.values() if not math.isnan(x))}
    for sentence in found.sentences:
        if sentence.startswith("Equal to within"):
            named = re.findall(r"(\w) and (\w)", sentence.split(": ", 1)[1])
            assert {frozenset(pair) for pair in named} == {pair for pair, (_, equal) in outcomes.items() if equal}
        if match := re.match(r"(\w) is behind (\w) by", sentence):
            assert outcomes[frozenset(match.groups())][0]


def test_entries_with_unfinished_seeds_are_mentioned():
    found = verdict.judge(race(a=HIGH[1:], b=LOW, c=NEAR))
    assert found.headline.startswith("So far c is ahead of b: accuracy")
    assert "is no worse; it has 1 left and is not compared." in found.sentences[-1]
    found = verdict.judge(race(a=HIGH[:3], b=[*LOW[:2]], c=LOW[:1]))
    assert found.headline.startswith("So far a reaches")


def test_a_tie_is_nobodys():
    found = verdict.judge(race(a=HIGH, b=[0.9], c=HIGH))
    assert "the best result of these is a's and c's" in found.headline
    assert verdict.judge(race(a=[0.9], b=[0.9])).headline.startswith("a and b have the best result")


def test_time_to_target_is_a_median_that_counts_runs_that_never_reach_it():
    times = {t.entry: t for t in verdict.judge(race(a=HIGH, b=[0.95, 0.95, 0.95, 0.5, 0.5], c=[0.5] * 5)).times}
    assert [(times[n].reached, times[n].seeds) for n in "abc"] == [(5, 5), (3, 5), (0, 5)]
    assert (times["b"].step, times["b"].examples, times["b"].seconds) == (100, 6400, 2.0)
    assert math.isnan(times["c"].seconds)
    assert verdict.time_to_target(race(a=HIGH), target=0.8)[0].step == 50


def timed(seed: int, *times: Sequence[float], lost: int = 0) -> Results:
    """A race whose entries reach the target after these steps, or never in 100, which take as many seconds squared."""
    whole = race(**cast(Any, {name: HIGH[:1] * len(of) for name, of in zip("abc", times, strict=False)}))
    runs = [
        replace(
            run,
            curve=Curve(
                step=(0, int(at), 100), examples=(0, 64 * int(at), 6400), seconds=(0.0, at**2, 100.0**2),
                train_loss=(1.0,) * 3, validation_loss=(1.0,) * 3,
                validation_metric=(0.1, 0.95 if at < 100 else 0.2, 0.95 if at < 100 else 0.2),
            ),
        )
        for run in whole.runs if run.phase == "final"
        for at in [times["abc".index(run.entry)][run.seed]]
    ]  # fmt: skip
    return Results(whole.plan, (*(run for run in whole.runs if run.phase == "tune"), *runs))


def test_who_reaches_the_target_sooner_is_tested_with_misses_censored():
    found = verdict.judge(timed(0, [10, 12, 14, 16, 18], [40, 60, 100, 100, 100], [11, 13, 15, 17, 19]))
    of = {(x.first, x.second, x.measure): x for x in found.sooner}
    first = of["a", "b", "steps"]
    assert first.p == pytest.approx(3 * 2 / math.comb(10, 5))  # of the ways to share them out, the most extreme
    assert (first.shown, of["a", "c", "steps"].shown, of["c", "b", "seconds"].shown) == (True, False, True)
    assert {measure: p.p for (_, b, measure), p in of.items() if b == "b"}.keys() == {"steps", "seconds"}
    sentence = next(said for said in found.on_time if "fewer steps" in said)
    assert sentence.startswith("a reaches accuracy 0.9 on validation data in fewer steps than b (p = 0.024).")
    none = verdict.judge(timed(0, [100] * 5, [100] * 5))
    assert (none.sooner, none.times[0].reached) == ((), 0)


def test_the_log_rank_statistic_is_that_of_scipy_and_rarely_errs():
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(200):
        times = np.minimum(np.round(rng.exponential(60, (2, 6))), 100)
        reached = times < 100
        scores = log_rank_scores(times.ravel().tolist(), reached.ravel().tolist())
        assert scores.sum() == pytest.approx(0, abs=1e-9)
        ours = scores.reshape(2, 6).sum(1)
        groups = [stats.CensoredData(uncensored=t[r], right=t[~r]) for t, r in zip(times, reached, strict=True)]
        theirs = cast(Any, stats).logrank(groups[0], groups[1])
        assert np.sign(ours[0]) == np.sign(theirs.statistic) or abs(theirs.statistic) < 1e-6
        results = timed(0, *times.tolist())
        found = sooner(results, leaderboard(results))
        assert len(found) == 2
        shown += found[0].shown
    assert shown / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


@pytest.mark.parametrize("n", [5, 9, 120])
def test_a_p_value_of_times_depends_on_no_other_pair(n: int, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(n)
    times = np.minimum(np.round(rng.exponential(60, (4, 2 * n))), 100)
    scores = np.array([log_rank_scores(t.tolist(), (t < 100).tolist()) for t in times])
    together = times_of.p_values(scores[:, :n], scores[:, n:])
    monkeypatch.setattr(times_of, "_AT_ONCE", 10_000)
    assert [times_of.p_values(x[None, :n], x[None, n:])[0] for x in scores] == together


def test_csv_has_the_columns_and_empty_cells_for_unknown_values():
    names: dict[str, Any] = {'a,"x"': HIGH, "b": [nan] * 5}
    text = verdict.to_csv(verdict.judge(race(**names)).rows)
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = ["entry", "test_metric", "low", "high", "lr", "trials", "seeds", "diverged", "seconds"]
    assert [c for c in rows[0] if c in columns] == columns
    assert (rows[0]["entry"], float(rows[0]["test_metric"])) == ('a,"x"', np.median(HIGH))
    assert (rows[1]["test_metric"], rows[1]["low"], rows[1]["diverged"]) == ("", "", "5")


@given(st.lists(st.floats(-100, 100), min_size=5, max_size=12), st.floats(-10, 10))
@settings(max_examples=60)
def test_an_interval_holds_the_median_lies_within_the_values_and_moves_with_them(x: list[float], shift: float):
    low, high = verdict.interval(x)
    assert min(x) - 1e-9 <= low <= float(np.median(x)) + 1e-9
    assert float(np.median(x)) - 1e-9 <= high <= max(x) + 1e-9
    assert verdict.interval([v + shift for v in x]) == pytest.approx((low + shift, high + shift), abs=1e-6)


def test_intervals_of_medians_against_known_numbers():
    assert verdict.interval([3, 1, 2, 5, 4]) == (1, 5)
    # Hettmansperger & Sheather: from R, signmedian.test of 1:10 interpolated at 95 % lies between the 2nd and 3rd.
    low, high = verdict.interval(range(1, 11))
    share = (0.978516 - 0.95) / (0.978516 - 0.890625)
    assert (low, high) == (pytest.approx(2 + 8 * share / (2 + 6 * share), rel=1e-4), pytest.approx(11 - low))
    assert verdict.interval([-math.inf, *range(9)])[1] == pytest.approx(high - 2)
    assert all(map(math.isnan, verdict.interval([1, 2, 3, 4])))


def scores(seed: int, replicates: int, entries: int, lost: float = 0.0) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(replicates, entries)) + rng.normal(size=(replicates, 1)) + rng.normal(size=entries)
    return np.where(rng.uniform(size=x.shape) < lost, -np.inf, x)


@given(st.integers(0, 10**6), st.sampled_from([5, 6, 9, 10, 17]), st.integers(2, 5), st.sampled_from([0.0, 0.03]))
@settings(max_examples=60, deadline=None)
def test_an_interval_and_its_p_never_contradict(seed: int, replicates: int, entries: int, lost: float):
    x = scores(seed, replicates, entries, lost)
    found = statistics.compare(x)
    shown = (found.low > 0) | (found.high < 0)
    assert (shown == (statistics.p_values(found, entries) < 0.05)).all()
    assert (found.low <= found.difference).all()
    assert (found.difference <= found.high).all()
    other = statistics.compare(-x) if not lost else None
    if other is not None:
        assert other.low == pytest.approx(-found.high)
    scaled = statistics.compare(1000 * x + 7)
    assert scaled.low == pytest.approx(1000 * found.low, abs=1e-6)


def test_two_entries_are_compared_by_students_t_and_several_by_tukeys_range():
    d = [1.0, 1.4, 0.3, 0.9, 1.2]
    found = statistics.compare(np.column_stack([d, np.zeros(5)]))
    test = cast(Any, stats).ttest_1samp(d, 0)
    assert statistics.p_values(found, 2) == pytest.approx(test.pvalue, rel=1e-3)
    low, high = test.confidence_interval()
    assert (found.low[0], found.high[0]) == pytest.approx((min(d), high), rel=1e-3)  # low is above the lowest
    assert low > min(d)
    x = scores(3, 8, 3)
    found = statistics.compare(x)
    variances = np.array([np.var(x[:, a] - x[:, b], ddof=1) for a, b in ((0, 1), (0, 2), (1, 2))])
    moderated = (4 * variances.mean() + 7 * variances) / 11
    half = cast(Any, stats).studentized_range.ppf(0.95, 3, 7 + 1.5) / 2**0.5 * np.sqrt(moderated / 8)
    assert (found.low <= found.difference - half + 1e-9).all()
    assert found.spread**2 == pytest.approx(moderated)


def test_a_difference_that_could_be_shown_is_shown_as_often_as_said():
    rng = np.random.default_rng(7)
    for n, entries in ((5, 2), (5, 7), (10, 3)):
        x = rng.normal(size=(4000, n, entries))
        x[..., 0] += statistics.detectable(n, entries) * 2**0.5
        assert np.mean(statistics.compare(x).low[:, 0] > 0) == pytest.approx(0.8, abs=0.025)
    assert statistics.detectable(5, 7) * 2**0.5 < 3.3  # 5.15 with t-tests and Holm's correction


@pytest.mark.parametrize(("n", "entries"), [(5, 2), (7, 4), (21, 9)])
def test_the_difference_that_could_be_shown_is_of_the_intervals_of_compare(
    n: int, entries: int, monkeypatch: pytest.MonkeyPatch
):
    x = np.random.default_rng(0).normal(0, 0.5**0.5, (4000, n, entries))
    wanted = float(np.quantile(-statistics.compare(x).low[:, 0], 0.8))
    monkeypatch.setattr(statistics, "_AT_ONCE", 999 * n * entries)  # a few races at once, and not as many each time
    assert statistics.detectable.__wrapped__(n, entries) == pytest.approx(wanted, rel=1e-12)


def test_wins_needed_where_runs_were_lost():
    assert [statistics.wins_needed(n, 2) for n in (5, 6, 10, 20)] == [None, 6, 9, 15]
    assert [statistics.wins_needed(n, 7) for n in (5, 10, 20)] == [None, 10, 18]


@pytest.mark.parametrize(
    ("values", "examples", "step"),
    [
        ([0.9, 0.91, 0.95], 100, 0.01),
        ([90.0, 91.0], 100, 1.0),
        ([float(np.float32(x / 360)) for x in (300, 311)], 360, 1 / 360),
        ([0.9123, 0.91], 100, 8 * float(np.finfo(np.float32).eps) * 0.9123),
        ([-math.inf, 0.5], 100, 0.01),
        ([0.0, 0.0], 100, 0.0),
    ],
)
def test_the_step_of_a_metrics_scale(values: list[float], examples: int, step: float):
    assert statistics.resolution(values, examples) == pytest.approx(step)
