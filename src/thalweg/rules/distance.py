"""Steps whose length is found from distances and gradients of all parameters together, without a rate to be tuned."""

from typing import Literal, NamedTuple

from thalweg.maths import Number, Shared, Value, abs, dot, maximum, minimum, sqrt, sum, total, where, zeros_like
from thalweg.rule import Decay, Epsilon, Log, Positive, Rate, Rule


class DoG(Rule):
    """Distance over gradients: SGD with its own rate.  Ivgi, Hinder & Carmon 2023, Algorithm 1.

    The rate is η times the largest distance from the first point so far, over the root of the sum of all squared
    gradients.  ``first``: what the first step is determined by: a ``distance`` r, the rate (``learning_rate``),
    or r(1 + ‖θ₀‖) (``heuristic``); ``size`` is its r or its rate.
    """

    lr: Rate = 1.0
    first: Literal["heuristic", "distance", "learning_rate"] = "heuristic"
    size: Positive = 1e-6
    eps: Epsilon = 1e-8

    search = {"lr": Log(1e-1, 1e1), "size": Log(1e-8, 1e-2)}

    class State(NamedTuple):
        initial: Value
        distance: Shared
        squares: Shared

    def init(self, p: Value) -> State:
        return DoG.State(p, 0.0, 0.0)

    def update(h, p: Value, g: Value, s: State, t: Number):
        away = p - s.initial
        first = h.size * (1 + sqrt(total(dot(p, p)))) if h.first == "heuristic" else h.size
        known = s.distance if h.first == "learning_rate" else where(s.squares == 0, first, s.distance)
        distance = maximum(known, sqrt(total(dot(away, away))))
        squares = s.squares + total(dot(g, g))
        root = sqrt(squares + h.eps)
        rate = distance / where(root == 0, 1.0, root)
        if h.first == "learning_rate":
            rate = where(s.squares == 0, h.size, rate)
        return p - h.lr * rate * g, DoG.State(s.initial, distance, squares)


class DoWG(Rule):
    """Distance over weighted gradients.  Khaled, Mishchenko & Jin 2023, Algorithm 1.

    As `DoG`, with squares weighted by the squared distance at their time.  ``first``: the squared distance that is
    begun with, or None for ε.
    """

    lr: Rate = 1.0
    first: Positive | None = None
    eps: Epsilon = 1e-4

    search = {"lr": Log(1e-1, 1e1)}

    class State(NamedTuple):
        initial: Value
        square_distance: Shared
        squares: Shared

    def init(self, p: Value) -> State:
        return DoWG.State(p, self.eps if self.first is None else self.first, 0.0)

    def update(h, p: Value, g: Value, s: State, t: Number):
        away = p - s.initial
        distance = maximum(s.square_distance, total(dot(away, away)))
        squares = s.squares + distance * total(dot(g, g))
        root = sqrt(squares) + h.eps
        return p - h.lr * distance / where(root == 0, 1.0, root) * g, DoWG.State(s.initial, distance, squares)


