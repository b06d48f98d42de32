"""Races that go on until they are decided."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_race import line, numbers
from thalweg import Race
from thalweg.race import Progress, Results
from thalweg.store import StoreError
from thalweg.verdict import looks


@pytest.mark.parametrize("replicates", [1, 4, 5, 6, 20, 40, 1000, 10_000])
def test_the_errors_of_all_looks_add_up_to_five_percent(replicates: int):
    found = looks.looks(replicates)
    assert sum(alpha for _, alpha in found) == pytest.approx(0.05)
    assert found[-1][0] == replicates
    assert [n for n, _ in found] == sorted({n for n, _ in found})


def noise(entries: int, replicates: int = 40, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(entries, replicates)) + rng.normal(size=replicates)


def test_pairs_are_decided_in_turn_and_decided_entries_rest():
    x = noise(4) + np.array([0, 0, 8, 100])[:, None]
    x[1] = x[0] + 0.01 * x[1]
    state = looks.decide(x.tolist(), 40, margin=3.0)
    outcomes = {pair: one.outcome for pair, one in state.decided.items()}
    assert outcomes == {(0, 1): "equal", **dict.fromkeys([(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)], "different")}
    assert max(state.needed) < 40
    alone = looks.decide((noise(3) + np.array([0, 1.0, 100])[:, None]).tolist(), 40, margin=1e-9)
    assert alone.needed[2] < alone.needed[0] == alone.needed[1]


@given(st.integers(0, 10**6), st.sampled_from([5, 6, 20]), st.lists(st.integers(0, 20), min_size=2, max_size=4))
@settings(max_examples=60, deadline=None)
def test_what_is_decided_stays_and_needs_no_more_replicates(seed: int, most: int, have: list[int]):
    x = noise(len(have), most, seed) + np.arange(len(have))[:, None]
    whole = looks.decide(x.tolist(), most, 0.5)
    partly = looks.decide([row[: min(n, most)].tolist() for row, n in zip(x, have, strict=True)], most, 0.5)
    assert all(a <= b for a, b in zip(partly.needed, whole.needed, strict=True))
    for pair, one in partly.decided.items():
        if one.outcome != "open":
            assert whole.decided[pair].outcome == one.outcome
            low, high = one.found.low[one.index], one.found.high[one.index]
            assert (low > 0 or high < 0) == (one.outcome == "different")
            assert one.outcome == "different" or -0.5 < low <= high < 0.5
    enough = looks.decide([row[:n].tolist() for row, n in zip(x, whole.needed, strict=True)], most, 0.5)
    assert {p: d.outcome for p, d in enough.decided.items()} == {p: d.outcome for p, d in whole.decided.items()}


def test_a_race_goes_on_until_it_is_decided_and_can_be_stopped_and_continued(tmp_path: Path):
    entries = ["sgd(lr=0.1)", "adam(lr=0.1)", "adam(lr=0.1, eps=1.0001e-8)", "sgd(lr=0.001)"]
    given: dict[str, Any] = {"seeds": 30, "steps": 40, "margin": 0.01, "workers": 1}
    whole = Race(line(), entries, **given).run()
    assert whole.complete
    count = {name: len(whole.replicates(name)) for name in entries}
    assert min(count.values()) < max(count.values()) <= 30
    found = whole.verdict
    assert any("Equal to within 0.01: " in s and "adam(lr=0.1, eps=1.0001e-8)" in s for s in found.sentences)
    assert all(pair.shown or pair.equal for pair in found.pairs) or max(count.values()) == 30
    assert all(not row.left for row in found.rows)

    def stop(progress: Progress) -> None:
        if progress.done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Race(line(), entries, **given, store=tmp_path / "race.db").run(stop)
    stopped = Results.read(tmp_path / "race.db")
    assert not stopped.complete
    assert stopped.verdict.headline.startswith(("So far", "No verdict yet"))
    again = Race(line(), entries, **given, store=tmp_path / "race.db").run()
    assert numbers(again.runs) == numbers(whole.runs)
    with pytest.raises(StoreError, match=r"its margin is 0.01, this one's is 0.02"):
        Race(line(), entries, **cast(Any, {**given, "margin": 0.02}), store=tmp_path / "race.db").run()


@pytest.mark.parametrize("margin", [0, -0.1, float("nan"), float("inf"), "0.1"])
def test_a_margin_that_is_none_is_refused(margin: Any):
    with pytest.raises(ValueError, match=r"the race's margin is .*; allowed is a finite number > 0"):
        Race(line(), ["sgd"], margin=margin)
