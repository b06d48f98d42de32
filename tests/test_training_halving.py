"""Halving of training functions' trials: which stop, that the others are what they are without it, and resuming."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from processes import adopting, tree
from test_halving import numbers
from test_training_run import Stop, final, plan_of, train_saving
from thalweg import Entry
from thalweg.problems.training import of_function
from thalweg.race import brackets, functions, isolated
from thalweg.race.course import Search
from thalweg.race.plan import Task
from thalweg.race.session import TrainingRun
from thalweg.store import Run

TESTS = os.getpid()
X = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))


def train_line(run: TrainingRun) -> None:
    """Least squares by full batches; a trial leaves a process behind, fails late, and has checkpoints."""
    model = nn.Linear(3, 1)
    optimizer = run.optimizer(model)
    run.load()
    if os.getpid() != TESTS and os.fork() == 0:
        os.setsid()
        time.sleep(600)
        os._exit(0)
    for step in run.steps(40):
        optimizer.zero_grad()
        loss = (model(X) - X.sum(1, keepdim=True)).pow(2).mean()
        loss.backward()
        optimizer.step()
        if step == 20 and 0.2 < optimizer.param_groups[0]["lr"] < 0.3:
            raise KeyError("in the middle")
        if step % 4 == 3:
            run.save()
            run.report(val_loss=loss.item(), odd=float(step))


@pytest.mark.skipif(not isolated.possible(), reason="trials wait for each other on Linux only")
def test_the_worse_halves_of_trials_stop_and_a_race_that_was_killed_stops_the_same(tmp_path: Path):
    entry, before = Entry("sgd(lr=1e-2..0.6)"), tree(os.getpid())
    training = replace(of_function(train_line), metric_name="val_loss", higher_is_better=False)
    plan = plan_of(training, entry, steps=40, trials=8, halving=True)
    tasks = Search(plan, plan.entry(entry.name)).tasks
    whole = {task.trial: functions.run(training, plan, entry, task)[1]["curve"] for task in tasks}

    def halved(tasks: Sequence[Task]) -> list[Run]:
        with adopting():
            found = brackets.train(training, plan, {entry.name: entry}, tasks, tmp_path, None, apart=True)
            assert not tree(os.getpid()) - before
        return found

    runs = halved(tasks)
    assert {run.trial for run in runs} == {*range(8)}
    for run in runs:
        assert run.curve.validation_metric == whole[run.trial].validation_metric[: len(run.curve.step)]
        assert run.others["odd"] == tuple(float(step - 1) for step in run.curve.step)
    left = [*range(8)]
    for step, kept in ((12, 4), (24, 2)):  # the first reports after 10 and 20 steps
        left = [trial for trial in left if max(whole[trial].step, default=0) >= step]
        scores = {trial: min(whole[trial].validation_metric[: step // 4]) for trial in left}
        order = sorted(left, key=scores.__getitem__)
        ended = {run.trial for run in runs if run.message == f"among the worse half of 8 trials at step {step}"}
        assert ended == {*order[kept:]}
        left = order[:kept]
    assert [run.status for run in runs if run.trial in left] == ["finished"] * 2
    assert Counter(run.status for run in runs)["stopped"] == 5
    [failed] = [run for run in runs if run.status == "failed"]
    assert "KeyError" in failed.message
    again = halved([task for task in tasks if task.key not in {run.key for run in runs[:3]}])
    of_key = {one["key"]: one for one in numbers(tuple(runs[3:]))}
    assert {one["key"] for one in numbers(tuple(again))} == of_key.keys()
    for one in numbers(tuple(again)):
        other = of_key[one["key"]]
        assert [f"{n}: {x!r}" for n, x in one.items()] == [f"{n}: {x!r}" for n, x in other.items()]


@pytest.mark.parametrize("stop_at", [9, 13, 20, 31])
def test_a_trial_that_is_resumed_asks_with_the_scores_that_it_had(stop_at: int, tmp_path: Path):
    entry = Entry("adam(lr=0.05)")
    plan, task = plan_of(of_function(train_saving), entry, steps=45), replace(final(entry), phase="tune")
    asked: list[list[Any]] = []
    for parted in (None, stop_at):
        asked.append([])

        def gate(at: float, score: Any, asked: list[Any] = asked[-1]) -> bool:
            asked.append((at, score))
            return True

        if parted:
            stopping = of_function(lambda run: train_saving(run, stop_at))
            status, known = functions.run(stopping, plan, entry, task, folder=tmp_path)
            assert (status, known["message"].partition(" ")[0]) == ("failed", Stop.__name__)
        status, known = functions.run(
            of_function(train_saving), plan, entry, task, folder=tmp_path if parted else None, gate=gate
        )
        assert (status, known["message"]) == ("finished", "")
    assert asked[0] == asked[1]
    assert [at for at, _ in asked[0]] == [0.25, 0.5]


def test_a_trial_that_is_told_to_stop_has_a_record_of_what_it_reached():
    entry = Entry("adam(lr=0.05)")
    plan = plan_of(of_function(train_saving), entry, steps=45, trials=4)
    status, known = functions.run(
        of_function(train_saving), plan, entry, replace(final(entry), phase="tune"), gate=lambda at, score: at < 0.5
    )
    assert (status, known["message"]) == ("stopped", "among the worse half of 1 trials at step 24")
    assert known["curve"].step[-1] == 24
    assert known["best_step"] > 0


def test_what_a_function_cannot_do_is_a_sentence():
    for settings, said in (({"splits": True}, r"leave splits out, and draw them in the function with run\.generator"),):
        with pytest.raises(ValueError, match=said):
            plan_of(of_function(train_saving), Entry("sgd"), **settings)
