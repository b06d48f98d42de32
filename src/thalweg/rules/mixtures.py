"""Adam with a second average in its numerator: of the gradient's differences (Adan), or a slow one (AdEMAMix)."""

from typing import Literal, NamedTuple

from thalweg.maths import Number, Value, exp, log, minimum, sqrt, where
from thalweg.rule import Decay, Epsilon, Fraction, Log, Positive, Rate, Rule
from thalweg.rules.variance import excess
from thalweg.rules.wrappers import agreeing


class Adan(Rule):
    """Nesterov's momentum from the differences of gradients.  Xie et al. 2022, "Adan", Algorithm 1.

    The decays β are one minus those of the paper.  ``weight`` is the factor of the difference beside the gradient:
    ``beta2``, as in the paper and in its authors' code, or its ``complement`` 1 − β₂, as in optax.  ``lambd`` is the
    paper's weight decay, θ ← θ/(1 + ηλ) after the step; the decays of `Optimizer` come before it.  The first difference
    is 0.
    """

    lr: Rate = 1e-3
    beta1: Decay = 0.98
    beta2: Decay = 0.92
    beta3: Decay = 0.99
    eps: Epsilon = 1e-8
    eps_root: Epsilon = 0.0
    lambd: Rate | None = None
    weight: Literal["beta2", "complement"] = "beta2"

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_diff: Value
        exp_avg_sq: Value
        prev: Value

    def update(h, p: Value, g: Value, s: State, t: Number):
        weight = h.beta2 if h.weight == "beta2" else 1 - h.beta2
        difference = where(t == 1, 0 * g, g - s.prev)
        m = h.beta1 * s.exp_avg + (1 - h.beta1) * g
        d = h.beta2 * s.exp_avg_diff + (1 - h.beta2) * difference
        ahead = g + weight * difference
        v = h.beta3 * s.exp_avg_sq + (1 - h.beta3) * ahead * ahead
        step = m / (1 - h.beta1**t) + weight / (1 - h.beta2**t) * d
        p = p - h.lr * step / (sqrt(v / (1 - h.beta3**t) + h.eps_root) + h.eps)
        return p if h.lambd is None else p / (1 + h.lr * h.lambd), Adan.State(m, d, v, g)


class AdEMAMix(Rule):
    """Adam and a slow average of the gradient.  Pagliardini et al. 2025, "The AdEMAMix optimizer", Algorithm 1.

    Only the fast average is corrected for its start at zero.  ``warmup``: T, the number of steps over which α grows
    linearly from 0, and β₃ from β₁, linearly in its half-life; None for no warm-up (optax).  The paper recommends α
    between 4 and 10 with a warm-up of all steps; its code has α = 2, optax and pytorch_optimizer 5.  ``cautious``: of
    the fast average, only what agrees with the gradient, as in `Cautious` with ``scale="count"``.  ``stable``: the step
    is divided by the root mean square of g/√v, if that is above 1, as in `StableAdamW`.
    """

    lr: Rate = 1e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    beta3: Fraction = 0.9999
    alpha: Rate = 5.0
    eps: Epsilon = 1e-8
    eps_root: Epsilon = 0.0
    warmup: Positive | None = None
    cautious: bool = False
    stable: bool = False

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value
        exp_avg_slow: Value

    def check(self):
        if self.warmup is not None and not (self.beta1 and self.beta3):
            raise ValueError(
                f"AdEMAMix's beta1, beta3 are {self.beta1}, {self.beta3} with warmup={self.warmup}, which interpolates "
                "between the half-lives of both: allowed are numbers > 0"
            )

    def update(h, p: Value, g: Value, s: State, t: Number):
        alpha, beta3 = h.alpha, h.beta3
        if h.warmup is not None:
            alpha = minimum(t * h.alpha / h.warmup, h.alpha)
            fast, slow = log(h.beta1), log(h.beta3)
            beta3 = minimum(exp(fast * slow / ((1 - t / h.warmup) * slow + t / h.warmup * fast)), h.beta3)
        m = h.beta1 * s.exp_avg + (1 - h.beta1) * g
        m2 = beta3 * s.exp_avg_slow + (1 - beta3) * g
        v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * g * g
        step = (-agreeing(-m, g, None) if h.cautious else m) / (1 - h.beta1**t) + alpha * m2
        step = step / (sqrt(v / (1 - h.beta2**t) + h.eps_root) + h.eps)
        return p - h.lr * (step / excess(g, v, 1e-16) if h.stable else step), AdEMAMix.State(m, v, m2)
