"""One run: training a model with one setting of one rule, and recording the course."""

import math
import platform
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thalweg import __version__
from thalweg.optimizer import Optimizer
from thalweg.problems.blame import told, where
from thalweg.problems.chance import Chance, reproducible
from thalweg.problems.problem import Problem
from thalweg.problems.splits import Batch, Loaded, Rows, moved
from thalweg.problems.trial import SPLITS, Split
from thalweg.race import steering, stopwatch, streaming
from thalweg.race.entry import Entry
from thalweg.race.plan import EVALUATIONS, Task, marks, seed_for
from thalweg.race.recording import Diverged, Measured, Recording
from thalweg.store import Plan, Run, Status

_END = object()
"""The end of a loader's epoch."""


class RunError(RuntimeError):
    """A run that failed for a reason outside the model, the loss and the metric."""


class _Raised(Exception):
    """An error of the user's model, loss or metric, in words: the result of a run that failed."""


Watch = Callable[[nn.Module, Optimizer], None]


def train(problem: Problem, plan: Plan, entry: Entry, task: Task, watch: Watch | None = None) -> Run:
    """Do a run.  Errors of the user's model, loss or metric are recorded in it.

    Args:
        problem, plan, entry, task: what to do.
        watch: called with the model and its optimizer before the first step, to add hooks.

    Raises:
        RunError: something else went wrong, which may not go wrong the next time: memory or a disk that is full, a
            folder that cannot be written, a rule that cannot step these parameters.
    """
    started = Started(problem, plan, entry, task)
    started.session.watch = watch
    started.go_on()
    assert started.run is not None
    return started.run


class Started:
    """A run that may be left for a while, and gone on with.

    Attributes:
        session: what is known of it.
        run: its record, once it has ended.
    """

    def __init__(self, problem: Problem, plan: Plan, entry: Entry, task: Task) -> None:
        self.session = _Session(drawn(problem, plan, task), plan, entry, task)
        self.run: Run | None = None
        self._chance = Chance(seed_for(plan, task, "model"))
        self._steps = self.session.run()

    def go_on(self, until: float = math.inf) -> None:
        """Go on to the first evaluation at or after a step, or to the end.

        Raises:
            RunError: as `train`.
        """
        session = self.session
        status: Status = "finished"
        message = ""
        try:
            with self._chance.used():
                for step in self._steps:
                    if step >= until:
                        return
        except Diverged as divergence:
            status, message = "diverged", str(divergence)
        except _Raised as raised:
            status, message = "failed", str(raised)
        except Exception as error:
            if not isinstance(error, OSError | MemoryError | RuntimeError | TypeError | ValueError) and not where(
                error
            ):
                raise  # a fault of ours
            said, of = told(error, f" at step {session.step:,}"), session.task
            raise RunError(f"{of.entry} ({of.phase}, trial {of.trial}, seed {of.seed}) stopped: {said}") from error
        self.run = session.ended(status, message)


def drawn(problem: Problem, plan: Plan, task: Task) -> Problem:
    """The problem of a run: with training and validation data drawn anew, if replicates do that."""
    return problem.split(seed_for(plan, task, "split")) if plan.splits and task.phase == "final" else problem


def record(entry: Entry, task: Task, status: Status, **known: Any) -> Run:
    """The record of a run that has ended."""
    rule, _ = entry.set(task.tuned)
    settings = {**entry.numbers, **task.tuned}
    about = (task.key, task.entry, task.phase, task.trial, task.seed, settings, str(rule), status)
    return Run(*about, **known, machine=machine())


