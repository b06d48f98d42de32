"""Executes runs in this process or in worker processes, each with one thread and its own copy of the data.

Runs that can advance together are given to a worker together; see `thalweg.race.population`.

Workers are independent processes connected by pipes, rather than forked or spawned by ``multiprocessing``.  Therefore a
script that runs a race needs no ``if __name__ == "__main__"``, a killed worker is replaced instead of breaking the
pool, and a worker whose parent was killed sees its pipe close and ends.  Each leads its own process group, so that
processes started by the user's code end with it.
"""

import copy
import json
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self, cast

import cloudpickle

from thalweg import lifelines, problems
from thalweg.problems import Problem, Training, sources
from thalweg.race import brackets, functions, halving, isolated, looped, population
from thalweg.race import plan as planning
from thalweg.race.channel import Channel
from thalweg.race.entry import Entry
from thalweg.race.inspecting import Trial
from thalweg.race.plan import Task
from thalweg.race.training import record, train
from thalweg.race.ways import ONE_BY_ONE, Way, alike
from thalweg.store import Plan, Run, Status

ATTEMPTS = 3
"""How many times a run is started, each time by a new worker, before the race stops because it kills them."""

# A worker gets its parent's import paths before it imports anything else; -P keeps the current folder out of its own.
_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from thalweg import lifelines
lifelines.end_with(int(sys.argv[2]))
from thalweg.race import worker
worker.main()
"""


class WorkerError(ValueError):
    """The race cannot continue in worker processes; the message says why and what to do."""


class Source:
    """The source of a problem: the problem itself, or the text and folder for `thalweg.problems.get`."""

    def __init__(self, problem: Problem | Training | str, data: Path | None = None) -> None:
        self.problem, self.data = problem, data
        self.paths = [path for path in sys.path if isinstance(cast(Any, path), str)]  # without the problem's folder

    def load(self) -> Problem | Training:
        """The problem."""
        return problems.read(self.problem, data=self.data) if isinstance(self.problem, str) else self.problem

    def parts(self, problem: Problem | Training, planned: Mapping[str, str]) -> dict[str, str]:
        """The parts of the problem in this process that may differ from the plan, as `Problem.parts` names them.

        If the problem itself was sent, these are only the modules that it was sent without.
        """
        if not isinstance(self.problem, str):
            return problem.files()
        found = problem.parts()
        if problem.folder is not None:
            for name in planned.keys() - found.keys():
                sources.load(problem.folder, name)
        return {**found, **problem.files()}


@dataclass(frozen=True)
class Job:
    """The data that all runs of a race share.

    Attributes:
        plan: the plan of the race.
        entries: its entries by name.
        folder: where training functions save checkpoints; None for nowhere.
        patience: the most seconds between two reports of a training function; None for any number.
        way: how runs on a problem are done.
        apart: whether this is a worker process, which may do each run of a training function in a process of its own.
    """

    plan: Plan
    entries: Mapping[str, Entry]
    folder: Path | None = None
    patience: float | None = None
    way: Way = ONE_BY_ONE
    apart: bool = False

    def take(self, tasks: deque[Task], workers: int) -> list[Task]:
        """Take the next runs to do together: so many that all workers have as much to do."""
        if self.plan.halving and tasks[0].phase == "tune":
            first = halving.bracket(self.plan, tasks[0])
            together = [task for task in tasks if halving.bracket(self.plan, task) == first]
            return self._taken(tasks, together)
        first = alike(self.plan, tasks[0])
        together = [task for task in tasks if alike(self.plan, task) == first]
        count = min(len(together), -(-len(tasks) // workers))
        rounds = -(-count // self.way.most)
        taken = together[: -(-count // rounds)]
        if len(taken) < self.way.least:
            taken = taken[:1]
        return self._taken(tasks, taken)

    @staticmethod
    def _taken(tasks: deque[Task], taken: list[Task]) -> list[Task]:
        keys = {task.key for task in taken}
        left = [task for task in tasks if task.key not in keys]
        tasks.clear()
        tasks.extend(left)
        return taken

    def do(self, problem: Problem | Training, tasks: Sequence[Task]) -> list[Run]:
        """Do runs that may advance together; those that cannot are done one after another."""
        halved = self.plan.halving and tasks[0].phase == "tune"
        if isinstance(problem, Training):
            if halved:
                folder, patience = self.folder, self.patience
                return brackets.train(problem, self.plan, self.entries, tasks, folder, patience, apart=self.apart)
            return [self._trained(problem, task) for task in tasks]
        if self.way.least <= len(tasks) <= self.way.most:
            try:
                return population.train(problem, self.plan, self.entries, tasks, self.way.apart, self.way.costs)
            except MemoryError:
                half = len(tasks) // 2
                if not halved:
                    return self.do(problem, tasks[:half]) + self.do(problem, tasks[half:])
            except population.Refused:
                pass
        if halved:
            return halving.train(problem, self.plan, self.entries, tasks)
        return [train(problem, self.plan, self.entries[task.entry], task) for task in tasks]

    def called(self, training: Training, task: Task, trial: Trial | None = None) -> tuple[Status, dict[str, Any]]:
        """Call a training function, in a process of its own if this is a worker process."""
        about = (training, self.plan, self.entries[task.entry], task)
        if self.apart and isolated.possible():
            return functions.apart(*about, self.folder, self.patience, trial)
        return functions.run(*about, folder=self.folder, trial=trial)

    def _trained(self, training: Training, task: Task) -> Run:
        status, known = self.called(training, task)
        return record(self.entries[task.entry], task, status, **known)

    def compare(self, source: Source, problem: Problem | Training) -> None:
        """Raise `WorkerError` if the problem, formulas or versions in this process differ from the plan."""
        changes = planning.changes(self.plan, self.entries, source.parts(problem, self.plan.problem.parts))
        if changes:
            raise WorkerError(f"a worker process reads another problem than the race was planned for: {changes}")


@dataclass(frozen=True)
class Fault:
    """The answer of a worker that has no run to return: an error for the parent to raise."""

    packed: bytes

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """A fault with this error, to which a note with the worker's traceback is added."""
        error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
        try:
            packed = cloudpickle.dumps(error)
            pickle.loads(packed)  # some errors can be pickled but not unpickled
        except Exception:
            plain = RuntimeError(f"{type(error).__name__}: {error}")
            plain.add_note(error.__notes__[-1])
            packed = cloudpickle.dumps(plain)
        return cls(packed)


