"""Steps preconditioned by a matrix for each axis, made from the products of the gradient with itself."""

import math
import os
from typing import Annotated, Literal, NamedTuple, Self

from thalweg.maths import Array, Number, Value, maximum, mean, sqrt, sum, where, zeros_like
from thalweg.matrices import DTYPES, arranged, eigh, eye, fold, inverse_root, qr, remainder, turned, unfold, when
from thalweg.rule import Axes, Count, Decay, Epsilon, Log, Rate, Rule


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
        some = len(shape) > 1 or self.vectors
        axes = tuple(k for k, n in enumerate(shape) if n <= self.max_size and some)
        affordable("SOAP", shape, axes, "set max_size to less, so that this axis has none")
        return self.bind({"axes": axes})

    def init(self, p: Value) -> State:
        empty = tuple(zeros_like(eye(p, k)) for k in self.axes)
        return SOAP.State(zeros_like(p), zeros_like(p), zeros_like(p), empty, empty)

    def update(h, p: Value, g: Value, s: State, t: Number):
        begins, done = t == 1, maximum(t - 1, 1.0)
        beta = h.beta2 if h.factor_beta is None else h.factor_beta
        factors = tuple(beta * x + (1 - beta) * square(g, k) for k, x in zip(h.axes, s.factor, strict=True))
        turned = h._turned(g, s.basis)
        average, m = (
            where(begins, old, h.beta1 * old + (1 - h.beta1) * new)
            for old, new in ((s.exp_avg, g), (s.exp_avg_turned, turned))
        )
        v = where(begins, s.exp_avg_sq, h.beta2 * s.exp_avg_sq + (1 - h.beta2) * turned * turned)
        scale = sqrt(v) + h.eps
        step = h._turned(m / where(scale == 0, 1.0, scale), tuple(x.T for x in s.basis))
        if h.normalize:
            length = sqrt(mean(step * step)) + h.eps
            step = step / where(length == 0, 1.0, length)
        rate = h.lr
        if h.bias_correction:
            rate = rate * sqrt(1 - h.beta2**done) / (1 - h.beta1**done)
        moved = where(begins, p, (p - rate * step) * (1 - h.lr * h.lambd))
        basis = first = when(begins, lambda: tuple(map(_eigenvectors, factors)), s.basis)
        again = where(begins, 1.0, remainder(t - 1, h.every)) == 0
        if h.axes:
            made = when(again, lambda: h._refreshed(factors, first, average, v), (*first, m, v))
            basis, m, v = made[:-2], made[-2], made[-1]
        return moved, SOAP.State(average, m, v, factors, basis)

    def _turned(h, x: Value, basis: tuple[Array, ...]) -> Value:
        """A tensor in a basis of each axis."""
        for k, q in zip(h.axes, basis, strict=True):
            x = turned(x, q, k)
        return x

    def _refreshed(h, factors: tuple[Array, ...], basis: tuple[Array, ...], m: Value, v: Value) -> tuple[Array, ...]:
        """The basis after one power iteration, in the order of the eigenvalues, and both moments in that basis."""
        found: list[Array] = []
        for k, factor, q in zip(h.axes, factors, basis, strict=True):
            product = factor @ q
            values = sum(q * product, 0)
            v = arranged(v, values, k)
            found.append(qr(arranged(product, values, 1), DTYPES[h.precision]))
        return (*found, h._turned(m, tuple(found)), v)


def square(g: Value, axis: int) -> Array:
    """GGᵀ, with a tensor as a matrix by one axis."""
    x = unfold(g, axis)
    return x @ x.T


def _eigenvectors(x: Array) -> Array:
    """The eigenvectors of a symmetric matrix, that of the largest eigenvalue first."""
    values, vectors = eigh(x)
    return arranged(vectors, values, 1)


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
