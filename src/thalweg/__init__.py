"""Thalweg: update rules written once, as formulas; from them optimizers, fair races and animations.

Names are loaded when first used, so that ``import thalweg`` takes almost no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thalweg import (
        conventions,
        curvature,
        groups,
        landscape,
        optim,
        playground,
        problems,
        report,
        rules,
        schedules,
        trace,
        verdict,
    )
    from thalweg.landscape import Trajectory
    from thalweg.optimizer import Optimizer
    from thalweg.printers.latex import latex
    from thalweg.problems import Problem
    from thalweg.race import Entry, Race, TrainingRun, current_run
    from thalweg.rule import Rule
    from thalweg.switch import Switch

__version__ = "0.1.0"

_HOMES = {
    "Entry": "thalweg.race",
    "Optimizer": "thalweg.optimizer",
    "Problem": "thalweg.problems",
    "Race": "thalweg.race",
    "Rule": "thalweg.rule",
    "Switch": "thalweg.switch",
    "TrainingRun": "thalweg.race",
    "Trajectory": "thalweg.landscape",
    "current_run": "thalweg.race",
    "latex": "thalweg.printers.latex",
}
_PACKAGES = (
    "conventions",
    "curvature",
    "groups",
    "landscape",
    "optim",
    "playground",
    "problems",
    "report",
    "rules",
    "schedules",
    "trace",
    "verdict",
)

__all__ = [  # noqa: RUF022 -- what a newcomer meets first stands first
    "Optimizer",
    "Switch",
    "Rule",
    "rules",
    "latex",
    "conventions",
    "optim",
    "groups",
    "schedules",
    "trace",
    "curvature",
    "Problem",
    "problems",
    "playground",
    "Race",
    "TrainingRun",
    "current_run",
    "Entry",
    "verdict",
    "report",
    "Trajectory",
    "landscape",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"thalweg.{name}")
    raise AttributeError(f"module 'thalweg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
