"""Adam with another second moment: AdaBelief and Yogi."""

from typing import Literal, NamedTuple

from thalweg.maths import Number, Value, full_like, maximum, sign, sqrt, zeros_like
from thalweg.rule import ABSENT, Decay, Epsilon, Log, Rate, Rule
from thalweg.rules.moments import corrected_mean


class AdaBelief(Rule):
    """Adam with the gradient's deviation from its average.  Zhuang et al. 2020, "AdaBelief optimizer", Algorithm 2.

    ``eps_root`` is added to v in every step and so accumulates, as in the paper; ``eps`` is added to √v̂.  The paper has
    one number for both.  ``nesterov`` looks one momentum step ahead with a constant momentum (optax).  ``amsgrad``
    keeps the largest v, as the authors' code and pytorch_optimizer do on request.  ``bias_correction``: of both
    moments, or of only the ``second``.
    """

    lr: Rate = 1e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Epsilon = 1e-16
    eps_root: Epsilon = 1e-16
    amsgrad: bool = False
    nesterov: bool = False
    bias_correction: Literal[True, "second"] = True

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value
        max_exp_avg_sq: Value = ABSENT

    def init(h, p: Value):
        return AdaBelief.State(zeros_like(p), zeros_like(p), zeros_like(p) if h.amsgrad else ABSENT)

    def update(h, p: Value, g: Value, s: State, t: Number):
        m = h.beta1 * s.exp_avg + (1 - h.beta1) * g
        v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * (g - m) * (g - m) + h.eps_root
        highest = maximum(s.max_exp_avg_sq, v) if h.amsgrad else ABSENT
        v_hat = (highest if h.amsgrad else v) / (1 - h.beta2**t)
        m_hat = corrected_mean(h.beta1, m, g, t, correct=h.bias_correction is True, ahead=h.nesterov)
        return p - h.lr * m_hat / (sqrt(v_hat) + h.eps), AdaBelief.State(m, v, highest)


class Yogi(Rule):
    """Adam whose second moment changes by at most a share of g².  Zaheer et al. 2018, "Adaptive methods", Algorithm 2.

    ``initial_accumulator`` is the first value of both moments, as in optax, TensorFlow and pytorch_optimizer; in the
    paper the first moment starts at 0.  ``bias_correction``: of both moments, or of only the ``second``.
    """

    lr: Rate = 1e-2
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    initial_accumulator: Rate = 1e-6
    eps: Epsilon = 1e-3
    bias_correction: Literal[True, "second"] = True

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value

    def init(h, p: Value):
        return Yogi.State(full_like(p, h.initial_accumulator), full_like(p, h.initial_accumulator))

    def update(h, p: Value, g: Value, s: State, t: Number):
        m = h.beta1 * s.exp_avg + (1 - h.beta1) * g
        v = s.exp_avg_sq - (1 - h.beta2) * sign(s.exp_avg_sq - g * g) * (g * g)
        m_hat = corrected_mean(h.beta1, m, g, t, correct=h.bias_correction is True, ahead=False)
        v_hat = v / (1 - h.beta2**t)
        return p - h.lr * m_hat / (sqrt(v_hat) + h.eps), Yogi.State(m, v)
