"""Edits between two runs of the same command: each is noticed, and the message says what has changed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from thalweg import Race, problems, verdict
from thalweg.race import RunError, WorkerError, steering
from thalweg.race import plan as planning
from thalweg.store import StoreError, read

MINE = """
import os
from functools import partial
import torch, thalweg
from torch import nn
from thalweg.rules import SGD
from thalweg.maths import sign
from neighbour import width, scaled
from package import inner

POWER = 2
SHIFTS = [0.0, 0.0]

class Mine(SGD):
    '''Own.'''
    def update(h, p, g, s, t):
        return p - 1.0 * h.lr * g, s

def helper(x):
    return x.abs() ** POWER

def weighted(prediction, target, weight=1.0, extra=0.0):
    from late import offset
    return weight * helper(prediction - target).mean() + extra + offset

def enclosed(factor):
    def metric(prediction, target):
        return float(factor * helper(prediction - target).mean() + SHIFTS[0])
    return metric

class Net(nn.Module):
    slope = 1.0
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(width, 1)
        self.line.weight.data = torch.load(os.path.join(os.path.dirname(__file__), "weights.pt"))
        self.last = nn.Linear(1, 1)
        self.last.bias.requires_grad_(True)
    def forward(self, x):
        return scaled(self.slope * self.last(self.line(x)))

def make():
    x = torch.randn(40, width, generator=torch.Generator().manual_seed(0))
    y = x.sum(1, keepdim=True)
    rows = torch.load(os.path.join(os.path.dirname(__file__), "rows.pt"))
    return thalweg.Problem("mine", Net, partial(weighted, weight=2.0), (x, y), (x, y), (x + rows, y),
                           enclosed(3.0 + inner.MORE + float(os.environ.get("FACTOR", 0))), metric_name="error",
                           higher_is_better=False, batch_size=8)
