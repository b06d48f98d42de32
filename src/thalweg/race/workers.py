"""Where runs are done: in this process, or in worker processes, each with one thread and its own copy of the data.

Workers are started as ``python -m thalweg.race.worker`` and spoken to through their pipes, rather than forked or
spawned by ``multiprocessing``: a script that runs a race then needs no ``if __name__ == "__main__"``, a worker that
is killed is replaced instead of breaking the pool, and one whose parent was killed sees its pipe close and ends.
"""

import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import cloudpickle

from thalweg import problems
from thalweg.problems import Problem
from thalweg.race.entry import Entry
from thalweg.race.plan import Task
from thalweg.race.training import record, train
from thalweg.store import Plan, Run

ATTEMPTS = 3
"""How often a run is begun before it is recorded as one that kills its worker."""


class WorkerError(ValueError):
    """The race cannot be sent to worker processes; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """Where a problem comes from: itself, or the text and the folder that `thalweg.problems.get` reads it from."""

    problem: Problem | str
    data: Path | None = None

    def load(self) -> Problem:
        """The problem."""
        return problems.get(self.problem, data=self.data) if isinstance(self.problem, str) else self.problem


@dataclass(frozen=True)
class Job:
    """What all runs of a race share."""

    plan: Plan
    entries: Mapping[str, Entry]

    def do(self, problem: Problem, task: Task) -> Run:
        """The run of a task."""
        return train(problem, self.plan, self.entries[task.entry], task)

    def lost(self, task: Task, why: str) -> Run:
        """The record of a run that left nothing."""
        return record(self.entries[task.entry], task, "failed", message=why)


def pack(source: Source, job: Job) -> list[bytes] | None:
    """A race for workers, in the order in which they must read it; None where it cannot be sent to them.

    The problem goes before the entries: a rule of the user's may live in the problem's file.
    """
    try:
        return [cloudpickle.dumps(part) for part in (sys.path, source, job)]
    except Exception:  # pickling runs the objects' own code, which may raise anything
        return None


def here(job: Job, problem: Problem, tasks: deque[Task], keep: Callable[[Run], None]) -> None:
    """Do all tasks in this process, one after another; `keep` may add further ones."""
    while tasks:
        keep(job.do(problem, tasks.popleft()))


def apart(job: Job, packed: list[bytes], workers: int, tasks: deque[Task], keep: Callable[[Run], None]) -> None:
    """Do all tasks in worker processes; `keep` is called in this thread, and may add further ones."""
    crew = _Crew(packed, job)
    flying: set[Future[Run]] = set()
    with ThreadPoolExecutor(workers) as threads:
        try:
            while tasks or flying:
                while tasks and len(flying) < workers:
                    flying.add(threads.submit(crew.do, tasks.popleft()))
                done, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    keep(future.result())
        finally:
            crew.dismiss()  # before the threads are waited for, as they wait for the workers


class _Crew:
    """The workers, one for each thread that asks."""

    def __init__(self, packed: list[bytes], job: Job) -> None:
        self._packed, self._job = packed, job
        self._of_thread = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._dismissed = False

    def do(self, task: Task) -> Run:
        """The run of a task, by the worker of this thread; a worker that died is replaced, and the run begun again."""
        ended = ""
        for _ in range(ATTEMPTS):
            worker: subprocess.Popen[bytes] | None = getattr(self._of_thread, "worker", None)
            try:
                if worker is None:
                    worker = self._of_thread.worker = self._started()
                    _send(worker, *self._packed)
                _send(worker, task)
                return _receive(worker)
            except (EOFError, pickle.UnpicklingError):
                ended = _end(worker.wait()) if worker else ""
                self._of_thread.worker = None
                if self._dismissed:
                    break
        return self._job.lost(task, f"the worker process ended {ATTEMPTS} times, at last {ended}")

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._dismissed:
                raise EOFError
            # In a session of its own, Ctrl-C reaches this process only, which then ends the workers.
            worker = subprocess.Popen(
                [sys.executable, "-m", "thalweg.race.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            self._all.append(worker)
        return worker

    def dismiss(self) -> None:
        """End all workers, whatever they are doing."""
        with self._lock:
            self._dismissed = True
            for worker in self._all:
                worker.kill()
            for worker in self._all:
                worker.wait()
                for pipe in (worker.stdin, worker.stdout):
                    with suppress(OSError):  # what was not sent any more
                        cast("IO[bytes]", pipe).close()


def _send(worker: subprocess.Popen[bytes], *things: Any) -> None:
    pipe = cast("IO[bytes]", worker.stdin)
    with suppress(OSError):  # it has ended: what it said before is still to be read
        for thing in things:
            pickle.dump(thing, pipe)
        pipe.flush()


def _receive(worker: subprocess.Popen[bytes]) -> Run:
    answer: Run | str = pickle.load(cast("IO[bytes]", worker.stdout))
    if isinstance(answer, str):
        raise WorkerError(answer)
    return answer


def _end(code: int) -> str:
    return f"killed by signal {-code} (out of memory?)" if code < 0 else f"with exit code {code}"
