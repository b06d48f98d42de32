"""Momentum of gradients that are already divided by their second moment: ADOPT and LaProp."""

from typing import Literal, NamedTuple

from thalweg.maths import Number, Value, maximum, minimum, single, sqrt, where, zeros_like
from thalweg.rule import ABSENT, Decay, Epsilon, Log, Rate, Rule
from thalweg.rules.variance import excess
from thalweg.rules.wrappers import agreeing


class ADOPT(Rule):
    """Adam with the previous second moment, and momentum after it.  Taniguchi et al. 2024, "ADOPT", Algorithm 2.

    The first step only computes v.  The divided gradient is clipped at the fourth root of the number of the
    ``previous`` step (the authors' code, optax), of the ``current`` one (pytorch_optimizer), or not at all (`False`).
    ``nesterov`` looks one momentum step ahead (optax).  Weight decay of `Optimizer` applies in the first step, too, as
    in pytorch_optimizer.  ``stable``: the step is divided by the root mean square of g/√v, if that is above 1.
    """

    lr: Rate = 1e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.9999
    eps: Epsilon = 1e-6
    clip: Literal["previous", "current", False] = "previous"
    nesterov: bool = False
    stable: bool = False

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value

    def update(h, p: Value, g: Value, s: State, t: Number):
        u = g / maximum(sqrt(s.exp_avg_sq), h.eps)
        if h.clip:
            limit = (t - 1 if h.clip == "previous" else t) ** 0.25
            u = minimum(maximum(u, -limit), limit)
        m = where(t == 1, s.exp_avg, h.beta1 * s.exp_avg + (1 - h.beta1) * u)
        v = where(t == 1, g * g, h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g)
        step = where(t == 1, m, h.beta1 * m + (1 - h.beta1) * u) if h.nesterov else m
        if h.stable:
            step = step / excess(g, s.exp_avg_sq, 1e-16)
        return p - h.lr * step, ADOPT.State(m, v)


class LaProp(Rule):
    """RMSProp's steps averaged by momentum.  Ziyin, Wang & Ueda 2020, "LaProp: separating momentum", Algorithm 1.

    ``form``: the momentum is an ``averaged`` divided gradient (the paper), or the ``velocity``, which contains the
    learning rate and is corrected by the average of the rates so far (the authors' code, pytorch_optimizer).
    ``eps_at``: ``outside``, √v̂ + ε, or ``uncorrected``, added to the uncorrected √v.  ``eps_root`` is added to the
    uncorrected v.  ``amsgrad`` keeps the largest v; ``centered`` subtracts the squared average of the gradient from v
    after step ``t0``.  ``lambd`` is weight decay after the step, θ ← (1 − ηλ)θ, as in pytorch_optimizer; those of
    `Optimizer` come before it.  ``numbers_in``: the precision of the correction of the momentum, which
    pytorch_optimizer rounds to float32 unless given ``foreach=False``.  ``cautious``: only what agrees with the
    gradient, as in `Cautious` with ``scale="count"``, but for weight decay.
    """

    lr: Rate = 4e-4
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Epsilon = 1e-15
    eps_root: Epsilon = 0.0
    lambd: Rate | None = None
    t0: Rate = 10.0
    form: Literal["averaged", "velocity"] = "averaged"
    eps_at: Literal["outside", "uncorrected"] = "outside"
    amsgrad: bool = False
    centered: bool = False
    cautious: bool = False
    numbers_in: Literal["float64", "float32"] = "float64"

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value
        max_exp_avg_sq: Value = ABSENT
        grad_avg: Value = ABSENT
        eta: Number = ABSENT  # pyright: ignore[reportAssignmentType]

    def init(h, p: Value):
        return LaProp.State(
            zeros_like(p),
            zeros_like(p),
            zeros_like(p) if h.amsgrad else ABSENT,
            zeros_like(p) if h.centered else ABSENT,
            0.0 if h.form == "velocity" else ABSENT,  # pyright: ignore[reportArgumentType]
        )

    def update(h, p: Value, g: Value, s: State, t: Number):
        v = spread = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
        c = highest = ABSENT
        if h.centered:
            c = h.beta2 * s.grad_avg + (1 - h.beta2) * g
            spread = where(t > h.t0, v - c * c, v)
        if h.amsgrad:
            highest = spread = maximum(s.max_exp_avg_sq, spread)
        correct2 = 1 - h.beta2**t
        eps = h.eps / sqrt(correct2) if h.eps_at == "uncorrected" else h.eps
        u = g / (sqrt((spread + h.eps_root) / correct2) + eps)

        if h.form == "velocity":
            rates = h.beta1 * s.eta + (1 - h.beta1) * h.lr
            m = h.beta1 * s.exp_avg + (1 - h.beta1) * h.lr * u
            factor: Number = 1 / where(h.lr == 0, 1.0, rates / where(h.lr == 0, 1.0, h.lr))
        else:
            rates = s.eta
            m = h.beta1 * s.exp_avg + (1 - h.beta1) * u
            factor = h.lr / (1 - h.beta1**t)
        step = -agreeing(-m, g, None) if h.cautious else m
        p = p - (single(factor) if h.numbers_in == "float32" else factor) * step
        return p if h.lambd is None else p * (1 - h.lr * h.lambd), LaProp.State(m, v, highest, c, rates)
