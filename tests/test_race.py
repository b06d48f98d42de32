"""Races that run: pairing, divergence, failure, determinism, and resuming after a kill."""

import inspect
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from processes import HAS_PROC, children, ended, wait_for
from thalweg import Entry, Problem, Race, verdict
from thalweg.race import Progress, Results, WorkerError
from thalweg.race.training import stream
from thalweg.rules import Adam
from thalweg.store import Run, StoreError, read

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 3, generator=GENERATOR)
Y = X @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1 * torch.randn(40, 1, generator=GENERATOR)


def line(**changes: Any) -> Problem:
    """Least squares, three weights, 40 examples."""
    settings: dict[str, Any] = {
        "name": "line",
        "model": lambda: nn.Linear(3, 1),
        "loss": nn.functional.mse_loss,
        "train": (X, Y),
        "validation": (X[:20], Y[:20]),
        "test": (X[20:], Y[20:]),
        "metric": nn.functional.mse_loss,
        "metric_name": "error",
        "higher_is_better": False,
        "batch_size": 8,
        "target": 0.05,
    }
    return Problem(**{**settings, **changes})


def race(problem: Problem, *entries: str, **changes: Any) -> Results:
    settings: dict[str, Any] = {"trials": 4, "seeds": 3, "steps": 40, "workers": 1, **changes}
    return Race(problem, entries, **settings).run()


def numbers(runs: tuple[Run, ...]) -> str:
    """Everything that a plan determines: all but times and machine."""
    timeless = [replace(run, seconds=0.0, machine={}, curve=replace(run.curve, seconds=())) for run in runs]
    return json.dumps([asdict(run) for run in timeless])


def test_a_race_tunes_picks_the_best_and_tests_them():
    results = race(line(), "sgd", "adam(lr=0.01)", "sgd(batch_size=full)", finalists=2)
    assert results.complete
    tried = [len(results.of(e.name, "tune")) for e in results.plan.entries]
    assert tried[1] == 1
    assert tried[0] == tried[2] >= 4  # as many trials for each, whichever spaces grew
    for entry in results.plan.entries:
        tune, final = results.of(entry.name, "tune"), results.of(entry.name, "final")
        finished = sorted((run for run in tune if run.status == "finished"), key=lambda run: run.validation_metric)
        best = sorted(finished[:2], key=lambda run: run.trial)
        assert [(run.trial, run.seed, run.settings) for run in final] == [
            (run.trial, s, run.settings) for run in best for s in range(3)
        ]
        for seed, kept in enumerate(results.replicates(entry.name)):
            assert kept == min((r for r in final if r.seed == seed), key=lambda run: run.validation_metric)
        assert all(math.isnan(run.test_metric) for run in tune)
        for run in final:
            curve = run.curve
            assert run.validation_metric == min(curve.validation_metric)
            assert run.best_step == curve.step[curve.validation_metric.index(run.validation_metric)]
            assert (curve.step[0], curve.step[-1], curve.examples[-1]) == (
                0,
                entry.steps,
                entry.steps * entry.batch_size,
            )
            assert len(curve.train_loss) == len(curve.step) == len(set(curve.examples))
            assert sorted(curve.seconds) == list(curve.seconds)
            assert run.test_metric == pytest.approx(run.test_loss)
            assert run.validation_metric < curve.validation_metric[0]
    assert results.of("adam(lr=0.01)", "final")[0].settings["lr"] == 0.01


class Watched(nn.Linear):
    """Keeps its first weights, the inputs it was trained on, and the weights that it was trained and evaluated with."""

    seen: list["Watched"] = []

    def __init__(self) -> None:
        super().__init__(3, 1)
        self.first, self.inputs = self.weight.detach().clone(), list[Tensor]()
        self.trained, self.evaluated = list[Tensor](), list[Tensor]()
        Watched.seen.append(self)

    def forward(self, input: Tensor) -> Tensor:
        (self.trained if self.training else self.evaluated).append(self.weight.detach().clone())
        if self.training:
            self.inputs.append(input.clone())
        return super().forward(input)