def pack(source: Source, job: Job) -> list[bytes] | None:
    """A race for workers, in the order in which they must read it; None if it cannot be sent to them.

    The problem comes before the entries, whose rules may be defined in the problem's file.
    """
    try:
        return [cloudpickle.dumps(part) for part in (sys.path, source, job)]
    except Exception:  # pickling runs the objects' own code, which may raise anything
        return None


@dataclass(frozen=True)
class TrialJob(Job):
    """A run of a training function in which a race finds out what it must know to be planned."""

    trial: Trial = field(default_factory=Trial)

    def do(self, problem: Problem | Training, tasks: Sequence[Task]) -> list[Any]:
        """How each run ended, and what is known of it, with what was found out."""
        return [self.called(looped.training(problem), task, copy.deepcopy(self.trial)) for task in tasks]


def here(job: Job, problem: Problem | Training, tasks: deque[Task], keep: Callable[[Run], None]) -> None:
    """Do all tasks in this process; `keep` may add further ones."""
    while tasks:
        for run in job.do(problem, job.take(tasks, 1)):
            keep(run)


def apart(
    source: Source, job: Job, packed: list[bytes], workers: int, tasks: deque[Task], keep: Callable[[Run], None]
) -> None:
    """Do all tasks in worker processes; `keep` is called in this thread, and may add further ones.

    Raises:
        WorkerError: the workers cannot read the race, read another one, or die again and again of the same run.
    """
    flying: set[Future[list[Run]]] = set()
    with closing(_Crew(source, packed, job.plan.halving)) as crew, ThreadPoolExecutor(workers) as threads:
        try:
            while tasks or flying:
                while tasks and len(flying) < workers:
                    flying.add(threads.submit(crew.do, job.take(tasks, workers)))
                done, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    for run in future.result():
                        keep(run)
        finally:
            crew.dismiss()  # before the executor waits for its threads, which wait for the workers


