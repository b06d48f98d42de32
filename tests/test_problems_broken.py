"""A hundred broken problem files: each ends in one sentence with a line of that file, and with exit code 2."""

import re
from pathlib import Path

import pytest

from thalweg.cli import main

SOUND = """
import torch
import thalweg
from torch import nn

calls = 0

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 4)

    def forward(self, x):
        # in the model
        return self.line(x)

def model():
    # in the factory
    return Net()

def loss(prediction, target):
    # in the loss
    return nn.functional.cross_entropy(prediction, target)

def metric(prediction, target):
    # in the metric
    return (prediction.argmax(1) == target).double().mean()

def data(n, seed):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long()

def make():
    train, validation, test = data(200, 0), data(160, 1), data(180, 2)
    # in make
    return thalweg.Problem("broken", model, loss, train, validation, test, metric, batch_size=16)

# in the file
"""

PLACES = ("the model", "the factory", "the loss", "the metric", "make", "the file")
ERRORS = (
    "KeyError('k')",
    "RuntimeError('no')",
    "OSError('no disk')",
    "SystemExit(5)",
    "AssertionError",
    "BaseException()",
)
RETURNED = {
    "make": ("None", "3", "'text'", "{}", "model()", "thalweg.Problem"),
    "the factory": ("None", "3", "'text'", "Net", "nn.Identity()", "Net().requires_grad_(False)"),
    "the model": ("None", "x", "self.line", "x.sum()", "self.line(x)[:5]"),
    "the loss": ("None", "0.5", "'low'", "prediction", "prediction.argmax()", "prediction.detach().sum()"),
    "the metric": ("None", "'good'", "[]", "{}", "prediction", "float('nan')", "float('inf')", "1j"),
}  # fmt: skip
DAMAGE = {
    "nan": "{0}[0][150, 1] = float('nan')",
    "infinity": "{0}[0][7] = float('inf')",
    "a label too large": "{0}[1][150] = 9",
    "a label too small": "{0}[1][3] = -1",
    "columns": "{0} = ({0}[0][:, :2], {0}[1])",
    "dimensions": "{0} = ({0}[0][:, :, None], {0}[1])",
    "labels of a type": "{0} = ({0}[0], {0}[1].float())",
    "inputs of a type": "{0} = ({0}[0].long(), {0}[1])",
    "labels of a shape": "{0} = ({0}[0], {0}[1][:, None].expand(-1, 2))",
    "empty": "{0} = ({0}[0][:0], {0}[1][:0])",
    "unequal": "{0} = ({0}[0], {0}[1][1:])",
    "inputs alone": "{0} = {0}[0]",
}
FIELDS = ("name=3", "batch_size=0", "target='high'", "steps=1.5", "higher_is_better=None", "metric_name=3", "rate=3")
TEXTS = {
    "a bracket": ("data(200, 0), data", "data(200, 0, data"),
    "a keyword": ("return Net()", "retrun Net()"),
    "a name": ("nn.Linear(3, 4)", "Linear(3, 4)"),
    "an import": ("import torch\n", "import torch, no_such_module\n"),
    "an indent": ("    # in make\n", "      x = 1\n"),
    "an argument": ("def loss(prediction, target):", "def loss(prediction):"),
    "a width": ("nn.Linear(3, 4)", "nn.Linear(5, 4)"),
    "no width": ("nn.Linear(3, 4)", "nn.Linear(3, -4)"),
}


def cases() -> dict[str, str]:
    """The text of each broken file, by what is wrong with it."""
    found: dict[str, str] = {}
    for place in PLACES:
        for error in ERRORS:
            found[f"{place} raises {error}"] = SOUND.replace(f"# in {place}\n", f"raise {error}\n")
    for place, values in RETURNED.items():
        for value in values:
            broken = SOUND.replace(f"# in {place}\n", f"return {value}\n")
            found[f"{place} returns {value}"] = broken
    for split in ("train", "validation", "test"):
        for what, statement in DAMAGE.items():
            found[f"{split}: {what}"] = SOUND.replace("# in make", statement.format(split))
    for field in FIELDS:
        name = field.partition("=")[0]
        found[f"field {field}"] = (
            SOUND.replace("batch_size=16", field) if name != "name" else SOUND.replace('"broken"', "3")
        )
    for what, (old, new) in TEXTS.items():
        found[f"text: {what}"] = SOUND.replace(old, new)
    for place in ("the loss", "the model", "the metric"):
        for error in ERRORS:
            late = f"global calls\n    {'    ' * (place == 'the model')}calls += 1\n"
            late += f"    {'    ' * (place == 'the model')}if calls > 40: raise {error}\n"
            found[f"late: {place} raises {error}"] = SOUND.replace(f"# in {place}\n", late)
    return found


CASES = cases()


def test_there_are_a_hundred_and_the_sound_one_races(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert len(set(CASES.values()) - {SOUND}) >= 100
    assert end(SOUND, tmp_path, monkeypatch) == 0


@pytest.mark.parametrize("case", CASES)
def test_a_broken_file_is_one_sentence_with_its_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    assert end(CASES[case], tmp_path, monkeypatch) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("thalweg: ")]
    assert len(lines) == 1, said
    assert said.splitlines()[-1] == lines[0]
    line = int(re.findall(r"broken\.py, line (\d+)", lines[0])[-1])
    text = CASES[case].splitlines()[line - 1]
    if "raises" in case:
        assert "raise " in text
    if case.startswith(("train", "validation", "test")):
        calls = ("return self.line", "return nn.functional", "return (prediction")
        assert "Problem(" in text or text.strip().startswith(calls)
    ran = (tmp_path / "races").exists()
    assert ran == case.startswith("late")


def end(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of a small race with this text as the problem's file."""
    (folder / "broken.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(folder)
    small = ("--rules", "sgd(lr=0.01)", "--seeds", "2", "--steps", "40", "--workers", "1")
    with pytest.raises(SystemExit) as ended:
        main(("race", "broken.py:make", *small))
    return ended.value.code