def test_runs_of_one_seed_share_initial_weights_and_the_order_of_the_data():
    entries = ["sgd(lr=0.01)", "adam(lr=0.1)", "sgd(batch_size=3, lr=0.01)", "adam(batch_size=full, lr=1)"]
    contest = Race(line(model=Watched), entries, trials=1, seeds=2, steps=20, workers=1)
    Watched.seen.clear()
    contest.run()
    # Every entry runs its one trial, and then each its seeds: the order of the models is tune, tune …, seed 0, seed 1 …
    runs = [Watched.seen[:4], Watched.seen[4::2], Watched.seen[5::2]]
    for models in runs:
        assert len(models) == 4
        assert all(torch.equal(model.first, models[0].first) for model in models)
        whole, other, small, full = (torch.cat(model.inputs) for model in models)
        assert torch.equal(whole, other)
        assert torch.equal(small, whole[: len(small)])
        assert len(small) == 53 * 3
        assert torch.equal(full, torch.cat([X] * 4))
    assert not torch.equal(runs[1][0].first, runs[2][0].first)
    assert not torch.equal(runs[1][0].inputs[0], runs[2][0].inputs[0])
    assert not torch.equal(runs[0][0].first, runs[1][0].first)


@pytest.mark.parametrize("size", [1, 3, 8, 10, 39])
def test_a_stream_of_batches_is_permutation_after_permutation(size: int):
    batches = stream(10 if size < 10 else 40, size, torch.Generator().manual_seed(1))
    n = 10 if size < 10 else 40
    row = torch.cat([batch for batch, _ in zip(batches, range(3 * n), strict=False) if batch is not None])
    for epoch in range(len(row) // n):
        assert torch.equal(row[epoch * n : (epoch + 1) * n].sort().values, torch.arange(n))
    assert row[:n].tolist() != row[n : 2 * n].tolist()


@pytest.mark.parametrize(
    ("rate", "says"), [("1e30", "is nan at step|is inf at step"), ("3", "the validation loss has grown to .* at step")]
)
def test_a_run_that_diverges_is_recorded_and_the_race_goes_on(rate: str, says: str):
    results = race(line(), f"sgd(lr={rate})", "sgd")
    (lost,) = results.of(f"sgd(lr={rate})", "tune")
    assert lost.status == "diverged"
    assert re.search(says, lost.message)
    assert lost.curve.validation_loss[0] > 0
    assert lost.curve.step[-1] < 40
    assert results.of(f"sgd(lr={rate})", "final") == ()
    assert results.complete
    found = verdict.judge(results)
    assert [row.entry for row in found.rows] == ["sgd", f"sgd(lr={rate})"]
    assert any("has no result" in warning for warning in found.warnings)


def test_an_error_in_the_users_loss_is_recorded_with_the_step_and_the_race_goes_on():
    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        if prediction.abs().max() > 50:
            raise ArithmeticError("too\nlarge")
        return nn.functional.mse_loss(prediction, target)

    results = race(line(loss=loss), "sgd(lr=3)", "sgd(lr=0.01)")
    (lost,) = results.of("sgd(lr=3)", "tune")
    assert lost.status == "failed"
    assert re.fullmatch(r"ArithmeticError at step \d+ \(test_race\.py, line \d+\): too large", lost.message)
    assert len(results.of("sgd(lr=0.01)", "final")) == 3


def test_a_metric_that_is_nan_is_no_result():
    def metric(prediction: Tensor, target: Tensor) -> float:
        in_a_run = any(frame.function == "_evaluated" for frame in inspect.stack())
        return math.nan if in_a_run else 0.0

    results = race(line(metric=metric), "sgd(lr=0.01)")
    assert results.runs[0].message == "the validation error is nan at step 0"


def test_all_random_numbers_repeat_and_the_callers_generators_are_left_alone():
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line, self.dropout = nn.Linear(3, 1), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.dropout(self.line(x)) + random.random() + float(np.random.rand())

    contest = Race(line(model=Noisy), ["adam"], trials=4, seeds=2, steps=40, workers=1)
    torch.manual_seed(3)
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    first = contest.run()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), torch.get_num_threads()) == before[1:]
    torch.manual_seed(4)
    assert numbers(race(line(model=Noisy), "adam", seeds=2).runs) == numbers(first.runs)
    assert numbers(race(line(model=Noisy), "adam", seeds=2, seed=1).runs) != numbers(first.runs)


def test_a_run_counts_as_it_was_at_its_best_point_on_validation_data():
    # Training moves the weight away from those that fit validation and test data, so the first point is the best.
    x = torch.ones(8, 1)
    problem = line(
        model=lambda: nn.Linear(1, 1, bias=False), train=(x, x), validation=(x, -x), test=(x, -2 * x), batch_size=8
    )  # fmt: skip
    (tune, final) = race(problem, "sgd(lr=0.1)", seeds=1).runs
    assert (tune.best_step, final.best_step) == (0, 0)
    assert final.validation_metric == min(final.curve.validation_metric) == final.curve.validation_metric[0]
    weight = -1 + final.validation_metric**0.5  # the start, from (weight + 1)² on validation data
    assert final.test_metric == pytest.approx((weight + 2) ** 2, rel=1e-5)


