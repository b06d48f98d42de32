"""``thalweg report`` and ``thalweg list``: what stores hold."""

from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thalweg import report as reports
from thalweg import store, verdict
from thalweg.cli.exits import Mistake, users_input
from thalweg.race import Results
from thalweg.report.page import put
from thalweg.verdict.standing import printable, standing

RECORDS, PAGE, TABLE = "race.db", "report.html", "leaderboard.csv"


def url(place: str) -> str:
    """The database URL of a store that the user named by a URL or by a file."""
    if not place.strip():
        raise Mistake("the store is empty; write postgresql://user@host/name, or a file")
    return place if "://" in place else f"sqlite:///{place}"


def name_of(place: str) -> str:
    """The name of a store for people."""
    with users_input():
        return store.Place.of(place).name


def read(race: str) -> tuple[Results, Path, str]:
    """A race that the user named, the folder for what is written of it, and the name of its store."""
    if Path(race).name == RECORDS and Path(race).is_file():
        race = str(Path(race).parent)
    if "://" not in race and (Path(race).is_dir() or not any(p.is_file() for p in (Path(race), *Path(race).parents))):
        return Results.read(Path(race) / RECORDS), Path(race), str(Path(race) / RECORDS)
    where, name = store.locate(race)
    with store.Reader(where) as reader:
        found = reader.results(name)
        return Results.of_store(found), Path("races") / (name or store.race_name(found.plan.problem.name)), reader.place


def report(race: str, out: Path | None) -> None:
    """Rewrite the report of a race, and print the outcome."""
    with users_input():
        results, folder, kept = read(race)
    publish(results, out or folder, kept, race)


def list_(place: str) -> None:
    """Print the races in a store."""
    with users_input(), store.Reader(url(place) if not Path(place).is_dir() else Path(place) / RECORDS) as reader:
        found = reader.races()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("race", "problem", "entries", "runs", "begun", "last run"):
        table.add_column(column, justify="right" if column == "runs" else "left", overflow="fold")
    for race in found:
        about = (race.name, race.plan.problem.name, ", ".join(entry.name for entry in race.plan.entries))
        more = (f"{race.ended:,}", _when(race.since), _when(race.last))
        table.add_row(*(Text(printable(text)) for text in (*about, *more)))
    console = Console(highlight=False)
    console.print(table if found else Text(f"{reader.place} holds no race"))


def _when(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def publish(results: Results, folder: Path, kept: str | Path, race: str | Path | None = None) -> None:
    """Write the table and the report, print the outcome, and report what could not be written.

    Args:
        results: the race.
        folder: where to write.
        kept: where its runs are, for the message.
        race: what ``thalweg report`` is to be given to write them again, by default the folder.
    """
    race = folder if race is None else race
    failed: list[str] = []
    for name in (TABLE, PAGE):
        try:
            if name == TABLE:
                put(folder / name, verdict.to_csv(verdict.judge(results).rows))
            else:
                reports.write(results, folder / name)
        except OSError as error:
            failed.append(f"{folder / name} cannot be written ({error.strerror})")
    console = Console(highlight=False)
    console.print(standing(results, console))
    if not failed:
        console.print(f"\nThe whole report: {folder / PAGE}", soft_wrap=True, markup=False)
        return
    raise Mistake(
        f"{'; '.join(failed)}; every run is kept in {kept}, and after you have made room for them, thalweg report "
        f"{race} writes what is missing"
    )
