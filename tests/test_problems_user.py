"""Problems from the user's own files."""

import subprocess
import sys
from pathlib import Path

import pytest

from thalweg import Problem, problems

GOOD = """
import torch, thalweg
from dataclasses import dataclass
from neighbour import WIDTH

@dataclass
class Settings:
    rows: "int" = 8

def make():
    x, y = torch.ones(Settings().rows, WIDTH), torch.ones(Settings().rows, 1)
    return thalweg.Problem("mine", lambda: torch.nn.Linear(WIDTH, 1), torch.nn.functional.mse_loss,
                           (x, y), (x, y), (x, y), metric=torch.nn.functional.mse_loss, higher_is_better=False)
"""

CASES = {
    "no such function": ("def make_it(): ...", "make", r"has no function make; did you mean 'make_it'"),
    "no function": ("make = 3", "make", r"has a int, not a function make"),
    "raises on import": ("x = 1\nraise OSError('no\\ndisk')", "make", r", line 2: the file raises OSError: no disk"),
    "exits on import": ("import sys\n\nsys.exit(3)", "make", r", line 3: the file raises SystemExit: 3"),
    "cannot be parsed": ("x = 1\ndef make(:\n", "make", r", line 2: the file raises SyntaxError: invalid syntax"),
    "imports what is not there": ("import no_such_thing", "make", r", line 1: .*ModuleNotFoundError"),
    "raises": ("def make():\n    y = {}\n    return y['k']", "make", r", line 3: make\(\) raises KeyError"),
    "wants arguments": ("def make(size, more): ...", "make", r"make\(\) raises TypeError: make\(\) missing 2"),
    "returns nothing": ("def make(): ...", "make", r"make\(\) returns a NoneType; wanted is a thalweg.Problem"),
    "returns another": ("def make(): return {}", "make", r"make\(\) returns a dict"),
    "an empty data set": (
        GOOD.replace("= 8", "= 0").replace("from neighbour import WIDTH", "WIDTH = 1"),
        "make",
        r", line 12: make\(\) raises ValueError: problem 'mine': the train set is empty",
    ),
}


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("thalweg_user_mine", f"thalweg_user_{'a' * 252}", "neighbour"):
        sys.modules.pop(name, None)


def problem(text: str) -> Problem:
    found = problems.load_user(text)
    assert isinstance(found, Problem)
    return found


def test_a_file_makes_a_problem_the_same_every_time(tmp_path: Path):
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "neighbour.py").write_text("WIDTH = 3")
    made = problem(f"{tmp_path / 'mine.py'}:make")
    made.check()
    assert made.name == "mine"
    assert made.tensors("train")[0].shape == (8, 3)
    assert problem(f"{tmp_path / 'mine.py'}:make").fingerprint() == made.fingerprint()


def test_the_fingerprint_is_the_same_in_another_process(tmp_path: Path):
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "neighbour.py").write_text("WIDTH = 3")
    text = f"{tmp_path / 'mine.py'}:make"
    code = "import sys; from thalweg import problems; print(problems.read(sys.argv[1]).fingerprint())"
    there = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True, check=True).stdout
    assert there.strip() == problem(text).fingerprint()


def test_after_a_file_with_the_longest_of_names_others_are_read(tmp_path: Path):
    for folder, name in (("one", "a" * 252), ("other", "mine")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "neighbour.py").write_text("WIDTH = 3")
        (tmp_path / folder / f"{name}.py").write_text(GOOD)
        assert problem(f"{tmp_path / folder / name}.py:make").name


def test_another_loss_is_another_fingerprint(tmp_path: Path):
    (tmp_path / "neighbour.py").write_text("WIDTH = 3")
    prints: set[str] = set()
    for power in (2, 4):
        file = tmp_path / f"mine{power}.py"
        loss = f"def loss(p, y):\n    return ((p - y) ** {power}).mean()\n"
        file.write_text(loss + GOOD.replace("1), torch.nn.functional.mse_loss", "1), loss"))
        made = problem(f"{file}:make")
        made.check()
        prints.add(made.fingerprint())
    assert len(prints) == 2


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_gives_no_problem_gets_a_sentence(case: str, tmp_path: Path):
    text, function, said = CASES[case]
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        problems.read(f"{file}:{function}")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize("text", ["mine.py", "mine.py --lr 3", "mine.py:", "mine.py:make()", "mine.py:make(width=3)"])
def test_a_file_without_a_function_gets_a_sentence(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"write the file and the function, as in my_problem.py:make"):
        problems.read(text)


@pytest.mark.parametrize("text", ["nowhere/mine.py:make", "nowhere/mine.py", "nowhere/mine.py --epochs 2"])
def test_a_file_that_is_not_there_is_named(text: str):
    with pytest.raises(ValueError, match=r"there is no file nowhere/mine\.py; wanted is a Python file"):
        problems.read(text)


def test_a_problem_reads_no_command_line(tmp_path: Path):
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "neighbour.py").write_text("WIDTH = 3")
    with pytest.raises(ValueError, match=r"make\(\) makes a problem, which reads no command line"):
        problems.read(f"{tmp_path / 'mine.py'}:make --width 3")
    with pytest.raises(
        ValueError, match=r"the arguments of .*mine.py:make cannot be read \(No closing quotation\): 'a"
    ):
        problems.read(f"{tmp_path / 'mine.py'}:make 'a")


def test_a_file_brings_its_own_data(tmp_path: Path):
    with pytest.raises(ValueError, match=r"brings its own data"):
        problems.read("mine.py:make", data=tmp_path)
