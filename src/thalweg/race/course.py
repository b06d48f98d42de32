"""Which runs a race has, and what comes next, given those that have ended.

Nothing here depends on the order in which runs end, nor on how a race came to its plan: a race that has grown has the
runs of the race that was planned so from the start, and leaves out what only the smaller one needed.

An entry's trials begin with the first points of a sequence that fills its search space ever more densely.  When all
entries have tried theirs, and the best trial of one lies at an edge of its space, that space grows: by a quarter of its
first width, with a quarter of the trials.  All other entries try as many further points, inside or at edges of their
own.  That is repeated until no best trial lies at an edge.  Then every replicate runs the best trials of each entry.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import scipy  # loads its modules only when they are first used; they take a second, and workers need none

from thalweg.race.entry import Choice
from thalweg.race.plan import Task, key
from thalweg.rule import Linear, Log
from thalweg.store import EntryPlan, Phase, Plan, Results, Run, Space
from thalweg.verdict.looks import Course, looks

Point = tuple[float, ...]
_WIDTH = 0.25
"""How much of its first width a space grows at once."""


@cache
def points(n: int, dimensions: int, seed: int) -> tuple[Point, ...]:
    """The first `n` points of a sequence in the unit cube: the first coordinate van der Corput's, the others Halton's.

    The first coordinate is the same for any number of dimensions: two rules that are tuned in their learning rate are
    tried at the same fractions of their spaces, whatever else either is tuned in.  With 16 points they are evenly
    spaced, 1/32 from the ends.
    """
    first = (scipy.stats.qmc.Halton(1, scramble=False).random(n)[:, 0] + 1 / 32) % 1
    if dimensions <= 1:
        return tuple(map(tuple, first[:, None][:, :dimensions].tolist()))
    others = scipy.stats.qmc.Halton(dimensions, scramble=True, rng=np.random.default_rng(seed)).random(n)[:, 1:]
    return tuple(map(tuple, np.column_stack([first, others]).tolist()))


class Search:
    """The trials of one entry: `tasks`, in their order, to which `grow` adds some."""

    def __init__(self, plan: Plan, entry: EntryPlan) -> None:
        self.plan, self.entry = plan, entry
        self.box = [(0.0, 1.0)] * len(entry.search)
        self.tasks: list[Task] = []
        self.more, self.drawn = max(entry.trials // 4, 1), 0
        self._add(self._inside(entry.trials))

    @property
    def grows(self) -> bool:
        """Whether there is something to tune that has an edge."""
        return any(space.scale != "choice" for space in self.entry.search.values())

    def grow(self, edges: Mapping[str, str]) -> None:
        """Add trials beyond the first of these edges, or inside if there is none."""
        if not edges:
            self._add(self._inside(self.more))
            return
        name, edge = next(iter(edges.items()))
        k = list(self.entry.search).index(name)
        (low, high), (least, most) = self.box[k], self.entry.search[name].bounds
        slab = (max(low - _WIDTH, least), low) if edge == "lowest" else (high, min(high + _WIDTH, most))
        self.box[k] = (slab[0], high) if edge == "lowest" else (low, slab[1])
        # Along the setting that grows, points are as far from each other as those of the first trials are.
        along = [(u + 3 / 32) % 1 for (u,) in points(self.more, 1, 0)]
        found: list[Point] = []
        for u, point in zip(along, points(self.more, len(self.box), self.plan.seed), strict=True):
            inside = [low + x * (high - low) for x, (low, high) in zip(point, self.box, strict=True)]
            inside[k] = slab[0] + u * (slab[1] - slab[0])
            found.append(tuple(inside))
        self._add(found)

    def _inside(self, n: int) -> list[Point]:
        """The next n points of the sequence in the first box."""
        if [space.scale for space in self.entry.search.values()] == ["choice"]:
            return [((i + 0.5) / n,) for i in range(n)]  # each once
        first, self.drawn = self.drawn, self.drawn + n
        return list(points(self.drawn, len(self.box), self.plan.seed)[first:])

    def _add(self, found: list[Point]) -> None:
        for point in found:
            tuned = {n: _at(space, u) for (n, space), u in zip(self.entry.search.items(), point, strict=True)}
            name, trial = self.entry.name, len(self.tasks)
            self.tasks.append(Task(key(self.plan, name, "tune", tuned, 0), name, "tune", trial, 0, tuned))


def _at(space: Space, u: float) -> float:
    if space.scale == "choice":
        return Choice(int(space.high)).at(u)
    return (Log if space.scale == "log" else Linear)(space.low, space.high).at(u)


def tuning(plan: Plan, runs: Mapping[str, Run]) -> tuple[dict[str, list[Task]], bool]:
    """The trials of each entry as far as they are known, given the runs that have ended; and whether that is all."""
    searches = {entry.name: Search(plan, entry) for entry in plan.entries}
    for growth in range(plan.growths + 1):
        if any(task.key not in runs for search in searches.values() for task in search.tasks):
            return {name: search.tasks for name, search in searches.items()}, False
        tried = Results(plan, tuple(_as(task, runs) for search in searches.values() for task in search.tasks))
        edges = {name: tried.edges(name) for name, search in searches.items() if search.grows}
        if growth == plan.growths or not any(edges.values()):
            break
        for name in edges:
            searches[name].grow(edges[name])
    return {name: search.tasks for name, search in searches.items()}, True


def tasks(plan: Plan, runs: Mapping[str, Run]) -> list[Task]:
    """All runs of a race as far as they are known, given those that have ended: by entry, trials first."""
    trials, whole = tuning(plan, runs)
    if not whole:
        return [task for own in trials.values() for task in own]
    tried = Results(plan, tuple(_as(task, runs) for own in trials.values() for task in own))
    finals = {name: _finals(plan, tried, name, own) for name, own in trials.items()}
    done = [_as(task, runs) for own in finals.values() for task in own if task.key in runs]
    needed = Course(Results(plan, (*tried.runs, *done))).needed
    found: list[Task] = []
    for name, own in trials.items():
        found += own + [task for task in finals[name] if task.seed < needed.get(name, 0)]
    return found


def ahead(plan: Plan, runs: Mapping[str, Run]) -> Counter[str]:
    """How many runs of each entry are left, given those that have ended; while trials are, also the final runs that
    will follow.
    """
    known = tasks(plan, runs)
    left = Counter(task.entry for task in known if task.key not in runs)
    if all(task.phase == "tune" for task in known):
        lost = {e.name for e in plan.entries if not left[e.name]}
        lost -= {run.entry for run in runs.values() if run.phase == "tune" and run.status == "finished"}
        left += to_follow(plan, Counter(task.entry for task in known), lost)
    return left


def to_follow(plan: Plan, trials: Mapping[str, int], lost: Collection[str]) -> Counter[str]:
    """How many final runs will follow so many trials of each entry, at first; none of an entry that is lost."""
    first = looks(plan.seeds)[0][0] if plan.margin else plan.seeds
    names = [entry.name for entry in plan.entries if entry.name not in lost]
    return Counter({name: first * min(plan.finalists, trials[name]) for name in names})


def _finals(plan: Plan, tried: Results, name: str, trials: list[Task]) -> list[Task]:
    """The runs of all replicates that an entry may have."""
    of_trial = {task.trial: task for task in trials}
    best = sorted((of_trial[run.trial] for run in tried.finalists(name)), key=_trial)
    return [_final(plan, task, seed) for task in best for seed in range(plan.seeds)]


def _trial(task: Task) -> int:
    return task.trial


def _final(plan: Plan, task: Task, seed: int) -> Task:
    phase: Phase = "final"
    return Task(key(plan, task.entry, phase, task.tuned, seed), task.entry, phase, task.trial, seed, task.tuned)


def _as(task: Task, runs: Mapping[str, Run]) -> Run:
    """The run of a task, with the number that its trial has in this race."""
    run = runs[task.key]
    return run if run.trial == task.trial else replace(run, trial=task.trial)  # a copy takes 30 µs


def ended(plan: Plan, runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """Of stored runs those that a race has; all of a race of an older format."""
    if not plan.finalists:
        return runs
    of_key = {run.key: run for run in runs}
    return tuple(_as(task, of_key) for task in tasks(plan, of_key) if task.key in of_key)
