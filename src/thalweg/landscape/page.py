"""The page of a landscape: contours, the surface in 3-D, and what such pictures hide."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg.landscape.drawing import Landscape
from thalweg.landscape.surface import SIDES
from thalweg.report import page, palette
from thalweg.report.page import Figure

_STEEP = 30.0
"""Losses whose largest is so many times the smallest are drawn on a logarithmic scale."""


def write(made: Landscape, path: Path | str) -> Path:
    """Write the page of a landscape, and return its path; ``OSError`` if that fails."""
    labels = labelled(made)
    colours = palette.colours(labels)
    heights = Heights.of(made)
    axes = ("1st principal component", "2nd principal component")
    if made.plane.kind == "random":
        axes = ("1st random direction", "2nd random direction")
    data = {
        "contours": _contours(made, heights, labels, colours, axes),
        "relief": _relief(made, heights, labels, colours, axes),
        "distances": _along(made, labels, colours, "distance"),
        "losses": _along(made, labels, colours, "losses"),
    }
    side = len(made.grid.x)
    return page.write(
        path, "landscape.html", data,
        title=f"The loss around {', '.join(labels)}" if len(labels) < 4 else f"The loss around {len(labels)} paths",
        keys=list(zip(labels, colours, strict=True)), hidden=made.hidden, said=made.said, side=side,
        coarse=side not in SIDES or made.progress.done < made.progress.total, logarithmic=heights.logarithmic,
    )  # fmt: skip


def labelled(made: Landscape) -> list[str]:
    """The names of the paths; those of the same name get a number."""
    labels = [run.label for run in made.paths.runs]
    return [
        label if labels.count(label) == 1 else f"{label} {labels[: k + 1].count(label)}"
        for k, label in enumerate(labels)
    ]


class Heights:
    """How losses are drawn: as they are or, where they differ by orders of magnitude, by their logarithm."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.logarithmic = low > 0 and high > _STEEP * low

    @classmethod
    def of(cls, made: Landscape) -> "Heights":
        """The scale of a landscape's losses."""
        known = [*made.grid.losses.ravel().tolist(), *(x for walk in made.walks for x in (*walk.true, *walk.shown))]
        finite = [x for x in known if math.isfinite(x)] or [0.0, 1.0]
        return cls(min(finite), max(finite))

    def drawn(self, losses: Any) -> NDArray[np.float64]:
        """Losses as heights; nan where there is none."""
        x = np.asarray(losses, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.log10(x) if self.logarithmic else x
        return np.where(np.isfinite(x), x, math.nan)

    @property
    def ticks(self) -> dict[str, Any]:
        """Plotly's settings of an axis or a bar of heights."""
        if not self.logarithmic:
            return {}
        low, high = math.log10(self.low), math.log10(self.high)
        every = max(1, round((high - low) / 5))
        # Powers of ten or, over fewer than four of them, also their double and fivefold.
        parts = (1, 2, 5) if high - low < 4 else (1,)
        steps = range(math.floor(low), math.floor(high) + 1, every)
        values = [x for k in steps for x in (k + math.log10(part) for part in parts) if low <= x <= high]
        return {"tickvals": values, "ticktext": [page.number(10**x) for x in values]}

    @property
    def powers(self) -> dict[str, Any]:
        """The same for an axis that is logarithmic by itself."""
        return self.ticks | {"tickvals": [10**x for x in self.ticks["tickvals"]]}


_SCALE = [[0.0, "var(--deep)"], [0.5, "var(--slope)"], [1.0, "var(--peak)"]]

_SOLID = [[0.0, "var(--contour)"], [0.6, "var(--deep)"], [1.0, "var(--slope)"]]


def _contours(
    made: Landscape, heights: Heights, labels: Sequence[str], colours: Sequence[str], axes: tuple[str, str]
) -> Figure:
    grid = made.grid
    traces: list[dict[str, Any]] = [{
        "type": "contour", "x": grid.x, "y": grid.y, "z": heights.drawn(grid.losses),
        "customdata": np.where(np.isfinite(grid.losses), grid.losses, math.nan), "colorscale": _SCALE, "ncontours": 24,
        "line": {"color": "var(--contour)", "width": 0.8},
        "colorbar": {"title": {"text": "loss"}, "outlinewidth": 0, "thickness": 14, **heights.ticks},
        "hovertemplate": "loss %{customdata:.4g}<extra></extra>", "connectgaps": False,
    }]  # fmt: skip
    for place, run, label, colour in zip(made.places, made.paths.runs, labels, colours, strict=True):
        x, y = (_floats(column) for column in place.points.T)
        traces.append({
            "type": "scatter", "mode": "lines+markers", "x": x, "y": y, "line": {"color": colour, "width": 2.5},
            "marker": {"color": colour, "size": [9, *[3] * (len(x) - 2), 13], "line": {"width": 0}, "opacity": 1,
                       "symbol": ["circle", *["circle"] * (len(x) - 2), "star"]},
            "text": [f"{page.html(label)}, step {step:,}" for step in run.steps],
            "hovertemplate": "%{text}<extra></extra>",
        })  # fmt: skip
    return {"data": traces, "layout": {
        "xaxis": {"title": {"text": axes[0]}, "showgrid": False}, "yaxis": {"title": {"text": axes[1]}},
        "hovermode": "closest",
    }}  # fmt: skip


def _relief(
    made: Landscape, heights: Heights, labels: Sequence[str], colours: Sequence[str], axes: tuple[str, str]
) -> Figure:
    grid = made.grid
    traces: list[dict[str, Any]] = [{
        "type": "surface", "x": grid.x, "y": grid.y, "z": heights.drawn(grid.losses), "colorscale": _SOLID,
        "showscale": False, "hoverinfo": "skip", "opacity": 0.85,
        "lighting": {"ambient": 0.75, "diffuse": 0.45, "specular": 0.03, "roughness": 0.9},
        "contours": {axis: {"show": True, "color": "var(--muted)", "width": 1} for axis in "xy"},
    }]  # fmt: skip
    for place, walk, label, colour in zip(made.places, made.walks, labels, colours, strict=True):
        x, y = (_floats(column) for column in place.points[walk.snapshots].T)
        for losses, dash, what in ((walk.true, "solid", "true loss"), (walk.shown, "dot", "on the plane")):
            traces.append({
                "type": "scatter3d", "mode": "lines", "x": x, "y": y, "z": heights.drawn(losses),
                "line": {"color": colour, "width": 6 if dash == "solid" else 3, "dash": dash},
                "text": [f"{page.html(label)}, {what} {page.number(loss)}" for loss in losses],
                "hovertemplate": "%{text}<extra></extra>",
            })  # fmt: skip
    return {"data": traces, "layout": {"margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "scene": {
        "xaxis": {"title": {"text": axes[0]}}, "yaxis": {"title": {"text": axes[1]}},
        "zaxis": {"title": {"text": "loss"}, **heights.ticks}, "aspectmode": "cube",
        "camera": {"eye": {"x": -1.35, "y": -1.7, "z": 1.1}, "center": {"x": 0, "y": 0, "z": -0.12}},
    }}}  # fmt: skip


