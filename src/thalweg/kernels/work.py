"""What an optimizer hands to a backend: parameters that share a formula and its numbers."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from thalweg.rule import Rule
from thalweg.stages import Scalars, Stages


@dataclass
class Work:
    """The parameters of a group that have a gradient, and what to do to them.

    Attributes:
        stages: which stages there are around the rule.
        rule: the rule with this step's numbers.
        before: the rule with the numbers that the interim points were made with.
        after: the rule with the numbers of the next step.
        scalars: the numbers of the stages.
        params: the parameters; each one's gradient is in its ``grad``.
        states: each parameter's state by name, under ``step`` the steps taken; a backend fills the empty ones.
    """

    stages: Stages
    rule: Rule
    before: Rule
    after: Rule
    scalars: Scalars
    params: list[Tensor] = field(default_factory=list[Tensor])
    states: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