def test_lookahead_rules_are_evaluated_at_theta():
    contest = Race(line(model=Watched), ["nesterov(lr=0.01, momentum=0.5)"], trials=1, seeds=1, steps=10, workers=1)
    Watched.seen.clear()
    contest.run()
    trained, evaluated = Watched.seen[-1].trained, Watched.seen[-1].evaluated
    assert len(trained) == 10
    # It is evaluated on several splits after each step.
    thetas = [w for i, w in enumerate(evaluated) if i == 0 or not torch.equal(w, evaluated[i - 1])]
    assert len(thetas) == 11
    assert torch.equal(trained[0], thetas[0])
    for (before, theta), ahead in zip(pairwise(thetas), trained[1:], strict=False):
        assert not torch.equal(ahead, theta)
        torch.testing.assert_close(ahead, theta + 0.5 * (theta - before), rtol=1e-5, atol=1e-6)


def test_the_average_of_the_weights_is_evaluated():
    results = race(line(), "sgd(lr=0.01, ema=0.99)", "sgd(lr=0.01)")
    averaged, plain = (results.of(e.name, "final")[0].test_loss for e in results.plan.entries)
    assert averaged > 1.1 * plain, "the average lags behind the weights"


def test_a_schedule_is_laid_out_over_the_steps_of_its_entry():
    # The rate falls to 0 at the end of the run, however many steps it has, so the weights come to rest.
    entries = [f"sgd(lr=0.1, batch_size={size}, schedule='linear(1.0)')" for size in (1, 8)]
    results = race(line(), *entries, "sgd(lr=0.1, batch_size=1)", trials=1, steps=200)
    moves = {
        e.name: abs(curve[-1] - curve[-2]) / curve[-1]
        for e in results.plan.entries
        for curve in [results.of(e.name, "tune")[0].curve.validation_loss]
    }
    assert all(moves[name] < 0.02 < moves["sgd(lr=0.1, batch_size=1)"] for name in entries)


