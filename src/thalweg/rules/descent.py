"""Gradient descent and momentum: plain, three conventions of the velocity, Nesterov's two, quasi-hyperbolic."""

from typing import Literal, NamedTuple

from thalweg.maths import Number, Value, where
from thalweg.rule import Decay, Fraction, Log, Rate, Rule


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
        return h.momentum * s.momentum_buffer if h.form == "velocity" else -h.lr * h.momentum * s.momentum_buffer

    def update(h, p: Value, g: Value, s: State, t: Number):
        if h.form == "velocity":
            v = h.momentum * s.momentum_buffer - h.lr * g
            step = h.momentum * v - h.lr * g if h.nesterov == "correction" else v
            return p + step, Momentum.State(v)
        weight = where(t == 1, 1.0, 1 - h.dampening) if h.form == "accumulated" else 1 - h.momentum
        v = h.momentum * s.momentum_buffer + weight * g
        share = 1.0 if h.form == "accumulated" else 1 - h.momentum
        step = share * g + h.momentum * v if h.nesterov == "correction" else v
        return p - h.lr * step, Momentum.State(v)


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
