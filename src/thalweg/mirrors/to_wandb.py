"""Curves as runs of a Weights & Biases project, in a group named as the race."""

import math
import os
from pathlib import Path
from typing import Any

os.environ["WANDB_SILENT"] = "true"  # also, it then asks for nothing on the terminal, which is the race's

import wandb

from thalweg.mirrors.mirror import Mirror, Sent, about, label, results_of
from thalweg.store import Plan, Points, Run, race_name

_PATIENCE = 60.0
"""Seconds in which a run's data must have been sent when it has ended, or when the command ends."""


def open_(where: str, plan: Plan, race: str, folder: Path) -> Mirror:
    """A mirror in the project `where`, by default ``thalweg``; its files are in the folder of the race."""
    folder.mkdir(parents=True, exist_ok=True)
    wandb.login(verify=False)  # raises if it is to be sent and there is no key
    return WandB(where or "thalweg", race_name(race), plan, folder)


class WandB:
    """Runs of a project; see `thalweg.mirrors.Mirror`."""

    def __init__(self, project: str, race: str, plan: Plan, folder: Path) -> None:
        self._given: dict[str, Any] = {
            "project": project, "group": race, "dir": str(folder), "reinit": "create_new", "resume": "allow",
            "settings": wandb.Settings(**_settings()),
        }  # fmt: skip
        self._metric, self._sent = plan.problem.metric, Sent()
        self._runs: dict[str, Any] = {}
        self._last: dict[str, float] = {}

    def points(self, some: Points) -> None:
        """Note points of a run that is under way."""
        new = self._sent.new(some.key, some.first, some.curve)
        if new:
            self._log(self._run(some), some.key, new)

    def ended(self, run: Run) -> None:
        """Note a run that has ended."""
        there = self._run(run)
        if self._last[run.key] < math.inf:
            self._log(there, run.key, self._sent.new(run.key, 0, run.curve))
            there.summary.update({**results_of(run), "status": run.status, "message": run.message[-4_000:]})
        there.finish(exit_code=0 if run.status in ("finished", "stopped") else 1)
        del self._runs[run.key], self._last[run.key]
        self._sent.forget(run.key)

    def close(self) -> None:
        """Write what is left."""
        for there in self._runs.values():
            there.finish(exit_code=1)

    def _run(self, run: Points | Run) -> Any:
        if run.key not in self._runs:
            config = {**about(run), "metric": self._metric}
            made: Any = wandb.init(id=run.key, name=label(run), config=config, **self._given)
            made.define_metric("*", step_metric="step")
            self._runs[run.key], self._last[run.key] = made, _last(made)
        return self._runs[run.key]

    def _log(self, there: Any, key: str, points: list[tuple[int, float, dict[str, float]]]) -> None:
        for step, seconds, values in points:
            if step > self._last[key]:
                there.log({"step": step, "training_seconds": seconds, **values})


def _last(there: Any) -> float:
    """The last step that a run has at the server: -1 if it is new, infinite if it has been mirrored as a whole."""
    if not there.resumed:
        return -1.0
    if there.summary.get("status") is not None:
        return math.inf
    step = there.summary.get("step")
    return -1.0 if step is None else float(step)


def _settings() -> dict[str, Any]:
    given: dict[str, Any] = {"console": "off", "init_timeout": 20, "disable_git": True, "disable_code": True}
    if "finish_timeout" in wandb.Settings.model_fields:  # not in older versions; by default it waits for ever
        given |= {"finish_timeout": _PATIENCE, "finish_timeout_raises": True}
    return given
