"""Tries a training function before it is raced, to find out what it asks for and whether it works at all."""

import os
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from thalweg.problems import Training
from thalweg.race import plan as planning
from thalweg.race.entry import Entry
from thalweg.race.inspecting import Trial
from thalweg.race.job import Source, TrialJob, pack
from thalweg.race.places import deaf
from thalweg.race.plan import LIMITS, Task
from thalweg.race.workers import Processes

_NAMED = 3
STEPS = 3
"""The steps of a trial: enough to run through all of a training's code."""


def tried(
    source: Source,
    training: Training,
    entries: Sequence[Entry],
    parts: Mapping[str, str],
    budget: float | None,
    patience: float | None,
    *,
    together: bool = False,
) -> Training:
    """The training with what a trial of few steps tells of it: its steps, its batch size, and its metric.

    If so few steps are too early for a report, another trial goes on until there is one.  `budget` is that of the race,
    if it has one of its own; `together` says whether runs go on at the same time.

    Warns:
        UserWarning: runs go on at the same time, and write into the same folder.

    Raises:
        ValueError: it fails, does not report anything, or does not say how many steps it takes, in one sentence.
    """
    known = Trial()
    before = _entries()
    for most in (STEPS, None):
        status, message, known = _try(source, training, entries, parts, Trial(most), patience)
        if known.metric and status == "finished":
            break
        if status == "failed" and not (most and "without a report" in message):
            raise ValueError(message)
        if status == "diverged":
            raise ValueError(f"{training.name} diverges in its first steps, with {entries[0].name}: {message}")
    if together and (written := sorted(name for name, at in _entries().items() if before.get(name) != at)):
        warnings.warn(
            f"{training.name} writes {', '.join(written[:_NAMED])} in the current folder, and runs that go on at the "
            "same time write there, too; have it write into tempfile.mkdtemp(), which is each run's own, or race with "
            "one worker",
            stacklevel=3,
        )
    if not known.steps and not budget:
        raise ValueError(
            f"{training.name} does not say how many steps it takes; write for step in run.steps(n), or give the race "
            "--steps N or --seconds X"
        )
    return told(training, known)


def _entries() -> dict[str, int]:
    """What is in the current folder, and when it changed."""
    found: dict[str, int] = {}
    with suppress(OSError):
        for entry in os.scandir():
            if not entry.name.startswith((".", "__")):
                found[entry.name] = entry.stat(follow_symlinks=False).st_mtime_ns
    return found


def told(training: Training, known: Trial) -> Training:
    """The training with what a trial tells of it."""
    return replace(
        training, metric_name=known.metric, higher_is_better=known.higher_is_better, steps=known.steps,
        batch_size=known.batch_size, even=known.even,
    )  # fmt: skip


def _try(
    source: Source,
    training: Training,
    entries: Sequence[Entry],
    parts: Mapping[str, str],
    trial: Trial,
    patience: float | None,
) -> tuple[str, str, Trial]:
    [found] = run(source, training, next(iter(entries)), parts, trial, patience)
    return found


def run(
    source: Source,
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
    job = TrialJob(plan, {entry.name: entry}, patience=patience, trial=trial)
    tasks = deque(Task(f"trial {i}", entry.name, "final", 0, seed) for i, seed in enumerate(seeds))
    found: list[Any] = []
    packed = pack(source, job)
    if packed:
        Processes(source, packed, 1).do(job, tasks, found.append, deaf)
    else:
        found.extend(job.do(training, list(tasks)))
    return [
        (status, known["message"], known.get("trial", trial))
        for status, known in cast("list[tuple[str, dict[str, Any]]]", found)
    ]
