"""Races that go on until they are decided, looked at several times, with an error bounded for all looks together.

At each look the intervals of all pairs hold with a share of the error, α, as large as that look's share of all
replicates.  The shares add up to α (a spending function, Lan & DeMets 1983, with the bound of Bonferroni), so with
1 − α all intervals of all looks hold together, and whatever is decided by one of them is right.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np

from thalweg.store import Results
from thalweg.verdict import statistics

_STEPS = (
    5,
    7,
    10,
    14,
    20,
    28,
    40,
    57,
    80,
    113,
    160,
    226,
    320,
    453,
    640,
    905,
    1280,
    1810,
    2560,
    3620,
    5120,
    7241,
    10_000,
)
"""Replicates at which to look: about √2 times as many each time."""

Outcome = Literal["different", "equal", "open"]


def looks(replicates: int) -> list[tuple[int, float]]:
    """The replicates after which to look, and the error that each look may make; the last is after all of them."""
    numbers = [n for n in _STEPS if n < replicates] + [replicates]
    return [
        (n, statistics.ALPHA * (n - before) / replicates) for before, n in zip([0, *numbers[:-1]], numbers, strict=True)
    ]


@dataclass(frozen=True)
class Decision:
    """What is known of a pair of entries, by their indices, and from which look.

    Attributes:
        pair: the indices, the smaller first.
        outcome: whether they are shown to differ, or to be equal to within the margin, or neither.
        found: the comparison that says so, or the last one.
        index: the pair's index in it.
        alpha: the error that the look may make.
    """

    pair: tuple[int, int]
    outcome: Outcome
    found: statistics.Comparison
    index: int
    alpha: float


@dataclass
class Decisions:
    """The state of a race that goes on until it is decided.

    Attributes:
        decided: what is known of each pair.
        needed: the replicates that each entry needs before the next look, or has needed if it rests.
    """

    decided: dict[tuple[int, int], Decision] = field(default_factory=dict[tuple[int, int], Decision])
    needed: list[int] = field(default_factory=list[int])


def decide(scores: Sequence[Sequence[float]], replicates: int, margin: float, resolution: float = 0.0) -> Decisions:
    """Look at a race as often as its replicates allow.  An entry rests once all its pairs are decided.

    Args:
        scores: the results of each entry, by replicate, as many as there are; larger is better, −inf for a lost one.
        replicates: the most that an entry may have.
        margin: two entries are equal if the interval of their difference lies between −`margin` and `margin`.
        resolution: see `thalweg.verdict.statistics.compare`.
    """
    entries = len(scores)
    state = Decisions(needed=[0] * entries)
    active = list(range(entries))
    for n, alpha in looks(replicates):
        for entry in active:
            state.needed[entry] = n
        if len(active) < 2 or any(len(scores[entry]) < n for entry in active):
            break
        x = np.array([scores[entry][:n] for entry in active]).T
        found = statistics.compare(x, resolution=resolution, alpha=alpha, of=entries)
        for i, (a, b) in enumerate(combinations(active, 2)):
            if state.decided.get((a, b)) is None or state.decided[a, b].outcome == "open":
                outcome = _outcome(float(found.low[i]), float(found.high[i]), margin)
                state.decided[a, b] = Decision((a, b), outcome, found, i, alpha)
        active = _open(active, state.decided)
        if not active:
            break
    return state


def _outcome(low: float, high: float, margin: float) -> Outcome:
    if low > 0 or high < 0:
        return "different"
    return "equal" if -margin < low and high < margin else "open"


def _open(active: Sequence[int], decided: Mapping[tuple[int, int], Decision]) -> list[int]:
    """The entries that are part of a pair that is not decided."""
    pairs = [pair for pair, decision in decided.items() if decision.outcome == "open"]
    return [entry for entry in active if any(entry in pair for pair in pairs)]


class Course:
    """How far a race has come: the entries that are compared, and the replicates that each needs.

    Attributes:
        results: the records.
        compared: the entries that have a best setting, inside their search spaces.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        names = [entry.name for entry in results.plan.entries]
        self.compared = [name for name in names if results.finalists(name) and not results.edges(name)]

    @cached_property
    def resolution(self) -> float:
        """The step of the metric's scale; see `thalweg.verdict.statistics.resolution`."""
        known = [score for entry in self.results.plan.entries for score in self.scores(entry.name)]
        return statistics.resolution(known, self.results.plan.problem.test)

    def scores(self, name: str) -> list[float]:
        """The results of an entry's first replicates: larger is better, −inf for a lost one."""
        sign = 1.0 if self.results.plan.problem.higher_is_better else -1.0
        runs = enumerate(self.results.replicates(name))
        return [sign * r.test_metric if r.status == "finished" else -math.inf for i, r in runs if r.seed == i]

    @cached_property
    def decisions(self) -> Decisions:
        """What is decided, of a race that goes on until it is."""
        plan, scores = self.results.plan, [self.scores(name) for name in self.compared]
        return decide(scores, plan.seeds, plan.margin, self.resolution)

    @cached_property
    def needed(self) -> Mapping[str, int]:
        """The replicates that each entry with a best setting needs before anything more is decided."""
        plan = self.results.plan
        tuned = [entry.name for entry in plan.entries if self.results.finalists(entry.name)]
        if not plan.margin:
            return dict.fromkeys(tuned, plan.seeds)
        first, _ = looks(plan.seeds)[0]
        return dict.fromkeys(tuned, first) | dict(zip(self.compared, self.decisions.needed, strict=True))

    @property
    def complete(self) -> bool:
        """Whether all runs have ended; an entry whose trials were all lost has no replicates."""
        tried = all(len(self.results.of(e.name, "tune")) >= e.trials for e in self.results.plan.entries)
        return tried and all(len(self.results.replicates(name)) >= n for name, n in self.needed.items())
