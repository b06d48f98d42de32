"""A race from its plan to its results."""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from thalweg import lifelines
from thalweg.problems import Problem
from thalweg.problems.trial import SPLITS
from thalweg.race import plan as planning
from thalweg.race import workers as places
from thalweg.race.entry import Entry
from thalweg.race.plan import Task
from thalweg.race.results import Results
from thalweg.race.training import machine
from thalweg.rule import Rule
from thalweg.store import Plan, Run, Store, claim
from thalweg.switch import Switch

_LIGHT = 2**24
"""Bytes of data up to which workers are sent a built-in problem: to load digits they would import scikit-learn."""


@dataclass(frozen=True)
class Progress:
    """The progress of a race.

    Attributes:
        run: the run that has just ended; None at the start, when only stored runs count.
        done: the number of runs that have ended.
        total: the number of runs in the race; an entry without a finished trial has no final runs.
        best: the best trial so far of the run's entry.
    """

    run: Run | None
    done: int
    total: int
    best: Run | None


class Race:
    """A fair comparison: every entry tuned with the same budget, its best setting run again on fresh seeds.

    Every run sees the same number of examples, whatever its batch size, and is evaluated on validation data 25 times
    on the way.  Its result is that of its best evaluation, by the validation metric, then the loss: the model that one
    would keep.  Trials are compared by that; final runs by the test metric at that point, which played no part in
    choosing it.  (Results at the end of a run are several times as noisy, since a constant rate keeps steps large.)
    All trials share one seed, and final runs of one seed share the initial weights and the order of the data across
    entries.  The same plan gives the same numbers on the same machine, with any number of workers.

    Args:
        problem: a problem, or its text for `thalweg.problems.get`.
        entries: the contenders, each an `Entry`, a rule, a `thalweg.Switch`, or text such as ``"adam(beta2=0.99)"``,
            ``"sgd(batch_size=full)"`` or ``"switch(adam, sgd, at=0.5)"``.  They are read after the problem, so that a
            text may name a rule of the problem's file.
        trials: number of settings to try for every entry with something to tune.
        seeds: number of fresh seeds for the best setting of each; intervals are reliable from 5 on.
        steps: steps of a run at the problem's batch size; by default the problem's.
        seed: the seed from which all others are derived.
        store: a file or database URL in which to record every run, so that the same race can resume; None for none.
        workers: number of processes; by default one per core, or this process if the problem cannot be sent to others.
        data: the folder that belongs to a problem given as text.
        mix_versions: continue a stored race even if the versions of torch, Python or thalweg have changed.

    Attributes:
        plan: the plan of all runs.

    Warns:
        UserWarning: a schedule is longer or shorter than the steps of its entry, or a switch comes after its end.

    Raises:
        ValueError: a setting is out of range, entries share a name, or the problem's model, loss and metric do not
            work together: one small step of it is tried first.
    """

    plan: Plan

    def __init__(
        self,
        problem: Problem | str,
        entries: Iterable[Entry | Rule | Switch | str],
        *,
        trials: int = 16,
        seeds: int = 5,
        steps: int | None = None,
        seed: int = 0,
        store: str | Path | None = None,
        workers: int | None = None,
        data: Path | None = None,
        mix_versions: bool = False,
    ) -> None:
        if workers is not None and (not isinstance(cast(Any, workers), int) or workers < 1):
            raise ValueError(f"the race's workers is {workers!r}; allowed is a whole number >= 1")
        if isinstance(entries, str):
            raise ValueError(f"the race's entries are {entries!r}; give a list of them, as in ['sgd', 'adam']")
        self._source = places.Source(problem, data)
        with lifelines.holding():
            self._problem = self._source.load()
            if self._problem.folder is None and _size(self._problem) <= _LIGHT:
                self._source = places.Source(self._problem)
            given = [entry if isinstance(entry, Entry) else Entry(entry) for entry in entries]
            parts = self._problem.parts()  # before anything of it has run, as in the workers
            self._problem.check(e.batch_size for e in given if isinstance(e.batch_size, int))
        parts |= self._problem.files()  # with those that were imported when it ran
        steps = self._problem.steps if steps is None else steps
        self.plan = planning.make(self._problem, given, trials=trials, seeds=seeds, steps=steps, seed=seed, parts=parts)
        for doubt in planning.doubts(self.plan, given):
            warnings.warn(doubt, stacklevel=2)
        self._job = places.Job(self.plan, {entry.name: entry for entry in given})
        self._store, self._workers, self._mix = store, workers, mix_versions

    def run(self, progress: Callable[[Progress], None] | None = None) -> Results:
        """Do all runs that are not in the store yet.

        Args:
            progress: called at the start and after every run, in this thread.

        Raises:
            StoreError: the store contains another race, or cannot be used.
            WorkerError: several workers were requested and the problem cannot be sent to them, they read a different
                one, or a run repeatedly kills them.
            RunError: a run failed for a reason outside the model, loss and metric; it is not recorded, and the same
                race can resume from there.
            KeyboardInterrupt: the user stopped the race; finished runs are kept, and the same race can resume.
        """
        place = "sqlite://" if self._store is None else self._store
        opened = Store.open(place, self.plan, machine(), mix_versions=self._mix)
        with opened as store, claim(place), lifelines.holding():
            _Course(self.plan, store, progress or (lambda _: None)).run(self._do)
            return Results(self.plan, store.runs())

    def _do(self, tasks: deque[Task], keep: Callable[[Run], None]) -> None:
        wanted = min(self._workers or _cores(), self._most())
        packed = places.pack(self._source, self._job) if wanted > 1 else None
        if packed:
            places.apart(self._source, packed, wanted, tasks, keep)
        elif wanted > 1 and self._workers:
            raise places.WorkerError(f"problem {self._problem.name!r} cannot be sent to other processes; use workers=1")
        else:
            places.here(self._job, self._problem, tasks, keep)

    def _most(self) -> int:
        """The largest number of runs that can be in progress at once."""
        return sum(max(entry.trials, self.plan.seeds) for entry in self.plan.entries)


