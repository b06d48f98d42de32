"""Races whose processes are killed lose nothing, repeat nothing, and leave no process behind.

``THALWEG_KILLS=100`` is the number of kills for each way to race; by default there are only a few.
"""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from processes import HAS_PROC, adopting, children, command, tree, wait_for

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="reads /proc to find processes")

KILLS = int(os.environ.get("THALWEG_KILLS", "4"))

PROBLEM = """
import multiprocessing, os, threading, time
import torch
from torch import nn
from torch.utils.data import DataLoader
import thalweg

BESIDE = {}

def beside():
    '''Keep processes of a DataLoader and a pool, and one that a thread has forked, for the life of this process.'''
    if os.getpid() not in BESIDE:
        loader = iter(DataLoader(torch.arange(10**6), num_workers=1, multiprocessing_context="fork"))
        pool = multiprocessing.get_context("fork").Pool(1)
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        BESIDE[os.getpid()] = loader, pool
    loader, pool = BESIDE[os.getpid()]
    next(loader), pool.map(abs, [1])

def in_thread():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True).start()

def error(prediction, target):
    return float(((prediction - target) ** 2).double().mean())

def loaded(prediction, target):
    beside()
    return error(prediction, target)

def problem(metric):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    pair = x, x.sum(1, keepdim=True)
    return thalweg.Problem("killed", lambda: nn.Linear(3, 1), nn.functional.mse_loss, pair, pair, pair, metric,
                           metric_name="error", higher_is_better=False, batch_size=8)

def plain(): return problem(error)
def loaders(): return problem(loaded)
"""

Rows = dict[str, tuple[Any, ...]]


@pytest.fixture(scope="module", autouse=True)
def _orphans_come_to_us() -> Generator[None]:
    with adopting():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PROBLEM, encoding="utf-8")
    return tmp_path


def started(folder: Path, function: str, workers: int, out: Path) -> ForkServerProcess:
    rules = ["--rules", "sgd,adam", "--trials", "40", "--seeds", "5", "--finalists", "1", "--steps", "3"]
    return command(["race", f"{folder / 'mine.py'}:{function}", "--workers", str(workers), *rules, "--out", str(out)])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """What a race finds that nobody disturbs, in whichever way it is raced."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "mine.py").write_text(PROBLEM, encoding="utf-8")
    finish(started(folder, "plain", 1, folder))
    return numbers(folder)


@pytest.mark.parametrize(("function", "workers"), [("plain", 1), ("plain", 2), ("loaders", 1), ("loaders", 2)])
def test_kills_lose_nothing_repeat_nothing_and_leave_no_process(
    function: str, workers: int, folder: Path, undisturbed: list[tuple[Any, ...]]
):
    assert len(undisturbed) == 2 * (50 + 5)  # the space of one grows once, by a quarter of the trials
    chance = random.Random(0)
    killed = races = 0
    while killed < KILLS:
        out = folder / f"race-{races}"
        before: Rows = {}
        while killed < KILLS and len(before) < len(undisturbed):
            killed += disturb(started(folder, function, workers, out), out, chance, min(4, KILLS - killed))
            after = rows(out)
            assert before.items() <= after.items()
            before = after
        finish(started(folder, function, workers, out))
        assert before.items() <= rows(out).items()
        assert numbers(out) == undisturbed
        races += 1


def disturb(process: ForkServerProcess, out: Path, chance: random.Random, most: int) -> int:
    """Kill workers of a race, one after another, and finally the driver; returns the number of kills."""
    assert process.pid
    known = children(os.getpid())
    count = 0
    while count < most:
        had = len(rows(out))
        if chance.random() < 0.8:  # otherwise it may be killed before it has begun
            wait_for(lambda had=had: len(rows(out)) > had or not process.is_alive())
        time.sleep(0.2 * chance.random())
        leaders = [pid for pid in tree(process.pid) if leads(pid)]
        victims = [process.pid] if chance.random() < 0.4 else [chance.choice([process.pid, *leaders])]
        if victims != [process.pid] and chance.random() < 0.3:
            victims.append(process.pid)
        if not process.is_alive():
            break
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
            count += 1
        if process.pid in victims:
            process.join()
        wait_for(lambda: children(os.getpid()) <= known, patience=2)
        if process.pid in victims:
            return count
    process.join()
    assert process.exitcode in (0, 2)  # it was complete, or three workers were killed in the same run
    return count


def leads(pid: int) -> bool:
    """Whether a process leads a group, as workers do."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def finish(process: ForkServerProcess) -> None:
    process.join()
    assert process.exitcode == 0


def rows(out: Path) -> Rows:
    """Every row of a store's runs by its key; none if there is no store yet."""
    if not (out / "race.db").is_file():
        return {}
    with closing(sqlite3.connect(out / "race.db", timeout=30)) as connection:
        try:
            return {row[0]: row for row in connection.execute("select key, * from run")}
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return {}
            raise


def numbers(out: Path) -> list[tuple[Any, ...]]:
    """The results of each run of a race, in a fixed order."""
    with closing(sqlite3.connect(out / "race.db")) as connection:
        columns = "entry, phase, trial, seed, status, best_step, validation_metric, test_metric, test_loss"
        return connection.execute(f"select {columns} from run order by entry, phase, trial, seed").fetchall()
