"""The results of a race, with table, verdict and report."""

import io
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from thalweg import store, verdict
from thalweg.race import course
from thalweg.race.progress import Page
from thalweg.store import Run
from thalweg.verdict.standing import standing

if TYPE_CHECKING:
    import pandas

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
    def read(cls, place: str | Path, race: str | None = None) -> Self:
        """The results in a store, such as ``races/digits/race.db``, of a finished or unfinished race.

        Args:
            place: the path or database URL.
            race: the name of the race, where the store has many.

        Raises:
            StoreError: there is no store at this path or database URL, none that can be read, or no such race.
        """
        return cls.of_store(store.read(place, race))

    @classmethod
    def of_store(cls, found: store.Results) -> Self:
        """Of what a store has those runs that are the race's."""
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
        """Write the report, one HTML file that needs no network, and return its path; `OSError` if that fails.

        Notebooks show the page in place of the path.
        """
        from thalweg import report  # Plotly takes a second to load, and workers do not need it

        return Page(report.write(self, path))

    def frame(self, *, curves: bool = False) -> "pandas.DataFrame":
        """The runs as a table of pandas, with a row for every run, or with `curves` for every point of its curve.

        The columns: ``entry``, ``phase`` (``tune`` or ``final``), ``trial``, ``seed``, ``status``, and each setting of
        the rules by its name, as ``lr``; then of a run ``best_step``, ``validation_metric``, ``validation_loss``,
        ``test_metric``, ``test_loss`` at that step, ``seconds``, ``message``, ``key``, and of each metric that does not
        decide ``validation_NAME`` and ``test_NAME``; or of a point of its curve ``step``, ``examples``, ``seconds``,
        ``train_loss``, ``validation_loss``, ``validation_metric`` and ``validation_NAME``, as in `thalweg.store.Curve`.
        What is not known is nan.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("frame() makes a table of pandas, which is missing; pip install pandas") from None
        rows = [{**_row(run), **point} for run in self.runs for point in (_points(run) if curves else [_ended(run)])]
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, force_jupyter=False)
        with console.capture() as capture:
            console.print(standing(self, console))
        return capture.get().rstrip()

    def _repr_html_(self) -> str:
        console = Console(file=io.StringIO(), width=_WIDTH, record=True, force_jupyter=False)
        console.print(standing(self, console))
        return console.export_html(inline_styles=True, code_format=_NOTEBOOK)


def _row(run: Run) -> dict[str, Any]:
    about = {name: getattr(run, name) for name in ("entry", "phase", "trial", "seed", "status")}
    return {**about, **run.settings}


def _ended(run: Run) -> dict[str, Any]:
    names = ("best_step", "validation_metric", "validation_loss", "test_metric", "test_loss", "seconds", "message")
    others = {f"validation_{name}": x for name, x in run.validation_others.items()}
    others |= {f"test_{name}": x for name, x in run.test_others.items()}
    own = {name: getattr(run, name) for name in (*names, "key")}
    return own | {name: x for name, x in others.items() if name not in own}


def _points(run: Run) -> list[dict[str, Any]]:
    columns = {f.name: getattr(run.curve, f.name) for f in fields(run.curve)}
    others = {f"validation_{name}": column for name, column in run.others.items()}
    columns |= {name: column for name, column in others.items() if name not in columns}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
