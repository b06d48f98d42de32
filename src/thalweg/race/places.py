"""Where the runs of a race are done: a small protocol, and the simplest place, this process.

The others are `thalweg.race.workers.Processes` and `thalweg.race.cluster.Cluster`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from thalweg.problems import Problem, Training
from thalweg.race import streaming
from thalweg.race.job import Job, WorkerError
from thalweg.race.plan import Task
from thalweg.store import Points, Run, StoreError

Keep = Callable[[Run], None]
Hear = Callable[[Sequence[Points]], None]

ATTEMPTS = 3
"""How many times a run is started, each time by a new worker, before the race stops because it kills them."""


class Place(Protocol):
    """Somewhere that runs are done."""

    @property
    def slots(self) -> int:
        """How many runs, or groups of runs that advance together, are done at once."""
        ...

    def do(self, job: Job, tasks: deque[Task], keep: Keep, hear: Hear) -> None:
        """Do all tasks.

        Args:
            job: how.
            tasks: those that are known; `keep` may add further ones.
            keep: called in this thread with every run that has ended.
            hear: called in this thread, about once a second, with points of runs that are under way.
        """
        ...


class Here:
    """In this process; see `Place`."""

    slots = 1

    def __init__(self, problem: Problem | Training) -> None:
        self._problem = problem

    def do(self, job: Job, tasks: deque[Task], keep: Keep, hear: Hear) -> None:
        """Do all tasks."""

        def send(points: Sequence[Points]) -> None:
            with suppress(StoreError):  # which is no fault of the run, and which its record tells
                hear(points)

        while tasks:
            for some in job.divided(tasks, 1):
                with streaming.to(send):
                    runs = job.do(self._problem, some)
                for run in runs:
                    keep(run)


def deaf(points: Sequence[Points]) -> None:
    """Hears nothing."""


def died(task: Task, ended: str) -> WorkerError:
    """The error for a run that killed all workers that tried it; `ended` says how the last one ended."""
    return WorkerError(
        f"the worker process ended {ATTEMPTS} times in the same run of {task.entry} ({task.phase}, trial {task.trial}, "
        f"seed {task.seed}), at last {ended}; the race stops, and nothing is recorded of that run"
    )
