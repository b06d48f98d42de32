"""Training that is stopped at any step resumes bit for bit, with any schedules, also in another process."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import thalweg
from cases import BACKENDS, drive, parameter, start
from compositions import TOTAL, random_factors, random_plateaus, random_values
from thalweg import schedules
from thalweg.rules import Momentum
from thalweg.schedules import Schedule

FOLLOWED = ("lr", "momentum", "weight_decay")


class Training(NamedTuple):
    """Schedules as text, and the steps at which training stops and ends."""

    texts: dict[str, str]
    stop: int
    end: int


def _within(schedule: Schedule, high: float) -> str:
    return str(schedule.clip(0, high).resolve(TOTAL))


# Schedules that give factors of the base values, or the values themselves; some of the rate's also depend on metrics.
rates = st.one_of(random_factors, random_values, st.builds(Schedule.__mul__, random_factors, random_plateaus))
trainings = st.builds(
    Training,
    st.fixed_dictionaries({
        "lr": rates.map(lambda s: _within(s, 2.0)),
        "momentum": (random_factors | random_values).map(lambda s: _within(s, 0.99)),
        "weight_decay": (random_factors | random_values).map(lambda s: _within(s, 3.0)),
    }),
    stop=st.integers(0, 25),
    end=st.integers(26, 40),
)  # fmt: skip


def made(training: Training, params: list[Any], backend: str) -> thalweg.Optimizer:
    follow = {name: schedules.parse(text) for name, text in training.texts.items()}
    rule = Momentum(lr=0.05, momentum=0.9)
    return thalweg.Optimizer(params, rule, schedule=follow, weight_decay=0.02, backend=backend)


def train(opt: thalweg.Optimizer, params: list[Any], begin: int, end: int) -> list[tuple[float, ...]]:
    """Take the steps from `begin` to `end`, each with its own gradients; returns the hyperparameters of each step."""
    seen: list[tuple[float, ...]] = []
    for t in range(begin, end):
        seen.append(tuple(opt.param_groups[0][name] for name in FOLLOWED))
        drive(opt, params, 1, seed=t)
        opt.observe(1.0 + (7 * t % 11) / 11)  # a metric that rises and falls
    return seen


def undisturbed(training: Training, backend: str) -> tuple[list[tuple[float, ...]], list[Any]]:
    params = [parameter(start(n)) for n in (7, 1)]
    return train(made(training, params, backend), params, 0, training.end), params


@pytest.mark.parametrize("backend", BACKENDS)
@given(trainings)
@settings(max_examples=60)
def test_stopping_anywhere_changes_nothing(backend: str, training: Training) -> None:
    values, weights = undisturbed(training, backend)
    params: list[Any] = [parameter(start(n)) for n in (7, 1)]
    opt = made(training, params, backend)
    seen = train(opt, params, 0, training.stop)
    file = io.BytesIO()
    torch.save([params, opt.state_dict()], file)
    file.seek(0)
    params, state = torch.load(file, weights_only=True)
    again = made(training, params, backend)
    again.load_state_dict(state)
    seen += train(again, params, training.stop, training.end)
    assert seen == values
    assert all(torch.equal(p, q) for p, q in zip(params, weights, strict=True))
    # The values are those of the schedules at the number of steps taken before.
    for column, name in enumerate(FOLLOWED):
        schedule = schedules.parse(training.texts[name])
        if not schedule.data_driven:
            base = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.02}[name]
            assert [row[column] for row in seen] == [schedule.value(base, t) for t in range(training.end)]


@given(st.lists(trainings, min_size=8, max_size=8))
@settings(max_examples=2, phases=[Phase.generate])
def test_another_process_goes_on_as_this_one_would(tmp_path_factory: Any, several: list[Training]) -> None:
    file = tmp_path_factory.mktemp("stopped") / "saved.pt"
    saved: list[Any] = []
    for training in several:
        params = [parameter(start(n)) for n in (7, 1)]
        opt = made(training, params, "auto")
        train(opt, params, 0, training.stop)
        saved.append([*training, params, opt.state_dict()])
    torch.save(saved, file)
    done = subprocess.run([sys.executable, "-W", "error", __file__, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for training, (seen, params) in zip(several, torch.load(file, weights_only=True), strict=True):
        values, weights = undisturbed(training, "auto")
        assert seen == values[training.stop :]
        assert all(torch.equal(p, q) for p, q in zip(params, weights, strict=True))


def _go_on(file: Path) -> None:
    """The other process: it gets the schedules as text, and everything else from the file."""
    results: list[Any] = []
    for texts, stop, end, params, state in torch.load(file, weights_only=True):
        training = Training(texts, stop, end)
        opt = made(training, params, "auto")
        opt.load_state_dict(state)
        results.append([train(opt, params, stop, end), params])
    torch.save(results, file)


if __name__ == "__main__":
    _go_on(Path(sys.argv[1]))
