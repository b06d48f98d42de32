"""Torch's optimizers in the bench, our equivalent of each, and torch's implementations of its step."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from thalweg import conventions
from thalweg.bench.result import DEFAULT
from thalweg.hyperparameters import nearest
from thalweg.optimizer import Optimizer
from thalweg.rule import Rule
from thalweg.stages import DecayForm

Params = list[torch.nn.Parameter]


@dataclass(frozen=True)
class Pair:
    """One of torch's optimizers, and our equivalent by the torch column of `thalweg.conventions`.

    Attributes:
        theirs: torch's class.
        arguments: its arguments.
    """

    theirs: type[torch.optim.Optimizer]
    arguments: Mapping[str, Any]

    def ours(self, params: Params, **further: Any) -> Optimizer:
        """Our optimizer, with `further` arguments of its own."""
        return conventions.optimizer("torch", self.theirs.__name__, params, **self.arguments, **further)

    @property
    def rule(self) -> Rule:
        """Our rule."""
        return self._group["rule"]

    @property
    def decay(self) -> DecayForm | None:
        """The form of the weight decay; None without decay."""
        return self._group["decay_form"] if self._group["weight_decay"] else None

    @property
    def _group(self) -> dict[str, Any]:
        return self.ours([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]

    @property
    def ways(self) -> dict[str, dict[str, bool]]:
        """Torch's implementations without a compiler, by name, with the arguments that select them."""
        ways: dict[str, dict[str, bool]] = {DEFAULT: {}, "for-loop": {"foreach": False}, "foreach": {"foreach": True}}
        fused = "fused" in inspect.signature(self.theirs).parameters
        return ways | ({"fused": {"fused": True}} if fused else {})

    def constructed(self, params: Params, way: str) -> torch.optim.Optimizer:
        """Torch's optimizer in one of its `ways`, or with torch's defaults for any other name."""
        construct = cast("Callable[..., torch.optim.Optimizer]", self.theirs)
        return construct(params, **self.arguments, **self.ways.get(way, {}))


PAIRS = {
    "sgd": Pair(torch.optim.SGD, {"lr": 1e-2}),
    "momentum": Pair(torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9}),
    "adagrad": Pair(torch.optim.Adagrad, {"lr": 1e-2}),
    "rmsprop": Pair(torch.optim.RMSprop, {"lr": 1e-2}),
    "adam": Pair(torch.optim.Adam, {"lr": 1e-3}),
    "adamw": Pair(torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 1e-2}),
    "nadam": Pair(torch.optim.NAdam, {"lr": 2e-3}),
}
"""The pairs, by the names for ``--rules``."""


def pair(name: str) -> Pair:
    """The pair of that name.

    Raises:
        ValueError: there is none.
    """
    if name.lower() not in PAIRS:
        raise ValueError(
            f"there is nothing in torch to bench {name!r} against{nearest(name, PAIRS)}; there is {', '.join(PAIRS)}"
        )
    return PAIRS[name.lower()]
