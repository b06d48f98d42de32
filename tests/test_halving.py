"""Successive halving: which trials stop, that the others are what they are without it, and that it can be resumed."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import Problem, Race, verdict
from thalweg.race import Progress
from thalweg.store import Run


def problem() -> Problem:
    x = torch.randn(96, 3, generator=torch.Generator().manual_seed(0))
    pair = x, x @ torch.tensor([[1.0], [-2.0], [0.5]])
    loss = nn.functional.mse_loss
    return Problem(
        "line", lambda: nn.Linear(3, 1), loss, pair, pair, pair, loss, metric_name="error", higher_is_better=False,
        batch_size=16,
    )  # fmt: skip


SETTINGS: dict[str, Any] = {"trials": 8, "seeds": 2, "steps": 50, "finalists": 2, "workers": 1}


def numbers(runs: tuple[Run, ...], without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for run in runs:
        own = dataclasses.asdict(
            dataclasses.replace(run, seconds=0.0, curve=dataclasses.replace(run.curve, seconds=()))
        )
        found.append({name: x for name, x in own.items() if name not in without})
    return found


def test_the_worse_halves_stop_and_the_others_are_what_they_are_without():
    schedule = 'adam(schedule="cosine(1.0)")'
    whole = Race(problem(), [schedule, "sgd(lr=0.1)"], **SETTINGS).run()
    halved = Race(problem(), [schedule, "sgd(lr=0.1)"], halving=True, **SETTINGS).run()
    trials = {run.trial: run for run in whole.of(schedule, "tune")}
    for run in halved.of(schedule, "tune"):
        if run.status == "finished":
            assert numbers((run,), ("key",)) == numbers((trials[run.trial],), ("key",))
        if run.status == "stopped":  # as far as it went
            assert run.curve.validation_loss == trials[run.trial].curve.validation_loss[: len(run.curve.step)]
    first = [run for run in halved.of(schedule, "tune") if run.trial < 8]
    assert Counter(run.curve.step[-1] for run in first if run.status == "stopped") == {14: 4, 26: 2}
    assert sum(run.status == "finished" for run in first) == 2
    at = [sorted(trials[t].curve.validation_loss[: 25 * s // 50 + 1]) for t in range(8) for s in (14,)]
    best = sorted(range(8), key=lambda t: at[t][0])
    stopped = {run.trial for run in first if run.status == "stopped" and run.curve.step[-1] == 14}
    assert stopped == {*best[4:]}
    assert [run.status for run in halved.of("sgd(lr=0.1)", "tune")] == ["finished"]


def test_a_halved_race_has_the_same_records_in_populations_and_after_an_interruption(tmp_path: Path):
    def run(**settings: Any) -> list[dict[str, Any]]:
        return numbers(Race(problem(), ["adam", "momentum"], halving=True, **{**SETTINGS, **settings}).run().runs)

    alone = run(populations="never")
    np.testing.assert_equal(run(populations="always"), alone)
    np.testing.assert_equal(run(workers=2), alone)
    store = tmp_path / "race.db"

    def interrupt(event: Progress) -> None:
        if event.done == 5:  # between the records of one entry's trials
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Race(problem(), ["adam", "momentum"], halving=True, store=store, **SETTINGS).run(interrupt)
    np.testing.assert_equal(run(store=store), alone)


def test_the_verdict_says_what_halving_assumes_and_what_it_saved():
    results = Race(problem(), ["adam"], halving=True, **SETTINGS).run()
    [said] = [text for text in verdict.judge(results).sentences if "stays behind" in text]
    trials = results.of("adam", "tune")
    steps = sum(run.curve.step[-1] for run in trials)
    assert f"adam took {steps:,} of {50 * len(trials):,}" in said
    assert steps < 0.75 * 50 * len(trials)


def test_seconds_cannot_be_halved():
    settings = {name: x for name, x in SETTINGS.items() if name != "steps"}
    with pytest.raises(ValueError, match="halves"):
        Race(problem(), ["adam"], halving=True, seconds=1.0, **settings)
