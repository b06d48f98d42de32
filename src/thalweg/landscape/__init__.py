"""Landscapes of real networks: recorded paths of their weights, and the loss around them.

`Trajectory` records a run with one line in its loop; `draw` computes the loss around it and `write` makes a page of
that, as ``thalweg landscape`` does.
"""

from typing import TYPE_CHECKING, Any

from thalweg.landscape.trajectory import Trajectory

if TYPE_CHECKING:
    from thalweg.landscape.callbacks import for_lightning, for_transformers
    from thalweg.landscape.drawing import Landscape, draw, landscapes
    from thalweg.landscape.loss import Measure
    from thalweg.landscape.page import write
    from thalweg.landscape.recorded import Recorded

__all__ = [
    "Landscape",
    "Measure",
    "Recorded",
    "Trajectory",
    "draw",
    "for_lightning",
    "for_transformers",
    "landscapes",
    "write",
]

_HOMES = {
    "Landscape": "drawing",
    "Measure": "loss",
    "Recorded": "recorded",
    "draw": "drawing",
    "for_lightning": "callbacks",
    "for_transformers": "callbacks",
    "landscapes": "drawing",
    "write": "page",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'thalweg.landscape' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"thalweg.landscape.{_HOMES[name]}"), name)
