"""The progress of a race in the terminal: a bar for the whole, and one line per entry."""

import warnings
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from thalweg.mirrors import MirrorWarning
from thalweg.race import Progress as Event
from thalweg.race.progress import duration
from thalweg.store import Plan, Run, StoreWarning
from thalweg.verdict.standing import printable


class Board:
    """Shows a race's events on stderr; if that is not a terminal, only the start."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._best: dict[str, Run] = {}
        self._lost: dict[str, int] = {entry.name: 0 for entry in plan.entries}
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("runs"), TimeElapsedColumn(), TextColumn("{task.fields[left]}", style="dim", markup=False),
        )  # fmt: skip
        self._task = self._bar.add_task(printable(plan.problem.name), total=None, left="")
        self._console = Console(stderr=True)
        self._elsewhere = warnings.showwarning
        self._live = Live(self._shown(), console=self._console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._elsewhere, warnings.showwarning = warnings.showwarning, self._warned
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()
        warnings.showwarning = self._elsewhere

    def _warned(self, message: Warning | str, category: type[Warning], *where: Any) -> None:
        """Show a warning about the store or a mirror as one line, above the bar; others as ever."""
        if issubclass(category, StoreWarning | MirrorWarning):
            said = Text(f"Warning: {printable(str(message))}", style="yellow")
            self._console.print(said, highlight=False, soft_wrap=True)
        else:
            self._elsewhere(message, category, *where)

    def __call__(self, event: Event) -> None:
        """Show what has happened; a terminal that fails does not stop the race."""
        with suppress(OSError):
            self._show(event)

    def _show(self, event: Event) -> None:
        if event.run is None and not self._console.is_terminal:
            kept = f", {event.done:,} of them kept from before" if event.done else ""
            left = f", {duration(event.left)}" if event.left > 0 else ""
            said = f"{printable(self._plan.problem.name)}: {event.total:,} runs{kept}{_ways(event)}{left} …"
            self._console.print(Text(said), highlight=False, soft_wrap=True)
        if event.run is not None:
            self._lost[event.run.entry] += event.run.status in ("diverged", "failed")
            if event.best is not None:
                self._best[event.run.entry] = event.best
        left = f"{duration(event.left)} left" if event.left > 0 else ""
        self._bar.update(self._task, completed=event.done, total=event.total, left=left)
        self._live.update(self._shown())

    def _shown(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        metric = printable(self._plan.problem.metric)
        for column in ("entry", Text(f"best {metric} so far, validation"), "at lr", "diverged or failed"):
            table.add_column(column)
        for entry in self._plan.entries:
            best, lost = self._best.get(entry.name), self._lost[entry.name]
            found = (f"{best.validation_metric:.4f}", f"{best.settings['lr']:.2g}") if best else ("", "")
            table.add_row(Text(printable(entry.name)), *found, f"[yellow]{lost}[/]" if lost else "")
        return Group(self._bar, table)


def _ways(event: Event) -> str:
    """How runs are done, or why not otherwise."""
    if event.together > 1:
        return f", up to {event.together} advance together"
    return f", one at a time ({printable(event.why)})" if event.why else ""
