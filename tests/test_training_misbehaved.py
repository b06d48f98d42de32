"""Whatever a training function does: its run has a record that says so, other runs are as ever, nothing is left."""

import os
import re
from typing import Any

import pytest

from processes import HAS_PROC, adopting, tree
from thalweg import Entry, Race
from thalweg.race import Results

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="runs are in processes of their own on Linux only")

MINE = """
import ctypes, os, pathlib, random, resource, signal, subprocess, sys, tempfile, threading, time, warnings
import numpy as np
import torch
from torch import nn

def prints(run):
    print("out", flush=True), print("err", file=sys.stderr), os.write(1, b"raw" * 100_000)
    sys.stdout.close()

def warns(run):
    warnings.simplefilter("error")
    try:
        warnings.warn("careful")
    except UserWarning:
        warnings.simplefilter("always")
        warnings.warn("careful")

def draws(run): random.random(), np.random.rand(), torch.rand(5), torch.manual_seed(1), random.seed(1)
def moves(run): os.chdir("/"), os.environ.clear(), sys.path.clear(), torch.set_default_dtype(torch.float64)
def threads(run): threading.Thread(target=time.sleep, args=(600,)).start()
def processes(run):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if not os.fork():  # a daemon, which leaves its group
        os.setsid()
        if not os.fork():
            time.sleep(600)
        os._exit(0)

def files(run): tempfile.mkdtemp(), tempfile.NamedTemporaryFile(delete=False).write(b"0")
def quits(run): sys.exit(3)
def vanishes(run): os._exit(5)
def allocates(run):
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))
    bytearray(8 << 30)

def is_killed(run): os.kill(os.getpid(), signal.SIGKILL)
def crashes(run): ctypes.string_at(0)
def hangs(run): time.sleep(600)
def hangs_deaf(run):
    for number in range(1, 32):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    threading.Event().wait()

def raises(run): return helper()
def helper(): return {}["no such key"]
def swallows(run):
    run.report(validation=0.5)
    try:
        run.report(validation=float("nan"))
    except Exception:
        raise AssertionError("a run that has diverged is no exception to handle")
    finally:
        pathlib.Path(tempfile.gettempdir(), "x").touch()

def interrupts(run): raise KeyboardInterrupt
def empty(run): run.report()
def odd(run): run.report(validation="good")
def plain(run): pass

KINDS = (plain, prints, warns, draws, moves, threads, processes, files, quits, vanishes, allocates, is_killed,
         crashes, hangs, hangs_deaf, raises, swallows, interrupts, empty, odd)

def train(run):
    torch.manual_seed(run.seed)
    model = nn.Linear(2, 1)
    optimizer = run.optimizer(model)
    x = torch.randn(8, 2, generator=run.generator)
    kind = KINDS[round(optimizer.param_groups[0]["lr"] * 1e6) % 1000]
    for step in run.steps(4):
        optimizer.zero_grad()
        loss = (model(x.to(model.weight.dtype)) - 1).pow(2).mean()
        loss.backward()
        optimizer.step()
        if step == 1:
            kind(run)
        run.report(validation=float(loss.detach()), higher_is_better=False)
"""

PATIENCE = 20
KINDS = re.findall(r"\w+", re.findall(r"KINDS = \((.*?)\)", MINE, re.DOTALL)[0])

SAYS: dict[str, str] = {
    "quits": r"SystemExit at step 2 \(mine.py, line \d+\): 3\n.*in quits",
    "vanishes": r"the process of the run ended with exit code 5 after step 1",
    "allocates": r"MemoryError at step 2 \(mine.py, line \d+\)\n.*bytearray",
    "is_killed": r"the process of the run was killed by SIGKILL \(out of memory\?\) after step 1",
    "crashes": r"the process of the run was killed by SIGSEGV after step 1",
    "hangs": r"nothing was reported for 20 seconds, which is this race's patience, after step 1\n.*line \d+ in hangs",
    "hangs_deaf": r"nothing was reported for 20 seconds.*line \d+ in hangs_deaf",
    "raises": r"KeyError at step 2 \(mine.py, line \d+\): 'no such key'\n.*in helper.*KeyError: 'no such key'$",
    "swallows": r"the validation validation is nan at step 2",
    "interrupts": r"KeyboardInterrupt at step 2",
    "empty": r"ValueError at step 2 .*run.report\(\) needs a metric",
    "odd": r"ValueError at step 2 .*validation is 'good'; wanted is one number",
}


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One race in which each entry does something else in its second step; and what it has left behind."""
    folder = tmp_path_factory.mktemp("misbehaved")
    (folder / "temporary").mkdir()
    (folder / "mine.py").write_text(MINE, encoding="utf-8")
    entries = [Entry(f"sgd(lr={(1000 + k) / 1e6})", name) for k, name in enumerate(KINDS)]
    before, others = {**os.environ}, tree(os.getpid())
    os.environ["TMPDIR"] = str(folder / "temporary")
    try:
        with adopting():
            contest = Race(f"{folder / 'mine.py'}:train", entries, trials=1, seeds=1, workers=2, patience=PATIENCE,
                           store=folder / "race.db")  # fmt: skip
            results = contest.run()
            left = tree(os.getpid()) - others
    finally:
        os.environ.clear()
        os.environ.update(before)
    return results, left, [*(folder / "temporary").iterdir()], {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_a_record_that_says_what_its_function_did(kind: str, raced: Any):
    results: Results = raced[0]
    (run,) = results.of(kind, "tune")
    if kind not in SAYS:
        (plain,) = results.of("plain", "tune")
        assert (run.status, run.message) == ("finished", "")
        assert run.validation_metric == pytest.approx(plain.validation_metric, rel=1e-3)
        assert len(results.of(kind, "final")) == 1
        return
    assert run.status == ("diverged" if kind == "swallows" else "failed")
    assert re.match(SAYS[kind], run.message, re.DOTALL), run.message
    assert not results.of(kind, "final")


def test_nothing_is_left_behind(raced: Any):
    _, left, temporary, files = raced
    assert not left
    assert not temporary
    assert {file for file in files if not file.endswith(".lock")} == {"mine.py", "race.db", "temporary"}
