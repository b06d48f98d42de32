"""Two-dimensional surfaces to watch a rule on, written once in the words of `thalweg.maths`.

Run on symbols they are differentiated exactly (`thalweg.derivative`), and printed as code for a browser.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from thalweg import derivative
from thalweg.maths import Value, cos, exp
from thalweg.rule import Rule
from thalweg.trace import Graph, evaluate, graph, number

Point = tuple[float, float]


@dataclass(frozen=True)
class Surface:
    """A function of two parameters, with its minima and the part of it to show.

    Attributes:
        name: as in ``thalweg play --surface NAME``.
        f: the height at ``(x, y)``: tensors, floats or symbols.
        minima: the points of its global minimum, from the literature or solved numerically; none if it has no lowest.
        window: the ranges of x and y to show.
        start: the default start of paths.
        lr: a learning rate at which plain gradient descent shows the surface's characteristics.
        noise: the standard deviation of the noise on each component of its gradient, where noise belongs to it.
    """

    name: str
    f: Callable[[Any, Any], Any]
    minima: tuple[Point, ...]
    window: tuple[Point, Point]
    start: Point
    lr: float
    noise: float = 0.0

    @property
    def doc(self) -> str:
        """What the surface is, and its source."""
        return " ".join((self.f.__doc__ or "").split())

    def heights(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """The height at each point, in float64: of a path, or of a grid to draw; inf where it overflows."""
        at = (torch.as_tensor(np.asarray(values, dtype=np.float64)) for values in (x, y))
        return self.f(*at).numpy()

    @cached_property
    def derivatives(self) -> Graph:
        """The height ``f``, its gradient ``gx``, ``gy`` and its second derivatives ``hxx``, ``hxy``, ``hyy``, traced.

        Raises:
            TraceError: the function branches on a value, or uses what `thalweg.maths` does not have.
        """
        x, y = number("x"), number("y")
        height = graph({"f": self.f(x, y)}).outputs["f"]
        gx, gy = derivative.gradient(height, (x, y))
        hxx, hxy = derivative.gradient(gx, (x, y))
        (hyy,) = derivative.gradient(gy, (y,))
        return graph({"f": height, "gx": gx, "gy": gy, "hxx": hxx, "hxy": hxy, "hyy": hyy})

    @cached_property
    def _slope(self) -> Graph:
        return graph({name: self.derivatives.outputs[name] for name in ("gx", "gy")})

    def gradient(self, x: float, y: float) -> Point:
        """The exact gradient at a point, in float64."""
        g = self.gradient_at(torch.tensor([x, y], dtype=torch.float64))
        return float(g[0]), float(g[1])

    def gradient_at(self, point: Tensor) -> Tensor:
        """The exact gradient at a float64 point of shape (2,), in the same shape."""
        at = point.detach()
        found = evaluate(self._slope, {"x": at[0], "y": at[1]})
        return torch.stack([torch.as_tensor(found[name], dtype=torch.float64) for name in ("gx", "gy")])


def surface_of(f: Callable[[Any, Any], Any], name: str | None = None) -> Surface:
    """A surface from a function of x and y in the words of `thalweg.maths`, in the window from -5 to 5.

    Nothing is known of its minima; give a `Surface` to say where they are, what to show and where to start.
    """
    called = name or getattr(f, "__name__", "surface").strip("<>")
    return Surface(called, f, (), ((-5.0, 5.0), (-5.0, 5.0)), (-3.5, 3.0), 0.01)


def path(
    surface: Surface,
    rule: Rule,
    start: Point | None = None,
    steps: int = 200,
    noise: float | None = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The path of θ under `rule` in float64: an array of shape (steps + 1, 2), beginning with the start.

    Args:
        start: the first point; the surface's own start if None.
        noise: the standard deviation of the Gaussian noise in each component of the gradient; the surface's own if
            None.
        seed: of the noise; the same seed gives every rule the same noise.

    Returns:
        The path of θ itself, also for lookahead methods.  It ends before the first point that is not finite, so a path
        shorter than ``steps + 1`` has diverged.

    Raises:
        ValueError: the noise is negative or not finite, the start is not finite, or `steps` is negative.
    """
    start = surface.start if start is None else start
    noise = surface.noise if noise is None else noise
    if not 0 <= noise < float("inf"):
        raise ValueError(f"noise is {noise!r}; allowed is a finite number >= 0")
    if len(start) != 2 or not np.isfinite(start).all():
        raise ValueError(f"start is {start!r}; allowed are two finite numbers")
    if steps < 0:
        raise ValueError(f"steps is {steps!r}; allowed is a whole number >= 0")
    generator = torch.Generator().manual_seed(seed)
    rule, p = _shaped(rule, torch.tensor(start, dtype=torch.float64))
    state = rule.init(p)
    points = [p.flatten()]
    for t in range(1, steps + 1):
        ahead = rule.lookahead(state)
        g = surface.gradient_at((p if ahead is None else p + ahead).flatten())
        g = g + noise * torch.randn(2, generator=generator, dtype=torch.float64)
        p, state = rule.update(p, g.reshape(p.shape), state, t)
        if not torch.isfinite(p).all():
            break
        points.append(p.flatten())
    return torch.stack(points).numpy()


