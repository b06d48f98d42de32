"""Adam with steadier steps: StableAdamW bounds the size of its update, MARS reduces the variance of the gradient."""

from typing import Literal, NamedTuple

from thalweg.maths import Number, Value, maximum, mean, norm, sign, size, sqrt, zeros_like
from thalweg.matrices import DTYPES, fold, rounded, unfold
from thalweg.rule import ABSENT, Decay, Epsilon, Log, Rate, Rule
from thalweg.rules.orthogonal import Muon, Precision
from thalweg.rules.wrappers import agreeing


def excess(g: Value, v: Value, least: Number) -> Number:
    """The root mean square of g/√v, or 1 if it is less; v is taken to be at least `least`."""
    return maximum(sqrt(mean(g * g / maximum(v, least))), 1.0)


class StableAdamW(Rule):
    """AdamW with a smaller rate where the update would be large.  Wortsman et al. 2023, Algorithm 2.

    The rate is divided by the root mean square of g/√v, if that is above 1.  The bias is corrected in the decays: β̂ of
    step t is β(1 − βᵗ⁻¹)/(1 − βᵗ).  ``lambd``: λ, of the weight decay at the divided rate.
    """

    lr: Rate = 1e-3
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    eps: Epsilon = 1e-8
    lambd: Rate | None = None

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value

    def update(h, p: Value, g: Value, s: State, t: Number):
        beta1, beta2 = (beta * (1 - beta ** (t - 1)) / (1 - beta**t) for beta in (h.beta1, h.beta2))
        m = beta1 * s.exp_avg + (1 - beta1) * g
        v = beta2 * s.exp_avg_sq + (1 - beta2) * g * g
        rate = h.lr / excess(g, v, h.eps * h.eps)
        if h.lambd is not None:
            p = p - rate * h.lambd * p
        return p - rate * m / (sqrt(v) + h.eps), StableAdamW.State(m, v)


class MARS(Rule):
    """AdamW with gradients whose variance is reduced.  Yuan et al. 2024, "MARS", Algorithm 2.

    c = g + γβ₁/(1 − β₁)·(g − h), with h the gradient of the step before, of which a copy is kept, shortened to norm 1.
    Vectors fall to AdamW, with the rate, decays and weight decay that begin with ``vector``; the rate is a factor of
    ``lr``.  ``form``: MARS for ``matrices`` and larger, for ``all`` parameters, or for ``none``.  ``lambd``: λ, of the
    weight decay, θ ← θ − ηλθ before the step.  ``eps`` is added to the uncorrected √v.  ``cautious`` steps only where
    the momentum agrees with the gradient, as `Cautious` does with ``scale="count"``, but leaves weight decay alone.
    ``kind`` of the steps: AdamW's, the sign of the momentum (``lion``, Algorithm 3), or with ``shampoo`` the momentum
    of a matrix made orthogonal, as by `Muon`, in a ``precision`` (Algorithm 4; bfloat16 in the authors' code); vectors
    are AdamW's then.
    """

    lr: Rate = 3e-3
    beta1: Decay = 0.95
    beta2: Decay = 0.99
    gamma: Rate = 0.025
    eps: Epsilon = 1e-8
    eps_root: Epsilon = 0.0
    lambd: Rate = 0.0
    vector_rate: Rate = 1.0
    vector_beta1: Decay = 0.9
    vector_beta2: Decay = 0.95
    vector_lambd: Rate = 0.0
    form: Literal["matrices", "all", "none"] = "matrices"
    kind: Literal["adamw", "lion", "shampoo"] = "adamw"
    precision: Precision = "full"
    amsgrad: bool = False
    cautious: bool = False

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq: Value = ABSENT
        last_grad: Value = ABSENT
        max_exp_avg_sq: Value = ABSENT

    @property
    def fits(self) -> bool:
        """Whether it is still open which form a parameter has: the forms themselves are the same for all shapes."""
        return self.form == "matrices" or self.kind == "shampoo"

    def fit(self, shape: tuple[int, ...]):
        """Vectors and scalars fall to AdamW."""
        form = ("all" if len(shape) > 1 else "none") if self.form == "matrices" else self.form
        kind = "adamw" if form == "none" or (self.kind == "shampoo" and len(shape) < 2) else self.kind
        return self.bind({"form": form, "kind": kind})

    def init(h, p: Value):
        adamw = h.kind == "adamw"
        return MARS.State(
            zeros_like(p),
            zeros_like(p) if adamw else ABSENT,
            ABSENT if h.form == "none" else zeros_like(p),
            zeros_like(p) if adamw and h.amsgrad else ABSENT,
        )

    def update(h, p: Value, g: Value, s: State, t: Number):
        c, last = g, ABSENT
        rate, beta1, beta2, lambd = h.lr * h.vector_rate, h.vector_beta1, h.vector_beta2, h.vector_lambd
        if h.form != "none":
            rate, beta1, beta2, lambd = h.lr, h.beta1, h.beta2, h.lambd
            c, last = g + h.gamma * beta1 / (1 - beta1) * (g - s.last_grad), g
            c = c / maximum(norm(c), 1.0)
        m = beta1 * s.exp_avg + (1 - beta1) * c
        way = -agreeing(-m, g, None) if h.cautious else m
        v = highest = ABSENT
        if h.kind == "lion" and h.form != "none":
            step = sign(way)
        elif h.kind == "shampoo" and h.form != "none":
            made = Muon(precision=h.precision).bind({"eps": h.eps}).orthogonal(unfold(way / (1 - beta1), 0))
            # The authors' code multiplies by the scale in bfloat16, too.
            step = rounded(sqrt(maximum(1.0, size(p, 0) / size(p, 1))) * fold(made, p, 0), DTYPES[h.precision])
        else:
            v = beta2 * s.exp_avg_sq + (1 - beta2) * c * c
            highest = maximum(s.max_exp_avg_sq, v) if h.amsgrad else ABSENT
            root = sqrt((highest if h.amsgrad else v) + h.eps_root) + h.eps
            step = sqrt(1 - beta2**t) / (1 - beta1**t) * way / root
        return p * (1 - rate * lambd) - rate * step, MARS.State(m, v, last, highest)
