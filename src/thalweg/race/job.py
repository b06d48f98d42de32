"""What all runs of a race share, in any process: where the problem comes from, and how runs are done."""

import copy
import pickle
import sys
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, cast

import cloudpickle

from thalweg import problems
from thalweg.problems import Problem, Training, sources
from thalweg.race import brackets, functions, halving, isolated, looped, population
from thalweg.race import plan as planning
from thalweg.race.entry import Entry
from thalweg.race.inspecting import Trial
from thalweg.race.plan import Task
from thalweg.race.population import by_seed
from thalweg.race.training import record, train
from thalweg.race.ways import ONE_BY_ONE, Way, alike
from thalweg.store import Plan, Run, Status


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

    def divided(self, tasks: deque[Task], workers: int) -> list[list[Task]]:
        """Take all tasks, as lists of those to do together, in such numbers that all workers have as much to do."""
        found: list[list[Task]] = []
        total = len(tasks)
        while tasks:
            if self.plan.halving and tasks[0].phase == "tune":
                found.append(self._taken(tasks, lambda task: halving.bracket(self.plan, task)))
            elif self.way.most == 1:
                found.append([tasks.popleft()])
            else:
                alikes = by_seed(self._taken(tasks, lambda task: alike(self.plan, task, self.way.seeds)))
                share = -(-len(alikes) * workers // total)  # of the workers: the others have other kinds of runs
                parts = share * -(-len(alikes) // (share * self.way.most))
                parts = parts if len(alikes) >= parts * self.way.least else len(alikes)
                ends = [len(alikes) * k // parts for k in range(parts + 1)]
                found += [alikes[start:end] for start, end in pairwise(ends)]
        return found

    @staticmethod
    def _taken(tasks: deque[Task], kind: Callable[[Task], object]) -> list[Task]:
        """Take all tasks of the kind of the first one."""
        first = kind(tasks[0])
        taken = [task for task in tasks if kind(task) == first]
        left = [task for task in tasks if kind(task) != first]
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
