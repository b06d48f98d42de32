"""The verdict over several problems, against planted results."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from pages import Page
from test_verdict import nan, race
from thalweg.report.overall import write
from thalweg.store import Results
from thalweg.verdict import judge
from thalweg.verdict.overall import overall, to_csv


def problem(name: str, higher: bool = True, **metrics: Any) -> Results:
    results = race(higher, **metrics)
    return Results(replace(results.plan, problem=replace(results.plan.problem, name=name)), results.runs)


def drawn(seed: int, *levels: float, replicates: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: list(level + rng.normal(0, 0.01, replicates)) for name, level in zip("abc", levels, strict=False)}


def test_an_entry_that_does_better_everywhere_is_ahead_whatever_the_scales():
    races = [
        problem("one", **drawn(0, 0.9, 0.8, 0.7)),
        problem("two", **cast(Any, {n: [100 * x for x in of] for n, of in drawn(1, 0.6, 0.5, 0.4).items()})),
        problem("three", higher=False, **drawn(2, 0.1, 0.2, 0.3)),
    ]
    found = overall(races)
    assert found.headline == "Over 3 problems a is ahead of every other entry that is compared on all of them."
    assert [(one.better, one.worse, one.probability) for one in found.improvements] == [
        ("a", "b", 1.0), ("a", "c", 1.0), ("b", "c", 1.0),
    ]  # fmt: skip
    assert [one.entry for one in found.standings] == ["a", "b", "c"]
    for one in found.standings:
        assert 0 <= one.low <= one.middle <= one.high <= 1
        shares = list(one.profile.values())
        assert shares == sorted(shares, reverse=True)
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert [row["entry"] for row in rows] == ["a", "b", "c"]
    assert float(rows[0]["interquartile_mean"]) == found.standings[0].middle


def test_replicates_are_resampled_within_each_problem():
    table: dict[str, Any] = {"a": [1.0, 1.0, 1.0, 1.0, 0.0, 0.0], "b": [0.5] * 6}
    (one,) = overall([problem("one", **table), problem("two", a=[0.9] * 6, b=[0.1] * 6)]).improvements
    assert one.probability == pytest.approx((4 / 6 + 1) / 2)
    assert 0.5 <= one.low < 0.7  # the second problem's replicates never take the place of the first one's
    assert 0.9 < one.high <= 1
    sure = overall([problem("two", a=[0.9] * 6, b=[0.1] * 6)]).improvements[0]
    assert (sure.probability, sure.high) == (1, 1)
    assert sure.low == pytest.approx(0.025 ** (1 / 6))  # exact: nothing varies that could be resampled


def test_the_page_over_all_has_what_the_verdict_says(tmp_path: Path):
    races = {f"{name}/report.html": problem(name, **drawn(i, 0.9, 0.8, 0.7)) for i, name in enumerate(("one", "<b>"))}
    found = overall(list(races.values()))
    text = write(found, races, tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    words = " ".join(page.words.split())
    for said in (found.headline, *found.sentences, *(judge(results).headline for results in races.values())):
        assert said in words
    assert "<b>" in words
    assert 'href="one/report.html"' in text


def test_one_that_is_better_on_one_problem_and_worse_on_another_is_not_shown_to_be_ahead():
    found = overall([problem("one", **drawn(0, 0.9, 0.8)), problem("two", **drawn(1, 0.8, 0.9))])
    assert found.headline == "Over 2 problems no difference is shown."
    assert found.sentences == ()
    assert [one.probability for one in found.improvements] == [0.5]


def test_the_middle_half_is_averaged_and_lost_replicates_are_at_zero():
    table: dict[str, Any] = {"a": [1.0, 0.5, 0.75, 0.5], "b": [0.0, nan, 0.25, 0.5]}
    (a, b) = overall([problem("one", **table)]).standings
    assert a.middle == pytest.approx((0.5 + 0.75) / 2)
    assert b.middle == pytest.approx((0 + 0.25) / 2)
    assert a.profile[0.75] == 0.5
    assert b.profile[0.25] == 0.5


def test_an_entry_without_results_on_a_problem_is_left_out_with_the_reason():
    races = [
        problem("one", **drawn(0, 0.9, 0.8, 0.7)),
        problem("two", **cast(Any, {**drawn(1, 0.9, 0.8), "c": [nan] * 6})),
    ]
    found = overall(races)
    assert [one.entry for one in found.standings] == ["a", "b"]
    assert "c is left out: it is not compared on two." in found.sentences
    none = overall([problem("one", a=[0.5] * 5, b=[nan] * 5)])
    assert none.headline == "No verdict over all: no two entries have results on all problems."


@pytest.mark.parametrize("entries", [2, 4])
def test_no_difference_over_all_is_shown_where_there_is_none_but_rarely(entries: int):
    rng = np.random.default_rng(entries)
    wrong = 0
    for _ in range(300):
        tables = [rng.normal(size=(entries, 5)).tolist() for _ in range(3)]
        races = [problem("p", **cast(Any, dict(zip("abcd", table, strict=False)))) for table in tables]
        wrong += any(one.shown for one in overall(races).improvements)
    assert wrong / 300 <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
