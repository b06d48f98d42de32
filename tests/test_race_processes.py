"""The processes of a race: what workers can see, processes that the user's code starts, and signals."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from thalweg.store import read

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc to find processes")

PROBLEM = """
import json, multiprocessing, os, sys, time
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import thalweg

def double(x):
    return 2 * x

def slow(x):
    time.sleep(600)

class Reader(nn.Linear):
    '''Says where its process would import from, and what stands in its standard input.'''

    def __init__(self):
        super().__init__(3, 1)
        seen = {"path": sys.path, "stdin": sys.stdin.read(), "numpy": sys.modules["numpy"].__file__}
        if not os.path.exists(name := f"seen-{os.getpid()}.json"):
            with open(name, "w") as file:
                json.dump(seen, file)

def data(workers=0):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    y = x.sum(1, keepdim=True)
    if workers:
        batches = list(DataLoader(TensorDataset(x, y), batch_size=16, num_workers=workers))
        x, y = (torch.cat(column) for column in zip(*batches))
    return x, y

def error(prediction, target):
    return float(((prediction - target) ** 2).double().mean())

def pooled(prediction, target):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(double, [error(prediction, target)] * 2)) / 4

def loaded(prediction, target):
    '''With the workers of a DataLoader beside it, long enough to be killed.'''
    loader = iter(DataLoader(torch.arange(64), batch_size=1, num_workers=2, prefetch_factor=1))
    next(loader)
    time.sleep(0.02)
    return error(prediction, target)

def stuck(prediction, target):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(slow, [1, 2])

def problem(metric=error, model=lambda: nn.Linear(3, 1), workers=0):
    pair = data(workers)
    return thalweg.Problem("processes", model, nn.functional.mse_loss, pair, pair, pair, metric,
                           metric_name="error", higher_is_better=False, batch_size=8)

def plain(): return problem()
def reader(): return problem(model=Reader)
def loader(): return problem(workers=2)
def pool(): return problem(pooled)
def loaders(): return problem(loaded)
"""

SMALL = ("--rules", "sgd,adam", "--trials", "3", "--seeds", "2", "--steps", "40")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PROBLEM, encoding="utf-8")
    return tmp_path


def command(function: str, workers: int, *more: str) -> list[str]:
    """The command as it is installed: not `python -m`, which looks into the current folder."""
    start = "import sys; sys.path.pop(0); sys.argv[0] = 'thalweg'; from thalweg.__main__ import main; main()"
    return [sys.executable, "-c", start, "race", f"mine.py:{function}", "--workers", str(workers), *SMALL, *more]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("function", ["loader", "pool"])
def test_processes_in_the_users_code_do_not_stop_a_race(function: str, workers: int, folder: Path):
    line = command(function, workers, "--steps", "4")
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert len(read(folder / "races" / f"mine-{function}" / "race.db").runs) == 10


def test_workers_import_from_where_the_driver_does_and_read_nothing(folder: Path):
    for name in ("numpy", "pickle", "torch", "scipy", "thalweg", "cloudpickle", "json", "random"):
        (folder / f"{name}.py").write_text("open('imported', 'w').close()", encoding="utf-8")
    (folder / "problems").mkdir()
    (folder / "mine.py").rename(folder / "problems" / "mine.py")
    line = [part.replace("mine.py:", "problems/mine.py:") for part in command("reader", 2, "--steps", "4")]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, input="typed", timeout=240)
    assert done.returncode == 0, done.stderr
    assert not (folder / "imported").exists()
    seen = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("seen-*.json")]
    assert len(seen) == 3
    driver = next(one for one in seen if one["stdin"] == "typed")
    seen.remove(driver)
    for worker in seen:
        assert worker == {**driver, "stdin": ""}


def tree(pid: int) -> set[int]:
    """The living processes below `pid`."""
    parents = dict(processes())
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def processes() -> Iterator[tuple[int, int]]:
    """Every living process and its parent."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            yield int(stat.parent.name), int(parent)


def ended(pids: set[int]) -> bool:
    return not pids & dict(processes()).keys()


def wait_for(what: Any, patience: float = 120) -> None:
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


SIGNALS = {
    signal.SIGINT: (130, "interrupted"),
    signal.SIGTERM: (143, "stopped by SIGTERM"),
    signal.SIGHUP: (129, "stopped by SIGHUP"),
}
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("delay", [0.3])
def test_a_signal_at_any_time_is_one_sentence(number: signal.Signals, delay: float, folder: Path):
    process = subprocess.Popen(command("plain", 2, "--steps", "200000"), cwd=folder, **QUIET)
    # From the moment that the command can know of the signal.
    wait_for(lambda: caught(process.pid) >> (signal.SIGTERM - 1) & 1)
    time.sleep(delay)
    below = tree(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    code, sentence = SIGNALS[number]
    assert process.returncode == code
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(f"thalweg: {sentence}")
    wait_for(partial(ended, below), patience=2)


def caught(pid: int) -> int:
    """The signals that a process has handlers for, as bits."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)


def test_ctrl_c_ends_a_race_whose_metric_waits_for_a_pool(folder: Path):
    """The metric hangs in a worker, with processes of its own: they end with it."""
    text = (folder / "mine.py").read_text(encoding="utf-8")
    hanging = textwrap.dedent("""
        def hangs(prediction, target):
            return stuck(prediction, target) if str(os.getppid()) == os.environ["DRIVER"] else error(prediction, target)


        os.environ["DRIVER"] = os.environ.get("DRIVER", str(os.getpid()))

        def hang(): return problem(hangs)
    """)
    (folder / "mine.py").write_text(text + hanging, encoding="utf-8")
    process = subprocess.Popen(command("hang", 2), cwd=folder, **QUIET)
    wait_for(lambda: len(tree(process.pid)) >= 6)
    below = tree(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    wait_for(partial(ended, below), patience=2)
