"""A race from its plan to its results."""

import math
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from thalweg import lifelines
from thalweg.hyperparameters import check
from thalweg.mirrors import Mirrors
from thalweg.problems import Problem, Training
from thalweg.problems.training import of_function
from thalweg.race import cluster, course, paths, streaming, trying, ways
from thalweg.race import plan as planning
from thalweg.race.checkpoints import beside, forget
from thalweg.race.entry import Entry
from thalweg.race.job import Job, Source, WorkerError, pack
from thalweg.race.places import Here, Place
from thalweg.race.plan import Task
from thalweg.race.progress import Progress, Shown, shell
from thalweg.race.results import Results
from thalweg.race.session import TrainingRun
from thalweg.race.training import machine
from thalweg.race.workers import Processes
from thalweg.rule import Rule
from thalweg.store import Plan, Points, Run, Store
from thalweg.switch import Switch

Populations = Literal["auto", "always", "never"]
FINALISTS = 3
_LIGHT = 2**24
"""Bytes of data up to which workers are sent a built-in problem: to load digits they would import scikit-learn."""


class Race:
    """A fair comparison: every entry tuned with the same budget, its best settings run again on fresh seeds.

    A replicate runs the best few settings of each entry, and keeps the run that is best on validation data, as one who
    tunes would.  So replicates differ in what is chosen, too, and the doubt contains the choice.  While a best setting
    lies at an edge of its search space, the space grows; all entries try equally many settings.

    Every run sees the same number of examples, whatever its batch size, and is evaluated on validation data 25 times
    on the way.  Its result is that of its best evaluation, by the validation metric, then the loss: the model that one
    would keep.  Runs are chosen by that; replicates are compared by the test metric at that point, which played no part
    in choosing.  (Results at the end of a run are several times as noisy, since a constant rate keeps steps large.)
    All trials share one seed, and the runs of one replicate share the initial weights and the order of the data across
    entries.  The same plan gives the same numbers on the same machine, with any number of workers.

    Args:
        problem: a problem, or its text for `thalweg.problems.get`; or a function that trains, which is given a
            `thalweg.TrainingRun`.
        entries: the contenders, each an `Entry`, a rule, a `thalweg.Switch`, or text such as ``"adam(beta2=0.99)"``,
            ``"sgd(batch_size=full)"`` or ``"switch(adam, sgd, at=0.5)"``.  They are read after the problem, so that a
            text may name a rule of the problem's file.
        trials: number of settings to try for every entry with something to tune, before any search space grows.
        seeds: number of replicates, each with a fresh seed; there are intervals and tests from 5 on.
        finalists: number of each entry's best settings that every replicate runs.
        splits: whether every replicate draws training and validation data anew from both together.
        steps: steps of a run at the problem's batch size; by default the problem's.
        seconds: the budget of a run in seconds of training, in place of steps: a run ends with the step in which they
            are over, so that a rule whose steps cost more takes fewer.  Neither evaluations nor compiling kernels
            count, nor, on Linux, waiting for a processor that others use.  Fractions in schedules are fractions of the
            seconds.  Initial weights and the order of the data are paired as ever; how many steps there are depends on
            the machine, so that the same race may come out differently.  The runs of all entries take turns, so that a
            change of the machine's load meets all.
        seed: the seed from which all others are derived.
        halving: stop the worse half of an entry's trials after a quarter of the steps, and of the others after a half.
            Schedules are as long as without.  This assumes that what is behind then would stay behind; as many trials
            as there are finalists always finish.  Trials of a training function wait for each other in its reports:
            all trials of an entry are in memory at once.
        margin: if given, the race goes on until each two entries are shown to differ, or to be equal to within this
            difference of the metric, with `seeds` replicates at most; entries that are decided rest.
        target: a value of the metric on validation data, for the time to reach it; by default the problem's, if it has
            one.
        store: a file or database URL in which to record every run, so that the same race can resume, and grow: with
            more trials, seeds, finalists or entries it keeps its runs and does what is missing.  A file has one race; a
            URL, ``postgresql://user@host/name`` or ``sqlite:///file.db``, as many as you like.  None for none.
        name: what the race is called in a store of many, by default as its problem.
        workers: number of processes; by default one per core, or this process if the problem cannot be sent to others.
        populations: whether runs of one seed advance together, many in one pass: ``auto`` tries both ways for a few
            steps and takes the faster one, ``always`` takes populations even if they are slower, ``never`` takes none.
            The numbers are the same: a population whose runs differ from runs alone in a single bit is not used.
        checkpoints: the folder for what `TrainingRun.save` saves; by default beside a store in a file, and with another
            none, so that nothing is saved.
        data: the folder that belongs to a problem given as text.
        patience: the most seconds that a training function may take from one report to the next; None for any number.
        mix_versions: continue a stored race even if the versions of torch, Python or thalweg have changed.
        ray: the address of a Ray cluster that does the runs, or ``auto`` for the one that this machine belongs to; by
            default they are done on this machine.

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
        problem: Problem | Training | Callable[[TrainingRun], Any] | str,
        entries: Iterable[Entry | Rule | Switch | str],
        *,
        trials: int = 16,
        seeds: int = 5,
        finalists: int = FINALISTS,
        steps: int | None = None,
        seconds: float | None = None,
        seed: int = 0,
        splits: bool = False,
        halving: bool = False,
        margin: float | None = None,
        target: float | None = None,
        store: str | Path | None = None,
        name: str | None = None,
        workers: int | None = None,
        populations: Populations = "auto",
        checkpoints: Path | None = None,
        data: Path | None = None,
        patience: float | None = None,
        mix_versions: bool = False,
        ray: str | None = None,
    ) -> None:
        check("the race's populations", populations, Populations)
        if workers is not None and (not isinstance(cast(Any, workers), int) or workers < 1):
            raise ValueError(f"the race's workers is {workers!r}; allowed is a whole number >= 1")
        if steps is not None and seconds is not None:
            raise ValueError(f"the race has {steps!r} steps and {seconds!r} seconds; give one of them as its budget")
        if seconds is not None and halving:
            raise ValueError(f"the race halves trials, and has {seconds!r} seconds; give it steps as its budget")
        if isinstance(entries, str):
            raise ValueError(f"the race's entries are {entries!r}; give a list of them, as in ['sgd', 'adam']")
        if patience is not None and not (isinstance(cast(Any, patience), int | float) and 0 < patience < math.inf):
            raise ValueError(f"the race's patience is {patience!r}; allowed is a positive number of seconds")
        if not isinstance(problem, Problem | Training | str):
            problem = of_function(problem)
        self._source = Source(problem, data)
        with lifelines.holding():
            self._problem = self._source.load()
            if isinstance(self._problem, Problem) and self._problem.folder is None and self._problem.nbytes <= _LIGHT:
                self._source = Source(self._problem)
            given = [entry if isinstance(entry, Entry) else Entry(entry) for entry in entries]
            parts = self._problem.parts()  # before anything of it has run, as in the workers
            if isinstance(self._problem, Training):
                together = (workers or _cores()) > 1
                self._problem = trying.tried(
                    self._source, self._problem, given, parts, steps or seconds, patience, together=together
                )
            else:
                self._problem.check(e.batch_size for e in given if isinstance(e.batch_size, int))
        parts |= self._problem.files()  # with those that were imported when it ran
        steps = self._problem.steps if steps is None else steps
        self.plan = planning.make(
            self._problem, given, trials=trials, seeds=seeds, finalists=finalists, steps=steps, seconds=seconds,
            seed=seed, splits=splits, margin=margin, halving=halving, target=target, parts=parts,
        )  # fmt: skip
        for doubt in planning.doubts(self.plan, given):
            warnings.warn(doubt, stacklevel=2)
        self._folder = beside(store) if checkpoints is None else Path(checkpoints).resolve()
        self._job = Job(self.plan, {entry.name: entry for entry in given}, self._folder, patience)
        self._store, self._name, self._workers, self._mix = store, name, workers, mix_versions
        self._populations: Populations = populations
        self._ray = ray

    def run(self, progress: Callable[[Progress], None] | None = None, mirrors: Mirrors | None = None) -> Results:
        """Do all runs that are not in the store yet.

        Args:
            progress: called at the start and after every run, in this thread; by default notebooks show it.
            mirrors: hear of points and of runs that end; see `thalweg.mirrors.opened`.

        Raises:
            StoreError: the store contains another race, or cannot be used.
            WorkerError: several workers were requested and the problem cannot be sent to them, they read a different
                one, or a run repeatedly kills them.
            RunError: a run failed for a reason outside the model, loss and metric; it is not recorded, and the same
                race can resume from there.
            KeyboardInterrupt: the user stopped the race; finished runs are kept, and the same race can resume.
        """
        place = "sqlite://" if self._store is None else self._store
        with (
            Store.open(place, self.plan, machine(), mix_versions=self._mix, name=self._name, alone=True) as store,
            lifelines.holding(),
        ):
            shown = progress or (Shown(self.plan) if shell() else None)
            ahead = _Course(self.plan, store, shown or (lambda _: None), self._folder, mirrors or Mirrors(()))
            if ahead.queue:
                self._do(ahead, shown is not None)
            else:
                ahead.begin()
            return Results(self.plan, course.ended(self.plan, store.runs()))

    def paths(self, results: Results, folder: Path, about: dict[str, Any] | None = None) -> Iterator[paths.Recorded]:
        """Do the first replicate of each entry once more, and record the path of its weights, one after another.

        Args:
            results: of this race.
            folder: where each path gets a folder of its own; what was there of earlier ones is removed.
            about: what to note with each path; see `thalweg.Trajectory`.

        Raises:
            ValueError: as `check_paths`.
            RunError: as `run`.
            OSError: the folder cannot be written.
        """
        self.check_paths()
        assert isinstance(self._problem, Problem)
        return paths.record(self._problem, self.plan, self._job.entries, results, folder, about)

    def check_paths(self) -> None:
        """Raise ``ValueError`` if the paths of this race cannot be recorded."""
        if not isinstance(self._problem, Problem):
            raise ValueError(
                f"{self._problem.name} makes its model by itself, so its paths cannot be recorded from outside; record "
                "them in it, with thalweg.Trajectory(model, folder) and its record() after each step"
            )

    def _do(self, ahead: "_Course", shown: bool) -> None:
        if self._ray is None:
            self._do_at(ahead, shown, None)
            return
        with cluster.connect(self._ray, self._problem, self._source) as there:
            self._do_at(ahead, shown, there)

    def _do_at(self, ahead: "_Course", shown: bool, there: Place | None) -> None:
        wanted = min(self._workers or (there.slots if there else _cores()), self._most())
        place = there or self._place(wanted)
        with ExitStack() as started:

            def begin() -> None:
                if isinstance(place, Processes):
                    started.enter_context(place.begun(len(ahead.queue)))

            if isinstance(self._problem, Problem):
                way = ways.choose(
                    self._problem, self.plan, self._job.entries, ahead.queue, wanted, self._populations, shown, begin
                )  # fmt: skip
                self._job = replace(self._job, way=way)
                ahead.clock = _Clock(way, self.plan, wanted)
            ahead.begin()
            place.do(self._job, ahead.queue, ahead.keep, ahead.hear)

    def _place(self, wanted: int) -> Place:
        """Where the runs are done on this machine."""
        alone = isinstance(self._problem, Training)  # its code may do anything, and does it in other processes
        packed = pack(self._source, self._job) if wanted > 1 or alone else None
        if packed:
            return Processes(self._source, packed, wanted)
        if wanted > 1 and self._workers:
            raise WorkerError(f"problem {self._problem.name!r} cannot be sent to other processes; use workers=1")
        return Here(self._problem)

    def _most(self) -> int:
        """The largest number of runs that can be in progress at once."""
        return sum(max(e.trials, self.plan.seeds * self.plan.finalists) for e in self.plan.entries)


class _Course:
    """The finished and remaining runs; more are known when all that are known have ended.

    What each run that ends asks for here does not grow with the number of runs.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        progress: Callable[[Progress], None],
        checkpoints: Path | None,
        mirrors: Mirrors,
    ) -> None:
        self.plan, self.store, self.progress, self.checkpoints = plan, store, progress, checkpoints
        self.mirrors = mirrors
        self.runs = {run.key: run for run in store.runs()}
        self.queue: deque[Task] = deque()
        self.known: dict[str, Task] = {}
        self.clock: _Clock | None = None
        self._points: dict[str, list[Points]] = {}
        self._streamed = time.monotonic()
        self._of: Counter[str] = Counter()  # the known tasks of each entry,
        self._left: Counter[str] = Counter()  # those that have not ended,
        self._tried: Counter[str] = Counter()  # and its trials that have
        self._best: dict[str, Run] = {}
        self._final = False
        self._look()

    def begin(self) -> None:
        """Tell that the race begins."""
        self._tell(None, None)

    def hear(self, points: Sequence[Points]) -> None:
        """Store points of runs under way, of all workers together and about once a second."""
        for some in points:
            if some.key in self.known and some.key not in self.runs:
                before = self._points.setdefault(some.key, [])
                if some.first == 0:
                    before.clear()
                before.append(some)
        if self._points and time.monotonic() - self._streamed >= streaming.EVERY:
            streamed = [some for parts in self._points.values() for some in parts]
            self.store.stream(streamed)
            self.mirrors.hear(streamed)
            self._points.clear()
            self._streamed = time.monotonic()

    def keep(self, run: Run) -> None:
        """Store a run that has ended, and queue what it makes known."""
        self._points.pop(run.key, None)
        self.store.add(run)
        self.mirrors.keep(run)
        if self.checkpoints is not None:
            forget(self.checkpoints, run.key)
        if run.key not in self.runs:
            self.runs[run.key] = run
            self._count(self.known[run.key])
        if not self._left.total():
            self._look()
        if self.clock:
            self.clock.count(run)
        self._tell(run, self._best.get(run.entry))

    def _look(self) -> None:
        """Queue what is new."""
        new = [task for task in course.tasks(self.plan, self.runs) if task.key not in self.known]
        left = [task for task in new if task.key not in self.runs]
        if self.plan.seconds:  # entries take turns, since the load of the machine may change
            left.sort(key=lambda task: (task.phase != "tune", task.seed, task.trial))
        self.queue.extend(left)
        for task in new:
            self.known[task.key] = task
            self._of[task.entry] += 1
            self._left[task.entry] += 1
            self._final = self._final or task.phase == "final"
            if task.key in self.runs:
                self._count(task)

    def _count(self, task: Task) -> None:
        """Note that a known task has ended."""
        self._left[task.entry] -= 1
        if task.phase == "tune":
            self._tried[task.entry] += 1
            both = (self._best.get(task.entry), self.runs[task.key])
            best = Results(self.plan, tuple(run for run in both if run)).best(task.entry)
            if best is not None:
                self._best[task.entry] = best

    def _tell(self, run: Run | None, best: Run | None) -> None:
        ahead = self._ahead()
        done = len(self.known) - self._left.total()
        event = Progress(run, done, done + ahead.total(), best)
        if self.clock:
            way = self.clock.way
            event = replace(event, together=way.most, why=way.why, left=self.clock.left(ahead))
        self.progress(event)

    def _ahead(self) -> Counter[str]:
        """How many runs of each entry are known to be left; and while trials are, the final runs that will follow."""
        ahead = Counter(self._left)
        if not self._final:
            names = [entry.name for entry in self.plan.entries]
            lost = {name for name in names if self._tried[name] == self._of[name] and name not in self._best}
            ahead.update(course.to_follow(self.plan, self._of, lost))
        return ahead


class _Clock:
    """How long a race will take: as long as a few tried steps say, then as long as the runs that have ended took."""

    def __init__(self, way: ways.Way, plan: Plan, workers: int) -> None:
        self.way = way
        self._plan, self._workers = plan, workers
        self._began, self._done = time.monotonic(), 0.0

    def count(self, run: Run) -> None:
        """Note that a run has ended."""
        self._done += self.way.seconds(self._plan, run.entry, 1)

    def left(self, ahead: Mapping[str, int]) -> float:
        """The seconds that so many runs of each entry will take."""
        expected = sum(self.way.seconds(self._plan, entry, runs) for entry, runs in ahead.items())
        if not self._done:
            return expected / self._workers
        return expected * (time.monotonic() - self._began) / self._done


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
