"""The average of the path rather than its end: ASGD."""

from typing import Literal, NamedTuple

from thalweg.maths import Number, Value, maximum, single, zeros_like
from thalweg.rule import Log, Positive, Rate, Rule


class ASGD(Rule):
    """Averaged stochastic gradient descent.  Polyak & Juditsky 1992; Bottou's form, as torch has it.

    The average is ``ax`` in the state; from step ``t0`` on it averages all later points.  As in torch, each step
    computes the rate of the next one.  ``numbers_in``: the precision of that rate and of the weight of a new point in
    the average; torch keeps both in its default dtype.
    """

    lr: Rate = 1e-2
    lambd: Rate = 1e-4
    alpha: Rate = 0.75
    t0: Positive = 1e6
    numbers_in: Literal["float64", "float32"] = "float64"

    search = {"lr": Log(1e-3, 10.0)}

    class State(NamedTuple):
        ax: Value
        eta: Number
        mu: Number

    def init(h, p: Value):
        return ASGD.State(zeros_like(p), h.kept(h.lr), 1.0)

    def kept(h, x: Number) -> Number:
        """A number in the precision of the state."""
        return single(x) if h.numbers_in == "float32" else x

    def update(h, p: Value, g: Value, s: State, t: Number):
        p = p * (1 - h.lambd * s.eta) - s.eta * g
        ax = s.ax + s.mu * (p - s.ax)
        eta = h.lr / (1 + h.lambd * h.lr * t) ** h.alpha
        return p, ASGD.State(ax, h.kept(eta), h.kept(1 / maximum(1.0, t - h.t0)))
