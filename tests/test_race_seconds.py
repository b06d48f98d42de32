"""Races with a budget in seconds, on a clock that only training data and measurements move."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clocks import Clock
from test_race import X, Y, line
from thalweg import Entry, Problem, Race, schedules
from thalweg.race import Progress, Results, stopwatch
from thalweg.schedules import timed
from thalweg.store import Plan, StoreError
from thalweg.verdict import judge


def costly(clock: Clock, **changes: Any) -> Problem:
    """Least squares in which a training example takes 1/64 second, and an evaluation 1,000 seconds."""

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        clock.now += len(target) / 64 if prediction.requires_grad else 1000
        return nn.functional.mse_loss(prediction, target)

    return line(loss=loss, **changes)


def race(problem: Problem, *entries: Entry | str, **changes: Any) -> Results:
    settings: dict[str, Any] = {"trials": 2, "seeds": 2, "finalists": 1, "workers": 1, "seconds": 5, **changes}
    return Race(problem, entries, **settings).run()


def test_a_run_takes_as_many_steps_as_fit_in_its_seconds_of_training(clock: Clock):
    names = "sgd(lr=0.01)", "sgd(lr=0.01, batch_size=16)", "sgd(lr=0.01, batch_size=full)"
    results = race(costly(clock), *names)
    assert (results.plan.seconds, results.plan.steps, results.plan.examples) == (5.0, 0, 0)
    for name, steps, seconds in zip(names, (40, 20, 8), (0.125, 0.25, 0.625), strict=True):
        for run in results.of(name, "final"):
            curve = run.curve
            assert (curve.step[-1], run.seconds) == (steps, 5.0)
            assert curve.seconds == tuple(seconds * step for step in curve.step)
            assert len(curve.step) == min(25, steps) + 1  # where a step takes longer, there is less to evaluate
    found = judge(results)
    assert {row.entry: row.steps for row in found.rows} == dict(zip(names, (40.0, 20.0, 8.0), strict=True))
    assert "A run had 5 seconds of training, which gave these steps, in the median: " in found.sentences[-1]


def test_a_run_ends_with_the_step_in_which_its_seconds_are_over(clock: Clock):
    (run, *_) = race(costly(clock), "sgd(lr=0.01)", seconds=0.3).runs
    assert (run.curve.step[-1], run.seconds) == (3, 0.375)
    (run, *_) = race(costly(clock), "sgd(lr=0.01)", seconds=0.001).runs
    assert run.curve.step == (0, 1)


def test_weights_and_order_of_the_data_are_those_of_a_race_in_steps(clock: Clock):
    timed = race(costly(clock), "adam(lr=0.01)", seconds=5)
    counted = race(line(), "adam(lr=0.01)", seconds=None, steps=40)
    assert [run.test_metric for run in timed.runs[1:]] == [run.test_metric for run in counted.runs[1:]]


def test_fractions_of_a_schedule_are_of_the_seconds(clock: Clock):
    # The rate is 0 in the last fifth of the time, however many steps that is.
    rest = "schedule='piecewise([0.0001, 0.8, 0.8001, 1.0], [1, 1, 0, 0])'"
    for size in (8, 16):
        results = race(costly(clock), f"sgd(lr=0.01, batch_size={size}, {rest})", seconds=10)
        curve = results.runs[-1].curve
        still = [s for s, a, b in zip(curve.seconds, curve.validation_loss, curve.validation_loss[1:]) if a == b]  # noqa: B905
        assert still[0] == pytest.approx(8, abs=0.5)
        assert len(still) >= 4


def test_lengths_in_steps_are_refused_where_nobody_knows_the_steps():
    for text in ("warmup(5)", "warmup(0.1).then(cosine(90))", "exponential(0.9)", "constant() * multistep([3])"):
        with pytest.raises(ValueError, match=r"has lengths in steps, and the budget is in seconds"):
            Race(line(), [Entry("sgd", schedule=text)], seconds=1)
    for text in ("constant()", "warmup(0).then(cosine(1.0))", "exponential(0.5, every=0.1)", "plateau()"):
        Race(line(), [Entry("sgd", schedule=text)], seconds=1)


def test_a_schedule_over_a_budget():
    used = [0.0]
    one = timed.over(schedules.parse("warmup(0.25).then(linear(0.75))"), lambda: used[0])
    for share, factor in ((0, 0), (0.125, 0.5), (0.25, 1), (0.625, 0.5), (1, 0), (1.5, 0)):
        used[0] = share
        assert one(17) == pytest.approx(factor, abs=1e-9)
    values = timed.over(schedules.parse("anneal(0.5, 0.9, 1.0)"), lambda: used[0])
    used[0] = 0.5
    assert (values.absolute, one.absolute) == (True, False)
    assert values.value(99.0, 3) == pytest.approx(0.7)


def test_a_switch_comes_after_its_share_of_the_seconds(clock: Clock):
    results = race(costly(clock), "switch(sgd(lr=0.01), sgd(lr=0), at=0.5)", "switch(sgd(lr=0.01), sgd(lr=0), at=30)")
    half, given = (results.of(entry.name, "final")[0].curve for entry in results.plan.entries)
    for curve, at in ((half, 20), (given, 30)):
        moved = [step for step, a, b in zip(curve.step[1:], curve.validation_loss, curve.validation_loss[1:]) if a != b]  # noqa: B905
        assert at <= moved[-1] <= at + 2


def test_entries_take_turns():
    told: list[Progress] = []
    Race(line(), ["sgd", "adam"], trials=3, seeds=2, finalists=1, seconds=0.01, workers=1).run(told.append)
    ended = [(p.run.phase, p.run.entry) for p in told if p.run is not None]
    assert ended[:6] == [("tune", name) for name in ("sgd", "adam") * 3]
    assert ended[-4:] == [("final", name) for name in ("sgd", "adam") * 2]


def test_a_race_in_seconds_goes_on_and_is_no_race_in_steps(tmp_path: Path):
    store = tmp_path / "race.db"
    first = race(line(), "sgd(lr=0.01)", seconds=0.02, store=store)
    again = race(line(), "sgd(lr=0.01)", seconds=0.02, store=store, seeds=3)
    assert again.runs[: len(first.runs)] == first.runs
    assert Plan.from_document(again.plan.document) == again.plan
    with pytest.raises(StoreError, match=r"its seconds is 0\.02, this one's is 0\.03"):
        race(line(), "sgd(lr=0.01)", seconds=0.03, store=store)
    with pytest.raises(StoreError, match=r"its seconds is 0\.02, this one's is 0\.0"):
        race(line(), "sgd(lr=0.01)", seconds=None, store=store)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), True, "3"])
def test_a_budget_is_a_number_of_seconds(seconds: Any):
    with pytest.raises(ValueError, match=r"the race's seconds is .*; allowed is a number above 0 and up to 10,000,000"):
        Race(line(), ["sgd"], seconds=seconds)


def test_a_race_has_one_budget():
    with pytest.raises(ValueError, match="the race has 3 steps and 2 seconds; give one of them as its budget"):
        Race(line(), ["sgd"], steps=3, seconds=2)


def test_a_plan_in_steps_is_as_it_was():
    plan = Race(line(), ["sgd"], steps=3).plan
    assert "seconds" not in plan.document
    assert "seconds" not in plan.identities["sgd"]


def test_the_time_that_others_take_is_left_out(monkeypatch: pytest.MonkeyPatch):
    before = stopwatch.seconds()
    time.sleep(0.02)
    assert stopwatch.seconds() - before > 0.015  # what a thread waits for by itself counts
    monkeypatch.setattr(stopwatch, "_waited", lambda: 2.0)
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: 5.0)
    assert stopwatch.seconds() == 3.0


def test_compiling_and_random_numbers_before_the_first_step_leave_the_run_alone(clock: Clock):
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.line(nn.functional.dropout(x, 0.5, self.training))

    problem = costly(clock, model=Noisy, train=(X[:32], Y[:32]))
    timed = race(problem, "sgd(lr=0.01)", trials=1, seeds=1)
    counted = race(line(model=Noisy, train=(X[:32], Y[:32])), "sgd(lr=0.01)", trials=1, seeds=1, seconds=None, steps=40)
    assert timed.runs[-1].curve.validation_loss[-1] == counted.runs[-1].curve.validation_loss[-1]
    assert torch.is_grad_enabled()
