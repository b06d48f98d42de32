"""What a step does with all gradients before it: their norms, clipping by them, and steps that are left out."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol

import torch

from thalweg.kernels import Work
from thalweg.optimizer import checkpoint
from thalweg.optimizer.settings import Nonfinite

Squares = Callable[..., Any]
"""A backend's ``squares``."""


class Limits(Protocol):
    """What an optimizer allows its gradients, as its attributes; see `thalweg.Optimizer`."""

    clip_norm: float | None
    clip_eps: float
    clip_in: Literal["float64", "float32"]
    clip_each: float | None
    nonfinite: Nonfinite


def clip_each(works: list[Work], squares: Squares, limits: Limits) -> None:
    """Clip each gradient by its own norm."""
    if limits.clip_each is not None:
        own = squares(works, clipped=False, strict=False)
        for work in works:
            work.clip_each(own, limits.clip_each)


def look(works: list[Work], squares: Squares, limits: Limits, groups: Iterable[Mapping[str, Any]], first: int) -> bool:
    """Look at all gradients together: clip by their norm; False where the step is to be left out.

    Args:
        works: what the step is to do to each group.
        squares: the backend's sums of squares.
        limits: what the optimizer allows.
        groups: its groups, for names in messages.
        first: the number of its first parameter among those that ``squares`` gives.

    Raises:
        RuntimeError: a gradient is not finite and that is to be raised, or the rule would decompose it.
    """
    decomposed = next((work.template for work in works if work.template.needs_finite), None)
    if limits.clip_norm is None and limits.nonfinite == "propagate" and decomposed is None:
        return True
    strict = limits.nonfinite != "propagate" or decomposed is not None
    after = works[-1].first + len(works[-1].params) if works else 0
    own = squares(works, clipped=True, strict=strict)[first:after]
    norm = math.sqrt(own.sum())
    if limits.clip_norm is not None:
        factor = limits.clip_norm / max(norm + limits.clip_eps, limits.clip_norm)
        if limits.clip_in == "float32":
            norms = torch.from_numpy(own[own > 0]).sqrt().float()
            bounded = norms.square().sum().sqrt() + limits.clip_eps
            factor = min((limits.clip_norm / bounded).item(), 1.0)
        for work in works:
            work.scalars = work.scalars._replace(clip_norm=factor)
    if math.isfinite(norm) or (limits.nonfinite == "propagate" and decomposed is None):
        return True
    if limits.nonfinite == "propagate":
        raise RuntimeError(
            f"the gradient of {_nonfinite(groups)} is not finite, and {type(decomposed).__name__} decomposes "
            "matrices made from gradients; nothing was changed; nonfinite='skip' leaves such steps out"
        )
    if limits.nonfinite == "raise":
        raise RuntimeError(f"the gradient of {_nonfinite(groups)} is not finite; nothing was changed")
    return False


def _nonfinite(groups: Iterable[Mapping[str, Any]]) -> str:
    for group in groups:
        for i, p in enumerate(group["params"]):
            if p.grad is not None and not bool(torch.isfinite(p.grad).all()):
                return f"parameter {checkpoint.name_of(group, i)}"
    return "all parameters together, their norm,"