def test_a_switch_is_made_on_the_way_and_its_rates_are_recorded():
    texts = [
        "switch(sgd(lr=0.1), sgd(lr=1e-9), at=0.5)",
        "switch(sgd, adam(lr=0.1), at=5)",
        "switch(adam, sgd, at=auto)",
    ]
    results = race(line(), *texts, steps=40)
    half, given, auto = (results.of(text, "final")[0] for text in texts)
    losses = half.curve.validation_loss
    assert losses[-1] == pytest.approx(losses[len(losses) // 2 + 1], rel=1e-4) != losses[1]  # it rests after the switch
    assert half.rule == "Switch(SGD(lr=0.1), SGD(lr=1e-09), at=0.5)"
    assert given.settings == {"lr": given.settings["lr"], **{f"then.{n}": x for n, x in Adam(lr=0.1).numbers.items()}}
    assert {run.settings["then.lr"] for run in results.of(texts[1], "tune")} == {0.1}
    assert "then.lr" not in auto.settings
    assert all(run.status != "failed" for run in results.runs)


def test_of_several_schedules_each_run_has_its_own():
    entry = Entry("sgd(lr=0.1)", schedule=["constant()", "linear(1.0)", "constant(0.0)"])
    results = Race(line(), [entry], trials=3, seeds=2, steps=40, workers=1).run()
    alone = [race(line(), f"sgd(lr=0.1, schedule='{text}')", trials=1, seeds=2) for text in entry.schedules]
    tuned = results.of(entry.name, "tune")
    assert [run.settings["schedule"] for run in tuned] == [0, 1, 2]
    assert [replace(run.curve, seconds=()) for run in tuned] == [
        replace(one.runs[0].curve, seconds=()) for one in alone
    ]
    best = min(tuned, key=lambda run: run.validation_metric)
    assert {run.settings["schedule"] for run in results.of(entry.name, "final")} == {0, 1, 2}  # as many finalists
    assert verdict.judge(results).rows[0].schedule == entry.schedules[int(best.settings["schedule"])]


def test_a_schedule_that_does_not_fit_the_steps_warns():
    with pytest.warns(UserWarning, match=r"the schedule linear\(30\) of adam does not fit its 20 steps"):
        Race(line(), [Entry("adam", schedule="linear(30)")], steps=20)


def test_a_race_is_as_long_as_its_problem_says():
    assert Race(line(steps=7), ["sgd"]).plan.steps == 7
    assert Race(line(steps=7), ["sgd"], steps=9).plan.steps == 9


def test_progress_is_reported_at_the_start_and_after_every_run():
    told: list[Progress] = []
    results = Race(line(), ["sgd(lr=1e30)", "sgd"], trials=3, seeds=2, finalists=1, steps=5, workers=1).run(told.append)
    assert told[0].run is None
    assert [p.done for p in told] == list(range(len(results.runs) + 1))
    assert [p.total for p in told[:2]] == [8, 6]  # the first entry has no final runs after all
    assert told[-1].total == len(results.runs)
    assert [p.total for p in told] == sorted([p.total for p in told[1:]] + [8], key=lambda t: (t != 8, t))  # it grows
    assert told[-1].best is not None
    tuned = [run.validation_metric for run in results.of("sgd", "tune")]
    assert told[-1].best.validation_metric == min(tuned)


def test_problems_from_lambdas_and_local_classes_go_to_workers_with_the_same_numbers(tmp_path: Path):
    class Local(nn.Linear):
        pass

    # The very first run kills its worker, once, and is started again in another one.
    parent, marker = os.getpid(), tmp_path / "killed"

    def model() -> nn.Module:
        if os.getpid() != parent and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Local(3, 1)

    here = race(line(model=model), "sgd", "adam", trials=3, seeds=2)
    assert not marker.exists()
    apart = race(line(model=model), "sgd", "adam", trials=3, seeds=2, workers=2)
    assert marker.exists()
    assert numbers(apart.runs) == numbers(here.runs)


def test_a_run_that_always_kills_its_worker_stops_the_race_and_leaves_no_record(tmp_path: Path):
    parent = os.getpid()

    def model() -> nn.Module:
        if os.getpid() != parent:
            os._exit(3)
        return nn.Linear(3, 1)

    with pytest.raises(WorkerError, match=r"ended 3 times in the same run of sgd.*, at last with exit code 3"):
        race(line(model=model), "sgd(lr=0.1)", workers=2, store=tmp_path / "race.db")
    assert read(tmp_path / "race.db").runs == ()
    assert race(line(model=model), "sgd(lr=0.1)", store=tmp_path / "race.db").complete


def test_a_problem_that_cannot_be_pickled_runs_here_or_is_refused():
    lock = threading.Lock()  # cannot be pickled

    def model() -> nn.Module:
        with lock:
            return nn.Linear(3, 1)

    assert race(line(model=model), "sgd", workers=None, trials=2, seeds=1).complete
    with pytest.raises(ValueError, match="cannot be sent to other processes; use workers=1"):
        race(line(model=model), "sgd", workers=2)


def test_a_problem_that_the_workers_cannot_read_is_one_sentence(tmp_path: Path):
    file = tmp_path / "gone.py"
    file.write_text("from thalweg import problems\ndef make():\n    return problems.get('digits')\n")
    contest = Race(f"{file}:make", ["sgd"], trials=2, seeds=1, steps=5, workers=2)
    file.unlink()
    with pytest.raises(ValueError, match=r"a worker process cannot read the race .*there is no file .*; use workers=1"):
        contest.run()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Race(line(), ["sgd"], workers=0), "workers is 0"),
        (lambda: Race(line(), "sgd"), "give a list of them"),
        (lambda: Race("digit", ["sgd"]), "did you mean 'digits'"),
        (lambda: Race(line(train=(X[:0], Y[:0])), ["sgd"]), "the train set is empty"),
        (lambda: Race(line(loss=torch.sub), ["sgd"]), "the loss has shape"),
    ],
)  # fmt: skip
def test_a_wrong_race_is_refused_before_anything_runs(make: Callable[[], Race], says: str):
    with pytest.raises(ValueError, match=says):
        make()


def test_another_races_store_is_refused_and_the_same_race_runs_nothing_again(tmp_path: Path):
    first = race(line(), "sgd", store=tmp_path / "race.db")
    told: list[Progress] = []
    again = Race(line(), ["sgd"], trials=4, seeds=3, steps=40, workers=1, store=tmp_path / "race.db").run(told.append)
    assert again == first
    assert len(told) == 1
    with pytest.raises(StoreError, match="its steps is 40, this one's is 50"):
        race(line(), "sgd", steps=50, store=tmp_path / "race.db")


