"""The plane in which a landscape is drawn: the first two principal components of paths, or random directions."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.landscape.recorded import Paths

_FLAT = 1e-10
"""The share of the variance below which the second direction of a path is rounding."""

Weights = dict[str, Tensor]
"""Parameters by name, flat, in float64."""


@dataclass(frozen=True)
class Plane:
    """A plane through the space of weights.

    Attributes:
        origin: a point of it.
        first, second: its directions; a point is origin + x·first + y·second.
        kind: ``"principal"`` or ``"random"``.
        variance: the shares of the snapshots' variance that lie along the two directions; of principal components.
        left_out: how many snapshots are left out, since they are not finite.
    """

    origin: Weights
    first: Weights
    second: Weights
    kind: str
    variance: tuple[float, float] | None = None
    left_out: int = 0

    def weights(self, name: str, x: float, y: float) -> Tensor:
        """The flat values of a parameter at a point, in float64."""
        return torch.add(self.origin[name], self.first[name], alpha=x).add_(self.second[name], alpha=y)


@dataclass(frozen=True)
class Places:
    """Where a path is, as seen from a plane.

    Attributes:
        points: the coordinates of each snapshot's nearest point of the plane, of shape (snapshots, 2).
        distance: how far each is from the plane.
        gone: how far each is from the first one.
    """

    points: Tensor
    distance: Tensor
    gone: Tensor


def principal(paths: Paths) -> Plane:
    """The plane of the first two principal components of all snapshots; it contains their mean.

    The Gram matrix of the snapshots is summed up in float64 from blocks of columns, so the memory that this needs grows
    with the number of snapshots and with that of parameters, but not with their product.

    Raises:
        ValueError: the paths do not move, move along one line only, or are not finite.
    """
    count = len(paths)
    gram = torch.zeros(count, count, dtype=torch.float64)
    for _, _, block in paths.blocks():
        moved = block.sub_(block[0].clone())
        gram.add_(_squared(moved))
    finite = gram.diagonal().isfinite()
    if not finite[0] or int(finite.sum()) < 2:
        raise ValueError("fewer than two snapshots are finite, so there is no path to draw")
    kept = gram[finite][:, finite].numpy()
    centred = kept - kept.mean(0) - kept.mean(1, keepdims=True) + kept.mean()
    sizes, vectors = np.linalg.eigh(centred)
    sizes, vectors = sizes[::-1].clip(min=0), vectors[:, ::-1]
    whole = float(sizes.sum())
    if not whole > 0:
        raise ValueError("the path never moves: all snapshots are equal; was the optimizer stepped between them?")
    if len(sizes) < 2 or float(sizes[1]) <= _FLAT * whole:
        raise ValueError(
            f"the path of {len(sizes):,} snapshots is a straight line, which spans no plane; record more snapshots, or "
            "draw random directions"
        )
    vectors = vectors[:, :2] * np.where(vectors[-1, :2] < vectors[0, :2], -1.0, 1.0)  # runs go to the right, and up
    along = torch.from_numpy((vectors / np.sqrt(sizes[:2])).T.copy())
    origin, first, second = (_empty(paths) for _ in range(3))
    for name, part, block in paths.blocks():
        rows = block[finite] if not bool(finite.all()) else block
        origin[name][part] = rows.mean(0)
        first[name][part], second[name][part] = along @ rows
    shares = (float(sizes[0]) / whole, float(sizes[1]) / whole)
    return Plane(origin, first, second, "principal", shares, int((~finite).sum()))


def random(paths: Paths, seed: int = 0) -> Plane:
    """Two random directions through the last weights of the first path, normalised by filter.

    Each filter of a direction, a row of a weight, has the norm of the same filter of the weights; parameters of one
    axis, such as biases, stay as they are.  Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 4.

    Raises:
        ValueError: the last weights are not finite, or no parameter has two axes.
    """
    generator = torch.Generator().manual_seed(seed)
    last = paths.runs[0].snapshot(len(paths.runs[0]) - 1)
    origin: Weights = {name: last[name].to(torch.float64).reshape(-1) for name in paths.shapes}
    if not all(bool(x.isfinite().all()) for x in origin.values()):
        raise ValueError(f"the last weights of {paths.runs[0].folder} are not finite, so nothing lies around them")
    directions: list[Weights] = []
    for _ in range(2):
        found: Weights = {}
        for name, shape in paths.shapes.items():
            drawn = torch.zeros(math.prod(shape), dtype=torch.float64)
            if len(shape) > 1 and drawn.numel():
                rows = torch.randn(shape[0], drawn.numel() // shape[0], generator=generator, dtype=torch.float64)
                sizes = origin[name].reshape_as(rows).square().sum(1, keepdim=True).sqrt()
                drawn = (rows * (sizes / rows.square().sum(1, keepdim=True).sqrt())).reshape(-1)
            found[name] = drawn
        directions.append(found)
    if not all(any(bool(x.any()) for x in one.values()) for one in directions):
        raise ValueError("no parameter has filters that are not zero, so there are no filter-normalised directions")
    return Plane(origin, directions[0], directions[1], "random")


def places(plane: Plane, paths: Paths) -> list[Places]:
    """Where each of the paths is, as seen from a plane."""
    count = len(paths)
    dots = torch.zeros(count, 2, dtype=torch.float64)
    square, gone = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    gram = torch.zeros(2, 2, dtype=torch.float64)
    parts = paths.parts
    for name, part, block in paths.blocks():
        directions = torch.stack([plane.first[name][part], plane.second[name][part]])
        for run in parts:  # one after another, so that there are not two of the block
            gone[run] += (block[run] - block[run.start]).square_().sum(1)
        block -= plane.origin[name][part]
        dots += block @ directions.T
        gram += directions @ directions.T
        square += block.square_().sum(1)
    points = dots @ torch.from_numpy(np.linalg.inv(gram.numpy()))
    distance = (square - (points * dots).sum(1)).clamp_min(0).sqrt()
    return [Places(points[run], distance[run], gone[run].sqrt()) for run in parts]


def _squared(rows: Tensor) -> Tensor:
    """rows·rowsᵀ, of which NumPy computes one half, as it notices that both are the same."""
    found = rows.numpy()
    with np.errstate(invalid="ignore", over="ignore"):  # of snapshots that are not finite
        return torch.from_numpy(found @ found.T)


def _empty(paths: Paths) -> Weights:
    return {name: torch.empty(math.prod(shape), dtype=torch.float64) for name, shape in paths.shapes.items()}
