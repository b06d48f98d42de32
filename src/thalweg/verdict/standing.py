"""How a race ended, for terminals and notebooks: the leaderboard and the verdict."""

import math

from rich.console import Console, Group
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from thalweg.store import Results
from thalweg.verdict.board import Row
from thalweg.verdict.overall import LEVELS, Overall
from thalweg.verdict.words import Verdict, judge


def standing(results: Results, console: Console) -> Group:
    """The leaderboard, best first, then the conclusions and the warnings; as wide as the console."""
    verdict = judge(results)
    others = [*dict.fromkeys(name for row in verdict.rows for name in row.others)]
    for columns, more in ((5, others), (5, []), (3, []), (2, [])):  # names take priority over numbers in the report
        table = _board(verdict, results.plan.problem.metric, columns, more)
        if Measurement.get(console, console.options.update(width=10_000), table).maximum <= console.width:
            break
    said = Text("\n".join(map(printable, (verdict.headline, *verdict.sentences, *verdict.on_time))))
    doubts = [Padding(Text(f"! {printable(warning)}", style="yellow"), (0, 0, 0, 2)) for warning in verdict.warnings]
    return Group(table, Text(), said, *doubts)


def over_all(found: Overall) -> Group:
    """The standings over several problems, best first, and the conclusions."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("over all problems", overflow="fold")
    for column in ("IQM", "95 % interval", *(f"≥ {level:g}" for level in LEVELS)):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found.standings:
        shares = (f"{100 * share:.0f} %" for share in one.profile.values())
        table.add_row(printable(one.entry), f"{one.middle:.2f}", f"{one.low:.2f} … {one.high:.2f}", *shares)
    return Group(table, Text(), Text("\n".join(map(printable, (found.headline, *found.sentences)))))


def _board(verdict: Verdict, metric: str, columns: int, others: list[str]) -> Table:
    """The leaderboard with the first `columns` columns after the name, and then other metrics."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("entry", overflow="fold")
    for column in (Text(f"test {printable(metric)}"), "95 % interval", "at lr", "seconds", "")[:columns]:
        table.add_column(column, justify="right", no_wrap=True)
    for name in others:
        table.add_column(Text(printable(name)), justify="right", no_wrap=True)
    for place, row in enumerate(verdict.rows, 1):
        style = "bold" if row.entry in verdict.leaders else ""
        more = (_number(row.others.get(name, math.nan), ".4f") for name in others)
        table.add_row(str(place), _named(row), *_numbers(row)[:columns], *more, style=style)
    return table


def printable(text: str) -> str:
    """The text on one line, without characters that move a terminal's cursor or change its colours."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _named(row: Row) -> Text:
    """The entry and, below it, the schedule of its best setting, unless its name contains that."""
    # Names are the user's: read as markup, [/b] would be an error and :x: an emoji.
    schedule = f"\n{row.schedule}" if row.schedule and row.schedule not in row.entry else ""
    return Text.assemble(printable(row.entry), (schedule, "dim"))


def _numbers(row: Row) -> tuple[str | Text, ...]:
    return (
        _number(row.test_metric, ".4f"),
        row.between or "–",
        _number(row.lr, ".2g"),
        _number(row.seconds, ".1f"),
        _lost(row),
    )


def _number(x: float, form: str) -> str:
    return "–" if math.isnan(x) else format(x, form)


def _lost(row: Row) -> Text:
    counts = {"diverged": row.diverged, "failed": row.failed}
    return Text(", ".join(f"{count} {what}" for what, count in counts.items() if count), style="yellow")
