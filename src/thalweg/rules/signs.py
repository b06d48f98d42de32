"""Rules that use the sign of the gradient or momentum: Rprop, Lion, Tiger, and Grams, which uses both apart."""

from typing import NamedTuple

from thalweg.maths import Number, Value, abs, full_like, maximum, minimum, sign, sqrt, where, zeros_like
from thalweg.rule import Decay, Epsilon, Log, Positive, Rate, Rule


class Rprop(Rule):
    """Resilient propagation: one step size per parameter, from signs alone.  Riedmiller & Braun 1993; for full batches.

    As in torch, when the sign changes the step size shrinks and that gradient is ignored.
    """

    lr: Rate = 1e-2
    eta_minus: Decay = 0.5
    eta_plus: Positive = 1.2
    step_min: Rate = 1e-6
    step_max: Rate = 50.0

    search = {"lr": Log(1e-5, 1e-1)}

    def check(self):
        if not self.eta_minus < 1 < self.eta_plus or self.step_min > self.step_max:
            raise ValueError(
                f"Rprop's eta_minus, eta_plus are {self.eta_minus}, {self.eta_plus} and step_min, step_max "
                f"{self.step_min}, {self.step_max}; allowed is eta_minus < 1 < eta_plus and step_min <= step_max"
            )

    class State(NamedTuple):
        prev: Value
        step_size: Value

    def init(h, p: Value):
        return Rprop.State(zeros_like(p), full_like(p, h.lr))

    def update(h, p: Value, g: Value, s: State, t: Number):
        turn = g * s.prev
        grown = where(turn > 0, h.eta_plus * s.step_size, where(turn < 0, h.eta_minus * s.step_size, s.step_size))
        step = minimum(maximum(grown, h.step_min), h.step_max)
        kept = where(turn < 0, 0 * g, g)
        return p - sign(kept) * step, Rprop.State(kept, step)


class Lion(Rule):
    """The sign of an interpolated momentum.  Chen et al. 2023, "Symbolic discovery of optimization algorithms"."""

    lr: Rate = 1e-4
    beta1: Decay = 0.9
    beta2: Decay = 0.99

    search = {"lr": Log(1e-6, 1e-2)}

    class State(NamedTuple):
        exp_avg: Value

    def update(h, p: Value, g: Value, s: State, t: Number):
        step = sign(h.beta1 * s.exp_avg + (1 - h.beta1) * g)
        return p - h.lr * step, Lion.State(h.beta2 * s.exp_avg + (1 - h.beta2) * g)


class Tiger(Rule):
    """The sign of an averaged gradient, with one average only.  Su 2023, "Tiger: a tight-fisted optimizer"."""

    lr: Rate = 1e-3
    momentum: Decay = 0.965

    search = {"lr": Log(1e-6, 1e-2)}

    class State(NamedTuple):
        exp_avg: Value

    def update(h, p: Value, g: Value, s: State, t: Number):
        m = h.momentum * s.exp_avg + (1 - h.momentum) * g
        return p - h.lr * sign(m), Tiger.State(m)


class Grams(Rule):
    """The size of Adam's step in the direction of the gradient's sign.  Cao, Li & Song 2024, "Grams", Algorithm 1."""

    lr: Rate = 1e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Epsilon = 1e-6

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value

    def update(h, p: Value, g: Value, s: State, t: Number):
        m = h.beta1 * s.exp_avg + (1 - h.beta1) * g
        v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
        size = abs(m / (1 - h.beta1**t) / (sqrt(v / (1 - h.beta2**t)) + h.eps))
        return p - h.lr * size * sign(g), Grams.State(m, v)
