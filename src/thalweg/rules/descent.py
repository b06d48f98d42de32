"""Gradient descent, momentum in three conventions, Nesterov's in two, and quasi-hyperbolic momentum."""

from typing import Literal, NamedTuple

from thalweg.maths import Number, Value, where
from thalweg.rule import Decay, Fraction, Log, Rate, Rule


def glide(
    p: Value, g: Value, v: Value, lr: float, momentum: float, form: str, nesterov: str | bool,
    weight: float = 1.0, share: float = 1.0,
) -> tuple[Value, Value]:  # fmt: skip
    """The new parameter and velocity of a step with momentum.

    Args:
        p: the parameter.
        g: the gradient, possibly rescaled by an adaptive rule; of the shape of `p`.
        v: the velocity; of the shape of `p`.
        lr: the learning rate η.
        momentum: μ.
        form: ``"velocity"`` if v includes the learning rate; see `Momentum`.
        nesterov: ``"correction"`` corrects the step; other values leave it as it is.
        weight: the factor of the gradient that is added to the velocity.
        share: the factor of the gradient in the corrected step.
    """
    if form == "velocity":
        v = momentum * v - lr * g
        return p + (momentum * v - lr * g if nesterov == "correction" else v), v
    v = momentum * v + weight * g
    return p - lr * (share * g + momentum * v if nesterov == "correction" else v), v


def led_to(v: Value, lr: float, momentum: float, form: str) -> Value:
    """The offset to the lookahead point, where momentum alone leads; Nesterov's method takes the gradient there."""
    return momentum * v if form == "velocity" else -lr * momentum * v


class SGD(Rule):
    """Gradient descent.  Robbins & Monro 1951; Goodfellow et al. 2016, Algorithm 8.1.

    With the whole training set as the batch this is (full-batch) gradient descent, with one sample stochastic gradient
    descent, with anything in between mini-batch gradient descent.
    """

    lr: Rate = 1e-2

    search = {"lr": Log(1e-3, 10.0)}

    def update(h, p: Value, g: Value, s: object, t: Number):
        return p - h.lr * g, s


class Momentum(Rule):
    """Gradient descent with momentum.  Polyak 1964; Qian 1999; Goodfellow et al. 2016, Algorithms 8.2 and 8.3.

    ``form`` says what the velocity contains: ``accumulated`` gradients (torch, optax), the ``velocity`` itself,
    including the learning rate (the book, Keras), or an ``averaged`` gradient.  They differ when the rate changes.
    ``nesterov`` either takes the gradient at θ and corrects the step (``correction``; Sutskever et al. 2013, as in
    torch), or takes it at the lookahead point (``lookahead``; Nesterov 1983, as in the book).  ``dampening`` does not
    apply to the first gradient.
    """

    lr: Rate = 1e-2
    momentum: Decay = 0.9
    dampening: Fraction = 0.0
    form: Literal["accumulated", "velocity", "averaged"] = "accumulated"
    nesterov: Literal[False, "correction", "lookahead"] = False

    search = {"lr": Log(1e-4, 1.0)}
    kept_by = ()
    variants = {"nesterov": {"form": "velocity", "nesterov": "lookahead"}}

    class State(NamedTuple):
        momentum_buffer: Value

    def check(self):
        if self.dampening and self.form != "accumulated":
            raise ValueError(
                f"Momentum's dampening is {self.dampening!r} with form={self.form!r}; only form='accumulated' has one"
            )

    @property
    def units(self) -> dict[str, float]:
        """The weight of a gradient in the velocity; the first one is not dampened, which counts for less and less."""
        weights = {"accumulated": 1 - self.dampening, "averaged": 1 - self.momentum, "velocity": -self.lr}
        return {"momentum_buffer": weights[self.form]}

    def lookahead(h, s: State):
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
