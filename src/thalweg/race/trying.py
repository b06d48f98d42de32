"""Tries a training function before it is raced, to find out what it asks for and whether it works at all."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from thalweg.problems import Training
from thalweg.race import plan as planning
from thalweg.race import workers as places
from thalweg.race.entry import Entry
from thalweg.race.inspecting import Trial
from thalweg.race.plan import LIMITS, Task

STEPS = 3
"""The steps of a trial: enough to run through all of a training's code."""


def tried(
    source: places.Source,
    training: Training,
    entries: Sequence[Entry],
    parts: Mapping[str, str],
    budget: float | None,
    patience: float | None,
) -> Training:
    """The training with what a trial of few steps tells of it: its steps, its batch size, and its metric.

    If so few steps are too early for a report, another trial goes on until there is one.  `budget` is that of the race,
    if it has one of its own.

    Raises:
        ValueError: it fails, does not report anything, or does not say how many steps it takes, in one sentence.
    """
    known = Trial()
    for most in (STEPS, None):
        status, message, known = _try(source, training, entries, parts, Trial(most), patience)
        if known.metric and status == "finished":
            break
        if status == "failed" and not (most and "without a report" in message):
            raise ValueError(message)
        if status == "diverged":
            raise ValueError(f"{training.name} diverges in its first steps, with {entries[0].name}: {message}")
    if not known.steps and not budget:
        raise ValueError(
            f"{training.name} does not say how many steps it takes; write for step in run.steps(n), or give the race "
            "--steps N or --seconds X"
        )
    return told(training, known)


def told(training: Training, known: Trial) -> Training:
    """The training with what a trial tells of it."""
    return replace(
        training, metric_name=known.metric, higher_is_better=known.higher_is_better, steps=known.steps,
        batch_size=known.batch_size, even=known.even,
    )  # fmt: skip


def _try(
    source: places.Source,
    training: Training,
    entries: Sequence[Entry],
    parts: Mapping[str, str],
    trial: Trial,
    patience: float | None,
) -> tuple[str, str, Trial]:
    [found] = run(source, training, next(iter(entries)), parts, trial, patience)
    return found


def run(
    source: places.Source,
    training: Training,
    entry: Entry,
    parts: Mapping[str, str],
    trial: Trial,
    patience: float | None,
    *,
    seeds: Sequence[int] = (0,),
    steps: int = LIMITS["steps"][1],
) -> list[tuple[str, str, Trial]]:
    """A trial on each of these seeds, in the same worker process: how each ended, its message, and what it tells."""
    plan = planning.make(training, [entry], trials=1, seeds=1, steps=steps, seed=0, parts=parts)
    job = places.TrialJob(plan, {entry.name: entry}, patience=patience, trial=trial)
    tasks = deque(Task(f"trial {i}", entry.name, "final", 0, seed) for i, seed in enumerate(seeds))
    found: list[Any] = []
    packed = places.pack(source, job)
    if packed:
        places.apart(source, job, packed, 1, tasks, found.append)
    else:
        found.extend(job.do(training, list(tasks)))
    return [
        (status, known["message"], known.get("trial", trial))
        for status, known in cast("list[tuple[str, dict[str, Any]]]", found)
    ]
