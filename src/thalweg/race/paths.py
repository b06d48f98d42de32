"""The paths that the runs of a race take through the space of weights.

A race does not record them while it runs, since that would take its time and its disk.  Runs are deterministic, so the
best run of each entry is done once more, and recorded then.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from thalweg.landscape import Trajectory
from thalweg.optimizer import Optimizer
from thalweg.problems import Problem
from thalweg.race import steering
from thalweg.race.entry import Entry
from thalweg.race.plan import Task
from thalweg.race.training import Watch, train
from thalweg.store import Plan, Results, Run

KEEP = 200


@dataclass(frozen=True)
class Recorded:
    """A run that was done once more.

    Attributes:
        folder: its trajectory.
        run: its record as it is now.
        before: its record in the race.
    """

    folder: Path
    run: Run
    before: Run

    @property
    def same(self) -> bool:
        """Whether its course was the same, to the last bit, but for the seconds."""
        kept = ("step", "train_loss", "validation_loss", "validation_metric")
        return self.run.status == self.before.status and all(
            repr(getattr(self.run.curve, name)) == repr(getattr(self.before.curve, name)) for name in kept
        )


def record(
    problem: Problem,
    plan: Plan,
    entries: Mapping[str, Entry],
    results: Results,
    folder: Path,
    about: dict[str, Any] | None = None,
    keep: int = KEEP,
) -> Iterator[Recorded]:
    """Do the first replicate of each entry once more, and record its path, one entry after another.

    The runs of one replicate start from the same weights, so the paths have one start.  What is recorded are the
    weights to evaluate, also of methods that train at a lookahead point.

    Args:
        problem, plan, entries, results: of the race.
        folder: where each path gets a folder of its own; what was there of earlier ones is removed.
        about: what to note with each path besides its label.
        keep: the most snapshots of a path, besides the last.
    """
    shutil.rmtree(folder, ignore_errors=True)
    taken: set[str] = set()
    for entry in plan.entries:
        kept = results.replicates(entry.name)
        if not kept or kept[0].status != "finished":
            continue
        before = kept[0]
        name = re.sub(r"[^\w.-]+", "-", entry.name).strip("-.")[:80] or "entry"
        while name in taken:
            name += "-"
        taken.add(name)
        tuned = {setting: before.settings[setting] for setting in entry.search}
        task = Task(before.key, entry.name, "final", before.trial, before.seed, tuned)
        noted = {"label": entry.name, "entry": entry.name, "seed": before.seed, **(about or {})}
        paths: list[Trajectory] = []
        try:
            run = train(problem, plan, entries[entry.name], task, _watch(folder / name, noted, keep, paths))
        finally:
            for path in paths:
                path.close()
        yield Recorded(folder / name, run, before)


def _watch(folder: Path, about: dict[str, Any], keep: int, paths: list[Trajectory]) -> Watch:
    def watch(model: nn.Module, optimizer: Optimizer) -> None:
        path = Trajectory(model, folder, keep=keep, about=about)
        paths.append(path)

        def record(*_: object) -> None:
            with steering.evaluating([optimizer]):
                path.record()

        optimizer.register_step_post_hook(record)

    return watch
