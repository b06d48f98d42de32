"""Successive halving: of an entry's trials the worse half stops after a quarter of the steps, and again after a half.

Schedules are as long as they are without.  The trials that are compared are those that an entry tries at once: its
first ones, or those by which its search space grows.  How many go on depends on their number alone, so that a race that
was killed between two records stops the same trials when it is resumed.  Jamieson & Talwalkar 2016, "Non-stochastic
best arm identification and hyperparameter optimization", Figure 1, with two rounds.
"""

# pyright: reportPrivateUsage=false

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from thalweg.problems import Problem
from thalweg.race.entry import Entry
from thalweg.race.plan import Task
from thalweg.race.training import Started, _Session
from thalweg.store import Plan, Run

ROUNDS = {1 / 4: 1 / 2, 1 / 2: 1 / 4}
"""After which share of the steps which share of the trials goes on."""

USED = 1 / 4 + 1 / 2 * 1 / 4 + 1 / 4 * 1 / 2
"""The share of all steps that is taken, if no finalists keep more trials going."""


def bracket(plan: Plan, task: Task) -> tuple[object, ...]:
    """What trials that are compared have in common: their entry, and the growth of its space that they belong to."""
    first = plan.entry(task.entry).trials
    more = max(first // 4, 1)
    return task.entry, 0 if task.trial < first else 1 + (task.trial - first) // more


def size(plan: Plan, task: Task) -> int:
    """How many trials are compared with this one, itself included."""
    first = plan.entry(task.entry).trials
    return first if task.trial < first else max(first // 4, 1)


def stops(plan: Plan, sessions: Sequence[_Session], before: int, now: int) -> list[int]:
    """Which of these trials stop, by their positions, after an evaluation.

    Args:
        plan: the plan of the race.
        sessions: the trials of a bracket that are still going.
        before: the step of the evaluation before.
        now: the step of this one.
    """
    if not plan.halving or not sessions or sessions[0].task.phase != "tune":
        return []
    task = sessions[0].task
    steps, count = plan.entry(task.entry).steps, size(plan, task)
    kept = [share for at, share in ROUNDS.items() if before < at * steps <= now < steps]
    if not kept:
        return []
    return behind(plan, count, min(kept), [(session.recording.best, session.task.trial) for session in sessions])


def behind(plan: Plan, count: int, kept: float, scores: Sequence[tuple[object, ...]]) -> list[int]:
    """Of trials that are still going, by their positions, those that stop: all but the best share of `count`.

    Args:
        plan: the plan of the race, of which as many trials go on as it has finalists.
        count: how many trials there were at first.
        kept: the share of those that goes on.
        scores: of each trial, less being better.
    """
    most = max(math.ceil(kept * count), plan.finalists)
    order = sorted(range(len(scores)), key=lambda i: cast(Any, scores[i]))
    return sorted(order[most:])


def stopped(session: _Session) -> Run:
    """The record of a trial that stops."""
    return session.ended("stopped", said(session.plan, session.task, session.step))


def said(plan: Plan, task: Task, step: int) -> str:
    """Why a trial stops."""
    return f"among the worse half of {size(plan, task):,} trials at step {step:,}"


def train(problem: Problem, plan: Plan, entries: Mapping[str, Entry], tasks: Sequence[Task]) -> list[Run]:
    """Do the trials of a bracket, one after another between evaluations after which some stop.

    Raises:
        RunError: as `thalweg.race.training.train`.
    """
    going = [Started(problem, plan, entries[task.entry], task) for task in tasks]
    steps, found = plan.entry(tasks[0].entry).steps, list[Run]()
    for until in (*(at * steps for at in ROUNDS), math.inf):
        before = [one.session.step for one in going]
        for one in going:
            one.go_on(until)
        found += [one.run for one in going if one.run is not None]
        left = [i for i, one in enumerate(going) if one.run is None]
        going, before = [going[i] for i in left], [before[i] for i in left]
        if going:
            ends = stops(plan, [one.session for one in going], before[0], going[0].session.step)
            found += [stopped(going[i].session) for i in ends]
            going = [one for i, one in enumerate(going) if i not in ends]
    return found
