"""Steps preconditioned by a matrix for each axis, made from the products of the gradient with itself."""

import math
import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self, cast

from thalweg.fields import array_fields, number_fields, shared_fields
from thalweg.maths import Array, Number, Value, maximum, mean, sqrt, sum, where, zeros_like
from thalweg.matrices import DTYPES, arranged, eigh, eye, fold, inverse_root, qr, remainder, turned, unfold, when
from thalweg.rule import ABSENT, Axes, Count, Decay, Epsilon, Log, Rate, Rule
from thalweg.rules.moments import Adam
from thalweg.wrapping import Wrapper, is_free, move


class Shampoo(Rule):
    """Gradients times the inverse roots of their products, for each axis.  Gupta, Koren & Singer 2018, Algorithm 2.

    Of a parameter with k axes, L of axis i sums up GGᵀ, with G as a matrix by this axis, and begins with ``eps``·I;
    the step is multiplied by all L^(−1/2k), which are computed anew in the steps that ``every`` divides; before the
    first of these there is no step.  ``momentum``: the average of a gradient and of the step before, which is what is
    multiplied.  ``lambd``: λ, of a weight decay that is added to this average.  ``axes``: all, which `fit` sets.
    """

    lr: Rate = 1e-3
    momentum: Decay = 0.0
    eps: Epsilon = 1e-6
    every: Annotated[int, Count(1)] = 1
    lambd: Rate = 0.0
    axes: Axes = ()

    search = {"lr": Log(1e-4, 1.0)}
    decomposes = True

    class State(NamedTuple):
        momentum_buffer: Value
        factor: tuple[Array, ...]
        root: tuple[Array, ...]

    def fit(self, shape: tuple[int, ...]) -> Self:
        axes = tuple(range(len(shape)))
        affordable("Shampoo", shape, axes, "give this parameter another rule, or use soap, which has max_size")
        return self.bind({"axes": axes})

    def init(self, p: Value) -> State:
        ones = [eye(p, k) for k in self.axes]
        return Shampoo.State(zeros_like(p), tuple(self.eps * x for x in ones), tuple(map(zeros_like, ones)))

    def update(h, p: Value, g: Value, s: State, t: Number):
        step = where(t == 1, g, (1 - h.momentum) * g + h.momentum * s.momentum_buffer) + h.lambd * p
        factors = tuple(x + square(step, k) for k, x in zip(h.axes, s.factor, strict=True))
        order = 2 * len(h.axes)
        roots = when(remainder(t, h.every) == 0, lambda: tuple(inverse_root(x, order) for x in factors), s.root)
        for k, root in zip(h.axes, roots, strict=True):
            step = fold(root @ unfold(step, k), p, k)
        return p - h.lr * step, Shampoo.State(step, factors, roots)


class SOAP(Rule):
    """Adam in the basis of Shampoo's eigenvectors.  Vyas et al. 2025, Algorithm 3.

    For each axis a factor averages GGᵀ with decay ``factor_beta``, or β₂ if it is None; Q is its eigenvectors at first,
    and in every ``every``-th step one power iteration and QR bring it up to date, with the second moment permuted as
    the columns of Q are.  The first moment is kept as the gradient is and also in the basis, so that it is turned only
    when Q changes, and not in each step as in the authors' code.  The first step only builds the factors.
    ``max_size``: an axis with more elements has no factor; ``vectors``: whether vectors have one.  ``normalize``: the
    step is divided by its root mean square.  ``bias_correction``: of both moments, in the rate; ε is beside the
    uncorrected root.  ``lambd``: λ, of weight decay after the step.  ``precision``: of QR, float32 in the authors'
    code.  ``axes``: with factors, which `fit` sets.
    """

    lr: Rate = 3e-3
    beta1: Decay = 0.95
    beta2: Decay = 0.95
    factor_beta: Decay | None = None
    eps: Epsilon = 1e-8
    every: Annotated[int, Count(1)] = 10
    max_size: Annotated[int, Count(0)] = 10_000
    vectors: bool = False
    normalize: bool = False
    bias_correction: bool = True
    lambd: Rate = 0.0
    precision: Literal["full", "float32"] = "full"
    axes: Axes = ()

    search = {"lr": Log(1e-4, 1e-1)}
    decomposes = True

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_turned: Value
        exp_avg_sq: Value
        factor: tuple[Array, ...]
        basis: tuple[Array, ...]

    def fit(self, shape: tuple[int, ...]) -> Self:
        return self.bind({"axes": with_factors("SOAP", shape, self.max_size, self.vectors)})

    def init(self, p: Value) -> State:
        empty = tuple(zeros_like(eye(p, k)) for k in self.axes)
        return SOAP.State(zeros_like(p), zeros_like(p), zeros_like(p), empty, empty)

    def update(h, p: Value, g: Value, s: State, t: Number):
        begins, done = t == 1, maximum(t - 1, 1.0)

        def within(turned: Value) -> Within:
            average, m = (
                where(begins, old, h.beta1 * old + (1 - h.beta1) * new)
                for old, new in ((s.exp_avg, g), (s.exp_avg_turned, turned))
            )
            v = where(begins, s.exp_avg_sq, h.beta2 * s.exp_avg_sq + (1 - h.beta2) * turned * turned)
            scale = sqrt(v) + h.eps
            return Within(m / where(scale == 0, 1.0, scale), (m,), (average,), (v,))

        beta = h.beta2 if h.factor_beta is None else h.factor_beta
        step, (m,), (average,), (v,), factors, basis = rotated(h, beta, g, s.factor, s.basis, t, within)
        if h.normalize:
            length = sqrt(mean(step * step)) + h.eps
            step = step / where(length == 0, 1.0, length)
        rate = h.lr
        if h.bias_correction:
            rate = rate * sqrt(1 - h.beta2**done) / (1 - h.beta1**done)
        moved = where(begins, p, (p - rate * step) * (1 - h.lr * h.lambd))
        return moved, SOAP.State(average, m, v, factors, basis)


