"""The results of a race, with table, verdict and report."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from rich.console import Console

from thalweg import store, verdict
from thalweg.race import course
from thalweg.verdict.standing import standing

_WIDTH = 110
_NOTEBOOK = '<pre style="font-family: monospace; line-height: normal">{code}</pre>'


@dataclass(frozen=True, repr=False, eq=False)
class Results(store.Results):
    """The plan of a race and its runs, displayed as the leaderboard with the verdict below.

    Attributes:
        plan: the plan of the race.
        runs: all runs that have ended, by entry, phase (tuning first), trial and seed.
    """

    @classmethod
    def read(cls, place: str | Path) -> Self:
        """The results in a store, such as ``races/digits/race.db``, of a finished or unfinished race.

        Raises:
            StoreError: there is no store at this path or database URL, or none that can be read.
        """
        found = store.read(place)
        return cls(found.plan, course.ended(found.plan, found.runs))

    @cached_property
    def verdict(self) -> verdict.Verdict:
        """The leaderboard, the paired comparisons and the sentences on them; see `thalweg.verdict.judge`."""
        return verdict.judge(self)

    @property
    def complete(self) -> bool:
        """Whether all runs of the race have ended."""
        return verdict.Course(self).complete

    def report(self, path: str | Path = "report.html") -> Path:
        """Write the report, one HTML file that needs no network, and return its path; `OSError` if that fails."""
        from thalweg import report  # Plotly takes a second to load, and workers do not need it

        return report.write(self, path)

    def __repr__(self) -> str:
        console = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
        with console.capture() as capture:
            console.print(standing(self, console))
        return capture.get().rstrip()

    def _repr_html_(self) -> str:
        console = Console(file=io.StringIO(), width=_WIDTH, record=True)
        console.print(standing(self, console))
        return console.export_html(inline_styles=True, code_format=_NOTEBOOK)
