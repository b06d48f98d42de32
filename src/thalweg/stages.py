"""A whole optimizer step as one formula: the rule, and what the optimizer does around every rule.

Unscaling, clipping, the sign for maximizing, weight decay in its three forms, the lookahead point and the moving
average of the weights are written here once, with the functions of `thalweg.maths`.  Run on tensors this is the eager
step; run on symbols it is the expression that the fused kernels are printed from.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from thalweg.maths import Number, Value, maximum, minimum
from thalweg.rule import Rule

DecayForm = Literal["l2", "scaled", "independent"]


@dataclass(frozen=True)
class Stages:
    """The stages of a step.  As with a rule's options, each choice is a formula of its own.

    Attributes:
        unscale: first divide the gradient by a loss scale, as in mixed precision.
        clip_each: then scale it down to a norm of its own.
        clip_value: then clamp its elements.
        clip_norm: then scale all gradients together down to a global norm.
        maximize: step up rather than down.
        decay: the form of weight decay, or None: ``l2``, added to the gradient; ``scaled``, also called decoupled,
            θ ← θ − ηλθ; ``independent``, also called fully decoupled, θ ← θ − λ(η/η₀)θ.
        ema: keep an exponential moving average of the weights.
    """

    unscale: bool = False
    clip_each: bool = False
    clip_value: bool = False
    clip_norm: bool = False
    maximize: bool = False
    decay: DecayForm | None = None
    ema: bool = False

    @property
    def unscaled(self) -> "Stages":
        """Only the stage before clipping."""
        return Stages(unscale=self.unscale)


class Scalars(NamedTuple):
    """The numbers of the stages; the defaults have no effect.

    Attributes:
        unscale: the first factor of the gradient, one over the loss scale.
        clip_value: the largest magnitude allowed for an element of the gradient.
        weight_decay: λ.
        base_lr: η₀; `independent` decay is proportional to the current rate divided by it.
        ema: the decay of the moving average, in [0, 1).
        clip_each: the factor of the gradient from clipping by its own norm, in (0, 1].
        clip_norm: the factor of the gradient from clipping by the global norm, in (0, 1].
    """

    unscale: Number = 1.0
    clip_value: Number = math.inf
    weight_decay: Number = 0.0
    base_lr: Number = 1.0
    ema: Number = 0.0
    clip_each: Number = 1.0
    clip_norm: Number = 1.0


class Stepped(NamedTuple):
    """The results of a step: the parameter (for lookahead methods, the lookahead point), the state, the average."""

    p: Value
    state: Any
    ema: Value | None


def gradient(stages: Stages, g: Value, c: Scalars, strict: bool = False) -> Value:
    """The gradient from which the global norm is computed: unscaled, and clipped on its own.

    As in torch, clipping by value makes infinity finite.  If `strict`, it becomes nan instead, so that it is noticed.
    """
    if stages.unscale:
        g = g * c.unscale
    if stages.clip_each:
        g = g * c.clip_each
    if stages.clip_value:
        clipped = minimum(maximum(g, -c.clip_value), c.clip_value)
        g = clipped + 0 * g if strict else clipped
    return g


def given(stages: Stages, p: Value, g: Value, c: Scalars) -> Value:
    """The gradient that is passed to the rule: unscaled, clipped, negated to maximize, with l2 decay added."""
    g = gradient(stages, g, c)
    if stages.clip_norm:
        g = g * c.clip_norm
    if stages.maximize:
        g = -g
    return g + c.weight_decay * p if stages.decay == "l2" else g


def step(
    stages: Stages, rule: Rule, before: Rule, after: Rule, p: Value, g: Value, s: Any, ema: Value | None, t: Number,
    c: Scalars,
) -> Stepped:  # fmt: skip
    """One step of a parameter.

    Args:
        stages: the stages of the step.
        rule: the rule with this step's numbers.
        before: the rule with the numbers from which the lookahead point in `p` was computed; see `Rule.lookahead`.
        after: the rule with the next step's numbers, from which the next lookahead point is computed.
        p: the parameter; for lookahead methods the lookahead point.
        g: the gradient taken at `p`.
        s: the rule's state.
        ema: the moving average of the weights, if `stages` has one.
        t: the step, 1, 2, …
        c: the numbers of the stages.
    """
    g = given(stages, p, g, c)
    ahead = before.lookahead(s)
    theta = p if ahead is None else p - ahead
    if stages.decay == "scaled":
        theta = theta * (1 - rule.lr * c.weight_decay)
    elif stages.decay == "independent":
        theta = theta * (1 - c.weight_decay * (rule.lr / c.base_lr))
    theta, s = rule.update(theta, g, s, t)
    if stages.ema and ema is not None:
        ema = c.ema * ema + (1 - c.ema) * theta
    ahead = after.lookahead(s)
    return Stepped(theta if ahead is None else theta + ahead, s, ema)
