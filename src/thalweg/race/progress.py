"""The progress of a race, and how notebooks show it, and the report."""

import html
import importlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg.store import Plan, Run

_TEXT = "font-family: monospace; line-height: normal"


@dataclass(frozen=True)
class Progress:
    """The progress of a race.

    Attributes:
        run: the run that has just ended; None at the start, when only stored runs count.
        done: the number of runs that have ended.
        total: the number of runs in the race; an entry without a finished trial has no final runs.
        best: the best trial so far of the run's entry.
        together: the most runs that advance together; 1 if they are done one at a time.
        why: why they are, or empty.
        left: the seconds that the race is expected to take from now on; nan if nothing is known.
    """

    run: Run | None
    done: int
    total: int
    best: Run | None
    together: int = 1
    why: str = ""
    left: float = math.nan


def duration(seconds: float) -> str:
    """A time to expect, such as ``about 3 minutes``."""
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.0f} {unit}s"
    return "about a minute" if seconds >= 45 else f"about {max(5 * math.ceil(seconds / 5), 5)} seconds"


def shell() -> Any:
    """The notebook's shell that runs this process; None in terminals and scripts."""
    module = sys.modules.get("IPython")
    found = None if module is None else module.get_ipython()
    return found if found is not None and hasattr(found, "kernel") else None


class Page(type(Path())):
    """The path of a report, which notebooks show as the page itself."""

    def _repr_html_(self) -> str:
        page = html.escape(self.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 46em; border: 0"></iframe>'


class Shown:
    """Shows the progress of a race below a cell: the runs done, and each entry's best so far."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._best: dict[str, Run] = {}
        self._lost = dict.fromkeys((entry.name for entry in plan.entries), 0)
        self._handle: Any = None
        self._done = self._total = 0

    def __call__(self, event: Progress) -> None:
        """Show what has happened."""
        self._done, self._total = event.done, event.total
        if event.run is not None:
            self._lost[event.run.entry] += event.run.status != "finished"
            if event.best is not None:
                self._best[event.run.entry] = event.best
        if self._handle is None:
            self._handle = importlib.import_module("IPython.display").display(self, display_id=True)
        else:
            self._handle.update(self)

    def __repr__(self) -> str:
        return f"{self._plan.problem.name}: {self._done:,} of {self._total:,} runs"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{_best(self._best.get(name))}</td><td>{lost or ''}</td></tr>"
            for name, lost in self._lost.items()
        )
        metric = html.escape(self._plan.problem.metric)
        return (
            f'<div style="{_TEXT}">{html.escape(self._plan.problem.name)} '
            f'<progress value="{self._done}" max="{self._total}"></progress> {self._done:,} of {self._total:,} runs'
            f"<table><tr><th>entry</th><th>best {metric} so far, validation</th><th>diverged or failed</th></tr>{rows}"
            "</table></div>"
        )


def _best(run: Run | None) -> str:
    return "" if run is None else f"{run.validation_metric:.4f} at lr {run.settings['lr']:.2g}"
