"""Curves as runs of an MLflow experiment, named as the race."""

import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # by default it tries for minutes

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from thalweg.mirrors.mirror import Mirror, Sent, about, label, results_of
from thalweg.store import Plan, Points, Run, race_name

_AT_ONCE = 900
"""Metrics in a request; MLflow accepts 1,000."""
_KEY = "thalweg.key"


def open_(where: str, plan: Plan, race: str, folder: Path) -> Mirror:
    """A mirror at the tracking URI `where`, by default the one that MLflow itself would use."""
    del folder
    return MLflow(MlflowClient(where or None), race, plan)


class MLflow:
    """Runs of an experiment; see `thalweg.mirrors.Mirror`."""

    def __init__(self, client: MlflowClient, race: str, plan: Plan) -> None:
        self._client, self._sent = client, Sent()
        name = race_name(race)
        found = client.get_experiment_by_name(name)
        self._experiment: Any = found.experiment_id if found else client.create_experiment(name)
        self._metric = plan.problem.metric
        self._runs: dict[str, str | None] = {}

    def points(self, some: Points) -> None:
        """Note points of a run that is under way."""
        if run := self._run(some):
            self._log(run, self._sent.new(some.key, some.first, some.curve))

    def ended(self, run: Run) -> None:
        """Note a run that has ended."""
        there = self._run(run)
        if there:
            self._log(there, self._sent.new(run.key, 0, run.curve))
            self._log(there, [(run.best_step, run.seconds, results_of(run))])
            if run.message:
                self._client.set_tag(there, "thalweg.message", run.message[-4_000:])
            good = run.status in ("finished", "stopped")
            self._client.set_terminated(there, "FINISHED" if good else "FAILED")
        self._runs.pop(run.key)
        self._sent.forget(run.key)

    def close(self) -> None:
        """Nothing is left."""

    def _run(self, run: Points | Run) -> str | None:
        """The id of a run at MLflow; None if it has been mirrored as a whole before."""
        if run.key not in self._runs:
            self._runs[run.key] = self._found(run)
        return self._runs[run.key]

    def _found(self, run: Points | Run) -> str | None:
        asked = f"tags.`{_KEY}` = '{run.key}'"
        for there in self._client.search_runs([self._experiment], asked, max_results=1):
            if there.info.status in ("FINISHED", "FAILED"):
                return None
            self._client.delete_run(there.info.run_id)  # of a race that was killed; the run is begun again
        name = label(run)
        made = self._client.create_run(self._experiment, run_name=name, tags={_KEY: run.key})
        params = [Param(key, str(value)[:500]) for key, value in about(run).items()]
        self._client.log_batch(made.info.run_id, params=params, tags=[RunTag("thalweg.metric", self._metric[:500])])
        return made.info.run_id

    def _log(self, run: str, points: list[tuple[int, float, dict[str, float]]]) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(name, x, now, step) for step, _, values in points for name, x in values.items()]
        for i in range(0, len(metrics), _AT_ONCE):
            self._client.log_batch(run, metrics=metrics[i : i + _AT_ONCE])
