"""Curves as TensorBoard's event files: a folder for each run."""

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import summary
from torch.utils.tensorboard.writer import SummaryWriter

from thalweg.mirrors.mirror import Mirror, Sent, about, label, results_of
from thalweg.store import Plan, Points, Run


def open_(where: str, plan: Plan, race: str, folder: Path) -> Mirror:
    """A mirror in the folder `where`, by default ``tensorboard`` in that of the race."""
    del plan, race
    return TensorBoard(Path(where) if where else folder / "tensorboard")


class TensorBoard:
    """Event files in a folder; see `thalweg.mirrors.Mirror`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._sent = folder, Sent()
        self._writers: dict[str, Any] = {}

    def points(self, some: Points) -> None:
        """Note points of a run that is under way."""
        if new := self._sent.new(some.key, some.first, some.curve):
            self._write(some, new).flush()

    def ended(self, run: Run) -> None:
        """Note a run that has ended."""
        writer = self._write(run, self._sent.new(run.key, 0, run.curve))
        for name, x in results_of(run).items():
            writer.add_scalar(name, x, run.best_step)
        told: Any = summary
        for each in told.hparams(about(run), {}):
            writer.file_writer.add_summary(each)
        writer.add_text("status", f"{run.status}: {run.message}" if run.message else run.status)
        self._writers.pop(run.key).close()
        self._sent.forget(run.key)

    def close(self) -> None:
        """Write what is left."""
        for writer in self._writers.values():
            writer.close()

    def _write(self, run: Points | Run, points: list[tuple[int, float, dict[str, float]]]) -> Any:
        if run.key not in self._writers:
            # What a run that was killed has left in the folder is dropped by whoever reads it.
            self._writers[run.key] = SummaryWriter(str(self._folder / label(run)), purge_step=0)
        for step, _, values in points:
            for name, x in values.items():
                self._writers[run.key].add_scalar(name, x, step)
        return self._writers[run.key]
