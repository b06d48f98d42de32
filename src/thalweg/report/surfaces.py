"""Animations of rules walking down a surface, in 3-D and from above, as one HTML page.

The page contains each path once; the browser cuts it into frames, one per step.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from thalweg.printers.mathml import mathml
from thalweg.problems import Surface
from thalweg.report import page, palette
from thalweg.report.walks import DOWN, Point, Walk, caption, inside, lowest, walk
from thalweg.rule import Rule

GRID = 121
LEVELS = 24
SECONDS = 10
"""The duration of the animation, for any number of steps."""

Array = NDArray[np.float64]


def write(
    surface: Surface,
    rules: Sequence[str | Rule],
    path: Path | str,
    *,
    start: Point | None = None,
    steps: int = 200,
    noise: float = 0.0,
    seed: int = 0,
) -> Path:
    """Write the animation of `rules` on `surface`, and return its path.

    Args:
        rules: rules, or their text.  A text without ``lr`` gets one that suits the surface (`Surface.suggest`);
            the page shows it.  Everything else is used as given.
        start: the start of all paths; the surface's own start if None.
        noise: the standard deviation of the Gaussian noise on each component of the gradient.
        seed: of the noise, which is the same for all rules.

    Raises:
        ValueError: no rules, a rule that cannot be read, or what `problems.path` refuses.
        OSError: the file cannot be written.
    """
    walks = walk(surface, rules, start, steps, noise, seed)
    colours = palette.colours([w.text for w in walks])
    marks = [palette.MARKS[i % len(palette.MARKS)] for i in range(len(walks))]
    draw = _scale(surface)
    data = {
        "steps": steps,
        "seconds": SECONDS,
        "walks": [_data(w, c, m, draw) for w, c, m in zip(walks, colours, marks, strict=True)],
        "map": _map(surface, walks, draw),
        "relief": _relief(surface, walks, draw),
        "losses": _losses(walks, colours),
    }
    context = {
        "title": f"{surface.name}: {', '.join(w.name for w in walks)}",
        "surface": surface,
        "walks": list(zip(walks, colours, marks, strict=True)),
        "formulas": {w.text: Markup(mathml(w.rule)) for w in walks},
        "caption": caption(walks, noise),
        "colour_of": {w.text: c for w, c in zip(walks, colours, strict=True)},
        "share": f"{100 * (1 - DOWN):g} %",
        "lowest": lowest(surface),
        "start": tuple(float(x) for x in walks[0].points[0]),
        "steps": steps,
        "noise": noise,
        "seed": seed,
    }
    return page.write(path, "surfaces.html", data, **context)


def _data(walk: Walk, colour: str, mark: str, draw: Callable[[Array], Array]) -> dict[str, Any]:
    seen = np.where(inside(walk.surface, walk.points), draw(walk.losses), np.nan)
    return {
        "name": walk.name,
        "colour": colour,
        "mark": mark,
        "x": walk.points[:, 0],
        "y": walk.points[:, 1],
        "loss": walk.losses,
        "height": seen,
    }


def _grid(surface: Surface) -> tuple[Array, Array, Array]:
    (left, right), (low, high) = surface.window
    x, y = np.linspace(left, right, GRID), np.linspace(low, high, GRID)
    return x, y, surface.heights(*np.meshgrid(x, y))


def _scale(surface: Surface) -> Callable[[Array], Array]:
    """The scale of heights: linear or, if a few would dwarf all others, the logarithm of 1 + excess."""
    bottom = lowest(surface)
    heights = _grid(surface)[2]
    unit = float(np.median(heights)) - bottom
    if float(heights.max()) - bottom < 8 * unit:
        return lambda z: z
    return lambda z: np.log10(1 + np.maximum(z - bottom, 0) / (unit / 10))


def _ticks(surface: Surface, draw: Callable[[Array], Array]) -> dict[str, Any]:
    """Ticks labelled with the loss itself, placed according to the scale."""
    heights = _grid(surface)[2]
    bottom, top = float(heights.min()), float(heights.max())
    drawn = draw(np.array([bottom, top]))
    if drawn[1] == top:
        return {"nticks": 5}
    values = np.array([v for v in (0, *np.logspace(-3, 6, 10)) if bottom <= v <= top] or [bottom, top])
    far = [0]
    for i in range(1, len(values)):
        if draw(values)[i] - draw(values)[far[-1]] > 0.12 * (drawn[1] - drawn[0]):
            far.append(i)
    return {"tickvals": draw(values)[far], "ticktext": [f"{values[i]:g}" for i in far]}


_SHADES = [[0, "var(--deep)"], [0.5, "var(--slope)"], [1, "var(--peak)"]]


def _minima(surface: Surface) -> tuple[list[float], list[float]]:
    return [x for x, _ in surface.minima], [y for _, y in surface.minima]


def _map(surface: Surface, walks: Sequence[Walk], draw: Callable[[Array], Array]) -> page.Figure:
    """The surface from above: the contours, one trace per trail, filled in by the page, and one trace for all heads."""
    x, y, heights = _grid(surface)
    z = draw(heights)
    gap = float(np.ptp(z)) / LEVELS
    ground = {
        "type": "contour", "x": x, "y": y, "z": np.round(z, 5), "colorscale": _SHADES, "showscale": False,
        "hoverinfo": "skip", "line": {"color": "var(--contour)", "width": 0.7}, "autocontour": False,
        "contours": {"start": float(z.min()) + gap / 2, "end": float(z.max()), "size": gap},
    }  # fmt: skip
    across, along = _minima(surface)
    lowest_points = {
        "type": "scatter", "mode": "markers", "x": across, "y": along, "hoverinfo": "skip",
        "marker": {"symbol": "star", "size": 11, "color": "var(--ink)", "line": {"color": "var(--paper)", "width": 1}},
    }  # fmt: skip
    axis = {"showgrid": False, "zeroline": False, "constrain": "domain"}
    layout = {
        "xaxis": {**axis, "range": surface.window[0], "title": {"text": "x"}},
        "yaxis": {**axis, "range": surface.window[1], "title": {"text": "y"}},
    }
    (left, right), (low, high) = surface.window
    if 0.5 <= (right - left) / (high - low) <= 2:  # on equal scales, steepest descent crosses contours at right angles
        layout["yaxis"]["scaleanchor"] = "x"
    return {"data": [ground, lowest_points, *_trails("scatter", len(walks))], "layout": layout}


def _relief(surface: Surface, walks: Sequence[Walk], draw: Callable[[Array], Array]) -> page.Figure:
    """The surface in 3-D; traces as in `_map`."""
    x, y, heights = _grid(surface)
    z = draw(heights)
    ground = {
        "type": "surface", "x": x, "y": y, "z": np.round(z, 5), "colorscale": _SHADES, "showscale": False,
        "hoverinfo": "skip", "opacity": 1,
        "lighting": {"ambient": 0.85, "diffuse": 0.5, "specular": 0.05, "roughness": 0.9},
        "contours": {"z": {
            "show": True, "color": "var(--contour)", "width": 1, "highlight": False,
            "start": float(z.min()), "end": float(z.max()), "size": float(np.ptp(z)) / (LEVELS / 2),
        }, "x": {"highlight": False}, "y": {"highlight": False}},
    }  # fmt: skip
    across, along = _minima(surface)
    lowest_points = {
        "type": "scatter3d", "mode": "markers", "x": across, "y": along,
        "z": draw(surface.heights(across, along)) + 0.01 * float(np.ptp(z)), "hoverinfo": "skip",
        "marker": {"symbol": "circle", "size": 3, "color": "var(--ink)"},
    }  # fmt: skip
    (left, right), (low, high) = surface.window
    wide, deep = right - left, high - low
    axis = {"showspikes": False, "showbackground": False, "nticks": 5}
    scene = {
        "xaxis": {**axis, "range": surface.window[0], "title": {"text": "x"}},
        "yaxis": {**axis, "range": surface.window[1], "title": {"text": "y"}},
        "zaxis": {**axis, **_ticks(surface, draw), "title": {"text": "loss"},
                  # Space below, where the lowest label would overlap those of the other axes.
                  "range": [float(z.min()) - 0.15 * float(np.ptp(z)), float(z.min()) + 1.05 * float(np.ptp(z))]},
        "aspectmode": "manual",
        "aspectratio": {"x": 1.25 * min(1, wide / deep) ** 0.5, "y": 1.25 * min(1, deep / wide) ** 0.5, "z": 0.8},
        "camera": {"eye": {"x": -1.6, "y": -0.96, "z": 1.5}, "center": {"x": -0.06, "y": 0.06, "z": -0.2}},
    }  # fmt: skip
    return {
        "data": [ground, lowest_points, *_trails("scatter3d", len(walks))],
        "layout": {"scene": scene, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}},
        "lift": 0.025 * float(np.ptp(z)),
    }


def _trails(kind: str, count: int) -> list[dict[str, Any]]:
    return [{"type": kind, "mode": "lines"} for _ in range(count)] + [{"type": kind, "mode": "markers"}]


def _losses(walks: Sequence[Walk], colours: Sequence[str]) -> page.Figure:
    """Height above the lowest point against steps, and a line that moves with the animation."""
    excess = [np.where(w.excess > 0, w.excess, np.nan) for w in walks]
    seen = np.concatenate(excess)
    seen = seen[np.isfinite(seen)]
    top = float(np.log10(seen.max())) if len(seen) else 0.0
    bottom = max(float(np.log10(seen.min())) if len(seen) else -1.0, top - 10)
    edges = [bottom - 0.2, top + 0.2]
    curves = [
        {
            "type": "scatter", "mode": "lines", "name": w.name, "x": np.arange(len(w.points)), "y": e,
            "customdata": w.losses, "hovertemplate": "%{customdata:.5g}", "line": {"color": c, "width": 2},
        }
        for w, e, c in zip(walks, excess, colours, strict=True)
    ]  # fmt: skip
    now = {
        "type": "scatter", "mode": "lines", "x": [0, 0], "y": [10 ** edges[0], 10 ** edges[1]], "hoverinfo": "skip",
        "line": {"color": "var(--muted)", "width": 1.5, "dash": "dot"},
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "step"}, "range": [0, 1.005 * walks[0].steps]},
        "yaxis": {
            "title": {"text": "loss above the lowest"}, "type": "log", "range": edges, "exponentformat": "power",
            "dtick": 1 if top - bottom < 5 else 2,
        },
        "hovermode": "x unified",
    }  # fmt: skip
    return {"data": [*curves, now], "layout": layout}
