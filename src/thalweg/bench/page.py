"""A result as one HTML page: bars, the roofline, and the table in full."""

import math
from pathlib import Path
from typing import Any

from thalweg.bench import text
from thalweg.bench.result import DEFAULT, KINDS, OURS, ZEROING, Result, Row
from thalweg.report import page
from thalweg.report.page import Figure

_COLOURS = {
    OURS: "var(--blue)", ZEROING: "var(--cyan)", DEFAULT: "var(--brown)", "for-loop": "var(--chalk)",
    "foreach": "var(--orange)", "fused": "var(--magenta)", "compiled": "var(--violet)",
}  # fmt: skip
_MARKS = {OURS: "circle", ZEROING: "diamond"}


def write(path: Path | str, result: Result) -> Path:
    """Write the page, and return where it is.

    Raises:
        OSError: the file cannot be written.
    """
    kinds: list[dict[str, Any]] = [
        {"name": kind, "title": title, "rows": rows, "contenders": _contenders(rows)}
        for kind, title in KINDS.items()
        if (rows := [row for row in result.rows if row.kind == kind])
    ]
    figures = {f"bars-{kind['name']}": _bars(kind["rows"]) for kind in kinds}
    context = {
        "title": "How fast a step is",
        "machine": text.machine(result),
        "result": result,
        "kinds": kinds,
        "contenders": _contenders(result.rows),
        "colours": _COLOURS,
        "ours": OURS,
        "zeroing": ZEROING,
        "microseconds": text.microseconds,
        "ratio": text.ratio,
        "amount": text.amount,
    }
    return page.write(path, "bench.html", {"figures": figures | {"roofline": _roofline(result.rows)}}, **context)


def _contenders(rows: list[Row]) -> list[str]:
    return [name for name in _COLOURS if any(name in row.times for row in rows)]


def _bars(rows: list[Row]) -> Figure:
    """The speed relative to torch's best, on a logarithmic scale around 1."""
    labels = [f"{row.title} · {row.rule}" for row in rows]
    traces: list[dict[str, Any]] = []
    for name in (OURS, ZEROING):
        shown = [(label, row) for label, row in zip(labels, rows, strict=True) if name in row.times]
        ratios = [row.faster(name) for _, row in shown]
        traces.append({
            "type": "bar", "orientation": "h", "name": name, "y": [label for label, _ in shown],
            # Bars begin at 1, the speed of torch's best, since the logarithm is drawn.
            "x": [math.log10(ratio) for ratio in ratios],
            "text": [text.ratio(ratio) for ratio in ratios], "textposition": "outside", "cliponaxis": False,
            "hovertext": [_told(row, name) for _, row in shown], "hoverinfo": "text",
            "marker": {"color": _COLOURS[name]},
        })  # fmt: skip
    found = [x for trace in traces for x in trace["x"]]
    low, high = min(0.0, *found), max(0.0, *found)
    room = 0.3 * (high - low or 1.0)  # for the numbers beside the bars, even on a phone
    # No more ticks than fit on a phone.
    steps = (1,) if high - low > 1.8 else (1, 3) if high - low > 0.8 else (1, 1.5, 2, 3, 5, 7)
    ticks = [10**decade * step for decade in range(-3, 4) for step in steps]
    ticks = [t for t in ticks if low - room < math.log10(t) < high + room]
    layout = {
        "barmode": "group", "bargap": 0.25, "margin": {"l": 10, "r": 10, "t": 6, "b": 40},
        "yaxis": {"autorange": "reversed", "showgrid": False, "ticklabelstandoff": 6},
        "xaxis": {
            "range": [low - 1.5 * room * (low < 0), high + room], "tickvals": [math.log10(t) for t in ticks],
            "ticktext": [f"{t:g}×" for t in ticks], "tickangle": 0, "zerolinecolor": "var(--ink)", "zerolinewidth": 2,
        },
    }  # fmt: skip
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def _told(row: Row, name: str) -> str:
    """The hover text of a bar; it contains no user text."""
    return "<br>".join([
        f"{name}: {text.microseconds(row.times[name].median)} µs",
        f"torch's best, {row.best}: {text.microseconds(row.times[row.best].median)} µs",
        f"{text.ratio(row.above_floor(name))} the floor",
    ])  # fmt: skip


def _roofline(rows: list[Row]) -> Figure:
    """Bytes moved per second by each contender against the bytes it must move, with the plain kernel as the limit."""
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "name": "plain kernel",
            "x": [row.moved() for row in rows], "y": [row.bandwidth for row in rows], "hoverinfo": "text",
            "hovertext": [f"{row.title}, {row.rule}: the plain kernel moves {row.bandwidth / 1e9:.1f} GB/s"
                          for row in rows],
            "marker": {"symbol": "line-ew", "size": 16, "line": {"width": 2, "color": "var(--ink)"}},
        }
    ]  # fmt: skip
    for name, colour in _COLOURS.items():
        shown = [row for row in rows if name in row.times]
        if shown:
            speeds = [row.moved(name) / row.times[name].median for row in shown]
            traces.append({
                "type": "scatter", "mode": "markers", "name": name,
                "x": [row.moved(name) for row in shown], "y": speeds, "hoverinfo": "text",
                "hovertext": [f"{name}<br>{row.title}, {row.rule}, {KINDS[row.kind]}: {speed / 1e9:.2g} GB/s"
                              for row, speed in zip(shown, speeds, strict=True)],
                "marker": {"color": colour, "size": 8, "opacity": 0.85, "symbol": _MARKS.get(name, "x-thin-open"),
                           "line": {"width": 1.5, "color": colour}},
            })  # fmt: skip
    layout = {
        "xaxis": {"type": "log", "title": {"text": "bytes that the step must move"}, "exponentformat": "SI",
                  "dtick": 1, "ticksuffix": "B"},
        "yaxis": {"type": "log", "title": {"text": "moved per second"}, "exponentformat": "SI", "dtick": 1,
                  "ticksuffix": "B/s"},
        "margin": {"l": 10, "r": 10, "t": 6, "b": 40},
    }  # fmt: skip
    return {"data": traces, "layout": layout}