@pytest.mark.parametrize("larger", [{"seeds": 3}, {"trials": 8}, {"finalists": 3}, {"seeds": 3, "trials": 6}, {}])
def test_a_grown_race_equals_the_race_planned_so_from_the_start(larger: dict[str, int], tmp_path: Path):
    small: dict[str, Any] = {"trials": 4, "seeds": 1, "finalists": 2, "steps": 10, "workers": 1}
    whole: dict[str, Any] = {**small, **larger}
    entries = ["sgd", "adam(lr=1e-4..1, beta1=0.5..0.95:linear)", "momentum(lr=1e-9..1e-6)"]
    problem, store = line(), tmp_path / "race.db"
    Race(problem, entries[:2], **small, store=store).run()
    before = {run.key for run in read(store).runs}
    told: list[Progress] = []
    grown = Race(problem, entries, **whole, store=store).run(told.append)
    planned = Race(problem, entries, **whole).run()
    assert numbers(grown.runs) == numbers(planned.runs)
    assert {run.key for run in read(store).runs} >= before  # nothing that was computed is lost
    assert told[0].done > 0
    assert len(told) - 1 == len({run.key for run in planned.runs} - before)  # and nothing runs twice
    assert numbers(Results.read(store).runs) == numbers(planned.runs)
    with pytest.raises(StoreError, match="a race can have more"):
        Race(problem, entries[:2], **small, store=store).run()


def test_a_space_grows_until_the_best_setting_lies_inside():
    results = race(line(), "sgd(lr=1e-6..1e-5)", "adam", trials=8, finalists=1, seeds=1)
    rates = {name: [run.settings["lr"] for run in results.of(name, "tune")] for name in ("sgd(lr=1e-6..1e-5)", "adam")}
    assert len(rates["adam"]) == len(rates["sgd(lr=1e-6..1e-5)"]) == 8 + 8 * 2  # a quarter of the trials, eight times
    first, *grown = sorted(rates["sgd(lr=1e-6..1e-5)"])
    steps = [math.log10(b / a) for a, b in pairwise([first, *grown])]
    assert max(steps) < 2.1 / 8  # the same density
    assert grown[-1] > 6e-4
    assert results.edges("sgd(lr=1e-6..1e-5)") == {"lr": "highest"}  # still
    assert verdict.judge(results).headline.startswith("adam reaches error")
    settled = race(line(), "sgd(lr=1e-3..1e-2)", trials=8, finalists=1, seeds=1)
    assert not settled.edges("sgd(lr=1e-3..1e-2)")
    assert max(run.settings["lr"] for run in settled.of("sgd(lr=1e-3..1e-2)", "tune")) > 0.01


def quadratic(scale: float = 1.0, condition: float = 1e4) -> Problem:
    """A quadratic whose second derivatives range from `scale` / `condition` to `scale`, from random starts."""
    h = scale * torch.logspace(-math.log10(condition), 0, 20)

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.randn(20))

        def forward(self, x: Tensor) -> Tensor:
            return (0.5 * h * self.p**2).sum().expand(len(x))

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        return prediction.mean()

    data = (torch.zeros(8, 1), torch.zeros(8))
    return line(
        name="quadratic", model=Point, loss=loss, metric=loss, train=data, validation=data, test=data, target=None
    )  # fmt: skip


def test_momentum_is_ahead_where_it_should_be():
    results = race(quadratic(), "sgd", "momentum", trials=8, seeds=6, steps=150)
    assert results.verdict.headline.startswith("momentum is ahead of every other entry")


def test_the_scale_of_the_loss_changes_no_verdict():
    def told(scale: float) -> tuple[list[str], list[str], bool]:
        results = race(quadratic(scale), "sgd", "momentum", trials=8, seeds=5, steps=40)
        rows = results.verdict.rows
        return [row.entry for row in rows], [*results.verdict.leaders], any(row.edges for row in rows)

    assert told(1.0) == told(1e-3)


