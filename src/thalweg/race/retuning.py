"""How often a rule differs from itself: races between one rule, tuned on two different seeds, with real training.

All runs that such races could need are done once: every trial on each of many tuning seeds, and in each of many
replicates.  Races are then drawn from them, two tuning seeds and some replicates each, and judged as races are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from thalweg.problems import Problem
from thalweg.race import course
from thalweg.race import plan as planning
from thalweg.race.entry import Entry
from thalweg.race.plan import Task
from thalweg.race.training import train
from thalweg.store import Results, Run
from thalweg.verdict import statistics
from thalweg.verdict.calibration import Measured


def run(
    problem: Problem,
    entry: Entry,
    *,
    trials: int,
    finalists: int,
    steps: int,
    tunings: int,
    replicates: int,
) -> Iterator[tuple[planning.Plan, Run]]:
    """Every trial of an entry, on so many tuning seeds and in so many replicates, one after another."""
    plan = planning.make(problem, [entry], trials=trials, seeds=1, finalists=finalists, steps=steps, seed=0)
    tried = course.Search(plan, plan.entries[0]).tasks
    tune = [replace(task, seed=seed) for seed in range(tunings) for task in tried]
    final: list[Task] = [replace(task, phase="final", seed=seed) for seed in range(replicates) for task in tried]
    for task in (*tune, *final):
        yield plan, train(problem, plan, entry, task)


def measure(
    plan: planning.Plan, runs: Sequence[Run], sizes: Sequence[int], races: int, seed: int = 0
) -> Iterator[Measured]:
    """The share of races, each with so many replicates, in which the rule is shown to differ from itself."""
    [entry] = plan.entries
    tunings = _by_seed(runs, "tune")
    replicates = _by_seed(runs, "final")
    chosen = [{run.trial for run in Results(plan, tuple(of)).finalists(entry.name)} for of in tunings.values()]
    results = np.array([[_kept(plan, of, trials) for trials in chosen] for of in replicates.values()])
    step = statistics.resolution(results, plan.problem.test)
    for n in sizes:
        rng = np.random.default_rng([seed, n])
        drawn = np.array([
            results[np.ix_(rng.choice(len(results), n, replace=False), rng.choice(len(chosen), 2, replace=False))]
            for _ in range(races)
        ])  # fmt: skip
        found = statistics.compare(drawn, resolution=step)
        shown = float(((found.low > 0) | (found.high < 0)).mean())
        what = f"tuned twice, {entry.name} on {plan.problem.name}"
        yield Measured("a rule differs from itself", what, n, 2, shown, races, 0.0, statistics.ALPHA)


def _by_seed(runs: Sequence[Run], phase: str) -> Mapping[int, list[Run]]:
    found: dict[int, list[Run]] = {}
    for run in runs:
        if run.phase == phase:
            found.setdefault(run.seed, []).append(run)
    return found


def _kept(plan: planning.Plan, of: Sequence[Run], trials: set[int]) -> float:
    """The result of a replicate that runs these trials: larger is better, −inf if all were lost."""
    runs = [replace(run, phase="tune") for run in of if run.trial in trials]
    best = Results(plan, tuple(runs)).best(plan.entries[0].name)
    if best is None:
        return -np.inf
    return best.test_metric if plan.problem.higher_is_better else -best.test_metric