class _Session:
    """A run in progress; its data remain readable if it stops early."""

    def __init__(self, problem: Problem, plan: Plan, entry: Entry, task: Task) -> None:
        self.problem, self.plan, self.entry, self.task = problem, plan, entry, task
        self.step, self.seconds = 0, 0.0
        self.began: float | None = None
        self.budget = steering.Budget(plan, entry, task)
        self.recording = Recording(problem.metric_name, problem.higher_is_better)
        self.stream = streaming.of(task, entry)
        self.size = plan.entry(entry.name).batch_size
        self.measure: Callable[[nn.Module, Split], tuple[float, dict[str, float]]] = problem.measure
        self.watch: Watch | None = None

    def ended(self, status: Status, message: str = "") -> Run:
        """The record of the run, which has ended."""
        measured = self.recording.measured if status in ("finished", "stopped") else {}
        known = {**self.recording.known, "seconds": self.seconds, "message": message}
        return record(self.entry, self.task, status, **measured, **known)

    def run(self) -> Iterator[int]:
        """Train; yields the step after each evaluation."""
        planned = self.plan.entry(self.entry.name)
        if self.plan.seconds:
            self._warm()
        model, optimizer = self._begin()
        if self.watch is not None:
            self.watch(model, optimizer)
        batches = self._fed()
        self._mark(model, optimizer, None)
        for steps in self._parts(planned.steps):
            before = self.step
            total = self._train(model, optimizer, batches, steps)
            if self.step > before:  # otherwise the one before has taken its time
                self._mark(model, optimizer, total / (self.step - before))
                yield self.step

    def _begin(self) -> tuple[nn.Module, Optimizer]:
        """The model and its optimizer."""
        with self._users():
            model = self.problem.fresh()
            model.train()
        return model, self._optimizer(model)

    def _batches(self) -> Generator[Tensor | None]:
        generator = torch.Generator().manual_seed(seed_for(self.plan, self.task, "order"))
        return stream(self.problem.size("train"), self.size, generator)

    def _fed(self) -> Iterator[Batch]:
        """The batches of the training data, without end."""
        data, device = self.problem.data("train"), torch.device(self.problem.device)
        if isinstance(data, Rows):
            data = data if device.type == "cpu" else data.to(device)
            return (data.data if at is None else data.take(at) for at in self._batches())
        return (moved(batch, device) for batch in self._loaded(data))

    def _loaded(self, data: Loaded) -> Iterator[Batch]:
        """The batches of a loader, epoch after epoch, drawn with random numbers that the training does not touch."""
        chance = Chance(seed_for(self.plan, self.task, "order"))
        with chance.used(), self._users():
            loader = data.factory()
        while True:
            with chance.used(), self._users():
                batches = iter(loader)
            taken = self.step
            while True:
                with chance.used(), self._users():
                    batch = next(batches, _END)
                if batch is _END:
                    break
                yield batch
            if self.step == taken:
                raise _Raised("the loader of the training data has no batches in this epoch")

    def _mark(self, model: nn.Module, optimizer: Optimizer, train_loss: float | None) -> None:
        """Add a point to the curve, measure the run on test data if it is the best so far, and tell schedules."""
        validation, test = (partial(self._evaluated, model, optimizer, split) for split in SPLITS[1:])
        self.recording.point(
            self.step, self.step * self.size, self.seconds, train_loss, validation,
            test if self.task.phase == "final" else None,
        )  # fmt: skip
        self.stream(self.recording.columns)
        if self.step:
            optimizer.observe(self.recording.columns["validation_loss"][-1])
            self.recording.check_growth(self.step)

    def _evaluated(self, model: nn.Module, optimizer: Optimizer, split: Split) -> Measured:
        with steering.evaluating([optimizer]), self._users():
            loss, metrics = self.measure(model, split)
        metric = metrics.pop(self.problem.metric_name)
        return Measured(loss, metric, metrics)

    def _optimizer(self, model: nn.Module) -> Optimizer:
        return steering.optimizer(self.entry, self.task, model, self.budget)

    def _warm(self) -> None:
        """Two steps of another model, in which kernels are compiled, before the time begins."""
        with reproducible(0), self._users():
            model = self.problem.fresh()
            model.train()
            optimizer = self._optimizer(model)
            batch = next(self.problem.batches("train", self.size))
            for _ in range(2):
                optimizer.zero_grad()
                self.problem.batch_loss(model, batch).backward()  # pyright: ignore[reportUnknownMemberType]
                optimizer.step()

    def _parts(self, steps: int) -> Iterator[Iterable[object]]:
        """The steps between two evaluations, to be counted or timed, until the budget is used up."""
        if not self.plan.seconds:
            for start, end in pairwise(marks(steps, self.size, self.plan.examples)):
                yield range(end - start)
            return
        for k in range(1, EVALUATIONS + 1):
            yield self._until(self.plan.seconds * k / EVALUATIONS)

    def _until(self, seconds: float) -> Iterator[float]:
        while (spent := self._spent()) < seconds:
            yield spent / self.plan.seconds

    def _spent(self) -> float:
        """The seconds of training so far."""
        if self.began is None:
            return self.seconds
        if self.problem.device != "cpu":
            torch.cuda.synchronize()
        return self.seconds + stopwatch.seconds() - self.began

    def _train(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        batches: Iterator[Batch],
        steps: Iterable[object],
    ) -> float:
        """So many steps; the sum of their losses."""
        total = torch.zeros((), dtype=torch.float64, device=self.problem.device)
        loss_of = self.problem.batch_loss
        self.began = stopwatch.seconds()
        for share in steps:
            batch = next(batches)
            optimizer.zero_grad()
            with self._users():
                loss = loss_of(model, batch)
                loss.backward()  # pyright: ignore[reportUnknownMemberType] -- torch leaves it untyped
            if isinstance(share, float):
                self.budget.used(share, [optimizer])
            optimizer.step()
            total += loss.detach()
            if self.step == 0:  # the loss at the start, for the first point of the curve
                self.recording.columns["train_loss"][0] = float(total)
            self.step += 1
        self.seconds, self.began = self._spent(), None
        return float(total)

    @contextmanager
    def _users(self) -> Generator[None]:
        """Encloses the user's code: its errors are the run's result, unless they come from the operating system."""
        try:
            yield
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise _Raised(told(error, f" at step {self.step:,}")) from error


def stream(n: int, size: int, generator: torch.Generator) -> Generator[Tensor | None]:
    """Batches of exactly `size` indices, cut from an endless sequence of random permutations of `n`; None for all.

    Since they are cut from one sequence, batches of any size see the examples in the same order.
    """
    rest = torch.empty(0, dtype=torch.int64)
    while size < n:
        while len(rest) < size:
            rest = torch.cat([rest, torch.randperm(n, generator=generator)])
        yield rest[:size]
        rest = rest[size:]
    while True:
        yield None


def machine() -> Mapping[str, str]:
    """The software versions and the kind of machine, without its name."""
    return {
        "thalweg": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": "1 per run",
    }
