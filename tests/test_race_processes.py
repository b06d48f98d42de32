"""The processes of a race: what workers can see, processes that the user's code starts, and signals."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from processes import HAS_PROC, command, ended, tree, wait_for
from thalweg.store import read

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="reads /proc to find processes")

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
    '''Records where its process would import from, its standard input, and which slow modules are loaded.'''

    def __init__(self):
        super().__init__(3, 1)
        seen = {"path": sys.path, "stdin": sys.stdin.read(), "numpy": sys.modules["numpy"].__file__,
                "slow": [name for name in ("scipy.stats", "sklearn", "plotly", "typer") if name in sys.modules]}
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

def stuck(prediction, target):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(slow, [1, 2])

def problem(metric=error, model=lambda: nn.Linear(3, 1), workers=0):
    pair = data(workers)
    return thalweg.Problem("processes", model, nn.functional.mse_loss, pair, pair, pair, metric,
                           metric_name="error", higher_is_better=False, batch_size=8)

def plain(): return problem()
def reader(): return problem(model=Reader)
def loader_and_pool(): return problem(pooled, workers=2)
"""

SMALL = ("--rules", "sgd,adam", "--trials", "3", "--seeds", "2", "--steps", "40")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PROBLEM, encoding="utf-8")
    return tmp_path


def installed(function: str, workers: int, *more: str) -> list[str]:
    """The command as it is installed: not `python -m`, which looks into the current folder."""
    start = "import sys; sys.path.pop(0); sys.argv[0] = 'thalweg'; from thalweg.__main__ import main; main()"
    return [sys.executable, "-c", start, *line(f"mine.py:{function}", workers, *more)]


def line(problem: str, workers: int, *more: str) -> list[str]:
    return ["race", problem, "--workers", str(workers), *SMALL, *more]


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_in_the_users_code_do_not_stop_a_race(workers: int, folder: Path):
    out = folder / "out"
    process = command(line(f"{folder / 'mine.py'}:loader_and_pool", workers, "--steps", "4", "--out", str(out)))
    process.join(240)
    process.kill()  # if it hangs
    assert process.exitcode == 0
    assert len(read(out / "race.db").runs) == 22


def test_workers_import_from_where_the_driver_does_and_read_nothing(folder: Path):
    for name in ("numpy", "pickle", "torch", "scipy", "thalweg", "cloudpickle", "json", "random"):
        (folder / f"{name}.py").write_text("open('imported', 'w').close()", encoding="utf-8")
    (folder / "problems").mkdir()
    (folder / "mine.py").rename(folder / "problems" / "mine.py")
    given = [part.replace("mine.py:", "problems/mine.py:") for part in installed("reader", 2, "--steps", "4")]
    done = subprocess.run(given, cwd=folder, capture_output=True, text=True, input="typed", timeout=240)
    assert done.returncode == 0, done.stderr
    assert not (folder / "imported").exists()
    seen = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("seen-*.json")]
    assert len(seen) == 3
    driver = next(one for one in seen if one["stdin"] == "typed")
    seen.remove(driver)
    for worker in seen:
        assert worker == {**driver, "stdin": "", "slow": []}


SIGNALS = {
    signal.SIGINT: (130, "interrupted"),
    signal.SIGTERM: (143, "stopped by SIGTERM"),
    signal.SIGHUP: (129, "stopped by SIGHUP"),
}
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_one_sentence_and_ends_all_processes(number: signal.Signals, folder: Path):
    process = subprocess.Popen(installed("plain", 2, "--steps", "200000"), cwd=folder, **QUIET)
    wait_for(lambda: caught(process.pid) >> (signal.SIGTERM - 1) & 1)  # before that, a signal has its default effect
    time.sleep(0.3)
    below = tree(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    code, sentence = SIGNALS[number]
    assert process.returncode == code
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(f"thalweg: {sentence}")
    wait_for(partial(ended, below), patience=2)


def caught(pid: int) -> int:
    """The signals for which a process has handlers, as bits."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_forked_process_ends_by_a_signal_from_its_first_moment_on(number: signal.Signals):
    """Pools end their processes so, and wait for them."""
    program = textwrap.dedent(f"""
        import os, time
        os.register_at_fork(after_in_child=lambda: time.sleep(0.5))  # as libraries do something there
        from thalweg.cli.exits import stoppable
        with stoppable():
            child = os.fork()
            if not child:
                time.sleep(20)
                os._exit(0)
            os.kill(child, {number:d})
            print(os.WTERMSIG(os.waitpid(child, 0)[1]))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert done.stdout.split() == [str(int(number))], done.stderr


def test_ctrl_c_ends_a_race_whose_metric_waits_for_a_pool(folder: Path):
    """The metric hangs in a worker with processes of its own, which end with it."""
    text = (folder / "mine.py").read_text(encoding="utf-8")
    hanging = textwrap.dedent("""
        def hangs(prediction, target):
            return stuck(prediction, target) if str(os.getppid()) == os.environ["DRIVER"] else error(prediction, target)


        os.environ["DRIVER"] = os.environ.get("DRIVER", str(os.getpid()))

        def hang(): return problem(hangs)
    """)
    (folder / "mine.py").write_text(text + hanging, encoding="utf-8")
    process = subprocess.Popen(installed("hang", 2), cwd=folder, **QUIET)
    wait_for(lambda: len(tree(process.pid)) >= 6)
    below = tree(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    wait_for(partial(ended, below), patience=2)