def test_splits_are_drawn_anew_in_every_replicate_and_are_the_same_for_all_entries():
    class Seen(nn.Linear):
        inputs: list[list[float]] = []

        def forward(self, input: Tensor) -> Tensor:
            if self.training:
                Seen.inputs[-1] += input[:, 0].tolist()
            return super().forward(input)

    def model() -> nn.Module:
        Seen.inputs.append([])
        return Seen(3, 1)

    z = torch.arange(60.0)[:, None].expand(-1, 3) / 60
    data = {"train": (z[:40], z[:40, :1]), "validation": (z[40:], z[40:, :1])}
    contest = Race(line(model=model, **data), ["sgd(lr=0.1)", "adam(lr=0.1)"], seeds=2, steps=5, splits=True, workers=1)
    Seen.inputs.clear()
    contest.run()
    seen = [frozenset(inputs) for inputs in Seen.inputs]
    assert all(len(rows) == 40 for rows in seen)
    assert seen[0] == seen[1] == frozenset(cast("list[float]", z[:40, 0].tolist()))  # the trials
    assert seen[2] == seen[4]
    assert seen[3] == seen[5]
    assert len({seen[0], seen[2], seen[3]}) == 3
    with pytest.raises(ValueError, match="leave --splits out"):
        line(validation=(X[:, :2], Y)).split(0)


RACE = """
    import sys
    from thalweg import Race

    # No `if __name__ == "__main__"`: workers do not run this file again.
    Race("digits", ["sgd", "adam", "sgd(batch_size=full)"], trials=4, seeds=3, steps={steps}, store=sys.argv[1],
         workers=int(sys.argv[2])).run(lambda p: print(p.done, p.total, flush=True))
"""


@pytest.mark.skipif(not HAS_PROC, reason="reads /proc to find the workers")
def test_a_killed_race_resumes_and_ends_like_an_undisturbed_one(tmp_path: Path):
    script = tmp_path / "race.py"
    script.write_text(textwrap.dedent(RACE.format(steps=100)))
    line = [sys.executable, str(script), str(tmp_path / "race.db"), "2"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().split() for _ in range(4)]
        assert said == [[str(done), "39"] for done in range(4)]
        workers = children(process.pid)
        process.kill()
    assert len(workers) == 2
    wait_for(partial(ended, workers))
    assert len(read(tmp_path / "race.db").runs) >= 3

    entries = ["sgd", "adam", Entry("sgd(batch_size=full)")]
    told: list[Progress] = []
    settings: dict[str, Any] = {"trials": 4, "seeds": 3, "steps": 100, "workers": 1}
    resumed = Race("digits", entries, **settings, store=tmp_path / "race.db").run(told.append)
    assert told[0].done >= 3
    assert len(told) == 1 + told[-1].total - told[0].done
    undisturbed = Race("digits", entries, **settings).run()
    assert numbers(resumed.runs) == numbers(undisturbed.runs)
    boards = [verdict.judge(results).rows for results in (resumed, undisturbed)]
    assert [replace(row, seconds=0) for row in boards[0]] == [replace(row, seconds=0) for row in boards[1]]


@pytest.mark.skipif(not HAS_PROC, reason="reads /proc to find the workers")
def test_ctrl_c_keeps_finished_runs_and_leaves_no_worker(tmp_path: Path):
    contest = Race("digits", ["sgd"], trials=4, seeds=2, steps=50, workers=2, store=tmp_path / "race.db")

    def press(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    before = children(os.getpid())
    with pytest.raises(KeyboardInterrupt):
        contest.run(press)
    assert children(os.getpid()) == before
    assert len(read(tmp_path / "race.db").runs) == 2


def test_hidden_matrices_have_one_rule_and_all_else_another():
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))

    seen: list[dict[str, Tensor]] = []

    def metric(prediction: Tensor, target: Tensor) -> Tensor:
        found = [f.frame.f_locals.get("model") for f in inspect.stack() if f.filename.endswith("race/training.py")]
        found = [of for of in found if isinstance(of, nn.Module)][:1]
        seen.extend({name: p.detach().clone() for name, p in of.named_parameters()} for of in found)
        return nn.functional.mse_loss(prediction, target)

    for text, still in (("muon(lr=0, others=sgd(lr=0.1))", True), ("muon(lr=0.1, others=sgd(lr=0))", False)):
        seen.clear()
        results = race(line(model=model, metric=metric), text, trials=1, seeds=1, steps=5)
        first, last = seen[0], seen[len(results.runs[0].curve.step) - 1]
        matrices = {"0.weight", "2.weight"}
        moved = {name for name in first if not torch.equal(first[name], last[name])}
        assert moved == (first.keys() - matrices if still else matrices)
    assert results.of(text, "tune")[0].settings["others.lr"] == 0.0
