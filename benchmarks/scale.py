"""What a race of many runs on many workers asks of its driver, its store and its verdict: docs/scale.md.

    python benchmarks/scale.py --runs 10000 --workers 1000 --store sqlite:////tmp/scale.db
    python benchmarks/scale.py --judge 100,1000,10000,100000

Nothing is trained.  Runs take as long as the recorded ones of --times (a race's folder or STORE/NAME), scaled to a mean
of --minutes; the driver, the store and the verdict are the real ones, and what they take is measured.
"""

import argparse
import heapq
import math
import os
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thalweg import problems, verdict
from thalweg.mirrors import Mirrors
from thalweg.race import Entry, Results, course
from thalweg.race import plan as planning
from thalweg.race.job import Job
from thalweg.race.plan import Task
from thalweg.race.race import _Course
from thalweg.race.training import machine
from thalweg.store import Curve, Plan, Points, Reader, Run, Store
from thalweg.store import Results as Stored

RULES = ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "nadam", "adamax", "radam", "lion"]
POINTS = 26
"""The points of a curve."""


def planned(runs: int) -> Plan:
    """A race of so many runs, of ten entries: two fifths are trials, three replicates' finalists each."""
    each = runs // len(RULES)
    seeds = max(each // 5, 1)
    entries = [Entry(rule) for rule in RULES]
    return planning.make(
        problems.get("logistic"),
        entries,
        trials=max(each - 3 * seeds, 3),
        seeds=seeds,
        finalists=3,
        steps=2_000,
        seed=0,
    )


def ran(plan: Plan, task: Task, seconds: float, chance: random.Random) -> Run:
    """The record of a run: the best rates are in the middle of their spaces, so that none grows."""
    entry = plan.entry(task.entry)
    share = sum((space.fraction(task.tuned[name]) - 0.5) ** 2 for name, space in entry.search.items())
    at = 0.9 - share - 0.01 * plan.entries.index(entry) + chance.gauss(0, 0.01)
    steps = tuple(range(0, entry.steps + 1, max(entry.steps // (POINTS - 1), 1)))[:POINTS]
    losses = tuple(chance.random() for _ in steps)
    curve = Curve(steps, steps, losses, losses, losses, losses)
    tested = {"test_metric": at, "test_loss": 1 - at} if task.phase == "final" else {}
    return Run(
        task.key, task.entry, task.phase, task.trial, task.seed, dict(task.tuned) or {"lr": 0.1}, "SGD(lr=0.1)",
        "finished", steps[-1], at, 1 - at, **tested, curve=curve, seconds=seconds, machine=machine(),
    )  # fmt: skip


@dataclass
class Simulated:
    """A place of many workers, whose time passes when the driver waits."""

    plan: Plan
    slots: int
    times: Sequence[float]
    chance: random.Random
    now: float = 0.0
    busy: float = 0.0
    late: float = 0.0
    streams: int = 0
    longest: dict[str, float] = field(default_factory=lambda: {"run": 0.0, "second of points": 0.0})

    def do(self, job: Job, tasks: deque[Task], keep: Any, hear: Any) -> None:
        """As `thalweg.race.places.Place`: runs end in the order of simulated time, and stream a point each second."""
        flying: list[tuple[float, int, Task, float]] = []
        ready: deque[Task] = deque()
        number, tick = 0, 1.0
        while tasks or ready or flying:
            began = time.perf_counter()
            ready += [task for (task,) in job.divided(tasks, self.slots)]
            while ready and len(flying) < self.slots:
                task = ready.popleft()
                seconds = self.chance.choice(self.times)
                heapq.heappush(flying, (self.now + seconds, number, task, seconds))
                number += 1
            end, _, task, seconds = heapq.heappop(flying)
            while tick < end:  # every run that is under way sends a point
                self.streams += 1
                if self.streams % 20 == 1:  # a sample, since all would take as long as the race
                    at = time.perf_counter()
                    hear([self._point(other) for _, _, other, _ in flying])
                    self.longest["second of points"] = max(self.longest["second of points"], time.perf_counter() - at)
                tick += 1.0
            self.now = max(self.now, end)
            run = ran(self.plan, task, seconds, self.chance)
            at = time.perf_counter()
            keep(run)
            self.longest["run"] = max(self.longest["run"], time.perf_counter() - at)
            self.busy += time.perf_counter() - began

    def _point(self, task: Task) -> Points:
        curve = Curve((0,), (0,), (0.0,), (1.0,), (1.0,), (0.5,))
        return Points(task.key, task.entry, task.phase, task.trial, task.seed, {"lr": 0.1}, 0, curve)


def simulate(runs: int, workers: int, place: str, times: Sequence[float]) -> None:
    """Print what a race takes."""
    plan = planned(runs)
    job = Job(plan, {})
    with Store.open(place, plan, machine(), alone=True) as store:
        ahead = _Course(plan, store, lambda _: None, None, Mirrors(()))
        there = Simulated(plan, workers, times, random.Random(0))
        began = time.perf_counter()
        there.do(job, ahead.queue, ahead.keep, ahead.hear)
        took = time.perf_counter() - began
        race = store.race
    done = len(ahead.runs)
    hours, rate = there.now / 3600, done / there.now
    print(f"{done:,} runs on {workers:,} workers: {hours:.2f} h of race, {rate:.2f} runs per second")
    print(f"driver and store: {took:.1f} s in all, {1000 * took / done:.2f} ms per run, busy {took / there.now:.2%}")
    print(f"the longest: {', '.join(f'{1000 * s:.0f} ms for a {what}' for what, s in there.longest.items())}")
    path = place.removeprefix("sqlite:///")
    if os.path.exists(path):
        print(f"store: {os.path.getsize(path) / 1e6:.1f} MB, {os.path.getsize(path) / done / 1e3:.2f} kB per run")
    began = time.perf_counter()
    with Reader(place) as reader:
        found = reader.results(race)
    read = time.perf_counter() - began
    results = Results.of_store(found)
    began = time.perf_counter()
    verdict.judge(results)
    print(f"verdict: {read:.2f} s to read, {time.perf_counter() - began:.2f} s to judge")


def judged(sizes: Sequence[int]) -> None:
    """Print the seconds of choosing what comes next and of judging, for numbers of records."""
    chance = random.Random(0)
    before: tuple[int, float] | None = None
    for size in sizes:
        plan = planned(size)
        runs: dict[str, Run] = {}
        while left := [task for task in course.tasks(plan, runs) if task.key not in runs]:
            runs |= {task.key: ran(plan, task, 1.0, chance) for task in left}
        known = Stored(plan, tuple(runs.values()))
        began = time.perf_counter()
        course.tasks(plan, runs)
        chosen = time.perf_counter() - began
        began = time.perf_counter()
        verdict.judge(known)
        took = time.perf_counter() - began
        grows = (
            "" if before is None else f", exponent {math.log(took / before[1]) / math.log(len(runs) / before[0]):.2f}"
        )
        print(f"{len(runs):>7,} records: {took:8.3f} s to judge, {1e6 * took / len(runs):7.1f} µs each{grows}; "
              f"{chosen:.3f} s to choose what comes next", flush=True)  # fmt: skip
        before = len(runs), took


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="What a race of many runs asks of driver, store and verdict.")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--minutes", type=float, default=10.0, help="the mean of a run")
    parser.add_argument("--times", help="a race whose run times are taken, scaled", default=None)
    parser.add_argument("--store", default="sqlite://")
    parser.add_argument("--judge", help="numbers of records, separated by commas", default=None)
    given = parser.parse_args()
    if given.judge:
        judged([int(size) for size in given.judge.split(",")])
        return
    if given.times:
        place = Path(given.times)
        times = [run.seconds for run in Results.read(place / "race.db" if place.is_dir() else place).runs]
    else:
        chance = random.Random(0)
        times = [chance.lognormvariate(0.0, 0.5) for _ in range(1_000)]
    scale = given.minutes * 60 / (sum(times) / len(times))
    simulate(given.runs, given.workers, given.store, [scale * seconds for seconds in times])


if __name__ == "__main__":
    main()
