"""A landscape from trajectories."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from thalweg.landscape import plane as planes
from thalweg.landscape.loss import Measure
from thalweg.landscape.plane import Places, Plane
from thalweg.landscape.recorded import Paths
from thalweg.landscape.surface import SIDES, Grid, Progress, Walk, frozen_in, grown, walked, window_of

Directions = Literal["principal", "random"]


@dataclass(frozen=True)
class Landscape:
    """The loss around recorded paths, on a plane.

    Attributes:
        paths: the paths.
        plane: the plane.
        places: where each path is, as seen from the plane.
        grid: the losses on the plane.
        walks: the losses along each path.
        said: what is measured, in sentences.
        progress: how far it is.
    """

    paths: Paths
    plane: Plane
    places: list[Places]
    grid: Grid
    walks: list[Walk]
    said: list[str]
    progress: Progress

    @property
    def hidden(self) -> list[str]:
        """What a picture of the plane hides, in sentences with figures."""
        found: list[str] = []
        if self.plane.variance is not None:
            one, two = (100 * share for share in self.plane.variance)
            found.append(
                f"The plane holds {one + two:.1f} % of the variance of the snapshots ({one:.1f} % and {two:.1f} %); "
                "the rest of the motion is not in the picture."
            )
        else:
            found.append("The directions are random: the paths move almost entirely out of the plane.")
        for run, place, walk in zip(self.paths.runs, self.places, self.walks, strict=True):
            k = max(walk.snapshots, key=lambda i: _finite(float(place.distance[i])))
            far, gone = float(place.distance[k]), float(place.gone.nan_to_num(0, 0, 0).max())
            worst = max(range(len(walk.true)), key=lambda i: _finite(abs(walk.shown[i] - walk.true[i])))
            found.append(
                f"{run.label} leaves the plane by up to {far:.3g} (at step {run.steps[k]:,}; it goes {gone:.3g} from "
                f"its start); its last loss is {walk.true[-1]:.4g}, and {walk.shown[-1]:.4g} at the nearest point of "
                f"the plane; they differ most at step {run.steps[walk.snapshots[worst]]:,}, {walk.true[worst]:.4g} "
                f"against {walk.shown[worst]:.4g}."
            )
        if self.plane.left_out:
            found.append(f"{self.plane.left_out:,} snapshots are not finite, and left out.")
        return found


def landscapes(
    folders: Sequence[str | Path],
    measure: Measure,
    *,
    directions: Directions = "principal",
    side: int = 33,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[Landscape]:
    """The landscape around trajectories, coarse first, then finer and finer.

    Args:
        folders: of the trajectories; those of several optimizers may be drawn on one plane.
        measure: the loss; its model is changed meanwhile, and restored.
        directions: ``"principal"``: the plane of the first two principal components of all snapshots; ``"random"``:
            two random filter-normalised directions through the last weights of the first path.
        side: how many points the finest grid has on a side; one of 5, 9, 17, 33, 65, 129.
        seed: of random directions.
        progress: called after each evaluation on the grid.

    Raises:
        ValueError: a folder has no trajectory, or a damaged one; the trajectories or the model differ in architecture;
            the paths span no plane.
    """
    if side not in SIDES:
        raise ValueError(f"side is {side!r}; allowed are {', '.join(map(str, SIDES))}")
    if directions not in get_args(Directions):
        raise ValueError(f"directions is {directions!r}; allowed are 'principal' and 'random'")
    paths = Paths.of(folders)
    measure.check(paths)
    plane = planes.principal(paths) if directions == "principal" else planes.random(paths, seed)
    places = planes.places(plane, paths)
    with measure.borrowed():
        walks = walked(measure, paths, plane, places)
        measure.put(frozen_in(paths))
        for step in grown(lambda x, y: measure.on(plane, x, y), window_of(places, plane), side):
            if progress is not None:
                progress(replace(step, grid=None))
            if step.grid is not None:
                yield Landscape(paths, plane, places, step.grid, walks, measure.said, step)


def draw(
    folders: str | Path | Sequence[str | Path],
    measure: Measure,
    *,
    directions: Directions = "principal",
    side: int = 33,
    seed: int = 0,
) -> Landscape:
    """The landscape around trajectories on its finest grid; arguments and errors as of `landscapes`."""
    given = [folders] if isinstance(folders, str | Path) else list(folders)
    *_, last = landscapes(given, measure, directions=directions, side=side, seed=seed)
    return last


def _finite(x: float) -> float:
    return x if x == x and abs(x) < float("inf") else -1.0