def _shaped(rule: Rule, p: Tensor) -> tuple[Rule, Tensor]:
    """A rule as it is for a vector, or for a matrix of one column if it steps only matrices; and the vector as such."""
    try:
        return rule.fit(tuple(p.shape)), p
    except ValueError:
        return rule.fit((*p.shape, 1)), p.unsqueeze(1)


def _bowl(x: Value, y: Value) -> Value:
    """A round bowl: the easiest surface there is."""
    return 0.5 * (x * x + y * y)


def _ravine(x: Value, y: Value) -> Value:
    """A ravine, a hundred times steeper across than along: plain descent creeps along it, momentum is fastest."""
    return 0.01 * x * x + y * y


def _saddle(x: Value, y: Value) -> Value:
    """A saddle at the origin, x² − y² near it, with a minimum on either side; the start lies just off the ridge."""
    return x * x - y * y + 0.25 * y * y * y * y


def _plateau(x: Value, y: Value) -> Value:
    """A pit in a plain that is all but flat: far from it the gradient is nearly nothing."""
    return 1 - exp(-0.5 * (x * x + y * y)) + 0.001 * (x * x + y * y)


def _hills(x: Value, y: Value) -> Value:
    """Rolling hills with many local minima around the global one, after Rastrigin 1974, gentler."""
    return 0.15 * (x * x + y * y) + 0.5 * (2 - cos(2.5 * x) - cos(2.5 * y))


def _basins(x: Value, y: Value) -> Value:
    """A local and a global minimum: descent ends in the basin that it starts in, unless something carries it over."""
    return 0.05 * (x * x - 4) * (x * x - 4) + 0.2 * x + 0.5 * y * y


def _monkey(x: Value, y: Value) -> Value:
    """A monkey saddle, x³ − 3xy² near the origin, where the curvature vanishes, too, with three minima around."""
    r = x * x + y * y
    return x * x * x - 3 * x * y * y + 0.25 * r * r


def _noisy(x: Value, y: Value) -> Value:
    """A quadratic seen through noise, as mini-batches see a loss: the last steps are a walk around the minimum."""
    return 0.5 * (x * x + 10 * y * y)


def _rosenbrock(x: Value, y: Value) -> Value:
    """A curved valley: easy to enter, slow to follow.  Rosenbrock 1960."""
    return (1 - x) * (1 - x) + 100 * (y - x * x) * (y - x * x)


def _beale(x: Value, y: Value) -> Value:
    """Flat in the middle, steep at the corners.  Beale 1958."""
    a = 1.5 - x + x * y
    b = 2.25 - x + x * y * y
    c = 2.625 - x + x * y * y * y
    return a * a + b * b + c * c


def _himmelblau(x: Value, y: Value) -> Value:
    """Four minima of equal depth: which one is reached depends on the path.  Himmelblau 1972."""
    a = x * x + y - 11
    b = x + y * y - 7
    return a * a + b * b


_HIMMELBLAU = ((3.0, 2.0), (-2.805118086952745, 3.131312518250573), (-3.779310253377747, -3.283185991286170),
               (3.584428340330492, -1.848126526964404))  # fmt: skip

surfaces: dict[str, Surface] = {
    surface.name: surface
    for surface in (
        Surface("bowl", _bowl, ((0.0, 0.0),), ((-3.0, 3.0), (-3.0, 3.0)), (-2.5, 2.0), 0.1),
        Surface("ravine", _ravine, ((0.0, 0.0),), ((-10.0, 10.0), (-4.0, 4.0)), (-9.0, 2.5), 0.65),
        Surface("saddle", _saddle, ((0.0, 2**0.5), (0.0, -(2**0.5))), ((-2.0, 2.0), (-2.0, 2.0)), (-1.6, 1e-6), 0.01),
        Surface("plateau", _plateau, ((0.0, 0.0),), ((-4.0, 4.0), (-4.0, 4.0)), (-2.8, 2.2), 0.3),
        Surface("hills", _hills, ((0.0, 0.0),), ((-6.0, 6.0), (-6.0, 6.0)), (-5.0, 4.4), 0.02),
        Surface("basins", _basins, ((-2.114907541476755, 0.0),), ((-4.0, 4.0), (-3.0, 3.0)), (3.4, 2.0), 0.08),
        Surface("monkey", _monkey, ((-3.0, 0.0), (1.5, 6.75**0.5), (1.5, -(6.75**0.5))), ((-4.0, 4.0), (-4.0, 4.0)),
                (1.4, 1e-3), 0.02),
        Surface("noisy", _noisy, ((0.0, 0.0),), ((-4.0, 4.0), (-3.0, 3.0)), (-3.5, 2.4), 0.05, noise=1.0),
        Surface("rosenbrock", _rosenbrock, ((1.0, 1.0),), ((-2.0, 2.0), (-1.0, 3.0)), (-1.2, 1.0), 0.001),
        Surface("beale", _beale, ((3.0, 0.5),), ((-1.0, 4.5), (-2.0, 2.0)), (1.0, 1.5), 0.002),
        Surface("himmelblau", _himmelblau, _HIMMELBLAU, ((-5.0, 5.0), (-5.0, 5.0)), (0.0, -4.0), 0.01),
    )
}  # fmt: skip
"""Every surface by name."""
