"""The plan of a race: derived from the problem, the entries and a seed, and the same in every process."""

import hashlib
import json
import math
import platform
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from thalweg import __version__, schedules
from thalweg.hyperparameters import range_of
from thalweg.problems import Problem, Training
from thalweg.problems.fingerprint import fingerprint, rule_code
from thalweg.problems.trial import SPLITS
from thalweg.race.entry import Choice, Entry
from thalweg.rule import Linear, Log
from thalweg.schedules import timed
from thalweg.store import difference
from thalweg.store.records import EntryPlan, Phase, Plan, ProblemPlan, Space
from thalweg.switch import Switch

LIMITS = {
    "trials": (1, 10_000), "seeds": (1, 10_000), "finalists": (1, 100), "steps": (1, 10**9), "seed": (0, 2**63 - 1),
}  # fmt: skip
"""The allowed range of each number of a race; larger values are typing errors, and would never finish."""


EVALUATIONS = 25
"""How often a run is evaluated, after its start."""

SECONDS = 10_000_000
"""The largest budget of a run in seconds: four months."""

GROWTHS = 8
"""How many times search spaces may grow, by a quarter of their first width each."""


@dataclass(frozen=True)
class Task:
    """A run to do, with the fields of `thalweg.store.Run`; `tuned` has the hyperparameters that are searched."""

    key: str
    entry: str
    phase: Phase
    trial: int
    seed: int
    tuned: dict[str, float] = field(default_factory=dict[str, float])


def make(
    problem: Problem | Training,
    entries: Sequence[Entry],
    *,
    trials: int,
    seeds: int,
    steps: int = 0,
    seconds: float | None = None,
    seed: int,
    finalists: int = 1,
    splits: bool = False,
    margin: float | None = None,
    halving: bool = False,
    target: float | None = None,
    parts: Mapping[str, str] | None = None,
) -> Plan:
    """The plan of a race; `parts` are the problem's, if they are already known.  With `seconds` there are no `steps`.

    Raises:
        ValueError: a number is out of range, entries share a name, or a batch is larger than the training set.
    """
    given = {"trials": trials, "seeds": seeds, "finalists": finalists, "seed": seed}
    if seconds is None:
        given["steps"] = steps
    elif isinstance(cast(Any, seconds), bool) or not (
        isinstance(cast(Any, seconds), int | float) and 0 < seconds <= SECONDS
    ):
        raise ValueError(f"the race's seconds is {seconds!r}; allowed is a number above 0 and up to {SECONDS:,}")
    for name, value in given.items():
        least, most = LIMITS[name]
        if isinstance(cast(Any, value), bool) or not isinstance(cast(Any, value), int) or not least <= value <= most:
            raise ValueError(f"the race's {name} is {value!r}; allowed is a whole number from {least} to {most:,}")
    if margin is not None and not (isinstance(cast(Any, margin), int | float) and 0 < margin < math.inf):
        raise ValueError(f"the race's margin is {margin!r}; allowed is a finite number > 0, a difference of the metric")
    if target is not None and not (isinstance(cast(Any, target), int | float) and math.isfinite(target)):
        raise ValueError(f"the race's target is {target!r}; allowed is a finite number, a value of the metric")
    if not entries:
        raise ValueError("the race has no entries; give at least one, as in entries=['sgd', 'adam']")
    twice = [name for name, count in Counter(entry.name for entry in entries).items() if count > 1]
    if twice:
        raise ValueError(f"two entries are named {twice[0]!r}; leave one out, or name it: Entry(rule, name='another')")
    sizes = dict.fromkeys(SPLITS, 0)  # unknown, of a training function
    batch_size = problem.batch_size
    if isinstance(problem, Problem):
        sizes = {split: problem.size(split) for split in SPLITS}
        if problem.loads:
            _check_of_loader(problem, entries, splits)
        else:
            batch_size = min(batch_size, sizes["train"])
    else:
        _check_of_function(problem, entries, splits, halving)
    examples = 0 if seconds is not None else steps * batch_size
    counted = not isinstance(problem, Training) or problem.even
    parts = problem.parts() if parts is None else parts
    about = ProblemPlan(
        problem.name, fingerprint(parts), problem.metric_name, problem.higher_is_better, batch_size,
        **sizes, target=problem.target if target is None else float(target), source=problem.source, parts=dict(parts),
    )  # fmt: skip
    budget = examples if counted else 0  # of which nobody knows how many steps it is
    planned = tuple(_entry(entry, sizes["train"], batch_size, budget, trials) for entry in entries)
    return Plan(
        about, planned, trials, seeds, 0 if seconds else steps, examples, seed, finalists, GROWTHS, splits,
        margin or 0.0, float(seconds or 0), halving, versions(),
    )  # fmt: skip


def _check_of_loader(problem: Problem, entries: Sequence[Entry], splits: bool) -> None:
    if splits:
        problem.split(0)  # says why not
    if sized := [entry.name for entry in entries if entry.batch_size is not None]:
        raise ValueError(f"{problem.name}'s loader makes its batches; leave the batch_size of {sized[0]} out")


