"""``thalweg race`` and ``thalweg report``."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from thalweg import report as reports
from thalweg import verdict
from thalweg.cli import contenders
from thalweg.cli.exits import Interrupted, users_input
from thalweg.cli.live import Board
from thalweg.race import Entry, Race, WorkerError
from thalweg.store import Results, StoreError, read
from thalweg.verdict.standing import standing

RECORDS, PAGE, TABLE = "race.db", "report.html", "leaderboard.csv"


def race(
    problem: str,
    rules: str,
    *,
    data: Path | None,
    trials: int | None,
    seeds: int | None,
    steps: int | None,
    seed: int,
    out: Path | None,
    workers: int | None,
    schedules: Sequence[str] = (),
) -> None:
    """Run what is left of a race, keep it, write its report and print how it ended."""
    given = {"trials": trials, "seeds": seeds, "steps": steps}
    folder = out or Path("races") / folder_name(problem)
    with users_input(), warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        entries = [_entry(text, schedules) for text in contenders.split(rules)]
        contest = Race(
            problem, entries, seed=seed, store=folder / RECORDS, workers=workers, data=data,
            **{name: value for name, value in given.items() if value is not None},
        )  # fmt: skip
    for doubt in doubts:
        Console(stderr=True, highlight=False).print(f"Warning: {doubt.message}", style="yellow", markup=False)
    try:
        with users_input((StoreError, WorkerError)), Board(contest.plan) as board:
            results = contest.run(board)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; runs that had ended are kept in {folder / RECORDS}, and the same command goes on from them"
        ) from None
    _publish(results, folder)


def _entry(text: str, schedules: Sequence[str]) -> Entry:
    """An entry; of these schedules, tuned if there are several, unless it has its own."""
    entry = Entry(text)
    return Entry(text, schedule=list(schedules)) if schedules and "schedule" not in entry.options else entry


def report(folder: Path) -> None:
    """Write the report of the race in `folder` again, and print how it ended."""
    with users_input():
        results = read(folder / RECORDS)
    _publish(results, folder)


def _publish(results: Results, folder: Path) -> None:
    with users_input(()):
        (folder / TABLE).write_text(verdict.to_csv(verdict.judge(results).rows), encoding="utf-8")
        page = reports.write(results, folder / PAGE)
    console = Console(highlight=False)
    console.print(standing(results, console))
    console.print(f"\nThe whole report: {page}", soft_wrap=True)


def folder_name(problem: str) -> str:
    """A problem's text as the name of a folder: ``my_problem.py:make`` is ``my_problem-make``."""
    file, colon, function = problem.rpartition(":")
    named = f"{Path(file).stem}-{function}" if colon and file.endswith(".py") else problem
    return re.sub(r"[^\w.-]+", "-", named).strip("-.") or "race"
