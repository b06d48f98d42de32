"""Rules with a learning rate per parameter, from its squared gradients: AdaGrad, RMSProp, Adadelta."""

from typing import Literal, NamedTuple

from thalweg.maths import Number, Value, full_like, sqrt, where, zeros_like
from thalweg.rule import ABSENT, Decay, EpsAt, Epsilon, Log, Rate, Rule
from thalweg.rules.descent import glide, led_to


def root(r: Value, eps: float, eps_at: str) -> Value:
    """√r, bounded away from zero: √r + ε with ε ``outside`` the root, √(r + ε) with ε ``inside``."""
    return sqrt(r + eps) if eps_at == "inside" else sqrt(r) + eps


def over_root(g: Value, r: Value, eps: float | None, eps_at: str) -> Value:
    """The gradient divided by √r as `root` computes it; without ε, 0 where r is 0."""
    if eps is None:
        # The inner `where` avoids a division by zero, which would raise for floats and make derivatives nan.
        return where(r > 0, g / sqrt(where(r > 0, r, 1.0)), 0 * g)
    return g / root(r, eps, eps_at)


class Adagrad(Rule):
    """Adaptive subgradients.  Duchi, Hazan & Singer 2011; Goodfellow et al. 2016, Algorithm 8.4.

    ``eps=None`` leaves ε out and takes 0/0 as 0, as optax does.
    """

    lr: Rate = 1e-2
    lr_decay: Rate = 0.0
    initial_accumulator: Rate = 0.0
    eps: Epsilon | None = 1e-10
    eps_at: EpsAt = "outside"

    search = {"lr": Log(1e-3, 1.0)}

    class State(NamedTuple):
        sum: Value

    def init(h, p: Value):
        return Adagrad.State(full_like(p, h.initial_accumulator))

    def update(h, p: Value, g: Value, s: State, t: Number):
        r = s.sum + g * g
        return p - h.lr / (1 + (t - 1) * h.lr_decay) * over_root(g, r, h.eps, h.eps_at), Adagrad.State(r)


class RMSProp(Rule):
    """A decaying average of squared gradients.  Hinton 2012, lecture 6e; Goodfellow et al. 2016, Algorithms 8.5, 8.6.

    ``eps=None`` leaves ε out and takes 0/0 as 0, as Algorithm 8.6 does.  ``centered`` divides by the deviation rather
    than the root mean square (Graves 2013).  ``momentum_form`` and ``nesterov`` are those of `Momentum`, on the scaled
    gradient: ``accumulated`` is torch's, ``velocity`` TensorFlow's and the book's.
    """

    lr: Rate = 1e-2
    decay: Decay = 0.99
    momentum: Decay | None = None
    initial_accumulator: Rate = 0.0
    eps: Epsilon | None = 1e-8
    eps_at: EpsAt = "outside"
    centered: bool = False
    bias_correction: bool = False
    momentum_form: Literal["accumulated", "velocity"] = "accumulated"
    nesterov: Literal[False, "correction", "lookahead"] = False

    search = {"lr": Log(1e-5, 1e-1)}
    variants = {
        "rmsprop_nesterov": {
            "decay": 0.9,
            "momentum": 0.9,
            "momentum_form": "velocity",
            "nesterov": "lookahead",
            "eps": None,
        }
    }

    class State(NamedTuple):
        square_avg: Value
        grad_avg: Value = ABSENT
        momentum_buffer: Value = ABSENT

    def check(self):
        if self.nesterov and self.momentum is None:
            raise ValueError(
                f"RMSProp's nesterov is {self.nesterov!r} without momentum; set momentum, 0.9 for instance"
            )
        if self.centered and self.bias_correction and self.eps is None:
            raise ValueError(
                "RMSProp's eps is None with centered=True and bias_correction=True; at the first step the corrected "
                "variance is 0 and what is left of it is rounding: set eps"
            )

    def init(h, p: Value):
        return RMSProp.State(
            full_like(p, h.initial_accumulator),
            zeros_like(p) if h.centered else ABSENT,
            ABSENT if h.momentum is None else zeros_like(p),
        )

    def lookahead(h, s: State):
        if h.momentum is None or h.nesterov != "lookahead":
            return None
        return led_to(s.momentum_buffer, h.lr, h.momentum, h.momentum_form)

    def update(h, p: Value, g: Value, s: State, t: Number):
        r = h.decay * s.square_avg + (1 - h.decay) * g * g
        m = h.decay * s.grad_avg + (1 - h.decay) * g if h.centered else ABSENT
        correct = 1 - h.decay**t if h.bias_correction else 1.0
        spread = r / correct - (m / correct) * (m / correct) if h.centered else r / correct
        scaled = over_root(g, spread, h.eps, h.eps_at)
        if h.momentum is None:
            return p - h.lr * scaled, RMSProp.State(r, m)
        p, v = glide(p, scaled, s.momentum_buffer, h.lr, h.momentum, h.momentum_form, h.nesterov)
        return p, RMSProp.State(r, m, v)


class Adadelta(Rule):
    """Steps in the units of the parameters.  Zeiler 2012, Algorithm 1."""

    lr: Rate = 1.0
    decay: Decay = 0.9
    eps: Epsilon = 1e-6

    search = {"lr": Log(1e-2, 100.0)}

    class State(NamedTuple):
        square_avg: Value
        acc_delta: Value

    def update(h, p: Value, g: Value, s: State, t: Number):
        r = h.decay * s.square_avg + (1 - h.decay) * g * g
        step = sqrt(s.acc_delta + h.eps) / sqrt(r + h.eps) * g
        return p - h.lr * step, Adadelta.State(r, h.decay * s.acc_delta + (1 - h.decay) * step * step)
