"""The command with absurd input: hostile names, option values, folders, outputs; each error is one sentence."""

import csv
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from thalweg import rules
from thalweg.cli import main
from thalweg.cli.exits import Mistake, readable
from thalweg.hyperparameters import nearest

TINY = ("--trials", "1", "--seeds", "2", "--steps", "4", "--workers", "1")

Command = Callable[..., tuple[object, str, str]]


@pytest.fixture
def thalweg(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in this process, in a folder of its own; returns the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


NAMES = [
    "[/b]", "[bold", "[link=http://x]y[/link]", ":smile:", "\x1b[31mred", "a\rb", "two\nlines", "a\0b", "\u202eback",
    "<script>alert(1)</script>", "{{ 7*7 }}", "{0}", "%s %d", "\\",
    "../../etc", "'\"`$(ls)", "名前 🎉", "=1+1", "a" * 3000,
]  # fmt: skip

PROBLEM = """
import torch, thalweg
from torch import nn
def make():
    torch.manual_seed(0)
    x, y = torch.randn(40, 3), torch.randn(40, 1)
    mse = nn.functional.mse_loss
    name = bytes.fromhex(open("name.txt").read()).decode()
    return thalweg.Problem(name, lambda: nn.Linear(3, 1), mse, (x, y), (x, y), (x, y), mse, metric_name=name,
        higher_is_better=False, source=name)
"""


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_only_a_name(name: str, thalweg: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PROBLEM, encoding="utf-8")
    (tmp_path / "name.txt").write_text(name.encode().hex())
    code, out, err = thalweg("race", "mine.py:make", "--rules", "sgd,adam", *TINY)
    assert code == 0, err
    assert all(letter.isprintable() or letter == "\n" for letter in out + err)
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    assert shown[:5] in err
    assert "".join(shown.split())[:20] in "".join(out.split())
    with (tmp_path / "races/mine-make/leaderboard.csv").open(encoding="utf-8", newline="") as file:
        assert {row["entry"] for row in csv.DictReader(file)} == {"sgd", "adam"}


FILES = ["<script>'\"\n\u202e$(ls) %s {0} [bold;.py", "\x1b[31mred.py", "a" * 252 + ".py"]


@pytest.mark.parametrize("name", FILES, ids=lambda name: ascii(name)[:20])
def test_a_file_has_any_name(name: str, thalweg: Command, tmp_path: Path) -> None:
    (tmp_path / name).write_text(PROBLEM, encoding="utf-8")
    (tmp_path / "name.txt").write_text(b"mine".hex())
    code, out, err = thalweg("race", f"{name}:make", "--rules", "sgd", *TINY, "--store", "lab.db")
    assert code == 0, err
    assert all(letter.isprintable() or letter == "\n" for letter in out + err)
    (folder,) = (tmp_path / "races").iterdir()
    assert re.fullmatch(r"[\w.-]{1,80}", folder.name)
    assert "<script>'" not in (folder / "report.html").read_text(encoding="utf-8")
    assert thalweg("list", "lab.db")[0] == 0


VALUES = [
    "", " ", "-1", "0", "1000000000", "1" + "0" * 28, "9" * 5000, "1e400", "nan", "inf", "x", "[/b]", "\x1b[31m",
    "https://me:secret@host/name", "postgresql+psycopg://me:secret@host/name", "a" * 20_000, "adma," * 4_000,
]  # fmt: skip

OPTIONS = {
    "race": (
        ("digits",),
        ("--rules", "--schedule", "--data", "--trials", "--seeds", "--steps", "--seed", "--out", "--workers"),
    ),
    "play": (("bowl", "--export", "play.html"), ("--rules", "--start", "--noise", "--seed", "--schedule", "--export")),
    "schedule": (("cosine(5)", "--total", "10"), ("--total", "--base", "--out")),
    "bench": (("--quick",), ("--workloads", "--rules", "--threads", "--rounds", "--saved")),
    "convert": (("torch.optim.SGD(lr=0.1)",), ("--to",)),
}  # fmt: skip
CASES = [(command, option) for command, (_, options) in OPTIONS.items() for option in options]


@pytest.mark.parametrize(("command", "option"), CASES, ids=lambda case: str(case))
def test_whatever_an_option_is_given(
    command: str, option: str, thalweg: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No race or bench runs, no page is made; a value is refused before that, in one short sentence."""
    monkeypatch.setattr("thalweg.race.Race.run", lambda *_: _stop())  # pyright: ignore
    monkeypatch.setattr("thalweg.playground.printed.module", lambda *_: _stop())  # pyright: ignore
    monkeypatch.setattr("thalweg.cli.benching._measure", lambda *_: _stop())  # pyright: ignore
    for value in VALUES:
        before = set(tmp_path.iterdir())
        code, _, err = thalweg(command, *OPTIONS[command][0], option, value)
        assert code in (0, 2), err
        assert "secret" not in err
        if code == 2:
            [line] = err.strip().splitlines()
            assert line.startswith("thalweg: ")
            assert len(line) < 2000
            assert set(tmp_path.iterdir()) == before
        if option == "--out" and (code == 0 or "nothing is" in err):
            assert "://" not in value
            assert value.strip()


def _stop() -> None:
    raise Mistake("nothing is raced or measured here")


@pytest.mark.parametrize("argument", VALUES)
@pytest.mark.parametrize("command", ["race", "report", "rules", "play", "schedule", "convert"])
def test_whatever_an_argument_is(command: str, argument: str, thalweg: Command, tmp_path: Path) -> None:
    code, _, err = thalweg(command, argument, *(("--total", "9") if command == "schedule" else ()))
    assert code == 2
    [line] = err.strip().splitlines()
    assert len(line) < 2000
    assert "secret" not in line
    assert not list(tmp_path.iterdir())


def _swapped(names: list[str]) -> dict[str, str]:
    """Names with two neighbouring letters swapped, and what they should be."""
    return {
        name[:i] + name[i + 1] + name[i] + name[i + 2 :]: name
        for name in names
        for i in range(len(name) - 1)
        if name[i] != name[i + 1]
    }


def test_a_name_with_two_letters_swapped_is_found() -> None:
    known = list(rules.names())
    for written, meant in _swapped(known).items():
        if written not in known:
            assert nearest(written, known) == f"; did you mean {meant!r}"
    assert nearest("adma", known) == "; did you mean 'adam'"
    assert nearest("x" * 100_000, known) == ""


def test_messages_are_short_printable_and_without_passwords() -> None:
    assert (
        readable("no postgresql+psycopg://me:sec:ret@x@host/name here")
        == "no postgresql+psycopg://me:***@host/name here"
    )
    assert readable("a\x1b[2Jb\nc") == "a?[2Jb c"
    assert len(readable("rule " * 10_000)) < 1600
    assert len(readable("r" * 10_000)) < 300


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raced")
    ran = command(folder, "race", "digits", "--rules", "sgd,adam", "--out", "race", *TINY)
    assert ran.returncode == 0, ran.stderr
    return folder / "race"


def command(
    folder: Path, *arguments: str, stdout: int = subprocess.PIPE, **more: str
) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "error", "-m", "thalweg", *arguments]
    environment = {**os.environ, "COLUMNS": "100", **more}
    return subprocess.run(line, cwd=folder, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True)


def test_an_output_that_takes_ascii_only(raced: Path) -> None:
    done = command(raced, "report", ".", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "95 % interval" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [("report", "."), ("rules",), ("--help",), ("--version",)])
def test_an_output_that_is_full(arguments: tuple[str, ...], raced: Path) -> None:
    with open("/dev/full", "w") as full:
        done = command(raced, *arguments, stdout=full.fileno())
    assert done.returncode == 2
    assert done.stderr == "thalweg: the output cannot be written (No space left on device)\n"


def test_a_reader_that_has_gone(raced: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = command(raced, "rules", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_keeps_the_table_and_says_where_the_runs_are(raced: Path, thalweg: Command) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name in ("report.html", "leaderboard.csv"):
        (raced / name).unlink(missing_ok=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # the report is larger, the leaderboard is not
    try:
        code, out, err = thalweg("report", str(raced))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert code == 2
    assert "sgd" in out
    assert "report.html cannot be written (File too large); every run is kept in " in err
    assert "thalweg report" in err
    assert {path.name for path in raced.iterdir() if path.suffix != ".lock"} == {"leaderboard.csv", "race.db"}
    assert thalweg("report", str(raced))[0] == 0
    assert (raced / "report.html").is_file()


def test_a_leaderboard_that_is_read_only_is_replaced(raced: Path, thalweg: Command) -> None:
    table = raced / "leaderboard.csv"
    table.unlink(missing_ok=True)
    table.mkdir()  # not even the superuser can write to it as a file
    code, out, err = thalweg("report", str(raced))
    assert code == 2
    assert "leaderboard.csv cannot be written (Is a directory); every run is kept" in err
    assert "adam" in out
    assert (raced / "report.html").is_file()
    table.rmdir()
    table.write_text("old")
    table.chmod(0o400)
    assert thalweg("report", str(raced))[0] == 0
    assert "adam" in table.read_text(encoding="utf-8")
