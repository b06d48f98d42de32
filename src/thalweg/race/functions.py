"""Runs of training functions, in their own process or in this one."""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thalweg.optimizer import Optimizer
from thalweg.problems.blame import told
from thalweg.problems.chance import reproducible
from thalweg.problems.training import Training
from thalweg.race import inspecting, isolated, streaming
from thalweg.race.entry import Entry
from thalweg.race.inspecting import Trial
from thalweg.race.plan import Task, seed_for
from thalweg.race.recording import Diverged, Ended
from thalweg.race.reporting import Gate, Halved
from thalweg.race.session import TrainingRun, running
from thalweg.rule import Rule
from thalweg.store import Plan, Status
from thalweg.switch import Switch

_LINES = 8
"""How many lines of a traceback are recorded."""


def run(
    training: Training,
    plan: Plan,
    entry: Entry,
    task: Task,
    *,
    folder: Path | None = None,
    heard: Callable[[int], None] | None = None,
    trial: Trial | None = None,
    gate: Gate | None = None,
) -> tuple[Status, dict[str, Any]]:
    """Call a training function; returns how that ended, and fields of its `thalweg.store.Run`."""
    session = TrainingRun(plan, entry, task, folder=folder, heard=heard, trial=trial, gate=gate)
    status, message = _called(training, session, seed_for(plan, task, "model"), trial)
    recording = session.recording
    if status == "finished" and not recording.measured:
        status = "failed"
        message = f"{training.name} ended without a report; call run.report(validation=…) with a number in its loop"
    measured: dict[str, Any] = {}
    if status in ("finished", "stopped"):
        measured = recording.measured
        if task.phase == "final":  # without test data the validation data have to do
            measured.setdefault("test_metric", measured["validation_metric"])
            measured.setdefault("test_loss", measured["validation_loss"])
    known = {**measured, **recording.known, "seconds": session.clock.seconds, "message": message}
    if trial is not None:
        trial.even = session.step == session.taken
        if session.watch is not None:
            session.watch.close()
        known["trial"] = trial
    return status, known


def _seen(trial: Trial | None) -> AbstractContextManager[None]:
    """A context in which losses are noted, if a trial is about these."""
    return inspecting.losses(trial.seen) if trial and trial.seen and trial.seen.most else nullcontext()


def _called(training: Training, session: TrainingRun, seed: int, trial: Trial | None) -> tuple[Status, str]:
    before = os.getcwd(), sys.argv
    sys.argv = [training.name.partition(" ")[0].partition(":")[0], *training.arguments]
    try:
        with reproducible(seed), _seen(trial), running(session):
            training.function(session)
    except Diverged as divergence:
        return "diverged", str(divergence)
    except Halved as halved:
        return "stopped", str(halved)
    except Ended:
        pass
    except BaseException as error:  # including SystemExit
        if not (isinstance(error, SystemExit) and session.finished):
            return "failed", said(error, session.step)
    finally:
        os.chdir(before[0])
        sys.argv = before[1]
    return "finished", ""


def said(error: BaseException, step: int) -> str:
    """An error in one sentence, and below it the last lines of its traceback."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join([told(error, f" at step {step:,}"), *lines[-_LINES:]])


@cache
def warm(rule: Rule | Switch) -> None:
    """Compile a rule's step, or load it, so that it is there in processes that are forked later."""
    with reproducible(0), suppress(Exception):  # runs tell what is wrong with a rule
        p = nn.Parameter(torch.ones(2, 2))
        made = Optimizer([p], rule.resolve(10) if isinstance(rule, Switch) else rule)
        for _ in range(2):
            p.grad = torch.ones(2, 2)
            made.step()


def started(
    training: Training,
    plan: Plan,
    entry: Entry,
    task: Task,
    folder: Path | None,
    patience: float | None,
    trial: Trial | None = None,
    *,
    halved: bool = False,
) -> isolated.Process:
    """A process of its own that does as `run`; `halved` trials ask whether they go on."""
    warm(entry.rule)
    pass_on = streaming.sender()

    def work(parent: isolated.Parent) -> Any:
        def gate(at: float, score: tuple[float, float]) -> bool:
            return parent.ask((at, score))

        asking = gate if halved else None
        with streaming.to(parent.pass_on):
            return run(training, plan, entry, task, folder=folder, heard=parent.tell, trial=trial, gate=asking)

    return isolated.Process(work, patience, pass_on)


def apart(*about: Any) -> tuple[Status, dict[str, Any]]:
    """As `run`, in a process of its own, as `started`; one that is lost has failed."""
    with closing(started(*about)) as process:
        try:
            return process.go_on()
        except isolated.Lost as lost:
            return "failed", {"message": str(lost)}
