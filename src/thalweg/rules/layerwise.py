"""Steps whose length is set per parameter tensor, by the norms of the tensor and of its gradient or step."""

from typing import Annotated, Literal, NamedTuple, Self

from thalweg.maths import Number, Value, dot, maximum, minimum, norm, sqrt, where
from thalweg.rule import Decay, Epsilon, Linear, Log, Positive, Range, Rate, Rule

Momentum = Annotated[float, Range(0, 1)]


def trust_ratio(
    p: Value, step: Value, scale: Number = 1.0, eps: Number | None = None, least: Number | None = None,
    most: Number | None = None, length: Number | None = None,
) -> Number:  # fmt: skip
    """‖θ‖ / (‖step‖ + ε) times `scale`, and 1 if either norm is zero.

    Neither norm is taken to be less than `least`, nor ‖θ‖ to be more than `most`; `length` is in place of ‖step‖.
    """
    own, other = norm(p), norm(step) if length is None else length
    own, other = (x if least is None else maximum(x, least) for x in (own, other))
    own = own if most is None else minimum(own, most)
    # Both sides of `where` are evaluated, and floats cannot be divided by zero.
    divisor = where(other == 0, 1.0, other if eps is None else other + eps)
    return where(own == 0, 1.0, where(other == 0, 1.0, scale * own / divisor))


class LAMB(Rule):
    """Adam with the step of each tensor scaled to the tensor's norm.  You et al. 2020, Algorithm 2.

    The scaling function φ is the identity, as in the experiments of the paper.  ``lambd``: λ, of the weight decay that
    is added to Adam's direction before its norm is taken; ``weight_decay`` of the optimizer is beside it.
    ``bias_correction``: of both moments; of the first moment only, in the ``rate``, so that the ratio does not undo it
    (pytorch_optimizer); or none, the paper's third version.  With ``trust_eps`` the norm of the direction, and with
    ``most`` that of the tensor, are bounded in the ratio.  Without ``grad_averaging`` the first moment is a sum.
    """

    lr: Rate = 1e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Epsilon = 1e-6
    eps_root: Epsilon | None = None
    trust_eps: Epsilon | None = None
    most: Positive | None = None
    lambd: Rate = 0.0
    bias_correction: Literal[True, False, "rate"] = True
    grad_averaging: bool = True

    search = {"lr": Log(1e-4, 1e-1)}
    kept_by = ()

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value

    @property
    def units(self) -> dict[str, float]:
        """The weight of a gradient in the first moment."""
        return {"exp_avg": 1 - self.beta1 if self.grad_averaging else 1.0}

    def update(h, p: Value, g: Value, s: State, t: Number):
        m = h.beta1 * s.exp_avg + ((1 - h.beta1) * g if h.grad_averaging else g)
        v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
        both = h.bias_correction is True
        m_hat, v_hat = (m / (1 - h.beta1**t), v / (1 - h.beta2**t)) if both else (m, v)
        rate = h.lr / (1 - h.beta1**t) if h.bias_correction == "rate" else h.lr
        step = m_hat / (sqrt(v_hat if h.eps_root is None else v_hat + h.eps_root) + h.eps) + h.lambd * p
        return p - rate * trust_ratio(p, step, eps=h.trust_eps, most=h.most) * step, LAMB.State(m, v)


class LARS(Rule):
    """Momentum with the gradient of each tensor scaled to the tensor's norm.  You et al. 2017, Algorithm 1.

    ``trust``: the trust coefficient η of the paper.  ``lambd``: λ, of the weight decay that is added to the gradient
    before its norm is taken.  ``nesterov``: the step looks one momentum step ahead.  ``form``: the buffer is a
    ``velocity``, as in the paper: a change of the rate changes only what is added to it from then on; or it is
    ``accumulated`` without the rate, and then ``dampening`` τ weighs what is added by 1 − τ (pytorch_optimizer).
    ``ratio``: the norm that the tensor's is divided by is that of the ``sum`` of gradient and decay, or the sum of the
    norms of its two ``parts``, as in the paper.  ``scaled``: whether ``all`` parameters are scaled and decayed,
    ``matrices`` and larger, or ``none``; what is not is stepped by momentum alone.
    """

    lr: Rate = 1.0
    momentum: Momentum = 0.9
    trust: Rate = 1e-3
    eps: Epsilon = 0.0
    lambd: Rate = 0.0
    dampening: Momentum = 0.0
    nesterov: bool = False
    form: Literal["velocity", "accumulated"] = "velocity"
    ratio: Literal["sum", "parts"] = "sum"
    scaled: Literal["all", "matrices", "none"] = "all"

    search = {"lr": Log(1e-2, 1e2), "momentum": Linear(0.5, 0.99)}

    class State(NamedTuple):
        momentum_buffer: Value

    @property
    def fits(self) -> bool:
        """Whether it is still open if a parameter is scaled."""
        return self.scaled == "matrices"

    def fit(self, shape: tuple[int, ...]) -> Self:
        return self.bind({"scaled": "all" if len(shape) > 1 else "none"}) if self.fits else self

    def update(h, p: Value, g: Value, s: State, t: Number):
        rate, outside = (h.lr, 1.0) if h.form == "velocity" else (1.0, h.lr)
        move = rate * g
        if h.scaled != "none":
            step = g + h.lambd * p
            length = None if h.ratio == "sum" else norm(g) + h.lambd * norm(p)
            move = rate * trust_ratio(p, step, h.trust, h.eps, length=length) * step
        v = h.momentum * s.momentum_buffer + (move if h.form == "velocity" else (1 - h.dampening) * move)
        return p - outside * (h.momentum * v + move if h.nesterov else v), LARS.State(v)


class Fromage(Rule):
    """A step as long as a fraction η of the tensor, which then shrinks back.  Bernstein et al. 2020, Algorithm 1.

    ``least``: the least that either norm is taken to be.
    """

    lr: Rate = 1e-2
    least: Rate = 1e-6

    search = {"lr": Log(1e-4, 1e-1)}

    def update(h, p: Value, g: Value, s: object, t: Number):
        ratio = trust_ratio(p, g, least=h.least)
        return (p - h.lr * ratio * g) / sqrt(1 + h.lr * h.lr), s


class NovoGrad(Rule):
    """Momentum of gradients that are divided by a running norm of their tensor.  Ginsburg et al. 2019, Algorithm 1.

    The average ν of ‖g‖² is one number per tensor, and begins with the first.  ``lambd``: λ, of the weight decay that
    enters the momentum, which is a sum, or with ``grad_averaging`` an average that begins with the first gradient.
    """

    lr: Rate = 1e-2
    beta1: Decay = 0.9
    beta2: Decay = 0.25
    eps: Epsilon = 1e-6
    eps_root: Epsilon = 0.0
    lambd: Rate = 0.0
    grad_averaging: bool = False

    search = {"lr": Log(1e-4, 1.0)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Number

    def update(h, p: Value, g: Value, s: State, t: Number):
        square = dot(g, g)
        nu = where(t == 1, square, h.beta2 * s.exp_avg_sq + (1 - h.beta2) * square)
        step = g / (sqrt(nu + h.eps_root) + h.eps) + h.lambd * p
        weight = where(t == 1, 1.0, 1 - h.beta1) if h.grad_averaging else 1.0
        m = h.beta1 * s.exp_avg + weight * step
        return p - h.lr * m, NovoGrad.State(m, nu)
