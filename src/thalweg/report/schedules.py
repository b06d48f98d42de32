"""A page of schedules, with the curve and key figures of each."""

from collections.abc import Sequence
from pathlib import Path

from thalweg.report import page, palette
from thalweg.report.page import Figure
from thalweg.schedules import Schedule

_POINTS = 2_000


def write(schedules: Sequence[Schedule], total: int, path: Path | str, base: float | None = None) -> Path:
    """Write the page of `schedules` over `total` steps, and return its path.

    Args:
        base: the base value of the factors; if None the page shows the factors themselves.

    Raises:
        ValueError: a schedule cannot be laid out over `total` steps.
        OSError: the file cannot be written.
    """
    colours = [palette.OTHERS[i % len(palette.OTHERS)] for i in range(len(schedules))]
    told = [schedule.summary(total, base) for schedule in schedules]
    context = {
        "title": "One schedule" if len(schedules) == 1 else f"{len(schedules)} schedules",
        "total": total,
        "base": base,
        "schedules": list(zip(map(str, schedules), told, colours, strict=True)),
    }
    return page.write(path, "schedules.html", {"curves": _curves(schedules, total, base, colours)}, **context)


def _curves(schedules: Sequence[Schedule], total: int, base: float | None, colours: Sequence[str]) -> Figure:
    count = min(total, _POINTS)
    times = sorted({round(i * (total - 1) / max(count - 1, 1)) for i in range(count)})
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": str(i), "x": times,
            "y": [schedule.resolve(total).value(1.0 if base is None else base, t) for t in times],
            "line": {"color": colour, "width": 2.5}, "hovertemplate": "%{y:.5g}",
        }
        for i, (schedule, colour) in enumerate(zip(schedules, colours, strict=True), 1)
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "updates already applied"}, "range": [0, total]},
        "yaxis": {"title": {"text": "factor of the base value" if base is None else "value"}, "rangemode": "tozero"},
        "hovermode": "x unified",
    }
    return {"data": traces, "layout": layout}