class Rotated(Wrapper):
    """A rule in the basis of Shampoo's eigenvectors, as `SOAP` has Adam.  Vyas et al. 2025, Algorithm 3.

    For rules whose state consists of averages of the gradient, which are turned when the basis changes, and of its
    square, which are permuted then.  The settings are those of `SOAP`, and ``factor_beta`` is the decay of the factors.
    The first step only builds the factors.
    """

    rule: Rule
    factor_beta: Decay = 0.95
    every: Annotated[int, Count(1)] = 10
    max_size: Annotated[int, Count(0)] = 10_000
    vectors: bool = False
    precision: Literal["full", "float32"] = "full"
    axes: Axes = ()

    simple = {"rule": Adam(lr=3e-3, beta1=0.95, beta2=0.95, eps_at="uncorrected")}
    decomposes = True

    if TYPE_CHECKING:
        _kinds: ClassVar[tuple[tuple[str, ...], tuple[str, ...]]]

    class Own(NamedTuple):
        averages: tuple[Array, ...]
        factor: tuple[Array, ...]
        basis: tuple[Array, ...]

    def check(self):
        rule = self.rule
        allowed = "allowed is a rule of averages of the gradient and of its square, element by element, such as adam"
        if rule.looks_ahead:
            raise ValueError(f"Rotated's rule is {rule}, which looks ahead; {allowed}")
        if rule.fits or array_fields(rule.State) or shared_fields(rule.State):
            raise ValueError(f"Rotated's rule is {rule}, which sees more than an element; {allowed}")
        if not is_free(rule, 2):
            raise ValueError(
                f"Rotated's rule is {rule}, whose step depends on the parameter; {allowed}; weight decay is an "
                "argument of thalweg.Optimizer"
            )
        linear, square, other = _averages(rule)
        if other is not None:
            raise ValueError(f"Rotated's rule is {rule}, whose {other} is neither kind of average; {allowed}")
        object.__setattr__(self, "_kinds", (linear, square))  # of the formula, whatever numbers it is bound to later

    @property
    def fits(self) -> bool:
        """It depends on the shape which axes have factors."""
        return True

    def fit(self, shape: tuple[int, ...]) -> Self:
        return self.bind({"axes": with_factors("Rotated", shape, self.max_size, self.vectors)})

    def begin(self, p: Value) -> Own:
        empty = tuple(zeros_like(eye(p, k)) for k in self.axes)
        return Rotated.Own(tuple(zeros_like(p) for _ in self._kinds[0]), empty, empty)

    def update(h, p: Value, g: Value, s: "Rotated.Own", t: Number):
        own, base = h.split(s)
        begins, done = t == 1, maximum(t - 1, 1.0)
        linear, square = h._kinds
        found: dict[str, Any] = {}

        def within(turned: Value) -> Within:
            step, new = move(h.rule, p, turned, base, done)
            as_it_is = base._replace(**dict(zip(linear, own.averages, strict=True)))
            _, plain = h.rule.update(zeros_like(p), g, as_it_is, done)
            for (name, old), x in zip(base._asdict().items(), new, strict=True):
                found[name] = ABSENT if old is ABSENT else where(begins, old, x)
            averages: list[Value] = [getattr(plain, x) for x in linear]
            kept = tuple(where(begins, old, x) for x, old in zip(averages, own.averages, strict=True))
            return Within(step, tuple(found[x] for x in linear), kept, tuple(found[x] for x in square))

        step, turned, kept, squares, factors, basis = rotated(h, h.factor_beta, g, own.factor, own.basis, t, within)
        found |= dict(zip((*linear, *square), (*turned, *squares), strict=True))
        return where(begins, p, p + step), h.join(Rotated.Own(kept, factors, basis), base._replace(**found))