class _Crew:
    """The workers, one for each thread that asks."""

    def __init__(self, source: Source, packed: list[bytes], halving: bool) -> None:
        self._source, self._packed, self._halving = source, packed, halving
        self._of_thread = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []
        self._ended: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._dismissed = False

    def do(self, tasks: list[Task]) -> list[Run]:
        """The runs of some tasks, done by this thread's worker; if that dies, new ones start half of them each, since
        there may have been too little memory for all, and a run alone again.
        """
        ended = ""
        task = tasks[0]
        for _ in range(ATTEMPTS):
            worker: subprocess.Popen[bytes] | None = getattr(self._of_thread, "worker", None)
            try:
                if worker is None:
                    worker = self._of_thread.worker = self._started()
                    _send(worker, *self._packed)
                _send(worker, tasks)
                return _receive(worker)
            except (EOFError, pickle.UnpicklingError):
                self._of_thread.worker = None
                if worker:
                    ended = self._buried(worker)
                if self._dismissed:
                    break
                if len(tasks) > 1 and not (self._halving and task.phase == "tune"):
                    half = len(tasks) // 2
                    return self.do(tasks[:half]) + self.do(tasks[half:])
        raise WorkerError(
            f"the worker process ended {ATTEMPTS} times in the same run of {task.entry} ({task.phase}, trial "
            f"{task.trial}, seed {task.seed}), at last {ended}; the race stops, and nothing is recorded of that run"
        )

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._dismissed:
                raise EOFError
            # Workers have sessions of their own, so that Ctrl-C reaches only this process, which then ends them.
            worker = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, json.dumps(self._source.paths), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            self._all.append(worker)
        return worker

    def _buried(self, worker: subprocess.Popen[bytes]) -> str:
        """End the children of a worker that has ended; returns how it ended."""
        with self._lock:
            if worker in self._all:
                self._all.remove(worker)
                self._ended.append(worker)
                _end(worker)
        code = worker.wait()
        return f"killed by signal {-code} (out of memory?)" if code < 0 else f"with exit code {code}"

    def dismiss(self) -> None:
        """End all workers, whatever they are doing."""
        with self._lock:
            self._dismissed = True
            for worker in self._all:
                lifelines.end_group(worker.pid)
            for worker in self._all:
                _end(worker)
            self._ended.extend(self._all)
            self._all.clear()

    def close(self) -> None:
        """Close the pipes, once no thread reads from them."""
        for worker in self._ended:
            for pipe in (worker.stdin, worker.stdout):
                with suppress(OSError):  # unsent data cannot be flushed
                    cast("IO[bytes]", pipe).close()


def _end(worker: subprocess.Popen[bytes]) -> None:
    lifelines.end_group(worker.pid)  # a worker's children may outlive it
    worker.wait()


def _send(worker: subprocess.Popen[bytes], *things: Any) -> None:
    with suppress(OSError):  # it has ended, but its last answer can still be read
        for thing in things:
            _channel(worker).send(thing)


def _receive(worker: subprocess.Popen[bytes]) -> list[Run]:
    answer: list[Run] | Fault = _channel(worker).receive()
    if isinstance(answer, Fault):
        raise pickle.loads(answer.packed)
    return answer


def _channel(worker: subprocess.Popen[bytes]) -> Channel:
    """The other end of a worker's pipes."""
    reads, writes = cast("IO[bytes]", worker.stdout), cast("IO[bytes]", worker.stdin)
    return Channel(reads.fileno(), writes.fileno())
