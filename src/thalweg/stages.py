"""A whole optimizer step as one formula: the rule, and around it what the optimizer does for every rule.

Unscaling, clipping, the sign for maximizing, weight decay in its three forms, the look-ahead point and the moving
average of the weights are written here once, in the words of `thalweg.maths`.  Run on tensors this is the eager step;
run on symbols it is the expression that the fused kernels are printed from.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from thalweg.maths import Number, Value, maximum, minimum
from thalweg.rule import Rule

DecayForm = Literal["l2", "scaled", "independent"]


@dataclass(frozen=True)
class Stages:
    """Which stages a step has: each choice is a formula of its own, as a rule's options are.

    Attributes:
        unscale: the gradient is divided by a loss scale first, as in mixed precision.
        clip_value: then its elements are clamped.
        clip_norm: then it is scaled down to a global norm.
        maximize: step up rather than down.
        decay: the form of weight decay, or None.
        ema: keep an exponential moving average of the weights.
    """

    unscale: bool = False
    clip_value: bool = False
    clip_norm: bool = False
    maximize: bool = False
    decay: DecayForm | None = None
    ema: bool = False


class Scalars(NamedTuple):
    """The numbers of the stages; the defaults do nothing.

    Attributes:
        unscale: what the gradient is multiplied by first, one over the loss scale.
        clip_value: the largest magnitude of a gradient's element.
        weight_decay: λ.
        base_lr: the rate η₀ that `independent` decay measures the current rate against.
        ema: the decay of the moving average, in [0, 1).
        clip_norm: what clipping by the global norm multiplies the gradient by, in (0, 1].
    """

    unscale: Number = 1.0
    clip_value: Number = math.inf
    weight_decay: Number = 0.0
    base_lr: Number = 1.0
    ema: Number = 0.0
    clip_norm: Number = 1.0


class Stepped(NamedTuple):
    """What a step leaves: the parameter (the interim point, for look-ahead methods), the state, the average."""

    p: Value
    state: Any
    ema: Value | None


def gradient(stages: Stages, g: Value, c: Scalars, strict: bool = False) -> Value:
    """The gradient as the global norm sees it: unscaled and clipped by value.

    Clipping by value makes infinity finite, as in torch; if `strict` it is not a number instead, so that it is seen.
    """
    if stages.unscale:
        g = g * c.unscale
    if stages.clip_value:
        clipped = minimum(maximum(g, -c.clip_value), c.clip_value)
        g = clipped + 0 * g if strict else clipped
    return g


def given(stages: Stages, p: Value, g: Value, c: Scalars) -> Value:
    """The gradient as the rule is given it: unscaled, clipped, its sign turned to maximize, with its l2 decay."""
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
        stages: which stages there are.
        rule: the rule with this step's numbers.
        before: the rule with the numbers that the interim point in `p` was made with; see `Rule.interim`.
        after: the rule with the next step's numbers, which the next interim point is made with.
        p: the parameter; for look-ahead methods the interim point.
        g: the gradient taken at `p`.
        s: the rule's state.
        ema: the moving average of the weights, where `stages` keeps one.
        t: the step, 1, 2, …
        c: the numbers of the stages.
    """
    g = given(stages, p, g, c)
    ahead = before.interim(s)
    theta = p if ahead is None else p - ahead
    if stages.decay == "scaled":
        theta = theta * (1 - rule.lr * c.weight_decay)
    elif stages.decay == "independent":
        theta = theta * (1 - c.weight_decay * (rule.lr / c.base_lr))
    theta, s = rule.update(theta, g, s, t)
    if stages.ema and ema is not None:
        ema = c.ema * ema + (1 - c.ema) * theta
    ahead = after.interim(s)
    return Stepped(theta if ahead is None else theta + ahead, s, ema)