@cache
def _averages(rule: Rule) -> tuple[tuple[str, ...], tuple[str, ...], str | None]:
    """The fields of a rule's state that are averages of the gradient, and of its square, and one that is neither."""

    def after(g: float) -> Any:
        s = rule.init(cast(Any, 0.0))
        for t in (1.0, 2.0, 3.0):
            _, s = rule.update(cast(Any, 0.0), cast(Any, g / t), s, t)
        return s

    one, opposite, twice = after(1.0), after(-1.0), after(2.0)
    linear: list[str] = []
    square: list[str] = []
    for name in one._fields:
        x, y, z = (getattr(s, name) for s in (one, opposite, twice))
        if x is ABSENT or name in number_fields(rule.State):
            continue
        if x and y == -x and math.isclose(z, 2 * x):
            linear.append(name)
        elif x and y == x and math.isclose(z, 4 * x):
            square.append(name)
        else:
            return (), (), name
    return tuple(linear), tuple(square), None


Values = tuple[Value, ...]


class Within(NamedTuple):
    """What a step in the basis makes: itself, averages of the gradient there and as it is, and averages of squares."""

    step: Value
    turned: Values
    averages: Values
    squares: Values


def rotated(
    h: SOAP | Rotated, beta: Number, g: Value, factors: tuple[Array, ...], basis: tuple[Array, ...], t: Number,
    within: Callable[[Value], Within],
) -> tuple[Value, Values, Values, Values, tuple[Array, ...], tuple[Array, ...]]:  # fmt: skip
    """A step in the basis, turned back; the parts of `Within` but the step, brought up to date; factors and basis."""
    factors = tuple(beta * x + (1 - beta) * square(g, k) for k, x in zip(h.axes, factors, strict=True))
    step, turned, averages, squares = within(_turned(h.axes, g, basis))
    step = _turned(h.axes, step, tuple(x.T for x in basis))
    begins = t == 1
    basis = first = when(begins, lambda: tuple(map(_eigenvectors, factors)), basis)
    again = where(begins, 1.0, remainder(t - 1, h.every)) == 0
    if h.axes:
        made = when(again, lambda: _refreshed(h, factors, first, averages, squares), (*first, *turned, *squares))
        k, n = len(h.axes), len(h.axes) + len(turned)
        basis, turned, squares = made[:k], made[k:n], made[n:]
    return step, turned, averages, squares, factors, basis


def _refreshed(
    h: SOAP | Rotated, factors: tuple[Array, ...], basis: tuple[Array, ...], averages: Values, squares: Values,
) -> tuple[Array, ...]:  # fmt: skip
    """The basis after one power iteration, in the order of the eigenvalues, and all averages in that basis."""
    found: list[Array] = []
    for k, factor, q in zip(h.axes, factors, basis, strict=True):
        product = factor @ q
        values = sum(q * product, 0)
        squares = tuple(arranged(v, values, k) for v in squares)
        found.append(qr(arranged(product, values, 1), DTYPES[h.precision]))
    return (*found, *(_turned(h.axes, x, tuple(found)) for x in averages), *squares)


def _turned(axes: tuple[int, ...], x: Value, basis: tuple[Array, ...]) -> Value:
    """A tensor in a basis of each axis."""
    for k, q in zip(axes, basis, strict=True):
        x = turned(x, q, k)
    return x


def square(g: Value, axis: int) -> Array:
    """GGᵀ, with a tensor as a matrix by one axis."""
    x = unfold(g, axis)
    return x @ x.T


def _eigenvectors(x: Array) -> Array:
    """The eigenvectors of a symmetric matrix, that of the largest eigenvalue first."""
    values, vectors = eigh(x)
    return arranged(vectors, values, 1)


def with_factors(rule: str, shape: tuple[int, ...], most: int, vectors: bool) -> tuple[int, ...]:
    """The axes of at most so many elements, but for vectors, if these have no factor; ``ValueError`` for no memory."""
    axes = tuple(k for k, n in enumerate(shape) if n <= most and (len(shape) > 1 or vectors))
    affordable(rule, shape, axes, "set max_size to less, so that this axis has none")
    return axes


def affordable(rule: str, shape: tuple[int, ...], axes: tuple[int, ...], instead: str) -> None:
    """Raise ``ValueError`` if a rule's matrices for some axes cannot fit into memory; `instead` says what to set."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    for k in axes:
        needed = 2 * 4 * shape[k] ** 2
        if needed > memory:
            raise ValueError(
                f"{rule}'s matrices of {shape[k]} × {shape[k]}, for axis {k} of a parameter of shape {shape}, take "
                f"{needed / 1e9:.0f} GB in float32, and this machine has {memory / 1e9:.0f} GB; {instead}"
            )
