"""Which way of doing runs is faster on a problem: one at a time, or many together; and how long they will take."""

# pyright: reportPrivateUsage=false
# What is timed here is what sessions and populations do.

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from thalweg.problems import Problem
from thalweg.problems.blame import told
from thalweg.problems.chance import reproducible
from thalweg.problems.problem import CHUNK
from thalweg.race.entry import Entry
from thalweg.race.plan import Task, marks, seed_for
from thalweg.race.population import Population, by_seed, relative
from thalweg.race.training import _Session, drawn
from thalweg.store import Plan

STEPS = 4
"""How many steps are tried, and compared bit by bit."""

_LEAST = 2_000
"""The fewest steps that a race must have left for both ways to be tried."""

_SIZES = (8, 24)
"""The sizes of populations that are tried."""

_SLOWER = 1.1
"""How much slower a step of the larger one may be, since evaluations and what is left over gain from size."""

_LONG = 0.05
"""Seconds: longer steps are matrix products almost entirely, and gain nothing from being done together."""

_SHARE = 0.5
"""The share of the free memory that populations may take."""


@dataclass(frozen=True)
class Way:
    """How runs are done.

    Attributes:
        most: the most runs that advance together; 1 for one at a time.
        least: the fewest for which that is faster than one at a time.
        apart: whether each run's loss is computed by itself.
        seeds: whether runs of several seeds can advance together.
        step: the seconds that a step of a run takes, on one core.
        mark: the seconds that an evaluation of a run takes.
        costs: the seconds that a step of each entry takes alone, by name.
        why: why runs are done one at a time, or empty.
    """

    most: int = 1
    least: int = 2
    apart: bool = False
    seeds: bool = False
    step: float = 0.0
    mark: float = 0.0
    costs: Mapping[str, float] = field(default_factory=dict[str, float])
    why: str = ""

    def seconds(self, plan: Plan, entry: str, runs: int) -> float:
        """The seconds that so many runs of an entry take on one core."""
        if plan.seconds:
            return runs * plan.seconds
        of = plan.entry(entry)
        share = of.batch_size / plan.problem.batch_size if of.batch_size > plan.problem.batch_size else 1.0
        step = self.step * relative(self.costs, entry)
        return runs * (of.steps * step * share + len(marks(of.steps, of.batch_size, plan.examples)) * self.mark)


ONE_BY_ONE = Way()
"""Runs one at a time, of which nothing is known."""


def alike(plan: Plan, task: Task, seeds: bool = False) -> tuple[object, ...]:
    """What runs must have in common to advance together; `seeds` says whether theirs may differ."""
    entry = plan.entry(task.entry)
    return task.phase, 0 if seeds else task.seed, entry.batch_size, entry.steps


def largest(plan: Plan, tasks: Sequence[Task]) -> list[Task]:
    """The most tasks that could advance together."""
    found: dict[object, list[Task]] = {}
    for task in tasks:
        found.setdefault(alike(plan, task), []).append(task)
    return max(found.values(), key=len) if found else []


