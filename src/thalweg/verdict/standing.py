"""How a race ended, for terminals and notebooks: the leaderboard and the verdict."""

import math

from rich.console import Console, Group
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from thalweg.store import Results
from thalweg.verdict.board import Row
from thalweg.verdict.words import Verdict, judge


def standing(results: Results, console: Console) -> Group:
    """The leaderboard, best first, then what is shown and what to doubt; as wide as the console."""
    verdict = judge(results)
    for columns in (5, 3, 2):  # names before numbers: the report has them all
        table = _board(verdict, results.plan.problem.metric, columns)
        if Measurement.get(console, console.options.update(width=10_000), table).maximum <= console.width:
            break
    said = Text("\n".join((verdict.headline, *verdict.sentences)))
    doubts = [Padding(Text(f"! {warning}", style="yellow"), (0, 0, 0, 2)) for warning in verdict.warnings]
    return Group(table, Text(), said, *doubts)


def _board(verdict: Verdict, metric: str, columns: int) -> Table:
    """The leaderboard, with so many of the columns after the name."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("entry", overflow="fold")
    for column in (f"test {metric}", "95 % interval", "at lr", "seconds", "")[:columns]:
        table.add_column(column, justify="right", no_wrap=True)
    for place, row in enumerate(verdict.rows, 1):
        style = "bold" if row.entry in verdict.leaders else ""
        table.add_row(str(place), _named(row), *_numbers(row)[:columns], style=style)
    return table


def _named(row: Row) -> str:
    """The entry, and below it the schedule that its best setting has, where its name does not say so."""
    schedule = f"\n[dim]{escape(row.schedule)}[/]" if row.schedule and row.schedule not in row.entry else ""
    return escape(row.entry) + schedule


def _numbers(row: Row) -> tuple[str, ...]:
    between = "–" if math.isnan(row.low) else f"{row.low:.4f} … {row.high:.4f}"
    return _number(row.test_metric, ".4f"), between, _number(row.lr, ".2g"), _number(row.seconds, ".1f"), _lost(row)


def _number(x: float, form: str) -> str:
    return "–" if math.isnan(x) else format(x, form)


def _lost(row: Row) -> str:
    counts = {"diverged": row.diverged, "failed": row.failed}
    return "[yellow]" + ", ".join(f"{count} {what}" for what, count in counts.items() if count) + "[/]"
