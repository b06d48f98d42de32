"""Dual averaging: steps from the start along the sum of all gradients.  MADGRAD."""

from typing import Literal, NamedTuple

from thalweg.maths import Number, Value, cbrt, single, sqrt, where, zeros_like
from thalweg.rule import ABSENT, Decay, Epsilon, Log, Rate, Rule


class MADGRAD(Rule):
    """Dual averaging with a cube root.  Defazio & Jelassi 2021, "Adaptivity without compromise", Algorithm 1.

    With ``momentum`` the start θ₀ is kept as ``x0`` and each step averages with the previous point.  With None there is
    no such average, and the start is computed back from the sums, as in the authors' code.  As there, ε is also added
    to the learning rate; at a rate of 0 the parameters ``stand`` still, or are ``moved`` by ε (optax).  ``lambd`` is
    weight decay at the rate η + ε, subtracted after that average, as in pytorch_optimizer.  ``eps=None`` leaves ε out
    and takes 0/0 as 0.  ``numbers_in``: the precision of the weight of a gradient, which optax computes in float32.
    """

    lr: Rate = 1e-2
    momentum: Decay | None = 0.9
    eps: Epsilon | None = 1e-6
    lambd: Rate | None = None
    at_zero: Literal["stand", "moved"] = "stand"
    numbers_in: Literal["float64", "float32"] = "float64"

    search = {"lr": Log(1e-5, 1.0)}

    class State(NamedTuple):
        grad_sum_sq: Value
        grad_sum: Value
        x0: Value = ABSENT

    def init(h, p: Value):
        return MADGRAD.State(zeros_like(p), zeros_like(p), ABSENT if h.momentum is None else zeros_like(p) + p)

    def offset(h, s: Value, r: Value) -> Value:
        """The distance from the start: the summed gradients over the cube root of their summed squares."""
        if h.eps is None:
            # The inner `where` avoids a division by zero, which would raise for floats and make derivatives nan.
            return where(r > 0, s / cbrt(where(r > 0, r, 1.0)), 0 * s)
        return s / (cbrt(r) + h.eps)

    def update(h, p: Value, g: Value, s: State, t: Number):
        rate = h.lr if h.eps is None else h.lr + h.eps
        if h.at_zero == "stand":
            rate = where(h.lr == 0, 0.0, rate)
        weight: Number = rate * sqrt(t)
        if h.numbers_in == "float32":
            weight = single(single(rate) * single(sqrt(t)))
        r = s.grad_sum_sq + weight * g * g
        total = s.grad_sum + weight * g
        if h.momentum is None:
            new = p + h.offset(s.grad_sum, s.grad_sum_sq) - h.offset(total, r)
        else:
            new = h.momentum * p + (1 - h.momentum) * (s.x0 - h.offset(total, r))
        return new if h.lambd is None else new - rate * h.lambd * p, MADGRAD.State(r, total, s.x0)
