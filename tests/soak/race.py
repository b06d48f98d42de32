"""One race of a soak: begun, disturbed, begun again until it is through, and then compared."""

import os
import re
import signal
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random
from typing import NoReturn

from processes import children, command, ended, tree, wait_for
from soak.places import Place
from thalweg.race import Results
from thalweg.store import Reader, StoreError

PROBLEM = """
import faulthandler
import signal
import time
from pathlib import Path
import torch
from torch import nn
import thalweg

HERE = Path(__file__).parent
true = time.time

def jumping():
    try:
        return true() + float((HERE / "clock").read_text())
    except (OSError, ValueError):
        return true()

time.time = jumping
faulthandler.register(signal.SIGUSR1, open(HERE / "stacks", "a"), all_threads=True)  # asked of what stands still

def error(prediction, target):
    time.sleep(0.03)
    return float(((prediction - target) ** 2).double().mean())

def problem():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    pair = x, x.sum(1, keepdim=True)
    return thalweg.Problem("soak", lambda: nn.Linear(3, 1), nn.functional.mse_loss, pair, pair, pair, error,
                           metric_name="error", higher_is_better=False, batch_size=8)
"""
_RUNS = ["--rules", "sgd,adam", "--trials", "6", "--seeds", "5", "--finalists", "1", "--steps", "4"]

_PATIENCE = 900
"""Seconds until a command stands still: more than the ten minutes that a lost database is waited for."""

Records = dict[str, str]


class Soaked:
    """A race at a place, whose faults are counted.

    Args:
        place: where.
        name: of the race; its own in the store.
        seed: of the race.
    """

    def __init__(self, place: Place, name: str, seed: int) -> None:
        self.place, self.name, self.seed = place, name, seed
        self.counts: Counter[str] = Counter()
        (place.folder / "mine.py").write_text(PROBLEM, encoding="utf-8")

    def start(self) -> ForkServerProcess:
        """Start the command."""
        line = ["race", f"{self.place.folder / 'mine.py'}:problem", *_RUNS, "--populations", "never"]
        line += ["--seed", str(self.seed), "--store", self.place.store, "--out", str(self.place.folder / self.name)]
        return command([*line, *self.place.options])

    def records(self) -> Records:
        """Every run that is stored, as text; none if there is no race yet."""
        with suppress(StoreError), Reader(self.place.store) as reader:
            return {run.key: repr(run) for run in reader.results(self.name).runs}
        return {}

    def verdict(self) -> str:
        """The leaderboard with the sentence at its top, and each run's numbers."""
        results = Results.read(self.place.store, self.name)
        numbers = [(r.key, r.status, r.best_step, r.validation_metric, r.test_metric) for r in results.runs]
        rows = [replace(row, seconds=0.0) for row in results.verdict.rows]
        found = results.verdict
        return f"{numbers}\n{rows}\n{found.pairs}\n{found.headline}\n{found.sentences}"

    def disturbed(self, faults: deque[str], chance: Random) -> None:
        """Do the race, with these faults one after another, wherever it is by then; those that come too late are left.

        Raises:
            AssertionError: a record that there was is missing or another, a command ended as it should not, or
                processes were left behind.
        """
        known = children(os.getpid())
        try:
            self._through(faults, chance)
            wait_for(lambda: children(os.getpid()) <= known | self.place.own(), patience=60)
        finally:
            for left in children(os.getpid()) - known - self.place.own():
                for pid in (*tree(left), left):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def _through(self, faults: deque[str], chance: Random) -> None:
        before, process = self.records(), self.start()
        while faults:
            had = len(before)
            if chance.random() < 0.7:  # otherwise it may not have begun
                last = time.monotonic() + _PATIENCE
                while process.is_alive() and len(self.records()) <= had:
                    if time.monotonic() > last:
                        self._stands_still(process)
                    time.sleep(0.1)
            time.sleep(0.3 * chance.random())
            if not process.is_alive() and not process.exitcode:
                break
            before = self._fault(faults.popleft(), process, chance)
            if not process.is_alive():
                process.join()
                assert process.exitcode in (0, 2, -signal.SIGKILL), f"exit code {process.exitcode}"
                if process.exitcode == 0:
                    break
                process = self.start()
        self._finish(process, before)

    def _fault(self, name: str, process: ForkServerProcess, chance: Random) -> Records:
        """Let it happen, and wait until what it killed is gone; returns what is stored then."""
        before, left = self.records(), tree(process.pid or 0)
        if name == "two drivers":
            self._second(process)
        else:
            self.place.faults[name](self.place, process.pid or 0, chance)
        self.counts[name] += 1
        if name in ("driver", "both"):
            process.join()
            wait_for(lambda: ended(left), patience=60)
        elif name == "full disk":
            process.join(20)
            self.place.mend()
        return self._kept(before)

    def _second(self, first: ForkServerProcess) -> None:
        """A second driver is refused while there is a first; when that has ended, it finds the race done."""
        second = self.start()
        self._wait(second)
        assert second.exitcode == 2 or (second.exitcode == 0 and not first.is_alive()), second.exitcode

    def _kept(self, before: Records) -> Records:
        """What is stored now, of which nothing that had been is missing or changed."""
        wait_for(lambda: before.items() <= self.records().items(), patience=90)
        return self.records()

    def _wait(self, process: ForkServerProcess) -> None:
        process.join(_PATIENCE)
        if process.is_alive():
            self._stands_still(process)

    def _stands_still(self, process: ForkServerProcess) -> NoReturn:
        """Say where a command and its workers are that do not end."""
        stacks = self.place.folder / "stacks"
        for pid in (process.pid or 0, *tree(process.pid or 0)):
            with suppress(OSError):
                [caught] = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
                if int(caught, 16) >> (signal.SIGUSR1 - 1) & 1:  # it would end the others
                    os.kill(pid, signal.SIGUSR1)
        time.sleep(1)
        said = stacks.read_text(encoding="utf-8", errors="replace") if stacks.exists() else "it has not begun"
        raise AssertionError(f"a command stands still:\n{said}")

    def _finish(self, process: ForkServerProcess, before: Records) -> None:
        for _ in range(20):
            self._wait(process)
            self.place.mend()
            if process.exitcode == 0:
                break
            print(f"  {self.name}: exit code {process.exitcode}, again", file=sys.stderr)
            process = self.start()
        assert process.exitcode == 0
        self._kept(before)
