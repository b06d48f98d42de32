"""``thalweg landscape``."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from thalweg import problems
from thalweg.cli.exits import Interrupted, Mistake, stoppable, users_input
from thalweg.cli.live import duration
from thalweg.landscape import Landscape, Measure, landscapes, write
from thalweg.landscape.recorded import ABOUT, Recorded
from thalweg.landscape.surface import Progress
from thalweg.problems import Problem

PAGE = "landscape.html"
PATHS = "paths"
"""The folder of a race that has the trajectories of its runs."""


SIDE = 17
"""The points on a side of the landscape that a race draws by itself."""


@stoppable()
def landscape(runs: Sequence[Path], *, out: Path | None, **given: Any) -> None:
    """Draw the loss around recorded runs, coarse first; the page is written anew whenever a finer grid is complete."""
    with users_input():
        folders = [folder for run in runs for folder in trajectories(run)]
    draw(folders, out or runs[0] / PAGE, Console(highlight=False), **given)


def draw(
    folders: Sequence[Path],
    page: Path,
    console: Console,
    *,
    side: int,
    problem: str | None = None,
    data: Path | None = None,
    directions: Any = "principal",
    samples: int | None = 2_048,
    split: Any = "train",
    statistics: Any = "recomputed",
    seed: int = 0,
) -> None:
    """Draw the loss around trajectories on a page, and say what it hides."""
    made = None
    with users_input():
        measure = Measure.of(
            _problem(problem, folders, data), samples=samples or None, split=split, seed=seed, statistics=statistics
        )
        for sentence in measure.said:
            console.print(sentence, soft_wrap=True, markup=False)
        told = _Told(console)
        try:
            for made in landscapes(folders, measure, directions=directions, side=side, seed=seed, progress=told):
                write(made, page)
                _tell(made, console)
        except KeyboardInterrupt as stop:
            if made is None:
                raise
            at = len(made.grid.x)
            said = f"interrupted; {page} has the grid of {at} × {at} points"
            raise Interrupted(said, getattr(stop, "code", 130)) from None
    assert made is not None
    for sentence in made.hidden:
        console.print(sentence, soft_wrap=True, markup=False)
    console.print(f"\nThe landscape: {page}", soft_wrap=True, markup=False)


def trajectories(run: Path) -> list[Path]:
    """The folders of trajectories that a run has: itself, or those of a race."""
    if (run / ABOUT).exists():
        return [run]
    found = sorted(file.parent for file in (run / PATHS).glob(f"*/{ABOUT}"))
    if not found and any(run.glob("*.db")):
        raise Mistake(
            f"the race in {run} has recorded no paths; the same thalweg race command with --trajectory records them"
        )
    return found or [run]


def _problem(text: str | None, folders: Sequence[Path], data: Path | None) -> Problem:
    """The problem whose model and data are drawn: the one named, or the one that the trajectories name."""
    if text is None:
        noted = Recorded(folders[0]).about
        text = noted.get("problem")
        data = data or (Path(noted["data"]) if noted.get("data") else None)
    if text is None:
        raise Mistake(
            f"{folders[0]} does not say which model and data it belongs to; write --problem FILE.py:FUNCTION, a "
            "function that returns a thalweg.Problem"
        )
    found = problems.read(text, data=data)
    if not isinstance(found, Problem):
        raise Mistake(f"{text} trains by itself, and its loss is not known; name a function that returns a Problem")
    return found


def _tell(made: Landscape, console: Console) -> None:
    side = len(made.grid.x)
    left = made.progress.left
    more = f"; {duration(left)} left for a finer one" if left else ""
    console.print(f"{side} × {side} points{more}", markup=False)


class _Told:
    """Says on a terminal how far a landscape is."""

    def __init__(self, console: Console) -> None:
        self._console, self._last = console, time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if not self._console.is_terminal or now - self._last < 1:
            return
        self._last = now
        left = "" if progress.left is None else f", {duration(progress.left)} left"
        self._console.print(f"{progress.done:,} of {progress.total:,} points{left}", end="\r", markup=False)
