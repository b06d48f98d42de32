"""Successive halving of a training function's trials: each is a process of its own, and they wait for each other.

See `thalweg.race.halving`.  A trial asks in its first report after a quarter of the steps, and again after a half,
whether it goes on.  It stands still until all trials that it is compared with have asked, too, or have ended.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg.problems import Training
from thalweg.race import functions, halving, isolated
from thalweg.race.entry import Entry
from thalweg.race.plan import Task
from thalweg.race.training import RunError, record
from thalweg.store import Plan, Run


def train(
    training: Training,
    plan: Plan,
    entries: Mapping[str, Entry],
    tasks: Sequence[Task],
    folder: Path | None,
    patience: float | None,
    *,
    apart: bool,
) -> list[Run]:
    """Do the trials of a bracket, of which one computes at a time.

    Args:
        training: the training.
        plan: the plan of the race.
        entries: its entries by name.
        tasks: the trials.
        folder: where they save checkpoints.
        patience: the most seconds between two reports.
        apart: whether this is a worker process, which may start others.

    Raises:
        RunError: no process can be forked here.
    """
    if not (apart and isolated.possible()):
        raise RunError(
            f"trials of {training.name} cannot wait for each other, since its file uses a GPU when it is imported, or "
            "the system is not Linux; leave halving out"
        )
    with ExitStack() as stack:
        going: list[_Trial] = []
        found: list[Run] = []
        for task in tasks:
            process = functions.started(training, plan, entries[task.entry], task, folder, patience, halved=True)
            going.append(_Trial(task, entries[task.entry], stack.enter_context(closing(process)), found.append))
            going[-1].go_on()
        count = halving.size(plan, tasks[0])
        for at, kept in halving.ROUNDS.items():
            for trial in going:  # those that have asked about an earlier round have been told to go on
                while trial.asked is not None and trial.asked[0] < at:
                    trial.go_on(True)
            going = [trial for trial in going if trial.asked is not None]
            scores = [(trial.asked, trial.task.trial) for trial in going]
            for i in halving.behind(plan, count, kept, scores):
                going[i].go_on(False)
            going = [trial for trial in going if trial.asked is not None]
        for trial in going:
            while trial.asked is not None:
                trial.go_on(True)
        return found


@dataclass
class _Trial:
    """A trial that has not ended.

    Attributes:
        asked: the share of the steps after which it stands still, and its score; None when it has ended.
    """

    task: Task
    entry: Entry
    process: isolated.Process
    keep: Callable[[Run], None]
    asked: tuple[float, tuple[float, float]] | None = None

    def go_on(self, answer: bool | None = None) -> None:
        """Wait until it asks, or has ended."""
        self.asked = None
        try:
            heard: Any = self.process.go_on(answer)
        except isolated.Lost as lost:
            heard = "failed", {"message": str(lost)}
        if isinstance(heard, isolated.Question):
            self.asked = heard.asked
            return
        status, known = heard
        self.process.close()
        self.keep(record(self.entry, self.task, status, **known))
