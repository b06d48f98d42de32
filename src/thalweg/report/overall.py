"""The report over several problems: one HTML page, with links to each problem's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thalweg.report import page, palette
from thalweg.report.page import Figure
from thalweg.store import Results
from thalweg.verdict import judge
from thalweg.verdict.overall import LEVELS, Overall, Standing


def write(found: Overall, races: Mapping[str, Results], path: Path | str) -> Path:
    """Write the page of a verdict over several problems, and return its path.

    Args:
        found: the verdict.
        races: the race on each problem, by the address of its own report, seen from the page.
        path: the file to write.

    Raises:
        OSError: the file cannot be written.
    """
    entries = [entry.name for entry in next(iter(races.values())).plan.entries]
    colours = dict(zip(entries, palette.colours(entries), strict=True))
    profiles = _profiles(found.standings, colours) if found.standings else None
    return page.write(
        path, "overall.html", {"profiles": profiles},
        title=f"Over {len(races)} problems", found=found, levels=LEVELS, colours=colours,
        races=[(address, results.plan.problem, judge(results).headline) for address, results in races.items()],
    )  # fmt: skip


def _profiles(standings: Sequence[Standing], colours: Mapping[str, str]) -> Figure:
    """The share of replicates with at least each result, one line for each entry."""
    dashes = palette.dashes([colours[one.entry] for one in standings])
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "x": list(one.curve), "y": list(one.curve.values()),
            "line": {"color": colours[one.entry], "width": 2, "dash": dash, "shape": "hv"},
            "text": [one.entry] * len(one.curve), "hovertemplate": "%{y:.0%} %{text}<extra></extra>",
        }
        for one, dash in zip(standings, dashes, strict=True)
    ]  # fmt: skip
    return {"data": traces, "layout": {
        "xaxis": {"title": {"text": "result, 0 the worst and 1 the best replicate of a problem"}},
        "yaxis": {"title": {"text": "replicates with at least that"}, "tickformat": ".0%", "range": [0, 1.02]},
        "hovermode": "x",
    }}  # fmt: skip
