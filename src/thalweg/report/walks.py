"""A rule's walk on a surface: its path, its outcome, and a sentence about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg import problems
from thalweg.parsing import parse_nested
from thalweg.problems import Surface
from thalweg.report.page import number
from thalweg.rule import Rule
from thalweg.rules import built, given

DOWN = 1e-3
"""A walk has reached the bottom when only this share of the start's height above the lowest loss is left."""
NEAR = 0.02
"""A walk is at a point if the distance is at most this share of the window's width."""

Point = tuple[float, float]
Kind = Literal["saddle point", "local minimum", "minimum", "maximum"]


@dataclass(frozen=True)
class Walk:
    """A path on a surface.

    Attributes:
        name: its name in sentences.
        rule: the rule, with the learning rate that was used.
        surface: the surface.
        steps: the number of steps requested.
        points: the path as `problems.path` gives it, of shape (taken + 1, 2).
    """

    name: str
    rule: Rule
    surface: Surface
    steps: int
    points: NDArray[np.float64]

    @property
    def text(self) -> str:
        """The rule as text for ``rules.parse``, always with its learning rate."""
        return spelled(self.rule)

    @property
    def taken(self) -> int:
        """The number of steps before it diverged."""
        return len(self.points) - 1

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """The height at each point."""
        return self.surface.heights(self.points[:, 0], self.points[:, 1])

    @cached_property
    def excess(self) -> NDArray[np.float64]:
        """The height of each point above the surface's lowest."""
        return self.losses - lowest(self.surface)

    @cached_property
    def arrived(self) -> int | None:
        """The first step that has covered 99.9 % of the distance to the lowest loss, or None."""
        below = np.flatnonzero(self.excess <= DOWN * self.excess[0])
        return int(below[0]) if len(below) else None

    @cached_property
    def turns(self) -> int:
        """The number of steps that turn back: more than 90° from the direction of the step before."""
        steps = np.diff(self.points, axis=0)
        with np.errstate(over="ignore", invalid="ignore"):  # a diverging path
            return int(((steps[1:] * steps[:-1]).sum(axis=1) < 0).sum())

    @property
    def length(self) -> float:
        """The length of the path."""
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())

    @cached_property
    def left(self) -> int | None:
        """The step at which it left the window for good, or None."""
        outside = np.flatnonzero(inside(self.surface, self.points))
        last = int(outside[-1]) if len(outside) else -1
        return last + 1 if last + 1 < len(self.points) else None

    @property
    def ending(self) -> str:
        """Its outcome, without its name: ``reached loss 0.001 at step 80``."""
        loss = number(float(self.losses[-1]))
        if self.taken < self.steps:
            return f"left the numbers at step {self.taken + 1:,}"
        if self.arrived is not None:
            return f"reached loss {number(float(self.losses[self.arrived]))} at step {self.arrived:,}"
        if self.left is not None:
            return f"ran out of the window at step {self.left:,}"
        rest = resting(self.surface, self.points[-1])
        if rest is not None:
            where = f"the {rest[0]}" if rest[0] == "minimum" else f"a {rest[0]}"
            x, y = (number(v) for v in rest[1])
            return f"is still at {where} near ({x}, {y}) after {self.steps:,} steps, at loss {loss}"
        return f"is on its way after {self.steps:,} steps, at loss {loss}"


def spelled(rule: Rule) -> str:
    """``str(rule)`` with its learning rate, even if that is the default."""
    text = str(rule)
    if "lr" in rule.changed:
        return text
    if rule.bases:
        return f"{text.removesuffix(')')}, lr={rule.lr!r})"
    return text.replace("(", f"(lr={rule.lr!r}, ", 1).replace(", )", ")")


def walk(
    surface: Surface, rules: Sequence[str | Rule], start: Point | None, steps: int, noise: float, seed: int
) -> list[Walk]:
    """The walks of all rules.  A rule in text without a learning rate gets one that suits the surface.

    Raises:
        ValueError: no rules, a rule that cannot be read, or what `problems.path` refuses.
    """
    if not rules:
        raise ValueError("there are no rules to show; name at least one, as in sgd,momentum,adam")
    names = [rule.partition("(")[0].strip() if isinstance(rule, str) else type(rule).__name__.lower() for rule in rules]
    walks: list[Walk] = []
    for name, rule in zip(names, rules, strict=True):
        made = _rated(surface, rule, steps)
        said = name if names.count(name) == 1 else spelled(made)
        walks.append(Walk(said, made, surface, steps, problems.path(surface, made, start, steps, noise, seed)))
    return walks


def _rated(surface: Surface, rule: str | Rule, steps: int) -> Rule:
    if isinstance(rule, Rule):
        return rule
    call = parse_nested(rule)
    made = built(call)
    # Two digits, so that the displayed rate is exactly the one used.
    return made if "lr" in given(call, made) else made.replace(lr=float(f"{surface.suggest(made, steps):.2g}"))


def lowest(surface: Surface) -> float:
    """The loss at the surface's global minimum."""
    return min(float(surface.heights(*minimum)) for minimum in surface.minima)


def inside(surface: Surface, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each point lies in the surface's window."""
    (left, right), (low, high) = surface.window
    x, y = points.T
    return (left <= x) & (x <= right) & (low <= y) & (y <= high)


def resting(surface: Surface, point: NDArray[np.float64]) -> tuple[Kind, Point] | None:
    """The kind of stationary point near a point, if any: found by Newton's method, classified by curvature."""
    (left, right), (low, high) = surface.window
    near = NEAR * max(right - left, high - low)
    start: Any = torch.tensor(point, dtype=torch.float64)
    at: Any = start
    hessian: Any = start

    def height(p: Any) -> Any:
        return surface.f(p[0], p[1])

    for _ in range(30):
        hessian = cast(Any, torch.autograd.functional.hessian(height, at))
        step, failed = _solve(hessian, surface.gradient_at(at))
        at = at - step
        if bool(failed) or not float((at - start).norm()) <= near:
            return None
        if float(step.norm()) < 1e-12 * near:
            break
    first, second = (float(v) for v in cast(Any, torch.linalg.eigvalsh(hessian)))
    x, y = (float(v) for v in at)
    x, y = (0.0 if abs(v) < 1e-9 else v for v in (x, y))
    if first < 0:
        return ("saddle point" if second > 0 else "maximum"), (x, y)
    global_one = float(surface.heights(x, y)) - lowest(surface) < 1e-9
    return ("minimum" if global_one else "local minimum"), (x, y)


def _solve(matrix: Any, right: Any) -> tuple[Any, Any]:
    return cast(Any, torch.linalg.solve_ex(matrix, right))


def caption(walks: Sequence[Walk], noise: float) -> list[tuple[Walk, str]]:
    """Observations computed from the paths, each a name and the rest of a sentence; those that arrive come first."""
    arrived = sorted((w for w in walks if w.arrived is not None), key=lambda w: w.arrived or 0)
    sentences = [(w, w.ending) for w in (*arrived, *(w for w in walks if w.arrived is None))]
    most = max(walks, key=lambda w: w.turns / max(1, w.taken))
    if not noise and most.turns > 0.25 * most.taken:  # with noise every rule turns back
        sentences.append((most, f"zigzags: {most.turns:,} of its {most.taken:,} steps turn back on the one before"))
    return sentences
