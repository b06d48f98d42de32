"""Budgets of training functions: in seconds on a clock that only training moves, and the time to a target."""

from typing import Any

import pytest
import torch
from torch import nn

from clocks import Clock
from test_training_run import final, plan_of
from thalweg import Entry
from thalweg.problems.training import of_function
from thalweg.race import functions
from thalweg.race import plan as planning
from thalweg.race.session import TrainingRun
from thalweg.race.training import record
from thalweg.store import Results, Run
from thalweg.verdict import judge


def costly(run: TrainingRun, clock: Clock, step: float = 0.25, loop: str = "steps", most: int = 10**6) -> None:
    """A step takes so many seconds, and an evaluation 1,000."""
    p = nn.Parameter(torch.zeros(()))
    optimizer = run.optimizer([p])

    def body(i: int) -> None:
        p.grad = torch.tensor(-1.0)
        clock.now += step
        optimizer.step()

        def evaluated() -> float:
            clock.now += 1000
            return float(p.detach())

        if i % 2:
            run.report(validation=evaluated)

    if loop == "steps":
        for i in run.steps(most):
            body(i)
    elif loop == "over":  # a loop of its own, which asks
        i = 0
        while not run.over:
            body(i)
            i += 1
    else:  # one that never asks is ended by its optimizer
        for i in range(most):
            body(i)
    run.finish(test=lambda: float(p.detach()))


def ran(clock: Clock, text: str, seconds: float = 5.0, **how: Any) -> Any:
    entry, training = Entry(text), of_function(lambda run: costly(run, clock, **how))
    plan = plan_of(training, entry, steps=0, seconds=seconds)
    status, known = functions.run(training, plan, entry, final(entry))
    assert (status, known["message"]) == ("finished", "")
    return known


@pytest.mark.parametrize("loop", ["steps", "over", "endless"])
def test_a_function_takes_as_many_steps_as_fit_in_its_seconds_of_training(clock: Clock, loop: str):
    known = ran(clock, "sgd(lr=1)", loop=loop)
    assert known["curve"].step == tuple(range(2, 21, 2))
    assert known["curve"].seconds == tuple(0.25 * step for step in range(2, 21, 2))
    assert ran(clock, "sgd(lr=1)", step=0.5, loop=loop)["curve"].step[-1] == 10
    assert ran(clock, "sgd(lr=1)", step=0.3, seconds=1.0, loop=loop)["seconds"] == pytest.approx(1.2)


def test_schedules_and_switches_of_a_function_follow_its_seconds(clock: Clock):
    half = "schedule='piecewise([0.0001, 0.4999, 0.5, 1.0], [1, 1, 0, 0])'"
    for text in (f"sgd(lr=1, {half})", "switch(sgd(lr=1), sgd(lr=0), at=0.5)"):
        for step, moved in ((0.25, 10), (0.125, 20)):
            curve = ran(clock, text, step=step)["curve"]
            assert curve.seconds[-1] == 5.0
            assert curve.validation_metric[-1] == pytest.approx(moved, abs=1)
            assert curve.validation_metric[-3] == curve.validation_metric[-1]


def test_the_time_to_a_target_counts_functions_that_miss_it_as_censored(clock: Clock):
    """One that needs half the steps takes four times as long for each: it is sooner in steps, and later in seconds."""
    entries = [Entry("sgd(lr=1)", "quick"), Entry("sgd(lr=2)", "costly"), Entry("sgd(lr=0.01)", "slow")]
    training = of_function(lambda run: None)
    plan = planning.make(training, entries, trials=1, seeds=5, seconds=5.0, seed=0, finalists=1, target=6.5)
    runs: list[Run] = []
    for entry in entries:
        own = of_function(lambda run, entry=entry: costly(run, clock, 1.0 if entry.name == "costly" else 0.25))
        for phase, seed in (("tune", 0), *(("final", seed) for seed in range(5))):
            task = planning.Task(f"{entry.name} {phase} {seed}", entry.name, phase, 0, seed)  # pyright: ignore
            status, known = functions.run(own, plan, entry, task)
            runs.append(record(entry, task, status, **known))
    found = judge(Results(plan, tuple(runs)))
    times = {time.entry: time for time in found.times}
    assert [(times[name].reached, times[name].step, times[name].seconds) for name in ("quick", "costly")] == [
        (5, 8.0, 2.0), (5, 4.0, 4.0),
    ]  # fmt: skip
    assert (times["slow"].reached, times["slow"].seeds) == (0, 5)
    assert times["slow"].step != times["slow"].step
    sooner = {(pair.measure, pair.first, pair.second): pair.shown for pair in found.sooner}
    assert sooner["steps", "costly", "quick"]
    assert sooner["seconds", "quick", "costly"]
    assert sooner["steps", "quick", "slow"]
    assert sooner["seconds", "costly", "slow"]


@pytest.mark.parametrize("target", [float("nan"), "high"])
def test_a_target_is_a_number(target: Any):
    with pytest.raises(ValueError, match=r"the race's target is .*; allowed is a finite number, a value of the metric"):
        plan_of(of_function(lambda run: None), Entry("sgd"), target=target)
