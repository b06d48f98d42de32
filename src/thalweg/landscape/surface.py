"""The loss on a grid of a plane, from coarse to fine."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg.landscape.loss import Measure
from thalweg.landscape.plane import Places, Plane
from thalweg.landscape.recorded import Paths

SIDES = (5, 9, 17, 33, 65, 129)
"""How many points a side of the grid can have: each grid contains the coarser ones."""

_MARGIN = 0.25
"""How far the window reaches beyond the paths, as a share of their extent."""

Window = tuple[float, float, float, float]


@dataclass(frozen=True)
class Grid:
    """Losses on a grid of a plane.

    Attributes:
        x, y: the coordinates of the columns and the rows.
        losses: of shape (rows, columns); nan or inf where a loss is not finite.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    losses: NDArray[np.float64]


@dataclass(frozen=True)
class Progress:
    """How far a landscape is.

    Attributes:
        done, total: evaluations of the loss.
        left: the seconds that the others will take, as those before took; None before the first.
        grid: the finest grid that is complete, when it has just become so.
    """

    done: int
    total: int
    left: float | None
    grid: Grid | None = None


@dataclass(frozen=True)
class Walk:
    """The losses along a path.

    Attributes:
        snapshots: which snapshots were evaluated, by number.
        true: the loss at each of them.
        shown: the loss at its nearest point of the plane, which is what a picture of the plane suggests.
    """

    snapshots: list[int]
    true: list[float]
    shown: list[float]


def window_of(places: Sequence[Places], plane: Plane) -> Window:
    """The part of the plane to draw: left, right, low and high, around all paths with a margin.

    In random directions it also reaches from −1 to 1 in both, over which weights change as much as they are large.
    """
    points = np.concatenate([place.points.numpy() for place in places])
    points = points[np.isfinite(points).all(1)]
    low, high = points.min(0), points.max(0)
    if plane.kind == "random":
        low, high = np.minimum(low, -1.0), np.maximum(high, 1.0)
    margin = _MARGIN * np.maximum(high - low, 1e-3 * float((high - low).max()) or 1.0)
    (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
    return left, right, bottom, top


def grown(loss: Callable[[float, float], float], window: Window, side: int) -> Iterator[Progress]:
    """Evaluate a loss on grids of 5, 9, 17 … points a side, up to `side`; each point once.

    Raises:
        ValueError: `side` is none of `SIDES`.
    """
    if side not in SIDES:
        raise ValueError(f"side is {side!r}; allowed are {', '.join(map(str, SIDES))}")
    left, right, low, high = window
    xs, ys = np.linspace(left, right, side), np.linspace(low, high, side)
    losses = np.full((side, side), math.nan)
    known = np.zeros((side, side), dtype=bool)
    done, began = 0, time.monotonic()
    for coarse in SIDES[: SIDES.index(side) + 1]:
        every = (side - 1) // (coarse - 1)
        for j in range(0, side, every):
            for i in range(0, side, every):
                if not known[j, i]:
                    losses[j, i] = loss(float(xs[i]), float(ys[j]))
                    known[j, i] = True
                    done += 1
                    yield Progress(done, side * side, (time.monotonic() - began) / done * (side * side - done))
        grid = Grid(xs[::every], ys[::every], losses[::every, ::every].copy())
        left_over = (time.monotonic() - began) / done * (side * side - done)
        yield Progress(done, side * side, left_over, grid)


def walked(measure: Measure, paths: Paths, plane: Plane, places: Sequence[Places], most: int = 50) -> list[Walk]:
    """The losses along each path, at `most` of its snapshots, evenly: the true ones, and those on the plane."""
    found: list[Walk] = []
    for run, place in zip(paths.runs, places, strict=True):
        chosen = sorted({round(k) for k in np.linspace(0, len(run) - 1, min(most, len(run)))})
        true = [measure.at(run, k) for k in chosen]
        measure.put(frozen_in(paths))  # buffers, as everywhere on the plane
        shown = [measure.on(plane, float(place.points[k, 0]), float(place.points[k, 1])) for k in chosen]
        found.append(Walk(chosen, true, shown))
    return found


def frozen_in(paths: Paths) -> dict[str, Tensor]:
    """The tensors of the last snapshot of the first path."""
    return paths.runs[0].snapshot(len(paths.runs[0]) - 1)
