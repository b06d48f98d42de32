"""Bad places for a race's records, as the command meets them: one sentence, an exit code, and nothing is lost."""

import contextlib
import os
import subprocess
import traceback
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import sqlalchemy as sa

import postgres
from test_store import PLAN, a_folder, newer, not_a_database, truncated
from thalweg.cli import main
from thalweg.store import Store, StoreError, read

Command = Callable[..., tuple[object, str]]

MINE = """
import os
from pathlib import Path
import torch
from torch import nn
import thalweg

HERE = Path(__file__).parent
runs = 0

def error(prediction, target):
    global runs
    runs += 1
    if runs == 12:
        for name in os.environ.get("DELETED", "").split():
            (HERE / name).unlink()
    return float(((prediction - target) ** 2).double().mean())

def mine(error=error):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    pair = x, x.sum(1, keepdim=True)
    return thalweg.Problem("mine", lambda: nn.Linear(3, 1), nn.functional.mse_loss, pair, pair, pair, error,
                           metric_name="error", higher_is_better=False, batch_size=8)
"""
LINE = [
    "race", "mine.py:mine", "--rules", "sgd", "--trials", "2", "--seeds", "1", "--finalists", "1", "--steps", "4",
    "--populations", "never", "--workers", "1",
]  # fmt: skip


@pytest.fixture
def thalweg(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the race in this process, in a folder of its own, with more arguments; returns exit code and stderr."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            main([*LINE, *arguments])
        return ended.value.code, capsys.readouterr().err

    return run


SPOILED: dict[Callable[[Path], None], str] = {
    truncated: "malformed", newer: "written by a newer thalweg", not_a_database: "not a database",
    a_folder: "unable to open database file",
}  # fmt: skip


@pytest.mark.parametrize("option", ["--out", "--store"])
@pytest.mark.parametrize("spoil", SPOILED)
def test_a_store_that_is_none(spoil: Callable[[Path], None], option: str, thalweg: Command, tmp_path: Path):
    (tmp_path / "there").mkdir()
    spoil(tmp_path / "there" / "race.db")
    before = contents(tmp_path)
    url = f"sqlite:///{tmp_path / 'there' / 'race.db'}"
    code, err = thalweg(option, "there" if option == "--out" else url)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "race.db" in err
    assert SPOILED[spoil] in err
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "arguments", [("--out", "file/race"), ("--store", "file/lab.db"), ("--store", "sqlite:///file/x/lab.db")]
)
def test_a_file_where_a_folder_should_be(arguments: tuple[str, str], thalweg: Command, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    code, err = thalweg(*arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "the folder file" in err
    assert "cannot be made" in err
    assert (tmp_path / "file").read_text() == "mine"


@contextlib.contextmanager
def read_only(folder: Path) -> Generator[None]:
    """Within this context nobody can write to the folder, the superuser neither; skips where that cannot be."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(0o755)
        return
    for line in (["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,ro,bind", str(folder)]):
        if subprocess.run(line, capture_output=True).returncode:
            pytest.skip("the superuser can write anywhere, and nothing can be mounted read-only here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("arguments", [("--out", "there"), ("--out", "there/race"), ("--store", "there/race.db")])
def test_a_folder_that_cannot_be_written(arguments: tuple[str, str], thalweg: Command, tmp_path: Path):
    (tmp_path / "there").mkdir()
    assert thalweg("--out", "there")[0] == 0
    before = contents(tmp_path / "there")
    with read_only(tmp_path / "there"):
        code, err = thalweg(*arguments, "--seeds", "2")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "there" in err
    assert "writable" in err or "cannot be made (" in err
    assert contents(tmp_path / "there") == before


@pytest.mark.filterwarnings("default::thalweg.store.StoreWarning")
@pytest.mark.parametrize("log", ["", "there/race.db-wal there/race.db-shm"])
@pytest.mark.parametrize("option", ["--out", "--store"])
def test_a_store_that_is_deleted_while_the_race_runs(
    option: str, log: str, thalweg: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DELETED", f"there/race.db {log}")
    (tmp_path / "there").mkdir()
    code, err = thalweg(option, "there" if option == "--out" else "there/race.db")
    assert code == 0, err
    [said] = [line for line in err.splitlines() if "Warning" in line]
    assert said.startswith("Warning: ")
    assert said.endswith("race.db was deleted while the race ran; it was written again, with all that it had")
    assert len(read(tmp_path / "there" / "race.db").runs) == 3


SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [f"postgresql://me:{SECRET}@127.0.0.1:1/lab", f"postgresql://me@127.0.0.1:1/lab?password={SECRET}",
     f"postgresql://me:{SECRET}@no-such-host.invalid/lab", f"mysql://me:{SECRET}@127.0.0.1/lab"],
)  # fmt: skip
def test_an_address_that_does_not_answer_and_a_password_that_is_never_shown(url: str, thalweg: Command):
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    code, err = thalweg("--store", url)
    assert (code, len(err.splitlines())) == (2, 1)
    assert SECRET not in err
    with pytest.raises(StoreError) as caught:
        Store.open(url, PLAN)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


RIGHT = "correct-horse"


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Generator[sa.URL]:
    """The URL of a server that asks for a password, with the right one."""
    server = postgres.Server(tmp_path_factory.mktemp("asking"), RIGHT)
    try:
        server.start()
        yield server.url.set(drivername="postgresql")
    finally:
        server.stop()


@pytest.mark.parametrize("command", [LINE, ["list"], ["report"], ["export", "--csv"], ["watch", "--no-browser"]])
@pytest.mark.parametrize("given", ["in the address", "in the environment", "not at all"])
def test_a_wrong_password_is_one_sentence_and_never_shown(
    given: str, command: list[str], asking: sa.URL, thalweg: Command, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.setenv("PGPASSWORD", SECRET)
    if given != "in the environment":
        monkeypatch.delenv("PGPASSWORD")
    password = f":{SECRET}" if given == "in the address" else ""
    url = f"postgresql://me{password}@{asking.host}:{asking.port}/postgres"
    if command is LINE:
        code, err = thalweg("--store", url)
    else:
        with pytest.raises(SystemExit) as ended:
            main([command[0], f"{url}/mine" if command[0] in ("report", "export") else url, *command[1:]])
        said = capsys.readouterr()
        code, err = ended.value.code, said.err
        assert SECRET not in said.out
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "password" in err
    assert SECRET not in err


def test_the_right_password_is_not_shown_either(
    asking: sa.URL, thalweg: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    store = asking.render_as_string(hide_password=False)
    with pytest.raises(SystemExit) as ended:
        main([*LINE, "--store", store])
    assert not ended.value.code
    with pytest.raises(SystemExit) as ended:
        main(["list", store])
    assert not ended.value.code
    said = capsys.readouterr()
    assert "mine" in said.out
    assert RIGHT not in said.out + said.err
    assert not any(RIGHT.encode() in text for text in contents(tmp_path).values())


def contents(folder: Path) -> dict[str, bytes]:
    """What the files of a folder have in them, but for locks, which are empty."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".pyc")
    }