def _along(made: Landscape, labels: Sequence[str], colours: Sequence[str], what: str) -> Figure:
    """Against the step: how far each path is from the plane, and from its start; or its losses, true and shown."""
    traces: list[dict[str, Any]] = []
    for place, walk, run, label, colour in zip(made.places, made.walks, made.paths.runs, labels, colours, strict=True):
        if what == "distance":
            x = run.steps
            lines = (
                (_floats(place.distance), "solid", "from the plane"),
                (_floats(place.gone), "dot", "from its start"),
            )
        else:
            x = [run.steps[k] for k in walk.snapshots]
            lines = ((walk.true, "solid", "true loss"), (walk.shown, "dot", "loss on the plane"))
        for y, dash, name in lines:
            traces.append({
                "type": "scatter", "mode": "lines", "x": x, "y": y, "line": {"color": colour, "width": 2, "dash": dash},
                "hovertemplate": f"%{{y:.4g}} {page.html(label)}, {name}<extra></extra>",
            })  # fmt: skip
    known = [y for trace in traces for y in trace["y"] if math.isfinite(y)]
    heights = Heights(min(known), max(known)) if what == "losses" and known else Heights(0, 1)
    return {"data": traces, "layout": {
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {"title": {"text": "distance" if what == "distance" else "loss"},
                  **({"type": "log", **heights.powers} if heights.logarithmic else {"rangemode": "tozero"})},
        "hovermode": "x",
    }}  # fmt: skip


def _floats(values: Tensor) -> list[float]:
    return [float(x) for x in values]
