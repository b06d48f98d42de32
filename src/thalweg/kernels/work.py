"""What an optimizer hands to a backend, and what a backend is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from thalweg.rule import ABSENT, Rule
from thalweg.stages import Scalars, Stages


@dataclass
class Work:
    """A parameter group: the formula of its step, and this step's numbers.

    Attributes:
        template: the rule; its options are the formula's, its numbers are not used.
        form: which stages there are around the rule.
        params: the group's parameters; those without a gradient are left out.
        state_dtype: of the values of the state, or None for that of the arithmetic.
        seed: of rounding to a 16-bit state.
        differentiable: whether autograd is to see the step.
        densify: whether a sparse gradient is made dense, where the rule needs more than its rows.
        numbers: the rule's numbers in this step.
        before: the numbers that the interim points were made with.
        after: the numbers of the next step.
        scalars: the numbers of the stages.
        names: the rule's numbers by name.
        kept: what the state of a parameter holds.
        looks_ahead: whether the parameters hold interim points.
    """

    template: Rule
    form: Stages
    params: list[Tensor]
    state_dtype: torch.dtype | None = None
    seed: int = 0
    differentiable: bool = False
    densify: bool = False
    numbers: dict[str, float] = field(default_factory=dict[str, float])
    before: dict[str, float] = field(default_factory=dict[str, float])
    after: dict[str, float] = field(default_factory=dict[str, float])
    scalars: Scalars = field(default_factory=Scalars)
    names: tuple[str, ...] = field(init=False)
    kept: frozenset[str] = field(init=False)
    looks_ahead: bool = field(init=False)

    def __post_init__(self) -> None:
        self.names = tuple(self.template.numbers)
        first = self.template.init(cast(Any, 0.0))._asdict()
        self.kept = frozenset({"step", *(name for name, x in first.items() if x is not ABSENT)})
        self.kept |= {"ema"} if self.form.ema else set[str]()
        self.looks_ahead = self.template.looks_ahead


class Backend(Protocol):
    """Steps all groups of one optimizer."""

    def prepare(self, works: list[Work], state: Mapping[Tensor, dict[str, Any]]) -> None:
        """Look at groups, parameters and gradients anew: once a step, before the rest."""
        ...

    def norm(self, works: list[Work], strict: bool) -> float:
        """The global 2-norm of all gradients, unscaled and clipped by value, accumulated in float64.

        If `strict` it is finite only if every gradient was, before it was clipped.
        """
        ...

    def step(self, works: list[Work], state: Mapping[Tensor, dict[str, Any]], zero_grad: bool) -> None:
        """Step every parameter that has a gradient, in place, filling the state of those stepped first."""
        ...

    def drop(self, params: list[Tensor]) -> bool:
        """Set the gradients of all of the optimizer's parameters to None, and True; or False if it has no quick way."""
        ...
