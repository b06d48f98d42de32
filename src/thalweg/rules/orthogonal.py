"""Steps made orthogonal: a matrix's momentum, with its singular values replaced by ones."""

import math
from typing import Annotated, Any, Literal, NamedTuple, Self

from thalweg.maths import (
    Array,
    Number,
    V,
    Value,
    abs,
    amax,
    dot,
    maximum,
    mean,
    ndim,
    norm,
    size,
    sqrt,
    sum,
    where,
    zeros_like,
)
from thalweg.matrices import DTYPES, eigh, fold, heights, orthogonalize, rounded, unfold, within
from thalweg.rule import ABSENT, Count, Decay, Epsilon, Log, Range, Rate, Row, Rule

Rows = tuple[tuple[float, ...], ...]

TABLES: dict[str, Rows] = {
    "original": ((3.4445, -4.7750, 2.0315),),
    "quintic": (
        (4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037), (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "polar_express": (
        (8.237312490495555, -23.157747414558198, 16.680568411445915),
        (4.082441999064835, -2.893047735332586, 0.5252849256975648),
        (3.9263479922546582, -2.8547468034765298, 0.5318022422894988),
        (3.2982187133085143, -2.424541981026706, 0.48632008358844075),
        (2.2970369434552573, -1.63662558125903, 0.4002628455953627),
        (1.8763805351440397, -1.2347896577722228, 0.35891887501668385),
        (1.8564423485617974, -1.2132449880935525, 0.3568003487825883),
        (1.8749994008682747, -1.2499988017229169, 0.3749994008546422),
    ),
    "polar_express_safer": (
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.0429299351667245, -2.808917465908704, 0.5000178451051299),
        (3.8916678022926563, -2.7724841532176825, 0.5060648178503389),
        (3.285753657755658, -2.3681294933425394, 0.46449024233003117),
        (2.3005307116270983, -1.6111665557258408, 0.3833374427545273),
        (1.8631210546382593, -1.2042160621002727, 0.3421879560523383),
        (1.8382572152247512, -1.1779263289537742, 0.3396513038637379),
        (1.8749999923301852, -1.2499999836060613, 0.374999991275876),
    ),
    "dion": (
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
}  # fmt: skip
"""Coefficients of Newton and Schulz's iteration: K. Jordan's; those of modded-nanogpt, HeavyBall and timm; those of
Amsel et al. 2025 (Polar Express), with margins of 1 % and 2 %; dion's, of the latter without a margin in its last row.
The last row serves for all further iterations."""

Table = Literal["original", "quintic", "polar_express", "polar_express_safer", "dion"]
Given = Annotated[tuple[Any, ...], Row(3)]
Scale = Literal["original", "last", "transposed", "match_rms_adamw", "rms_to_rms", "none"]
Precision = Literal["full", "float32", "bfloat16"]


class Muon(Rule):
    """Momentum of a matrix, made orthogonal.  Jordan et al. 2024; Liu et al. 2025 (Moonlight), Section 2.

    Parameters of more than two axes are matrices of their first axis by all others, as convolutions are; those of
    fewer are refused: `thalweg.groups.hidden_matrices` routes them to another rule.

    ``form`` of the momentum: averaged, (1 − μ)g added, or accumulated, g added; the step is the same, and the buffer
    is not.  ``nesterov``: one momentum step ahead.  ``bias_correction``: of the momentum, as NAdam's.
    ``coefficients`` and ``steps``: of Newton and Schulz's iteration, named in `TABLES` or given as (a, b, c) or rows
    of these.  ``scale`` of a step of m × n: ``original`` √max(1, m/n); ``last``, the same of the last two axes of the
    parameter, as in Jordan's code; ``transposed`` √max(1, n/m), where rows are inputs; ``match_rms_adamw``
    rms·√max(m, n), with ``rms`` 0.2 as Moonlight; ``rms_to_rms`` √(m/n).  ``adaptive``:
    scaled by the product of the momentum and its orthogonal matrix, too (Bernstein & Newhouse 2024).
    ``row_norms``: each row is divided by a running norm of it, with decay ``beta2`` (NorMuon, Li et al. 2025,
    Algorithm 1); the step then has the norm that it had before (``preserved``, as in the authors' code), or rms·√(mn)
    in place of its scale (``fixed``, as in the paper).
    ``normalize``: what the momentum is divided by before it is made orthogonal, so that no singular value is above 1:
    its Frobenius norm, its spectral norm, the root of the norm of its square (``schatten``), or the roots of the row
    sums of its square (``rows``; Boissin et al. 2025).  ``eps_at``: this norm is at least ε, or ε is added to it.
    ``safety``: a factor of this norm.  ``precision``: in which the matrix is made orthogonal; torch's is bfloat16.
    ``split``: how many blocks of equal numbers of rows are matrices of their own, such as 3 for the stacked queries,
    keys and values of attention, or the number of rows of each; they are stepped as parameters of their own would be.
    ``tall``: whether there are more rows than columns, which `fit` sets where it matters.
    """

    lr: Rate = 0.02
    momentum: Decay = 0.95
    form: Literal["averaged", "accumulated"] = "averaged"
    nesterov: bool = True
    bias_correction: bool = False
    coefficients: Table | Given = "original"
    steps: Annotated[int, Count(1, 99)] = 5
    scale: Scale = "original"
    rms: Rate = 0.2
    adaptive: bool = False
    row_norms: Literal["none", "preserved", "fixed"] = "none"
    beta2: Decay = 0.95
    normalize: Literal["frobenius", "spectral", "schatten", "rows"] = "frobenius"
    eps: Epsilon = 1e-7
    eps_at: Literal["least", "added"] = "least"
    safety: Annotated[float, Range(1)] = 1.0
    precision: Precision = "full"
    split: Annotated[int, Count(1)] | Annotated[tuple[int, ...], Row(whole=True)] = 1
    tall: bool = False

    search = {"lr": Log(1e-4, 1.0)}
    kept_by = ()
    variants = {
        "moonlight": {"scale": "match_rms_adamw"},
        "normuon": {"row_norms": "preserved", "eps": 1e-10},
        "dion_muon": {"lr": 0.01, "form": "accumulated", "nesterov": False, "scale": "rms_to_rms",
                      "coefficients": "dion", "safety": 1.02},
    }  # fmt: skip

    class State(NamedTuple):
        momentum_buffer: Value
        second_momentum_buffer: Array = ABSENT

    @property
    def needs_finite(self) -> bool:
        """See `Rule.needs_finite`: the spectral norm is made from eigenvalues."""
        return self.normalize == "spectral"

    @property
    def units(self) -> dict[str, float]:
        """The weight of a gradient in the momentum."""
        return {"momentum_buffer": 1 - self.momentum if self.form == "averaged" else 1.0}

    @property
    def shown_for(self) -> tuple[int, int]:
        """See `Rule.shown_for`: with rows that can be split."""
        rows, columns = super().shown_for
        return (rows // self.split * self.split if isinstance(self.split, int) else int(math.fsum(self.split))), columns

    def fit(self, shape: tuple[int, ...]) -> Self:
        if len(shape) < 2:
            raise ValueError(
                f"Muon steps matrices, and a parameter of shape {shape} is none; give vectors a group with another "
                "rule, such as adam: thalweg.groups.hidden_matrices(model) makes these groups"
            )
        uneven = shape[0] % self.split if isinstance(self.split, int) else shape[0] != math.fsum(self.split)
        if uneven:
            raise ValueError(
                f"Muon's split is {self.split}, and a parameter of shape {shape} has {shape[0]} rows; allowed is a "
                "number that divides them, or numbers that add up to them"
            )
        return self.bind({"tall": self.normalize == "rows" and shape[0] > math.prod(shape[1:])})

    def check(self):
        if self.split != 1 and self.normalize != "frobenius":
            raise ValueError(
                f"Muon's split is {self.split} with normalize={self.normalize!r}; only normalize='frobenius' is of "
                "blocks, so give each block a parameter of its own"
            )

    def init(self, p: Value) -> State:
        rows = ABSENT if self.row_norms == "none" else zeros_like(sum(unfold(p, 0), 1))
        return Muon.State(zeros_like(p), rows)

    def update(h, p: Value, g: Value, s: State, t: Number):
        mu, weight = h.momentum, 1 - h.momentum if h.form == "averaged" else 1.0
        b = mu * s.momentum_buffer + weight * g
        if h.bias_correction and h.nesterov:
            u = mu / (1 - mu ** (t + 1)) * b + weight / (1 - mu**t) * g
        elif h.bias_correction:
            u = b / (1 - mu**t)
        else:
            u = weight * g + mu * b if h.nesterov else b
        x = unfold(u, 0)
        o = h.orthogonal(x)
        v, scale = ABSENT, h._scale(p, x)
        if h.row_norms != "none":
            v = h.beta2 * s.second_momentum_buffer + (1 - h.beta2) * mean(o * o, 1)
            before, o = h._norm(o), o / (sqrt(v) + h.eps)
            length = h._norm(o) + h.eps
            whole = size(x) if h.split == 1 else h._rows(x) * size(x, 1)
            scale = (scale * before if h.row_norms == "preserved" else h.rms * sqrt(whole)) / length
        if h.adaptive:
            scale = scale * (dot(x, o) if h.split == 1 else within(sum(x * o, 1), h.split))
        step = h.lr * scale * fold(o, p, 0) if h.split == 1 else fold(h.lr * scale * o, p, 0)
        return p - step, Muon.State(b, v)

    def orthogonal(h, x: Array) -> Array:
        """A matrix made orthogonal, as the settings say."""
        rows: Rows = TABLES[h.coefficients] if isinstance(h.coefficients, str) else h.coefficients
        return orthogonalize(h._normalized(x), h.steps, rows, DTYPES[h.precision], h.split)

    def _norm(h, x: Array) -> Any:
        """The norm of each block, as a column where there are several."""
        return norm(x) if h.split == 1 else sqrt(within(sum(x * x, 1), h.split))

    def _rows(h, x: Array) -> Any:
        """The number of rows of each block, as a column where there are several."""
        return size(x, 0) if h.split == 1 else heights(x, h.split)

    def _normalized(h, x: Array) -> Array:
        """`x` with singular values of at most 1."""
        dtype = DTYPES[h.precision]
        x = rounded(x, dtype)
        if h.normalize == "rows":
            return x / h._bounded(sqrt(sum(abs(x.T @ x), 0) if h.tall else sum(abs(x @ x.T), 1)))
        if h.normalize == "spectral":
            return x / h._bounded(sqrt(amax(maximum(eigh(x.T @ x)[0], 0.0), (0, 1))))
        return x / h._bounded(rounded(h._norm(x), dtype) if h.normalize == "frobenius" else sqrt(norm(x @ x.T)))

    def _bounded(h, length: V) -> V:
        length = h.safety * length
        length = length + h.eps if h.eps_at == "added" else maximum(length, h.eps)
        return where(length == 0, 1.0, length)  # a zero matrix stays one, without ε

    def _scale(h, p: Value, x: Array) -> Any:
        m, n = h._rows(x), size(x, 1)
        if h.scale == "last" and ndim(p) > 2:
            m, n = size(p, ndim(p) - 2), size(p, ndim(p) - 1)
        if h.scale == "match_rms_adamw":
            return h.rms * sqrt(maximum(m, n))
        if h.scale == "rms_to_rms":
            return sqrt(m / n)
        if h.scale == "none":
            return 1.0
        return sqrt(maximum(1.0, n / m if h.scale == "transposed" else m / n))