class Prodigy(Rule):
    """Adam that finds its rate, from the distance to the first point.  Mishchenko & Defazio 2024, Algorithm 4.

    ``d0``: the first estimate d of the distance to the solution; η is a factor of the rate, 1 but for a schedule.
    ``beta3``: the decay of the sums that d is estimated from, or None for √β₂.  ``d_coef``: a factor of the estimate.
    ``growth``: the most by which d may grow in a step, or None.  ``safeguard``: the denominator does not follow the
    rate, which helps where it is warmed up.  ``bias_correction``: of both moments, in the rate.  ``lambd``: λ, of
    weight decay in proportion to the rate dη.
    """

    lr: Rate = 1.0
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    beta3: Decay | None = None
    eps: Epsilon = 1e-8
    d0: Positive = 1e-6
    d_coef: Positive = 1.0
    growth: Positive | None = None
    bias_correction: bool = False
    safeguard: bool = False
    lambd: Rate = 0.0

    search = {"lr": Log(1e-1, 1e1), "d_coef": Log(1e-1, 1e1)}
    one_rate = True

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value
        s: Value
        p0: Value
        d: Shared
        d_max: Shared
        numerator: Shared

    def init(self, p: Value) -> State:
        return Prodigy.State(zeros_like(p), zeros_like(p), zeros_like(p), p, self.d0, self.d0, 0.0)

    def update(h, p: Value, g: Value, s: State, t: Number):
        beta3 = sqrt(h.beta2) if h.beta3 is None else h.beta3
        correction = sqrt(1 - h.beta2**t) / (1 - h.beta1**t) if h.bias_correction else 1.0
        d, rate = s.d, s.d * h.lr * correction
        at_rest = h.lr == 0  # parameters with a rate of zero do not count
        own = where(at_rest, 0.0, d / h.d0 * rate * dot(g, s.p0 - p))
        numerator = beta3 * s.numerator + total(own)
        m = where(at_rest, s.exp_avg, h.beta1 * s.exp_avg + (1 - h.beta1) * d * g)
        v = where(at_rest, s.exp_avg_sq, h.beta2 * s.exp_avg_sq + (1 - h.beta2) * d * d * g * g)
        sums = where(at_rest, s.s, beta3 * s.s + d / h.d0 * (d if h.safeguard else rate) * g)
        denominator = total(where(at_rest, 0.0, sum(abs(sums))))
        estimate = where(denominator == 0, d, h.d_coef * numerator / where(denominator == 0, 1.0, denominator))
        most = maximum(s.d_max, estimate)
        raised = where(d == h.d0, maximum(d, estimate), d)
        new = most if h.growth is None else minimum(most, raised * h.growth)
        new = where(denominator == 0, d, new)
        step = m / where(v == 0, 1.0, sqrt(v) + new * h.eps)
        moved = p - rate * h.lambd * p - rate * step
        return moved, Prodigy.State(m, v, sums, s.p0, new, where(denominator == 0, s.d_max, most), numerator)


class DAdaptAdam(Rule):
    """Adam that finds its rate, by D-Adaptation.  Defazio & Mishchenko 2023, Algorithm 5.

    ``d0``: the first estimate d of the distance to the solution; η is a factor of the rate, 1 but for a schedule.
    ``growth``: the most by which d may grow in a step, or None.  ``bias_correction``: of both moments, in the rate.
    ``lambd``: λ, of weight decay in proportion to the rate dη.
    """

    lr: Rate = 1.0
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Epsilon = 1e-8
    d0: Positive = 1e-6
    growth: Positive | None = None
    bias_correction: bool = False
    lambd: Rate = 0.0

    search = {"lr": Log(1e-1, 1e1)}
    one_rate = True

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value
        s: Value
        d: Shared
        numerator: Shared

    def init(self, p: Value) -> State:
        return DAdaptAdam.State(zeros_like(p), zeros_like(p), zeros_like(p), self.d0, 0.0)

    def update(h, p: Value, g: Value, s: State, t: Number):
        root = sqrt(h.beta2)
        correction = sqrt(1 - h.beta2**t) / (1 - h.beta1**t) if h.bias_correction else 1.0
        d, rate = s.d, s.d * h.lr * correction
        at_rest = h.lr == 0  # parameters with a rate of zero do not count
        scale = sqrt(s.exp_avg_sq) + h.eps
        own = where(at_rest, 0.0, rate * dot(g, s.s / where(scale == 0, 1.0, scale)))
        m = where(at_rest, s.exp_avg, h.beta1 * s.exp_avg + (1 - h.beta1) * rate * g)
        v = where(at_rest, s.exp_avg_sq, h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g)
        sums = where(at_rest, s.s, root * s.s + (1 - root) * rate * g)
        length = total(where(at_rest, 0.0, sum(abs(sums))))
        numerator = where(length == 0, s.numerator, root * s.numerator + (1 - root) * total(own))
        estimate = numerator / where(length == 0, 1.0, (1 - root) * length)
        new = maximum(d, estimate if h.growth is None else minimum(estimate, d * h.growth))
        scale = sqrt(v) + h.eps
        moved = p - rate * h.lambd * p - m / where(scale == 0, 1.0, scale)
        return moved, DAdaptAdam.State(m, v, sums, where(length == 0, d, new), numerator)
