"""Curves as runs of a Weights & Biases project, in a group named as the race."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_SILENT", "true")

import wandb

from thalweg.mirrors.mirror import Mirror, Sent, about, label, results_of
from thalweg.store import Plan, Points, Run, race_name


def open_(where: str, plan: Plan, race: str, folder: Path) -> Mirror:
    """A mirror in the project `where`, by default ``thalweg``; its files are in the folder of the race."""
    folder.mkdir(parents=True, exist_ok=True)
    return WandB(where or "thalweg", race_name(race), plan, folder)


class WandB:
    """Runs of a project; see `thalweg.mirrors.Mirror`."""

    def __init__(self, project: str, race: str, plan: Plan, folder: Path) -> None:
        self._given: dict[str, Any] = {
            "project": project, "group": race, "dir": str(folder), "reinit": "create_new", "resume": "allow",
            "settings": wandb.Settings(console="off", init_timeout=20, disable_git=True, disable_code=True),
        }  # fmt: skip
        self._metric, self._sent = plan.problem.metric, Sent()
        self._runs: dict[str, Any] = {}

    def points(self, some: Points) -> None:
        """Note points of a run that is under way."""
        new = self._sent.new(some.key, some.first, some.curve)
        if new:
            self._log(self._run(some), new)

    def ended(self, run: Run) -> None:
        """Note a run that has ended."""
        there = self._run(run)
        self._log(there, self._sent.new(run.key, 0, run.curve))
        there.summary.update({**results_of(run), "status": run.status, "message": run.message[-4_000:]})
        there.finish(exit_code=0 if run.status in ("finished", "stopped") else 1)
        self._runs.pop(run.key)
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
            self._runs[run.key] = made
        return self._runs[run.key]

    def _log(self, there: Any, points: list[tuple[int, float, dict[str, float]]]) -> None:
        for step, seconds, values in points:
            there.log({"step": step, "training_seconds": seconds, **values})
