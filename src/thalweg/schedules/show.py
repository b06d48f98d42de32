"""Displays of schedules: a few lines of text for a terminal, or a Plotly figure."""

import html
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_BARS = " ▁▂▃▄▅▆▇█"
_ROWS = 4
_POINTS = 2_000


class Shown(Protocol):
    """The part of a schedule that is used here; see `thalweg.schedules.Schedule`."""

    @property
    def absolute(self) -> bool:
        """Whether it gives the value itself rather than a factor of the base value."""
        ...

    def resolve(self, total: int) -> "Shown":
        """The same with lengths in steps of `total`."""
        ...

    def value(self, base: Any, t: float) -> Any:
        """The hyperparameter at `t`, from its `base` value."""
        ...

    def mismatch(self, total: int) -> str | None:
        """A sentence if it is longer or shorter than `total` steps, or None."""
        ...


class Summary(NamedTuple):
    """A schedule over a total, summarized.

    Attributes:
        first, peak, last: its value at the first step, its highest value, its value at the last step of the total.
        peak_at: the step of the peak.
        warning: a sentence if it is longer or shorter than the total, or empty.
    """

    first: float
    peak: float
    peak_at: int
    last: float
    warning: str


def summary(schedule: Shown, total: int, base: float | None = None) -> Summary:
    """The summary of a schedule over `total` steps, in factors, or in values if a `base` value is given."""
    values = _values(schedule, total, base)
    peak = max(range(total), key=values.__getitem__)
    return Summary(values[0], values[peak], peak, values[-1], schedule.mismatch(total) or "")


def preview(schedule: Shown, total: int, width: int = 60, base: float | None = None) -> str:
    """The curve over `total` steps in `width` columns, its first, peak and last value, and `mismatch`."""
    if width < 1:
        raise ValueError(f"width is {width}; allowed is a whole number of columns >= 1")
    found = summary(schedule, total, base)
    kind = "factors of the base value" if base is None and not schedule.resolve(total).absolute else "values"
    told = (("first", found.first, 0), ("peak", found.peak, found.peak_at), ("last", found.last, total - 1))
    lines = [
        *_curve(_values(schedule, total, base), min(width, total)),
        " · ".join(f"{name} {value:.6g} (t = {t:,})" for name, value, t in told) + f"; {kind}",
    ]
    return "\n".join([*lines, f"Warning: {found.warning}"] if found.warning else lines)


def _values(schedule: Shown, total: int, base: float | None) -> list[float]:
    resolved = schedule.resolve(total)
    return [resolved.value(1.0 if base is None else base, t) for t in range(total)]


def _curve(values: list[float], width: int) -> list[str]:
    """The mean of each column's steps as a bar, from zero or from the lowest value if that is negative."""
    edges = [len(values) * column // width for column in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    floor = min(*means, 0.0)
    scale = (_ROWS * 8) / ((max(means) - floor) or 1.0)
    # A column slightly above the floor shows the lowest bar, so that an end of 1e-3 does not look like 0.
    eighths = [max(round((mean - floor) * scale), int(mean > floor)) for mean in means]
    return ["".join(_BARS[min(max(e - 8 * row, 0), 8)] for e in eighths) for row in reversed(range(_ROWS))]


def plot(schedules: Shown | Mapping[str, Shown], total: int, base: Mapping[str, float] | None = None) -> "Figure":
    """A figure of schedules over `total` steps, by name, such as the hyperparameter that each is for.

    Schedules with a `base` value, and those that give the value itself, are drawn as values; factors have their own
    panel.

    Raises:
        ImportError: Plotly is not installed; it comes with ``pip install thalweg[lab]``.
    """
    from plotly import subplots  # slow to load, and only installed with the lab extra

    named = dict(schedules) if isinstance(schedules, Mapping) else {repr(schedules): schedules}
    if not named:
        raise ValueError("there is no schedule to plot; give one, or several by name")
    base = base or {}
    if unknown := set(base) - set(named):
        raise ValueError(f"base has {sorted(unknown)}, which are none of {sorted(named)}")
    resolved = {name: schedule.resolve(total) for name, schedule in named.items()}
    valued = {name for name, schedule in resolved.items() if schedule.absolute or name in base}
    panel = {name: "value" if name in valued else "factor of the base value" for name in named}
    panels = sorted(set(panel.values()))
    figure: Any = cast(Any, subplots).make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for name, schedule in resolved.items():
        times = _times(total)
        figure.add_scatter(
            x=times,
            y=[schedule.value(base.get(name, 1.0), t) for t in times],
            name=html.escape(name),
            mode="lines",
            row=panels.index(panel[name]) + 1,
            col=1,
        )
    for row, title in enumerate(panels, 1):
        figure.update_yaxes(title_text=title, row=row, col=1)
    figure.update_xaxes(title_text="updates already applied", row=len(panels), col=1)
    # A transparent background, and a grey that is readable on white and on black: the page decides.
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font_color="#808080",
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        showlegend=True,
    )
    figure.update_xaxes(gridcolor="rgba(128,128,128,0.25)", zerolinecolor="rgba(128,128,128,0.5)")
    figure.update_yaxes(gridcolor="rgba(128,128,128,0.25)", zerolinecolor="rgba(128,128,128,0.5)")
    return figure


def _times(total: int) -> list[int]:
    """At most about two thousand steps, including the first and the last."""
    count = min(total, _POINTS)
    return sorted({round(i * (total - 1) / max(count - 1, 1)) for i in range(count)})