def choose(
    problem: Problem,
    plan: Plan,
    entries: Mapping[str, Entry],
    tasks: Sequence[Task],
    workers: int,
    wanted: str,
    asked: bool,
    begin: Callable[[], object],
) -> Way:
    """Try a few steps of both ways on the real problem, and take the faster one.

    A population is taken only if weights, losses and predictions of its runs are those of runs alone, to the last bit:
    so records do not depend on which way is taken.

    Args:
        problem: the problem.
        plan: the plan of the race.
        entries: the entries by name.
        tasks: the runs that are left.
        workers: the number of processes among which they are divided.
        wanted: ``auto``; ``always`` for populations even if they are slower; ``never`` for none.
        asked: whether somebody wants to know how long the runs will take, although they are few.
        begin: called when the times of runs alone are known, which are charged to them: not before should other
            processes be started.
    """
    together = largest(plan, tasks)
    few = sum(plan.entry(task.entry).steps for task in tasks) < _LEAST and wanted == "auto"
    if not together or plan.seconds or (few and not asked):
        return ONE_BY_ONE
    tried_alone = {task.key: task for task in (*_spread(together, 3), *_one_each(together))}
    own = _alone(problem, plan, entries, [*tried_alone.values()])
    begin()
    plain = Way(step=own.step, mark=own.mark, costs=own.costs)
    if wanted == "never" or few or len(together) < 2:
        return plain
    if not problem.fast:
        return replace(plain, why="the data are no pairs of tensors in memory")
    if not own.ends:
        return plain
    if own.step > _LONG and wanted == "auto":
        return replace(plain, why="steps take long enough alone")
    most = int(min(_free(), 2.0**50) * _SHARE / workers / own.memory)
    best = replace(plain, why="there is memory for one run only" if most < 2 else "a step of many together is slower")
    tried: list[Way] = []
    for size in dict.fromkeys(min(size, most, max(len(together) // workers, 2)) for size in _SIZES if most > 1):
        found = _together(problem, plan, entries, _spread(together, size), own)
        if isinstance(found, str):
            return replace(plain, why=found)
        tried.append(found)
        if found.step < best.step * (1 if best.most == 1 else _SLOWER) or (wanted == "always" and best.most == 1):
            best = found
    if best.most == 1:
        return best
    best = replace(best, seeds=not plan.splits and _mixes(problem, plan, entries, together, best.apart))
    return best if wanted == "always" else replace(best, least=_least(tried, own.step))


def _mixes(problem: Problem, plan: Plan, entries: Mapping[str, Entry], tasks: Sequence[Task], apart: bool) -> bool:
    """Whether runs of two seeds that advance together have the bits of runs alone."""
    some = _spread(tasks, 2)
    mixed = [replace(task, key=f"{task.key}, {seed}", seed=seed) for seed in range(2) for task in some]
    own = _alone(problem, plan, entries, mixed[1:])
    compared = {*own.ends} == {task.key for task in mixed[1:]}
    return compared and not isinstance(_tried(problem, plan, entries, mixed, own, apart), str)


def _least(tried: Sequence[Way], alone: float) -> int:
    """The fewest runs for which a step together is faster, if it takes a time of its own and one for each run."""
    if len(tried) < 2 or tried[0].most == tried[-1].most:
        return 2
    small, large = tried[0], tried[-1]
    each = (large.most * large.step - small.most * small.step) / (large.most - small.most)
    whole = small.most * (small.step - each)
    return max(2, math.ceil(whole / (alone - each))) if alone > each else large.most


@dataclass(frozen=True)
class _Alone:
    """What runs alone come to after `STEPS` steps, twice.

    Attributes:
        step: the seconds of a step, the mean over entries.
        mark: the seconds of an evaluation.
        memory: about how many bytes a run needs at once.
        ends: of each run, by its key, the sum of its losses, its weights, and its predictions; empty if the user's
            code raised an error, which is for the runs to tell.
        costs: the seconds of a step of each entry, by name.
    """

    step: float = 0.0
    mark: float = 0.0
    memory: float = math.inf
    ends: Mapping[str, Sequence[Tensor]] = field(default_factory=dict[str, Sequence[Tensor]])
    costs: Mapping[str, float] = field(default_factory=dict[str, float])


def _alone(problem: Problem, plan: Plan, entries: Mapping[str, Entry], tasks: Sequence[Task]) -> _Alone:
    ends: dict[str, Sequence[Tensor]] = {}
    costs: dict[str, float] = {}
    marks: list[float] = []
    saved = size = 0

    def count(x: Tensor) -> Tensor:
        nonlocal saved
        saved += x.nbytes
        return x

    try:
        for task in tasks:
            with reproducible(seed_for(plan, task, "model")):
                session = _Session(drawn(problem, plan, task), plan, entries[task.entry], task)
                model, optimizer = session._begin()
                batches = session._fed()
                session.recording.columns["train_loss"] = [math.nan]
                with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
                    first = session._train(model, optimizer, batches, range(STEPS))
                before = session.seconds
                second = session._train(model, optimizer, batches, range(STEPS))
                step = (session.seconds - before) / STEPS
                costs[task.entry] = min(step, costs.get(task.entry, step))
                began = time.perf_counter()
                optimizer.eval()
                if problem.fast:
                    prediction = session.problem.predict(model, session.problem.tensors("validation")[0])
                    session.problem.judge(prediction, "validation")
                    ends[task.key] = [torch.tensor([first, second]), prediction, *model.parameters()]
                else:
                    session.problem.measure(model, "validation")
                marks.append(time.perf_counter() - began)
                optimizer.train()
                size = sum(p.nbytes for p in model.parameters())
            if step > _LONG:
                break
    except KeyboardInterrupt:
        raise
    except BaseException:
        return _Alone()
    # Weights, gradients, state and what is made on the way; what is saved for gradients, or is in an evaluation.
    rows = max(1.0, CHUNK / plan.entry(tasks[0].entry).batch_size)
    mean = sum(costs.values()) / len(costs)
    return _Alone(mean, min(marks), 8 * size + saved / STEPS / len(marks) * (2 + rows), ends, costs)


def _free() -> float:
    """The bytes of memory that nobody uses; infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _sentence(text: str) -> str:
    """The beginning of an error that goes on for long."""
    return text if len(text) <= 200 else f"{text[:200].rsplit(' ', 1)[0]} …"


def _one_each(tasks: Sequence[Task]) -> list[Task]:
    """A task of each entry."""
    return [*{task.entry: task for task in tasks}.values()]


def _spread(tasks: Sequence[Task], n: int) -> list[Task]:
    """So many of these tasks, evenly spread."""
    return [tasks[i] for i in np.linspace(0, len(tasks) - 1, min(n, len(tasks))).astype(int)]


def _together(
    problem: Problem, plan: Plan, entries: Mapping[str, Entry], tasks: Sequence[Task], own: _Alone
) -> Way | str:
    """The way of a population of these runs, or why there can be none."""
    found = _tried(problem, plan, entries, tasks, own, False)
    return _tried(problem, plan, entries, tasks, own, True) if isinstance(found, str) else found


def _tried(
    problem: Problem, plan: Plan, entries: Mapping[str, Entry], tasks: Sequence[Task], own: _Alone, apart: bool
) -> Way | str:
    """The way of a population of these runs, with the losses of all at once or `apart`, or why there can be none."""
    tasks = by_seed(tasks)
    try:
        with reproducible(seed_for(plan, tasks[0], "model")):
            population = Population(problem, plan, entries, tasks, apart, {})
            first, before = population.train(STEPS), population.sessions[0].seconds
            totals = [first, population.train(STEPS)]
            step = (population.sessions[0].seconds - before) / STEPS
            predictions = population.predict("validation")
            began = time.perf_counter()
            for prediction in population.predict("validation"):
                population.sessions[0].problem.judge(prediction, "validation")
            mark = (time.perf_counter() - began) / len(tasks)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"models of it cannot be stacked: {_sentence(told(error))}"
    for i, (task, model) in enumerate(zip(tasks, population.stack.models, strict=True)):
        if task.key in own.ends:
            losses = torch.tensor([total[i] for total in totals])
            ends = [losses, predictions[i], *model.parameters()]
            if not all(map(_same, ends, own.ends[task.key])):
                return "runs that advance together differ in the last bits from runs alone"
    return Way(len(tasks), 2, apart, False, step, mark, own.costs)