class _Course:
    """The finished and remaining runs; an entry's final runs are added when all its trials have finished."""

    def __init__(self, plan: Plan, store: Store, progress: Callable[[Progress], None]) -> None:
        self.plan, self.store, self.progress = plan, store, progress
        self.runs = {run.key: run for run in store.runs()}
        self.tasks: deque[Task] = deque()
        self.trials = {entry.name: planning.tuning(plan, entry) for entry in plan.entries}

    def run(self, do: Callable[[deque[Task], Callable[[Run], None]], None]) -> None:
        self.progress(Progress(None, len(self.runs), self._total(), None))
        for trials in self.trials.values():
            self.tasks.extend(task for task in trials if task.key not in self.runs)
        for name in self.trials:
            self._add_finals(name)
        if self.tasks:
            do(self.tasks, self._keep)

    def _keep(self, run: Run) -> None:
        self.store.add(run)
        self.runs[run.key] = run
        if run.phase == "tune":
            self._add_finals(run.entry)
        self.progress(Progress(run, len(self.runs), self._total(), self._best(run.entry)))

    def _add_finals(self, name: str) -> None:
        best = self._best(name)
        if best and all(task.key in self.runs for task in self.trials[name]):
            left = [task for task in planning.finals(self.plan, best) if task.key not in self.runs]
            self.tasks.extendleft(reversed(left))  # before the next entry's trials: one result after another

    def _best(self, name: str) -> Run | None:
        return planning.best(self.plan, [self.runs[t.key] for t in self.trials[name] if t.key in self.runs])

    def _total(self) -> int:
        total = 0
        for name, trials in self.trials.items():
            lost = all(t.key in self.runs for t in trials) and self._best(name) is None
            total += len(trials) + (0 if lost else self.plan.seeds)
        return total


def _size(problem: Problem) -> int:
    """The bytes of a problem's data."""
    return sum(tensor.nbytes for split in SPLITS for tensor in problem.tensors(split))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
