"""Adam and its relatives: the first moment of the gradient divided by the root of the second."""

from typing import Annotated, Literal, NamedTuple

from thalweg.maths import Number, Value, abs, maximum, single, sqrt, where, zeros_like
from thalweg.rule import ABSENT, Decay, EpsAt, Epsilon, Fraction, Log, Range, Rate, Rule
from thalweg.rules.adaptive import root


def corrected_mean(beta1: Number, m: Value, g: Value, t: Number, correct: bool, ahead: bool) -> Value:
    """m̂, the first moment corrected for its start at zero; with `ahead` one momentum step further (Dozat 2016)."""
    correct1 = 1 - beta1**t if correct else 1.0
    if not ahead:
        return m / correct1
    correct1_next = 1 - beta1 ** (t + 1) if correct else 1.0
    return beta1 / correct1_next * m + (1 - beta1) / correct1 * g


def denominator(h: "Adam | RAdam", v_hat: Value, correct2: Number) -> Value:
    """√v̂ with ``eps_root`` under the root and ε added as ``eps_at`` says; `correct2` is the bias correction in v̂."""
    if h.eps_root is not None:
        v_hat = v_hat + h.eps_root
    if h.eps_at == "uncorrected":
        # √v̂ + ε/√(1 − β₂ᵗ) is (√v + ε)/√(1 − β₂ᵗ): ε̂ of the paper, added to the uncorrected root.
        return sqrt(v_hat) + h.eps / sqrt(correct2)
    return root(v_hat, h.eps, h.eps_at)


class Adam(Rule):
    """Adaptive moments.  Kingma & Ba 2015, Algorithm 1; Goodfellow et al. 2016, Algorithm 8.7.

    ``eps_at``: ``outside``, √v̂ + ε; ``inside``, √(v̂ + ε); or ``uncorrected``, ε̂ added to the uncorrected √v, as in
    Kingma & Ba §2, TensorFlow and Keras.  ``amsgrad`` keeps the largest v (Reddi et al. 2018, as in torch and Keras)
    or the largest ``corrected`` v̂ (optax).  ``nesterov`` looks one momentum step ahead (Dozat 2016), with the momentum
    warmed up as in the paper, ``scheduled`` (torch and Keras), or ``constant`` (optax).  ``bias_correction`` may apply
    to only the ``first`` or the ``second`` moment.  ``product_in``: the precision of the product of the scheduled
    momenta, which torch rounds to its default dtype.
    """

    lr: Rate = 1e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Epsilon = 1e-8
    eps_root: Epsilon | None = None
    momentum_decay: Rate = 4e-3
    eps_at: Literal["outside", "inside", "uncorrected"] = "outside"
    bias_correction: Literal[True, False, "first", "second"] = True
    amsgrad: Literal[False, True, "corrected"] = False
    nesterov: Literal[False, "scheduled", "constant"] = False
    product_in: Literal["float64", "float32"] = "float64"

    search = {"lr": Log(1e-5, 1e-1)}
    kept_by = ("amsgrad", "product_in")
    variants = {"nadam": {"lr": 2e-3, "nesterov": "scheduled"}, "amsgrad": {"amsgrad": True}}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value
        max_exp_avg_sq: Value = ABSENT
        mu_product: Number = ABSENT  # pyright: ignore[reportAssignmentType]

    def init(h, p: Value):
        return Adam.State(
            zeros_like(p),
            zeros_like(p),
            zeros_like(p) if h.amsgrad else ABSENT,
            1.0 if h.nesterov == "scheduled" else ABSENT,  # pyright: ignore[reportArgumentType]
        )

    def update(h, p: Value, g: Value, s: State, t: Number):
        m = h.beta1 * s.exp_avg + (1 - h.beta1) * g
        v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
        first, second = h.bias_correction in (True, "first"), h.bias_correction in (True, "second")
        correct2 = 1 - h.beta2**t if second else 1.0

        highest = ABSENT
        if h.amsgrad == "corrected":
            highest = v_hat = maximum(s.max_exp_avg_sq, v / correct2)
        elif h.amsgrad:
            highest = maximum(s.max_exp_avg_sq, v)
            v_hat = highest / correct2
        else:
            v_hat = v / correct2

        product = s.mu_product
        if h.nesterov == "scheduled":
            mu = h.beta1 * (1 - 0.5 * 0.96 ** (t * h.momentum_decay))
            mu_next = h.beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * h.momentum_decay))
            product = single(s.mu_product * single(mu)) if h.product_in == "float32" else s.mu_product * mu
            # The rate is multiplied in first, since adding two terms as large as the largest gradient would overflow.
            step = h.lr * mu_next / (1 - product * mu_next) * m + h.lr * (1 - mu) / (1 - product) * g
        else:
            step = h.lr * corrected_mean(h.beta1, m, g, t, correct=first, ahead=h.nesterov == "constant")
        return p - step / denominator(h, v_hat, correct2), Adam.State(m, v, highest, product)


