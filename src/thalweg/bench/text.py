"""A result as text: a table for the terminal, and Markdown for the docs."""

import math
import re
from collections.abc import Iterable
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from thalweg.bench.result import DEFAULT, KINDS, OURS, ZEROING, Extra, Kind, Result, Row

_BEGIN, _END = "<!-- thalweg bench: begin -->", "<!-- thalweg bench: end -->"

_HEADINGS = (
    *("thalweg", "zeroing", "torch's best", "", "default"),  # times
    *("× best", "zeroing", "× default", "floor", "× floor", "zeroing"),  # relative to others
)
_NONE = "–"

# The columns that fit into a terminal of at least that width.
_FIT = {176: tuple(range(len(_HEADINGS))), 92: (0, 2, 3, 5, 9), 0: (0, 2, 5, 9)}
_WIDE = max(_FIT)


def table(rows: Iterable[Row], width: int) -> Table:
    """One row per workload, rule and kind: medians in µs, relative speeds, then the floor.

    Args:
        rows: the rows.
        width: of the terminal; on a narrow one the most important columns are shown.
    """
    wide = width >= _WIDE
    shown = next(columns for least, columns in _FIT.items() if width >= least)
    made = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("workload", "rule", "timed"):
        made.add_column(heading, no_wrap=True)
    for heading in (_HEADINGS[i] for i in shown):
        made.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    last = ""
    for row in rows:
        if last and row.workload != last:
            made.add_section()
        last = row.workload
        cells = [escape(text) for text in _cells(row)]
        cells[5] = f"[{'red' if row.slow else 'green'}]{cells[5]}[/]"
        timed = KINDS[row.kind] if wide else row.kind
        made.add_row(escape(row.title), escape(row.rule), timed, *(cells[i] for i in shown))
    return made


def _cells(row: Row) -> list[str]:
    """The cells under `_HEADINGS`."""
    zeroing = ZEROING in row.times
    return [
        microseconds(row.times[OURS].median),
        microseconds(row.times[ZEROING].median) if zeroing else _NONE,
        microseconds(row.times[row.best].median),
        row.best,
        microseconds(row.times[DEFAULT].median),
        ratio(row.faster(OURS)),
        ratio(row.faster(ZEROING)) if zeroing else _NONE,
        ratio(row.faster(OURS, DEFAULT)),
        microseconds(row.floor()),
        ratio(row.above_floor()),
        ratio(row.above_floor(ZEROING)) if zeroing else _NONE,
    ]


def microseconds(seconds: float) -> str:
    """A time in µs, to three digits."""
    return digits(seconds * 1e6)


def ratio(x: float) -> str:
    """A ratio to three digits."""
    return f"{digits(x)}×"


def digits(x: float) -> str:
    """A number ≥ 0 to three significant digits, with all digits before the decimal point."""
    places = 2 - math.floor(math.log10(x)) if x > 0 else 0
    return f"{round(x, places):,.{min(max(places, 0), 4)}f}"


def machine(result: Result) -> str:
    """The machine in one sentence."""
    m = result.machine
    return (
        f"{m['processor']}, {m['cores']} cores ({m['vectors']}), {m['memory']}, {m['threads']} threads; "
        f"torch {m['torch']}, numba {m['numba']}, Python {m['python']}, {m['system']}; {m['date']}."
    )


def markdown(result: Result) -> str:
    """The machine, one table per kind, and the extras."""
    parts = [f"Measured on: {machine(result)}", *(f"**Warning:** {w}." for w in result.warnings)]
    for kind, title in KINDS.items():
        rows = [row for row in result.rows if row.kind == kind]
        if rows:
            parts += [f"### {title[0].upper()}{title[1:]}", _table(kind, rows)]
    if result.extras:
        lines = ["| what | measured |", "| --- | --: |"]
        parts += ["### Beside the steps", "\n".join([*lines, *(f"| {e.what} | {amount(e)} |" for e in result.extras)])]
    return "\n\n".join(parts) + "\n"


def amount(extra: Extra) -> str:
    """An extra's number with its unit."""
    sign = "−" if extra.value < 0 else ""
    return f"{sign}{digits(abs(extra.value))}{'' if extra.unit in '×' else ' '}{extra.unit}"


def _table(kind: Kind, rows: list[Row]) -> str:
    # A step alone zeroes nothing, so its table has no columns for that.
    shown = [i for i, heading in enumerate(_HEADINGS) if not (kind == "step" and heading == "zeroing")]
    heads = [_HEADINGS[i] or "way" for i in shown]
    lines = [
        f"| workload | rule | {' | '.join(heads)} |",
        f"| --- | --- | {' | '.join('---' if head == 'way' else '--:' for head in heads)} |",
    ]
    for row in rows:
        cells = _cells(row)
        lines.append(f"| {row.title} | {row.rule} | {' | '.join(cells[i] for i in shown)} |")
    return "\n".join(lines)


def rewrite(path: Path, result: Result) -> None:
    """Put `result`'s tables into a Markdown file, in place of those between its two marks.

    Raises:
        ValueError: the file has no such marks.
        OSError: it cannot be read or written.
    """
    text = path.read_text(encoding="utf-8")
    between = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    if len(between.findall(text)) != 1:
        raise ValueError(f"{path} has no place for the tables; put these two lines where they belong: {_BEGIN} {_END}")
    tables = f"{_BEGIN}\n\n{markdown(result)}\n{_END}"
    path.write_text(between.sub(lambda _: tables, text), encoding="utf-8")
