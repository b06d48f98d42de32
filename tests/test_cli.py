"""The command: its output, its files and its exit codes; a user's mistake is one sentence and exit code 2."""

import csv
import gzip
import json
import os
import re
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes import wait_for
from thalweg import Entry, rules
from thalweg.cli import main
from thalweg.cli.contenders import split

TINY = ("--trials", "2", "--seeds", "5", "--steps", "20", "--workers", "1")


class Ended:
    """The outcome of a command."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def sentence(self) -> str:
        """The one line on stderr, without its start."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("thalweg: ")
        return lines[0].removeprefix("thalweg: ")


Command = Callable[..., Ended]


@pytest.fixture
def thalweg(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        return Ended(ended.value.code, captured.out, captured.err)

    return run


@given(st.lists(st.sampled_from(["sgd", "adam(lr=0.1, eps=1e-8)", "f(a=(1, 2), b=[3, {4, 5}])"]), min_size=1))
def test_split_is_the_inverse_of_joining(parts: list[str]) -> None:
    assert split(",".join(parts)) == parts
    assert split(" , ".join(parts)) == parts


@pytest.mark.parametrize(
    "arguments",
    [(), ("--help",), ("race", "--help"), ("rules", "-h"), ("play", "-h"), ("landscape", "-h"), ("report", "-h")],
)
def test_help(thalweg: Command, arguments: tuple[str, ...]) -> None:
    ended = thalweg(*arguments)
    assert ended.code == 0
    assert "Usage: thalweg" in ended.out


def test_every_example_of_the_help_is_a_command_that_can_be_read(thalweg: Command) -> None:
    """Options and rules are parsed; no race runs."""
    for command in ("race", "play", "landscape"):
        shown = re.sub(r"\\\s+", "", thalweg(command, "--help").out)
        known, examples = re.findall(r"│ (--\w+)", shown), re.findall(rf"thalweg {command} (\S+.*)", shown)
        assert len(examples) >= 4
        for example in examples:
            assert set(re.findall(r"--\w+", example)) <= set(known), example
            for listed in re.findall(r'--rules (?:"([^"]+)"|(\S+))', example):
                for rule in split(listed[0] or listed[1]):
                    Entry(rule)


def test_version(thalweg: Command) -> None:
    assert re.fullmatch(r"thalweg \d+\.\d+\.\d+\n", thalweg("--version").out)


def test_rules_lists_every_rule_with_formula_and_source(thalweg: Command) -> None:
    out = thalweg("rules").out
    for name, cls in rules.all().items():
        if not cls.__module__.startswith("thalweg."):
            continue  # another test's
        start = out.index(f"\n{name.lower()} ") if not out.startswith(f"{name.lower()} ") else 0
        part = out[start:].split("\n\n")[0]
        assert "θₜ = " in part, name
        assert re.search(r"(19|20)\d\d", part), f"{name} has no source"


def test_a_wrapper_is_shown_around_a_simple_rule(thalweg: Command) -> None:
    out = thalweg("rules", "schedule_free").out
    assert "θₜ = θₜ₋₁ + yₜ·zₜ" in out
    assert "SGD(lr=1.0)  a rule" in out


def test_a_rule_in_full_shows_its_settings_and_follows_its_options(thalweg: Command) -> None:
    usual, other = thalweg("rules", "adam").out, thalweg("rules", "Adam(bias_correction=False, lr=0.5)").out
    assert "1 − β₁^t" in usual
    assert "1 − β₁^t" not in other
    assert re.search(r"lr +η +0.5, not 0.001 +a finite number >= 0", other)
    assert re.search(r"bias_correction +False, not True +True or False", other)
    assert "A step moves at least 28 bytes per parameter in float32." in usual
    assert "A race tries lr from 1e-05 to 0.1, on a logarithmic scale." in usual


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A small race by the real command, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("raced")
    return folder, command(folder, "race", "digits", "--rules", "sgd,adam(lr=0.01, bias_correction=False)", *TINY)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "120"}
    line = [sys.executable, "-W", "error", "-m", "thalweg", *arguments]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_race_writes_report_leaderboard_and_records(raced: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = raced
    assert done.returncode == 0, done.stderr
    with (folder / "races/digits/leaderboard.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["entry"] for row in rows} == {"sgd", "adam(lr=0.01, bias_correction=False)"}
    assert {"entry", "test_metric", "low", "high", "lr", "trials", "seeds", "diverged", "seconds"} <= rows[0].keys()
    assert [row["trials"] for row in sorted(rows, key=lambda row: row["entry"])] == ["1", "2"]
    page = (folder / "races/digits/report.html").read_text(encoding="utf-8")
    with sqlite3.connect(folder / "races/digits/race.db") as store:
        (runs,) = store.execute("select count(*) from run").fetchone()
    store.close()
    assert runs == (2 + 2 * 5) + (1 + 5)
    for row in rows:
        assert row["entry"] in page
        assert row["entry"] in done.stdout
        assert f"{float(row['test_metric']):.4f}" in done.stdout
    assert "races/digits/report.html" in done.stdout


def test_report_writes_the_same_again(raced: tuple[Path, subprocess.CompletedProcess[str]], thalweg: Command) -> None:
    folder, done = raced
    race = folder / "races" / "digits"
    before = {name: (race / name).read_bytes() for name in ("report.html", "leaderboard.csv")}
    for name in before:
        (race / name).unlink()
    again = thalweg("report", str(race))
    assert again.code == 0
    assert again.out.splitlines()[:6] == done.stdout.splitlines()[:6]
    assert {name: (race / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("width", [80, 70, 60, 50])
def test_a_narrow_terminal_has_names_before_numbers(
    width: int,
    raced: tuple[Path, subprocess.CompletedProcess[str]],
    thalweg: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _ = raced
    monkeypatch.setenv("COLUMNS", str(width))
    with (folder / "races/digits/leaderboard.csv").open(encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["entry"] == "sgd")
    lines = thalweg("report", str(folder / "races" / "digits")).out.splitlines()
    board = lines[: lines.index("")]
    assert all(len(line) <= width for line in board)
    (line,) = (line for line in board if "sgd" in line)
    assert f"{float(row['test_metric']):.4f}  {float(row['low']):.4f} … {float(row['high']):.4f}" in line
    name = "".join(line[3 : board[0].index("test")].strip() for line in board[1:] if "sgd" not in line)
    assert name.replace(" ", "") == "adam(lr=0.01,bias_correction=False)"


MINE = """
from typing import NamedTuple

from thalweg.maths import cos
from thalweg.problems import Surface
from thalweg.rule import Rule


def f(x, y):
    return x * x + 10 * cos(y)


def branching(x, y):
    return x if x > y else y


class Halving(Rule):
    \"\"\"Half of gradient descent.\"\"\"

    lr: float = 0.1

    def update(h, p, g, s, t):
        return p - 0.5 * h.lr * g, s


number = 3
"""


def test_play_writes_a_page_or_opens_one(thalweg: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    ended = thalweg(
        "play", "mine.py:f", "--rules", "sgd,adam(lr=0.125)", "--start", "-1.5,2e-3", "--noise", "0.25",
        "--schedule", "cosine(40)", "--export", "deep/mine.html",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert "deep/mine.html" in ended.out
    page = (tmp_path / "deep/mine.html").read_text(encoding="utf-8")
    start = json.loads(page.split("const START = ")[1].split(";\n")[0])
    assert start == {
        "s": "f", "d": 0, "n": 0.25,
        "r": [{"r": "sgd", "h": {}, "o": {}, "b": [-1.5, 0.002]},
              {"r": "adam", "h": {"lr": 0.125}, "o": {}, "b": [-1.5, 0.002]}],
    }  # fmt: skip
    assert '"cosine(40)"' in page

    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: str(tmp_path / prefix))  # pyright: ignore
    ended = thalweg("play", "mine.py:Halving", "--rules", "sgd")
    assert (ended.code, ended.err) == (0, "")
    assert opened == [(tmp_path / "thalweg-/play.html").as_uri()]
    assert '"Halving()"' in (tmp_path / "thalweg-/play.html").read_text(encoding="utf-8")

    for name, said in (
        ("branching", "the rule branches on a value"), ("number", "is a int; wanted is a function f(x, y)"),
        ("g", "mine.py has no g"), ("", "names nothing in a file"),
    ):  # fmt: skip
        ended = thalweg("play", f"mine.py:{name}", "--export", "no.html")
        assert ended.code == 2
        assert said in ended.err
    assert not (tmp_path / "no.html").exists()


PROBLEM = """
import torch
from torch import nn
import thalweg

def make(**changes):
    x, y = torch.randn(32, 3), torch.randn(32, 1)
    settings = dict(
        name="mine", model=lambda: nn.Linear(3, 1), loss=nn.functional.mse_loss, train=(x, y), validation=(x, y),
        test=(x, y), metric=nn.functional.mse_loss, metric_name="error", higher_is_better=False,
    )
    return thalweg.Problem(**{**settings, **changes})

def raises(): raise RuntimeError("no such luck")
def returns(): return 3
def wrong_shape(): return make(loss=lambda prediction, target: (prediction - target) ** 2)
def empty(): return make(train=(torch.zeros(0, 3), torch.zeros(0, 1)))
def mismatch(): return make(model=lambda: nn.Linear(7, 1))
"""

MISTAKES = {
    "a command": (("raze",), "No such command 'raze'. Did you mean 'race', 'range'?"),
    "an option": (("race", "digits", "--ruels", "sgd"), "No such option: --ruels"),
    "no problem named": (("race",), "a race needs a problem, as in thalweg race digits"),
    "no number": (("race", "digits", "--trials", "many"), "--trials"),
    "too few": (("race", "digits", "--seeds", "0"), "--seeds"),
    "a rule": (("race", "digits", "--rules", "sgd,adamm"), "there is no rule 'adamm'; did you mean 'adam'"),
    "a rule's setting": (("race", "digits", "--rules", "adam(beta3=1)"), "no setting 'beta3'"),
    "a rate out of range": (("race", "digits", "--rules", "sgd(lr=-1)"), "SGD's lr is -1; allowed is a"),
    "a rate that is no number": (("race", "digits", "--rules", "sgd(lr=nan)"), "SGD's lr is 'nan'"),
    "a broken rule": (("race", "digits", "--rules", "sgd(lr"), "cannot be read"),
    "code for a rule": (("race", "digits", "--rules", "sgd(lr=__import__('os'))"), "cannot be read"),
    "an empty place": (("race", "digits", "--rules", "sgd,,adam"), "empty place"),
    "twice the same": (("race", "digits", "--rules", "sgd,sgd"), "two entries are named 'sgd'"),
    "a batch size": (("race", "digits", "--rules", "sgd(batch_size=0)"), "batch_size is 0"),
    "a batch too large": (("race", "digits", "--rules", "sgd(batch_size=100000)"), "write batch_size=full"),
    "a problem": (("race", "digts"), "there is no problem 'digts'; did you mean 'digits'"),
    "a problem's setting": (("race", "digits(dropot=0.1)"), "did you mean 'dropout'"),
    "data that is not needed": (("race", "digits", "--data", "."), "leave --data . out"),
    "no file": (("race", "missing.py:make"), "there is no file missing.py"),
    "no function": (("race", "problem.py:mak"), "did you mean 'make'"),
    "a file that raises": (("race", "problem.py:raises"), "raises RuntimeError: no such luck"),
    "a file that returns something else": (("race", "problem.py:returns"), "returns a int; wanted is a"),
    "a file with a typo": (("race", "typo.py:make"), "typo.py, line 2"),
    "a wrong-shape loss": (("race", "problem.py:wrong_shape"), "the loss has shape (8, 1); wanted is one number"),
    "an empty data set": (("race", "problem.py:empty"), "the train set is empty"),
    "a model for other data": (("race", "problem.py:mismatch"), "mat1 and mat2"),
    "no data": (("race", "mnist", "--data", "nowhere"), "nowhere"),
    "a corrupt IDX file": (("race", "mnist", "--data", "corrupt"), "corrupt"),
    "a truncated IDX file": (("race", "mnist", "--data", "truncated"), "truncated"),
    "a folder that cannot be written": (("race", "digits", "--out", "file/races", *TINY), "file/races"),
    "a store that is none": (("race", "digits", "--out", "other", *TINY), "race.db"),
    "a report of nothing": (("report", "nowhere"), "there is no store nowhere/race.db"),
    "a surface": (("play", "ravin"), "there is no surface 'ravin'; did you mean 'ravine'"),
    "a start": (("play", "bowl", "--start", "1;2"), "--start is '1;2'"),
    "a start at infinity": (("play", "bowl", "--start", "inf,0"), "two finite numbers"),
    "noise": (("play", "bowl", "--noise", "-1"), "--noise"),
    "a page that cannot be written": (("play", "bowl", "--export", "file/bowl.html"), "file"),
    "a rule to show": (("rules", "adma"), "did you mean 'adam'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(name: str, thalweg: Command, tmp_path: Path) -> None:
    (tmp_path / "problem.py").write_text(PROBLEM, encoding="utf-8")
    (tmp_path / "typo.py").write_text("def make():\n    retrun 3\n", encoding="utf-8")
    (tmp_path / "file").write_text("a file, where a folder is wanted", encoding="utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "race.db").write_text("my diary " * 1000, encoding="utf-8")
    broken_images(tmp_path / "corrupt", b"<html>404</html>" * 99)
    broken_images(tmp_path / "truncated", struct.pack(">IIII", 0x803, 1000, 28, 28) + bytes(5000))
    arguments, said = MISTAKES[name]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    ended = thalweg(*arguments)

    assert ended.code == 2
    assert said in ended.sentence
    assert ended.out == ""
    kept = {path: path.read_bytes() for path in before}
    assert kept == before


def broken_images(folder: Path, images: bytes) -> None:
    folder.mkdir()
    labels = struct.pack(">II", 0x801, 1000) + bytes(1000)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def test_a_store_of_another_race_is_refused_and_kept(
    raced: tuple[Path, subprocess.CompletedProcess[str]], thalweg: Command
) -> None:
    race = raced[0] / "races" / "digits"
    before = {path: path.read_bytes() for path in race.iterdir()}
    ended = thalweg("race", "digits", "--rules", "sgd,momentum", "--out", str(race), *TINY)
    assert ended.code == 2
    assert "holds another race" in ended.sentence
    assert "--out" in ended.sentence
    assert {path: path.read_bytes() for path in race.iterdir()} == before


def test_several_problems_have_a_verdict_each_and_one_over_all(tmp_path: Path) -> None:
    settings = ("--rules", "sgd,adam", "--trials", "2", "--seeds", "5", "--steps", "20", "--workers", "1")
    done = command(tmp_path, "race", "digits,logistic", *settings, "--out", "both")
    assert done.returncode == 0, done.stderr
    for name in ("digits", "logistic"):
        assert (tmp_path / "both" / name / "report.html").is_file()
    assert "Over 2 problems" in done.stdout
    with (tmp_path / "both" / "overall.csv").open(encoding="utf-8") as file:
        assert {row["entry"] for row in csv.DictReader(file)} == {"sgd", "adam"}
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert 'href="logistic/report.html"' in page
    assert "Over 2 problems" in page
    again = command(tmp_path, "race", "digits,logistic", *settings, "--out", "both")
    assert again.stdout == done.stdout
    assert again.stderr.count("kept from before") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--suite", "smal"), "there is no suite 'smal'; did you mean 'small'; there are small"),
        (
            ("digits", "--suite", "small"),
            "a race needs a problem, as in thalweg race digits, or a --suite",
        ),
        ((), "a race needs a problem"),
        (("digits,", "--rules", "sgd"), "PROBLEM 'digits,' has an empty place"),
        (("digits,digits",), "the problem digits is there twice"),
        (("digits,mnist", "--data", "x"), "--data x can belong to one problem only, and there are 2"),
        (("digits", "--steps", "3", "--seconds", "2"), "--steps 3 and --seconds 2 are two budgets; write one of them"),
        (("digits", "--seconds", "-1"), "the race's seconds is -1.0; allowed is a number above 0"),
        (
            ("char-lstm",),
            "char-lstm reads a text: name the file, or a folder with one text file in it, with --data FILE",
        ),
        (("digits", "--until", "then"), "--until 'then' is not known; write --until decided"),
        (("digits", "--until", "decided"), "--until decided needs a --margin"),
        (("digits", "--margin", "0.1"), "write --until decided, too"),
        (("digits", "--until", "decided", "--margin", "0"), "the race's margin is 0.0; allowed is a finite number > 0"),
        (("digits", "--rules", "adam(lr=1..1e-4)"), "low must be less; write lr=0.0001..1"),
    ],
)
def test_a_wrong_race_is_one_sentence_and_changes_nothing(
    arguments: tuple[str, ...], says: str, thalweg: Command, tmp_path: Path
) -> None:
    ended = thalweg("race", *arguments)
    assert ended.code == 2
    assert says in ended.sentence
    assert not list(tmp_path.iterdir())


def test_ctrl_c_keeps_finished_runs_and_the_same_command_continues(tmp_path: Path) -> None:
    settings = ("--trials", "8", "--seeds", "2", "--finalists", "1", "--steps", "150", "--workers", "1")
    arguments = ("race", "digits", "--rules", "sgd,momentum", *settings)
    line = [sys.executable, "-W", "error", "-m", "thalweg", *arguments]
    process = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    store = tmp_path / "races" / "digits" / "race.db"
    wait_for(lambda: process.poll() is not None or kept(store) >= 2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert re.search(r"^thalweg: interrupted; .*races/digits/race.db.*goes on", said, re.MULTILINE)
    before = kept(store)
    assert 2 <= before < 20

    done = command(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert f"{before} of them kept from before" in done.stderr
    whole = kept(store)
    assert whole in range(20, 40, 4)  # more where a space has grown
    again = command(tmp_path, *arguments)
    assert f"{whole} runs, {whole} of them kept from before" in again.stderr


def kept(store: Path) -> int:
    """The runs in a store; 0 before it has tables."""
    if not store.is_file():
        return 0
    connection = sqlite3.connect(store, timeout=30)
    try:
        return connection.execute("select count(*) from run").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def test_an_error_of_our_own_is_exit_code_1_with_a_traceback(thalweg: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("thalweg.cli.listing.rules", broken)
    ended = thalweg("rules")
    assert ended.code == 1
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-1].startswith("thalweg: a fault of thalweg's own (KeyError); please report it")


@pytest.mark.parametrize("missing", ["typer", "scipy", "sqlalchemy"])
def test_without_the_lab_extra_the_sentence_says_what_to_install(missing: str, tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules[{missing!r}], sys.argv = None, ["thalweg", "race", "digits"]
from thalweg.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"thalweg: this needs {missing}; install it with: pip install 'thalweg[lab]'\n"


def test_a_schedule_is_shown(thalweg: Command, tmp_path: Path) -> None:
    ended = thalweg("schedule", "warmup(500).then(cosine(9500))", "linear(0.5)", "--total", "10000", "--out", "s.html")
    assert ended.code == 0
    assert "first 0 (t = 0) · peak 1 (t = 500)" in ended.out
    assert "Warning: it is 5,000 steps long: it holds 0 for the other 5,000" in ended.out
    page = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert "warmup(500).then(cosine(9500))" in page
    assert "it is 5,000 steps long" in page
    assert "first 0 (t = 0) · peak 0.2" in thalweg("schedule", "warmup(2)", "--total", "9", "--base", "0.2").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("warmpu(5)", "--total", "10"), "at character 1: 'warmpu' is no schedule"),
        (("cosine(5", "--total", "10"), "at character 7: '(' was never closed"),
        (("plateau()", "--total", "10"), "plateau() follows what training observes"),
        (("cosine(5)", "--total", "0"), "'--total'"),
        (("cosine(5)",), "'--total'"),
        (("<b>", "--total", "10"), "at character 1"),
    ],
)
def test_a_bad_schedule_is_one_sentence(thalweg: Command, arguments: tuple[str, ...], said: str) -> None:
    ended = thalweg("schedule", *arguments)
    assert ended.code == 2
    assert said in ended.sentence


def test_a_race_tunes_the_schedule(thalweg: Command, tmp_path: Path) -> None:
    given = ("--schedule", "constant()", "--schedule", "linear(1.0)")
    ended = thalweg("race", "digits", "--rules", 'sgd,adam(schedule="cosine(1.0)")', *given, *TINY, "--out", "r")
    assert ended.code == 0
    with open(tmp_path / "r" / "leaderboard.csv", encoding="utf-8") as file:
        rows = {row["entry"]: row for row in csv.DictReader(file)}
    assert rows["sgd"]["schedule"] in ("constant()", "linear(1.0)")
    assert rows['adam(schedule="cosine(1.0)")']["schedule"] == "cosine(1.0)"
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert ".resolve(20)" in page  # the code to paste
    assert f'<code class="muted">{rows["sgd"]["schedule"]}</code>' in page
    assert '<code class="muted">cosine(1.0)</code>' not in page, "its name says so"
    assert re.search(rf"^ +{re.escape(rows['sgd']['schedule'])} *$", ended.out, re.MULTILINE)
    bad = thalweg("race", "digits", "--rules", "sgd", "--schedule", "cosin(1.0)", *TINY, "--out", "r2")
    assert bad.code == 2
    assert "'cosin' is no schedule" in bad.sentence


def test_a_schedule_that_does_not_fit_warns_and_is_raced(thalweg: Command) -> None:
    ended = thalweg("race", "digits", "--rules", "sgd", "--schedule", "linear(5)", *TINY, "--out", "r")
    assert ended.code == 0
    said = " ".join(ended.err.split())
    assert said.startswith(
        "Warning: the schedule linear(5) of sgd does not fit its 20 steps: it is 5 steps long: it holds"
    )


def test_a_call_is_converted(thalweg: Command) -> None:
    ended = thalweg("convert", "keras.optimizers.SGD(learning_rate=0.1, momentum=0.9)", "--to", "torch")
    assert ended.code == 0
    call, said = ended.out.strip().split("\n", 1)
    assert call == "torch.optim.SGD(lr=0.1, momentum=0.9)"
    assert said.startswith("Exact while the rate is constant.")
    assert "Not expressible" in thalweg("convert", "keras.optimizers.Adam()", "--to", "torch").out


@pytest.mark.parametrize(
    ("call", "to", "said"),
    [
        ("keras.optimizers.Adm()", "torch", "keras has no optimizer 'Adm'; did you mean 'Nadam'"),
        (
            "torch.optim.SGD(lr=0.1)",
            "tensorflow",
            "the frameworks are torch, keras, optax, optax.contrib, pytorch_optimizer, prodigyopt,",
        ),
        ("__import__('os').system('touch here')", "torch", "cannot be read"),
        ("torch.optim.SGD(lr=open('x'))", "torch", "cannot be read"),
        ("torch.optim.SGD(rate=0.1)", "torch", "rate"),
    ],
)
def test_a_call_that_cannot_be_converted_is_one_sentence(
    thalweg: Command, tmp_path: Path, call: str, to: str, said: str
) -> None:
    ended = thalweg("convert", call, "--to", to)
    assert ended.code == 2
    assert said in ended.sentence
    assert not list(tmp_path.iterdir())
