"""How a race ended, in the terminal: the leaderboard and the verdict."""

import math

from rich.console import Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from thalweg.store import Results
from thalweg.verdict import Row, judge


def standing(results: Results) -> Group:
    """The leaderboard, best first, then what is shown and what to doubt."""
    verdict = judge(results)
    metric = results.plan.problem.metric
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("entry", overflow="fold")
    for column in (f"test {metric}", "95 % interval", "at lr", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for place, row in enumerate(verdict.rows, 1):
        style = "bold" if row.entry in verdict.leaders else ""
        table.add_row(str(place), escape(row.entry), *_numbers(row), _lost(row), style=style)
    said = Text("\n".join((verdict.headline, *verdict.sentences)))
    doubts = [Padding(Text(f"! {warning}", style="yellow"), (0, 0, 0, 2)) for warning in verdict.warnings]
    return Group(table, Text(), said, *doubts)


def _numbers(row: Row) -> tuple[str, str, str, str]:
    between = "–" if math.isnan(row.low) else f"{row.low:.4f} … {row.high:.4f}"
    return _number(row.test_metric, ".4f"), between, _number(row.lr, ".2g"), _number(row.seconds, ".1f")


def _number(x: float, form: str) -> str:
    return "–" if math.isnan(x) else format(x, form)


def _lost(row: Row) -> str:
    counts = {"diverged": row.diverged, "failed": row.failed}
    return "[yellow]" + ", ".join(f"{count} {what}" for what, count in counts.items() if count) + "[/]"