class QHAdam(Rule):
    """Quasi-hyperbolic Adam.  Ma & Yarats 2019, "Quasi-hyperbolic momentum and Adam", eq. 13."""

    lr: Rate = 1e-3
    beta1: Decay = 0.995
    beta2: Decay = 0.999
    nu1: Fraction = 0.7
    nu2: Fraction = 1.0
    eps: Epsilon = 1e-8

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value

    def update(h, p: Value, g: Value, s: State, t: Number):
        m = h.beta1 * s.exp_avg + (1 - h.beta1) * g
        v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
        first = (1 - h.nu1) * g + h.nu1 / (1 - h.beta1**t) * m
        second = (1 - h.nu2) * g * g + h.nu2 / (1 - h.beta2**t) * v
        return p - h.lr * first / (sqrt(second) + h.eps), QHAdam.State(m, v)


class Adamax(Rule):
    """Adam with the largest gradient in place of the second moment.  Kingma & Ba 2015, Algorithm 2.

    ``eps_at``: ``inside`` the maximum, max(β₂u, |g| + ε) (torch, optax), or ``outside`` it, u + ε (Keras).
    """

    lr: Rate = 2e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Epsilon = 1e-8
    eps_at: EpsAt = "inside"

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_inf: Value

    def update(h, p: Value, g: Value, s: State, t: Number):
        m = h.beta1 * s.exp_avg + (1 - h.beta1) * g
        u = maximum(h.beta2 * s.exp_inf, abs(g) + h.eps if h.eps_at == "inside" else abs(g))
        denominator = u if h.eps_at == "inside" else u + h.eps
        return p - h.lr / (1 - h.beta1**t) * m / denominator, Adamax.State(m, u)


class RAdam(Rule):
    """Adam with a rectified adaptive rate, which is not used while its variance is unbounded.  Liu et al. 2020, Alg. 2.

    ``eps_at``: ``uncorrected``, added to the uncorrected √v (torch), or ``outside``, √v̂ + ε (the paper, optax).
    ``threshold``: the length of the moving average above which the rate is adaptive; just above 4 in the paper.
    ``below`` it the step is the ``momentum``, or the parameters ``stand`` still (Schedule-Free RAdam).  ``nesterov``
    and ``eps_root`` are optax's, as in `Adam`.
    """

    lr: Rate = 1e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Epsilon = 1e-8
    eps_root: Epsilon | None = None
    threshold: Annotated[float, Range(4, low_open=True)] = 5.0
    eps_at: Literal["outside", "uncorrected"] = "outside"
    below: Literal["momentum", "stand"] = "momentum"
    nesterov: bool = False

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value

    def rectified(h, t: Number) -> tuple[Number, Number]:
        """ρ, the length of the moving average of step `t`, and the factor of the rate if ρ is above the threshold."""
        # Below the threshold nothing is rectified; clamping to it avoids a division by zero below.
        rho_end: Number = maximum(2 / (1 - h.beta2) - 1, h.threshold)
        rho: Number = rho_end - 2 * t * h.beta2**t / (1 - h.beta2**t)
        return rho, sqrt((rho - 4) * (rho - 2) * rho_end / ((rho_end - 4) * (rho_end - 2) * rho))

    def rate(h, t: Number) -> Number:
        rho, rectifier = h.rectified(t)
        return h.lr * where(rho > h.threshold, rectifier, 0.0 if h.below == "stand" else 1.0)

    def update(h, p: Value, g: Value, s: State, t: Number):
        m = h.beta1 * s.exp_avg + (1 - h.beta1) * g
        v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
        correct2: Number = 1 - h.beta2**t
        m_hat = corrected_mean(h.beta1, m, g, t, correct=True, ahead=h.nesterov)
        rho, rectifier = h.rectified(t)
        below = 0 * m_hat if h.below == "stand" else m_hat
        step = where(rho > h.threshold, rectifier * m_hat / denominator(h, v / correct2, correct2), below)
        return p - h.lr * step, RAdam.State(m, v)
