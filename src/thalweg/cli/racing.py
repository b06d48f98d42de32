"""``thalweg race``."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from rich.console import Console

from thalweg import problems
from thalweg.cli import contenders, recorded, surveying
from thalweg.cli.exits import Interrupted, Mistake, readable, stoppable, users_input
from thalweg.cli.live import Board
from thalweg.cli.recorded import PAGE, RECORDS
from thalweg.hyperparameters import nearest
from thalweg.mirrors import MirrorError, opened
from thalweg.race import Entry, Race, Results, RunError, WorkerError
from thalweg.report import overall as overall_page
from thalweg.report.page import put
from thalweg.store import Run, StoreError, race_name
from thalweg.verdict.overall import overall, to_csv
from thalweg.verdict.standing import over_all

MOST = 40
"""The replicates that a race may have that goes on until it is decided, unless --seeds says so."""
OVERALL = "overall.csv"


@stoppable()
def race(
    problem: str | None,
    rules: str,
    *,
    suite: str | None = None,
    data: Path | None,
    out: Path | None,
    store: str | None = None,
    **given: Any,
) -> None:
    """Race on a problem, or on several, one after another, with a verdict over all."""
    texts = _problems(problem, suite)
    given["store"] = None if store is None else recorded.url(store)
    if len(texts) == 1:
        _say_what_failed(
            _race(texts[0], rules, data=data, folder=out or Path("races") / folder_name(texts[0]), **given)
        )
        return
    if data is not None:
        raise Mistake(
            f"--data {data} can belong to one problem only, and there are {len(texts)}; race on that one alone"
        )
    folder = out or Path("races") / (suite or folder_name("-".join(texts)))
    console = Console(highlight=False)
    races: list[Results] = []
    for text in texts:
        races.append(_race(text, rules, data=None, folder=folder / folder_name(text), **given))
        console.print()
    found = overall(races)
    console.print(over_all(found))
    addresses = [f"{quote(folder_name(text))}/{PAGE}" for text in texts]
    with users_input():
        put(folder / OVERALL, to_csv(found))
        overall_page.write(found, dict(zip(addresses, races, strict=True)), folder / PAGE)
    console.print(f"\nOver all problems: {folder / PAGE}", soft_wrap=True, markup=False)
    for results in races:
        _say_what_failed(results)


def _problems(problem: str | None, suite: str | None) -> list[str]:
    """The texts of the problems to race on."""
    if (problem is None) == (suite is None):
        raise Mistake("a race needs a problem, as in thalweg race digits, or a --suite, and not both")
    if suite is None:
        found = contenders.split(cast(str, problem), "PROBLEM")
    elif suite in problems.SUITES:
        found = list(problems.SUITES[suite])
    else:
        there = ", ".join(problems.SUITES)
        raise Mistake(f"there is no suite {suite!r}{nearest(suite, problems.SUITES)}; there are {there}")
    if twice := [text for text in found if found.count(text) > 1]:
        raise Mistake(f"the problem {twice[0]} is there twice; leave one out")
    return found


def _race(
    problem: str,
    rules: str,
    *,
    data: Path | None,
    folder: Path,
    trials: int | None,
    seeds: int | None,
    finalists: int | None,
    steps: int | None,
    seconds: float | None,
    seed: int,
    workers: int | None,
    populations: Any = "auto",
    schedules: Sequence[str] = (),
    splits: bool = False,
    halving: bool = False,
    until: str | None = None,
    margin: float | None = None,
    target: float | None = None,
    patience: float | None = None,
    mix_versions: bool = False,
    trajectory: bool = False,
    store: str | None = None,
    ray: str | None = None,
    mirrors: Sequence[str] = (),
) -> Results:
    """Do the remaining runs of a race, store them, write the report and print the outcome."""
    if until not in (None, "decided"):
        raise Mistake(f"--until {until!r} is not known; write --until decided")
    if until and margin is None:
        raise Mistake("--until decided needs a --margin, a difference that does not matter, as in --margin 0.005")
    if margin is not None and not until:
        raise Mistake(f"--margin {margin:g} says when a race is decided; write --until decided, too")
    if steps is not None and seconds is not None:
        raise Mistake(f"--steps {steps} and --seconds {seconds:g} are two budgets; write one of them")
    if until and seeds is None:
        seeds = MOST
    given: dict[str, Any] = {
        "trials": trials, "seeds": seeds, "finalists": finalists, "steps": steps, "seconds": seconds, "target": target,
    }  # fmt: skip
    with users_input(), warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        texts = contenders.split(rules)
        # Entries are read after the problem, whose file may define rules.
        entries = (_entry(text, schedules) for text in texts)
        contest = Race(
            problem, entries, seed=seed, splits=splits, halving=halving, margin=margin,
            store=store or folder / RECORDS, name=folder.name, workers=workers, populations=populations,
            checkpoints=folder / "checkpoints" if store else None,
            data=data, patience=patience, mix_versions=mix_versions, ray=ray,
            **{name: value for name, value in given.items() if value is not None},
        )  # fmt: skip
        if trajectory:
            contest.check_paths()
    for doubt in doubts:
        Console(stderr=True, highlight=False).print(f"Warning: {doubt.message}", style="yellow", markup=False)
    kept = folder / RECORDS if store is None else recorded.name_of(store)
    saved = f"runs that had ended are kept in {kept}, and the same command goes on from them"
    try:
        with (
            users_input((StoreError, WorkerError, RunError, MirrorError)),
            Board(contest.plan) as board,  # which also shows what mirrors say at the end
            opened(mirrors, contest.plan, folder.name, folder) as mirrored,
        ):
            results = contest.run(board, mirrored)
    except KeyboardInterrupt as stop:
        raise Interrupted(f"{str(stop) or 'interrupted'}; {saved}", getattr(stop, "code", 130)) from None
    except Mistake as mistake:
        raise Mistake(
            str(mistake) if isinstance(mistake.__cause__, StoreError | MirrorError) else f"{mistake}; {saved}"
        ) from None
    if trajectory:
        _record(contest, results, problem, data, folder)
    recorded.publish(results, folder, kept, None if store is None else f"{kept}/{race_name(folder.name)}")
    return results


def _record(contest: Race, results: Results, problem: str, data: Path | None, folder: Path) -> None:
    """Record the path of the first replicate of each entry, and draw the loss around all of them."""
    console = Console(highlight=False)
    about = {"problem": problem, **({"data": str(data.resolve())} if data else {})}
    with users_input((ValueError, RunError)):
        for path in contest.paths(results, folder / surveying.PATHS, about):
            said = "as in the race" if path.same else "its course is another than in the race"
            console.print(f"recorded {path.run.entry}: {said}", markup=False)
    surveying.draw(surveying.trajectories(folder), folder / surveying.PAGE, console, side=surveying.SIDE)


def _entry(text: str, schedules: Sequence[str]) -> Entry:
    """An entry with these schedules, tuned if there are several, unless it has its own."""
    entry = Entry(text)
    return Entry(text, schedule=list(schedules)) if schedules and "schedule" not in entry.options else entry


def _say_what_failed(results: Results) -> None:
    """Print the first error of the runs to stderr; if no entry has a result, it is the user's mistake."""
    lost = [run for run in results.runs if run.status in ("diverged", "failed")]
    if not any(run.phase == "final" and run.status == "finished" for run in results.runs):
        of = f"{len(lost):,} of {len(results.runs):,} runs were lost"
        raise Mistake(f"no entry has a result: {of}, the first, of {lost[0].entry}: {_first_line(lost[0])}")
    if failed := [run for run in lost if run.status == "failed"]:
        of = f"{len(failed):,} of {len(results.runs):,} runs failed"
        said = f"Warning: {of}, the first, of {failed[0].entry}: {_first_line(failed[0])}"
        Console(stderr=True, highlight=False).print(readable(said), style="yellow", markup=False)


def _first_line(run: Run) -> str:
    """What is to say about a lost run, without its traceback."""
    return run.message.partition("\n")[0]


def folder_name(problem: str) -> str:
    """A folder name for a problem's text: ``my_problem.py:make`` is ``my_problem-make``; 80 letters at most."""
    named = re.sub(r"(?:.*/)?([^/]*?)\.py(?::|(?= ))", r"\1-", problem)
    return re.sub(r"[^\w.-]+", "-", named)[:80].strip("-.") or "race"
