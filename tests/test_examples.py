"""Training scripts of other libraries are raced with at most five changed lines; and so are the files to start from.

Each changed line of an example follows a comment with the line that it was.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from thalweg import Entry, problems
from thalweg.cli.starting import KINDS, init
from thalweg.problems import Problem, Training
from thalweg.race import functions, trying
from thalweg.race import plan as planning
from thalweg.race.inspecting import Inspection
from thalweg.race.plan import Task
from thalweg.race.session import Trial

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
NEEDS = {
    "lightning_module": "lightning", "transformers_trainer": "transformers", "accelerate_loop": "accelerate",
    "stable_baselines": "stable_baselines3", "skorch_net": "skorch",
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "stable_baselines": {"TIMESTEPS": 512},
    "language_model": {"eval_iters": 1, "eval_interval": 10},
}
STEPS = {"start_loop": 100, "stable_baselines": 2, "skorch_net": 3, "mnist": 44, "accelerate_loop": 88}
_WAS = re.compile(r"^( *)# was: (.*)\n.*\n", re.MULTILINE)

LIBRARIES = ("lightning", "transformers", "accelerate", "stable_baselines3", "gymnasium", "skorch", "torch", "pygame")
pytestmark = [pytest.mark.filterwarnings(f"default:::{library}") for library in LIBRARIES]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_has_few_changed_lines(file: Path):
    text = file.read_text(encoding="utf-8")
    original = _WAS.sub(r"\1\2\n", text)
    assert 1 <= text.count("# was: ") <= 5
    assert "run." not in original
    compile(original, file.name, "exec")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_raced(file: Path):
    raced(file, "main", **SMALL.get(file.stem, {}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_to_start_from_runs_as_it_is(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "new" / f"start_{kind}.py"
    init(kind, path)
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"thalweg race {path}:")
    if kind != "tensors":
        raced(path, "train")
        return
    made = problems.read(f"{path}:make")
    assert isinstance(made, Problem)
    made.check()


def raced(file: Path, function: str, **small: Any) -> None:
    """A run of a few steps finishes with a finite metric, after steps of the run's own optimizer."""
    if (needed := NEEDS.get(file.stem, file.stem.removeprefix("start_"))) in NEEDS.values():
        pytest.importorskip(needed, reason=f"{needed} is not installed; it comes with the extra 'clients'")
    training = problems.read(f"{file}:{function}")
    assert isinstance(training, Training)
    training.function.__globals__.update(small)
    entry = Entry("adamw(lr=0.01)")
    task = Task("key", entry.name, "final", 0, 0)
    plan = planning.make(training, [entry], trials=1, seeds=1, steps=10**9, seed=0)
    for most in (trying.STEPS, None):  # so few steps may be too early for a report
        status, known = functions.run(training, plan, entry, task, trial=Trial(most, seen=Inspection()))
        if status == "finished":
            break
    assert (status, known["message"]) == ("finished", "")
    seen = known["trial"].seen
    assert (seen.missing, seen.infinite) == ({}, {})
    assert seen.steps == len(seen.rates) > 0
    assert seen.first != seen.last
    assert len(seen.reports) >= 1
    training = trying.told(training, known["trial"])
    assert training.steps > 0
    plan = planning.make(training, [entry], trials=1, seeds=1, steps=STEPS.get(file.stem, 50), seed=0)
    status, known = functions.run(training, plan, entry, task)
    assert (status, known["message"]) == ("finished", "")
    curve = known["curve"]
    assert len(curve.step) >= 2
    assert curve.step[-1] >= STEPS.get(file.stem, 40) * 0.4
    assert known["test_metric"] == known["test_metric"]
    assert len({*curve.validation_metric}) > 1
