"""Gradient descent and momentum: plain, three conventions of the velocity, Nesterov's two, quasi-hyperbolic."""

from typing import Literal, NamedTuple

from thalweg.maths import Number, Value, where
from thalweg.rule import Decay, Fraction, Log, Rate, Rule


def glide(
    p: Value, g: Value, v: Value, lr: float, momentum: float, form: str, nesterov: str | bool,
    weight: float = 1.0, share: float = 1.0,
) -> tuple[Value, Value]:  # fmt: skip
    """The new point and velocity, from the gradient `g`, which an adaptive rule has scaled, and the velocity `v`.

    Args:
        p, g, v: of one shape.
        lr, momentum: η and μ.
        form: ``velocity``, where v holds the rate, or another, where it does not; as in `Momentum`.
        nesterov: ``"correction"`` corrects the step; all else has taken care of itself where the gradient was taken.
        weight: what the gradient is multiplied by on its way into the velocity.
        share: the gradient's weight in the corrected step.
    """
    if form == "velocity":
        v = momentum * v - lr * g
        return p + (momentum * v - lr * g if nesterov == "correction" else v), v
    v = momentum * v + weight * g
    return p - lr * (share * g + momentum * v if nesterov == "correction" else v), v


def led_to(v: Value, lr: float, momentum: float, form: str) -> Value:
    """How far from where one stands the momentum leads: where Nesterov's lookahead takes the gradient."""
    return momentum * v if form == "velocity" else -lr * momentum * v


class SGD(Rule):
    """Gradient descent.  Robbins & Monro 1951; Goodfellow et al. 2016, Algorithm 8.1.

    The whole training set as the batch makes it gradient descent, one sample stochastic, anything between mini-batch.
    """

    lr: Rate = 1e-2

    search = {"lr": Log(1e-3, 10.0)}

    def update(h, p: Value, g: Value, s: object, t: Number):
        return p - h.lr * g, s


class Momentum(Rule):
    """Gradient descent with momentum.  Polyak 1964; Qian 1999; Goodfellow et al. 2016, Algorithms 8.2 and 8.3.

    ``form`` says what the velocity holds: ``accumulated`` gradients (torch, optax), the ``velocity`` itself, rate
    included (the book, Keras), or an ``averaged`` gradient.  They differ as soon as the rate changes.  ``nesterov``
    takes the gradient where you stand and corrects the step (Sutskever et al. 2013, as torch has it), or at the point
    the momentum leads to (Nesterov 1983, as the book has it).  ``dampening`` never weakens the first gradient.
    """

    lr: Rate = 1e-2
    momentum: Decay = 0.9
    dampening: Fraction = 0.0
    form: Literal["accumulated", "velocity", "averaged"] = "accumulated"
    nesterov: Literal[False, "correction", "lookahead"] = False

    search = {"lr": Log(1e-4, 1.0)}
    variants = {"nesterov": {"form": "velocity", "nesterov": "lookahead"}}

    class State(NamedTuple):
        momentum_buffer: Value

    def check(self):
        if self.dampening and self.form != "accumulated":
            raise ValueError(
                f"Momentum's dampening is {self.dampening!r} with form={self.form!r}; only form='accumulated' has one"
            )

    def interim(h, s: State):
        if h.nesterov != "lookahead":
            return None
        return led_to(s.momentum_buffer, h.lr, h.momentum, h.form)

    def update(h, p: Value, g: Value, s: State, t: Number):
        averaged = h.form == "averaged"
        weight = 1 - h.momentum if averaged else where(t == 1, 1.0, 1 - h.dampening)
        share = 1 - h.momentum if averaged else 1.0
        p, v = glide(p, g, s.momentum_buffer, h.lr, h.momentum, h.form, h.nesterov, weight, share)
        return p, Momentum.State(v)


class QHM(Rule):
    """Quasi-hyperbolic momentum.  Ma & Yarats 2019, "Quasi-hyperbolic momentum and Adam", eq. 3."""

    lr: Rate = 1.0
    momentum: Decay = 0.999
    nu: Fraction = 0.7

    search = {"lr": Log(1e-3, 10.0)}

    class State(NamedTuple):
        momentum_buffer: Value

    def update(h, p: Value, g: Value, s: State, t: Number):
        v = h.momentum * s.momentum_buffer + (1 - h.momentum) * g
        return p - h.lr * ((1 - h.nu) * g + h.nu * v), QHM.State(v)