def _check_of_function(training: Training, entries: Sequence[Entry], splits: bool, halving: bool) -> None:
    if halving and sys.platform != "linux":
        raise ValueError(f"trials of {training.name} wait for each other, which needs Linux; leave halving out")
    if splits:
        raise ValueError(
            f"{training.name} reads its data by itself, so no race can draw them anew; leave splits out, and draw them "
            "in the function with run.generator, which each replicate has seeded anew"
        )
    if sized := [entry.name for entry in entries if entry.batch_size is not None]:
        raise ValueError(f"{training.name} makes its batches by itself; leave the batch_size of {sized[0]} out")


def versions() -> dict[str, str]:
    """The versions of the software that the numbers of a race depend on."""
    return {"thalweg": __version__, "torch": torch.__version__, "python": ".".join(platform.python_version_tuple()[:2])}


def _entry(entry: Entry, train: int, default: int, examples: int, trials: int) -> EntryPlan:
    if isinstance(entry.batch_size, int) and entry.batch_size > train:
        raise ValueError(
            f"{entry.name}'s batch_size is {entry.batch_size:,}, the training set has {train:,} examples; "
            "write batch_size=full for all of them"
        )
    size = train if entry.batch_size == "full" else entry.batch_size or default
    search = {name: _space(entry, name, space) for name, space in entry.search.items()}
    steps = max(1, examples // size) if examples else 0
    # A schedule that does not fit the steps is refused now rather than in every run.
    for text in entry.schedules:
        if steps:
            schedules.parse(text).resolve(steps)
        else:
            timed.over(schedules.parse(text), float)
    if isinstance(entry.rule, Switch) and steps:
        entry.rule.resolve(steps)
    if len(entry.schedules) > trials:
        raise ValueError(
            f"{entry.name} chooses from {len(entry.schedules)} schedules, and the race's trials is {trials}; "
            "give it a trial for each at least"
        )
    # If there is nothing else to tune, every schedule is tried once.
    most = trials if search.keys() - {"schedule"} else max(len(entry.schedules), 1)
    return EntryPlan(entry.name, repr(entry.rule), size, steps, min(trials, most), search, entry.options, _code(entry))


def _code(entry: Entry) -> str:
    """A hash of an entry's formulas."""
    phases = (entry.rule.first, entry.rule.then) if isinstance(entry.rule, Switch) else (entry.rule,)
    if entry.others is not None:
        phases += (entry.others,)
    return " ".join(rule_code(type(rule)) for rule in phases)


def changes(plan: Plan, entries: Mapping[str, Entry], parts: Mapping[str, str]) -> str:
    """A description of how a race's problem, formulas or versions differ from the plan; empty if they do not.

    Args:
        plan: the plan.
        entries: the race's entries, as this process has them.
        parts: of the parts of the problem, those that are to be compared.
    """
    planned = {name: plan.problem.parts.get(name, "") for name in parts}
    if planned != parts:
        return difference.parts(planned, parts)
    if formulas := [name for name, entry in entries.items() if _code(entry) != plan.entry(name).code]:
        return f"the formula of {', '.join(formulas)} has changed"
    others = {name: (planned, versions()[name]) for name, planned in plan.versions.items()}
    return ", ".join(f"{name} was {old} and is {new}" for name, (old, new) in others.items() if old != new)


def doubts(plan: Plan, entries: Sequence[Entry]) -> Iterator[str]:
    """One sentence for each schedule that does not fit its entry's steps, and each switch that comes too late."""
    for entry in entries:
        steps = plan.entry(entry.name).steps
        if not steps:
            continue
        for text in entry.schedules:
            if mismatch := schedules.parse(text).mismatch(steps):
                yield f"the schedule {text} of {entry.name} does not fit its {steps:,} steps: {mismatch}"
        if isinstance(entry.rule, Switch) and (late := entry.rule.mismatch(steps)):
            yield f"{entry.name} never switches: {late}"


def _space(entry: Entry, name: str, space: Log | Linear | Choice) -> Space:
    if isinstance(space, Choice):
        return Space("choice", 0, space.count)
    allowed = range_of(entry.annotation(name))
    ends = (end if math.isfinite(end) else None for end in (allowed.low, allowed.high))
    return Space("log" if isinstance(space, Log) else "linear", space.low, space.high, *ends)


def key(plan: Plan, entry: str, phase: Phase, tuned: Mapping[str, float], seed: int) -> str:
    """The key of a run: the same in every race in which it would give the same numbers."""
    own = json.dumps([phase, dict(tuned), seed], sort_keys=True)
    return hashlib.sha256(f"[{plan.identities[entry]}, {own[1:]}".encode()).hexdigest()[:20]


def seed_for(plan: Plan, task: Task, what: str) -> int:
    """Derive the seed of one source of randomness (``"model"`` or ``"order"``) in a run.

    It depends on the phase and the number of the seed, but not on the entry or trial, so that runs of one seed start
    with the same weights and see the examples in the same order.
    """
    digest = hashlib.sha256(json.dumps([plan.seed, task.phase, task.seed, what]).encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def marks(steps: int, size: int, examples: int, count: int = EVALUATIONS) -> list[int]:
    """The steps after which a run is evaluated: the first at or after each of `count` evenly spaced numbers of
    examples.
    """
    wanted = (examples * k / count for k in range(count + 1))
    return sorted({min(steps, int(-(-at // size))) for at in wanted} | {steps})