"""
FILES = {
    "mine.py": MINE,
    "neighbour.py": "from second import SCALE\nwidth = 3\ndef scaled(x):\n    return SCALE * x\n",
    "second.py": "SCALE = 1.0\n",
    "late.py": "offset = 0.0\n",
    "package/__init__.py": "",
    "package/inner.py": "MORE = 0.0\n",
}
EDITS = {
    "a constant": ("mine.py", "POWER = 2", "POWER = 4"),
    "a list": ("mine.py", "[0.0, 0.0]", "[0.5, 0.0]"),
    "a helper": ("mine.py", "x.abs() ** POWER", "x.sin() ** POWER"),
    "a closure": ("mine.py", "enclosed(3.0", "enclosed(4.0"),
    "an argument of partial": ("mine.py", "weight=2.0", "weight=3.0"),
    "a default": ("mine.py", "extra=0.0", "extra=1.0"),
    "a class's constant": ("mine.py", "slope = 1.0", "slope = 2.0"),
    "a frozen layer": ("mine.py", "requires_grad_(True)", "requires_grad_(not 1)"),
    "the rule's formula": ("mine.py", "p - 1.0 * h.lr", "p - 2.0 * h.lr"),
    "the data's seed": ("mine.py", "manual_seed(0)", "manual_seed(1)"),
    "the targets": ("mine.py", "x.sum(1", "x.std(1"),
    "the size of a batch": ("mine.py", "batch_size=8", "batch_size=4"),
    "the metric's direction": ("mine.py", "higher_is_better=False", "higher_is_better=True"),
    "a neighbour's function": ("neighbour.py", "SCALE * x", "SCALE + x"),
    "a neighbour's neighbour": ("second.py", "1.0", "2.0"),
    "a neighbour imported late": ("late.py", "0.0", "1.0"),
    "a package": ("package/inner.py", "0.0", "1.0"),
}
SMALL: dict[str, Any] = {"trials": 2, "seeds": 1, "steps": 5, "workers": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    torch.save(torch.ones(1, 3), tmp_path / "weights.pt")
    torch.save(torch.zeros(1, 3), tmp_path / "rows.pt")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.delenv("FACTOR", raising=False)
    return tmp_path


def contest(folder: Path, **changes: Any) -> Race:
    return Race(f"{folder / 'mine.py'}:make", ["mine", "sgd"], store=folder / "race.db", **{**SMALL, **changes})


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def test_the_same_race_goes_on_with_a_rule_of_the_file(folder: Path):
    first = contest(folder).run()
    assert first.complete
    assert contest(folder, workers=2).run().runs == first.runs


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_is_noticed_and_the_file_is_named(what: str, folder: Path):
    contest(folder).run()
    edit(folder, *EDITS[what])
    with pytest.raises(StoreError, match=rf"{EDITS[what][0]} has changed"):
        contest(folder).run()


@pytest.mark.parametrize("what", [what for what, (name, *_) in EDITS.items() if name == "mine.py"])
def test_an_edit_is_noticed_in_a_problem_that_no_file_made(what: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    _, old, new = EDITS[what]
    monkeypatch.syspath_prepend(str(folder))
    plans = [of_text(MINE.replace(*change), folder) for change in ((old, new), (old, old))]
    again = of_text(MINE, folder)
    assert plans[1] == again
    assert plans[0] != again


def of_text(text: str, folder: Path) -> str:
    """The hash of the plan whose problem and rule are made by code that is in no file."""
    scope: dict[str, Any] = {"__name__": "typed", "__file__": str(folder / "mine.py")}
    exec(compile(text, "<typed>", "exec"), scope)
    entries = [planning.Entry(scope["Mine"]())]
    return planning.make(scope["make"](), entries, trials=2, seeds=1, steps=5, seed=0).hash


@pytest.mark.parametrize(
    ("file", "said"), [("weights.pt", "first weights of the model"), ("rows.pt", "the test inputs")]
)
def test_loaded_tensors_are_parts_of_the_problem(file: str, said: str, folder: Path):
    contest(folder).run()
    torch.save(2 * torch.ones(1, 3), folder / file)
    with pytest.raises(StoreError, match=rf"{said} differs though no code has changed, which looks random"):
        contest(folder).run()


def test_a_changed_value_in_a_closure_is_noticed_without_changed_code(folder: Path, monkeypatch: pytest.MonkeyPatch):
    contest(folder).run()
    monkeypatch.setenv("FACTOR", "1")
    with pytest.raises(StoreError, match="the metric differs though no code has changed"):
        contest(folder).run()


@pytest.mark.parametrize("workers", [1, 2])
def test_data_without_a_seed_look_random(workers: int, folder: Path):
    edit(folder, "mine.py", ", generator=torch.Generator().manual_seed(0)", "")
    first = contest(folder, workers=workers)
    if workers == 1:
        first.run()
    with pytest.raises((StoreError, WorkerError), match=r"train inputs.*looks random.*manual_seed"):
        contest(folder, workers=workers).run()


@pytest.mark.parametrize("what", ["a constant", "a neighbour's neighbour", "a neighbour imported late"])
def test_an_edit_while_workers_start_is_noticed_before_anything_runs(what: str, folder: Path):
    race = contest(folder, workers=2)
    edit(folder, *EDITS[what])
    with pytest.raises(WorkerError, match=rf"than the race was planned for: {EDITS[what][0]} has changed"):
        race.run()
    assert read(folder / "race.db").runs == ()


def test_other_versions_are_refused_unless_they_are_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    contest(folder).run()
    versions = {**planning.versions(), "torch": "9.9"}
    monkeypatch.setattr(planning, "versions", lambda: versions)
    with pytest.raises(StoreError, match=rf"holds runs of torch {torch.__version__.partition('+')[0]}.* \(now 9\.9\)"):
        contest(folder).run()
    results = contest(folder, mix_versions=True).run()
    assert results.complete
    assert "several versions" not in results.verdict.headline
    last = replace(results.runs[-1], machine={**results.runs[-1].machine, "torch": "9.9"})
    mixed = verdict.judge(replace(results, runs=(*results.runs[:-1], last)))
    assert "Its runs are of several versions: torch " in mixed.headline
    assert "and 9.9" in mixed.headline


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), MemoryError("all of it"), RuntimeError("lock")]
)
def test_an_error_of_the_system_is_not_recorded(error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(steering, "Optimizer", broken)
        with pytest.raises(RunError, match=type(error).__name__):
            contest(folder).run()
    assert read(folder / "race.db").runs == ()
    assert contest(folder).run().complete


def test_lazy_layers_are_given_their_shapes(folder: Path):
    edit(folder, "mine.py", "self.last = nn.Linear(1, 1)", "self.last = nn.LazyLinear(1)")
    edit(folder, "mine.py", "self.last.bias.requires_grad_(True)", "pass")
    assert contest(folder).run().complete
    made = problems.read(f"{folder / 'mine.py'}:make")
    assert made.parts() == problems.read(f"{folder / 'mine.py'}:make").parts()
