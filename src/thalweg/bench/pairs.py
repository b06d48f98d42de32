"""Which of torch's optimizers is the same as which rule, and every way that torch has to step it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

import thalweg.rules
from thalweg.bench.result import DEFAULT
from thalweg.rule import Rule, nearest
from thalweg.stages import DecayForm


@dataclass(frozen=True)
class Pair:
    """A rule, and torch's optimizer that computes the same.

    Attributes:
        ours: the rule, as `thalweg.rules.parse` reads it.
        theirs: torch's class.
        arguments: what that is constructed with.
        weight_decay: what our optimizer decays by.
        decay_form: and how.
    """

    ours: str
    theirs: type[torch.optim.Optimizer]
    arguments: Mapping[str, Any]
    weight_decay: float = 0.0
    decay_form: DecayForm = "l2"

    @property
    def rule(self) -> Rule:
        """Our rule."""
        return thalweg.rules.parse(self.ours)

    @property
    def ways(self) -> dict[str, dict[str, bool]]:
        """Torch's ways of stepping it without a compiler: the further arguments of each by its name."""
        ways: dict[str, dict[str, bool]] = {DEFAULT: {}, "for-loop": {"foreach": False}, "foreach": {"foreach": True}}
        fused = "fused" in inspect.signature(self.theirs).parameters
        return ways | ({"fused": {"fused": True}} if fused else {})

    def constructed(self, params: list[torch.nn.Parameter], way: str) -> torch.optim.Optimizer:
        """Torch's optimizer, to be stepped in one of its `ways`; by torch's defaults where it is none of them."""
        construct = cast("Callable[..., torch.optim.Optimizer]", self.theirs)
        return construct(params, **self.arguments, **self.ways.get(way, {}))


PAIRS = {
    "sgd": Pair("sgd(lr=1e-2)", torch.optim.SGD, {"lr": 1e-2}),
    "momentum": Pair("momentum(lr=1e-2, momentum=0.9)", torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9}),
    "adagrad": Pair("adagrad(lr=1e-2, eps=1e-10)", torch.optim.Adagrad, {"lr": 1e-2, "eps": 1e-10}),
    "rmsprop": Pair("rmsprop(lr=1e-2, decay=0.99, eps=1e-8)", torch.optim.RMSprop, {"lr": 1e-2, "alpha": 0.99}),
    "adam": Pair("adam(lr=1e-3)", torch.optim.Adam, {"lr": 1e-3}),
    "adamw": Pair("adam(lr=1e-3)", torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 1e-2}, 1e-2, "scaled"),
    "nadam": Pair("nadam(lr=2e-3)", torch.optim.NAdam, {"lr": 2e-3}),
}
"""The rules that torch has too, by the names that ``--rules`` takes."""


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
