"""Second moments kept as sums over rows and columns, or over all axes but one: with far less state than Adam's."""

from functools import reduce
from typing import Annotated, Literal, NamedTuple, Self

from thalweg.maths import (
    Array,
    Number,
    V,
    Value,
    amax,
    maximum,
    mean,
    minimum,
    ndim,
    single,
    sqrt,
    sum,
    where,
    zeros_like,
)
from thalweg.matrices import DTYPES, resolution, rounded
from thalweg.rule import ABSENT, Axes, Count, Decay, Epsilon, Log, Positive, Range, Rate, Rule

Factored = Literal["last", "largest", "none"]


def factored(shape: tuple[int, ...], which: Factored, least: int) -> tuple[int, ...]:
    """The two axes over which squares are summed up, the second one for the rows; none if there are none to be."""
    if which == "none" or len(shape) < 2:
        return ()
    order = list(range(len(shape))) if which == "last" else sorted(range(len(shape)), key=lambda k: shape[k])
    return tuple(order[-2:]) if shape[order[-2]] >= least else ()


def outer(row: Array, column: Array, axis: int, least: Number | None = None) -> Array:
    """The estimate of a second moment from its means over rows and columns; `axis` is the one that `row` still has."""
    among = mean(row, axis)
    return row * column / (among if least is None else maximum(among, least))


def bounded(step: Value, most: Number) -> Value:
    """A step divided by as much of its root mean square as is above `most`."""
    return step / maximum(1.0, sqrt(mean(step * step)) / most)


class Adafactor(Rule):
    """Steps by the root of second moments kept by row and column.  Shazeer & Stern 2018, Algorithm 4.

    The decay of the second moment is 1 − t^c, with ``decay`` c, from the step ``offset`` on.  ``clip``: a step with a
    larger root mean square is divided by as much of it as is above this.  ``parameter_scale``: steps are proportional
    to the root mean square of the parameter, or to ``eps_scale`` if it is less.  ``relative``: the rate is at most
    1/√t.  ``beta2``: the most that the decay of the second moment is, if that is given.  ``eps_at``: ε² is the least
    second moment (``least``), or ε is added to each square (``squares``); ``eps=None`` is the spacing of numbers at 1.
    ``momentum``: an average of the steps, kept ``momentum_in`` a precision.  ``amsgrad``: steps by the root of the
    largest root of the second moment so far, as pytorch_optimizer does.  ``lambd``: λ, of a weight decay in proportion
    to the rate (``scaled``), to all that the step is multiplied by (``step``), or to neither (``plain``).  ``factor``:
    over the last two axes, over the two largest ones, or not at all; both must have at least ``least_size`` elements.
    ``axes``: those that are factored, which `fit` sets.  ``numbers_in``: the precision of the decay and of the
    momentum, as in optax.
    """

    lr: Rate = 1e-2
    decay: Annotated[float, Range(high=0)] = -0.8
    beta2: Decay | None = None
    offset: Annotated[float, Range()] = 0.0
    eps: Epsilon | None = None
    eps_at: Literal["least", "squares"] = "least"
    eps_scale: Epsilon = 1e-3
    clip: Positive | None = 1.0
    parameter_scale: bool = True
    relative: bool = True
    momentum: Decay | None = None
    lambd: Rate = 0.0
    decay_at: Literal["scaled", "step", "plain"] = "scaled"
    amsgrad: bool = False
    factor: Factored = "last"
    least_size: Annotated[int, Count(0)] = 0
    axes: Axes = ()
    numbers_in: Literal["float64", "float32"] = "float64"
    momentum_in: Literal["full", "float32", "bfloat16"] = "full"

    search = {"lr": Log(1e-4, 1.0)}

    class State(NamedTuple):
        row_var: Array = ABSENT
        col_var: Array = ABSENT
        variance: Value = ABSENT
        exp_avg: Value = ABSENT
        max_exp_avg_sq: Value = ABSENT

    def fit(self, shape: tuple[int, ...]) -> Self:
        return self.bind({"axes": factored(shape, self.factor, self.least_size)})

    def init(self, p: Value) -> State:
        m = ABSENT if self.momentum is None else zeros_like(p)
        most = zeros_like(p) if self.amsgrad else ABSENT
        if not self.axes:
            return Adafactor.State(variance=zeros_like(p), exp_avg=m, max_exp_avg_sq=most)
        row, column = (zeros_like(sum(p, axis)) for axis in reversed(self.axes))
        return Adafactor.State(row, column, exp_avg=m, max_exp_avg_sq=most)

    def update(h, p: Value, g: Value, s: State, t: Number):
        narrow = single if h.numbers_in == "float32" else _as_it_is
        weight = narrow(1 - narrow(1 - narrow((t - h.offset) ** narrow(h.decay))))
        weight = weight if h.beta2 is None else maximum(weight, 1 - h.beta2)
        eps = resolution(g) if h.eps is None else h.eps
        square = g * g + eps if h.eps_at == "squares" else g * g
        row, column, v, most = ABSENT, ABSENT, ABSENT, ABSENT
        if h.axes:
            a, b = h.axes
            row = (1 - weight) * s.row_var + weight * mean(square, b)
            column = (1 - weight) * s.col_var + weight * mean(square, a)
            moment = outer(row, column, a, eps if h.eps_at == "least" else None)
        else:
            moment = v = (1 - weight) * s.variance + weight * square
        if h.amsgrad:
            most = maximum(s.max_exp_avg_sq, sqrt(moment))
            moment = most / weight
        step = g / sqrt(maximum(moment, eps * eps) if h.eps_at == "least" else moment)
        step = step if h.clip is None else bounded(step, h.clip)
        rate = minimum(h.lr, 1 / sqrt(t)) if h.relative else h.lr
        if h.parameter_scale:
            rate = rate * maximum(sqrt(mean(p * p)), h.eps_scale)
        step, m = rate * step, ABSENT
        if h.momentum is not None:
            if h.momentum_in == "full":
                step = narrow(narrow(h.momentum) * s.exp_avg) + (1 - h.momentum) * step
                m = narrow(step)
            else:
                step = m = h._between(s.exp_avg, rounded(step, DTYPES[h.momentum_in]), 1 - h.momentum)
        shrunk = {"scaled": h.lr, "step": rate, "plain": 1.0}[h.decay_at] * h.lambd * p
        return p - shrunk - step, Adafactor.State(row, column, v, m, most)

    def _between(h, old: Value, new: Value, share: Number) -> Value:
        """The momentum between the old one and a step, computed in float32 as `torch.lerp` does."""
        weight: Number = single(share)
        near = weight < 0.5
        mixed = where(near, old, new) + where(near, weight, single(weight - 1)) * single(new - old)
        return rounded(single(mixed), DTYPES[h.momentum_in])


def _as_it_is(x: V) -> V:
    return x


class CAME(Rule):
    """Adafactor whose steps are damped where they disagree with their average.  Luo et al. 2023, Algorithm 2.

    The average of the steps is divided by the root of the second moment of their distances from it, by row and column,
    with decay ``beta3``.  Parameters of fewer than two axes are stepped by the average alone.  ``eps`` is added to the
    squares of the gradient, ``eps_res`` to those of the distances.  ``clip``: as for `Adafactor`.  ``amsgrad``: the
    largest second moment so far, divided by β₂.  ``axes``: the last two, which `fit` sets.
    """

    lr: Rate = 2e-4
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    beta3: Decay = 0.9999
    eps: Epsilon = 1e-30
    eps_res: Epsilon = 1e-16
    clip: Positive = 1.0
    amsgrad: bool = False
    axes: Axes = ()

    search = {"lr": Log(1e-5, 1e-1)}

    class State(NamedTuple):
        exp_avg: Value
        exp_avg_sq_row: Array = ABSENT
        exp_avg_sq_col: Array = ABSENT
        exp_avg_res_row: Array = ABSENT
        exp_avg_res_col: Array = ABSENT
        exp_avg_sq: Value = ABSENT
        max_exp_avg_sq: Value = ABSENT

    def fit(self, shape: tuple[int, ...]) -> Self:
        return self.bind({"axes": factored(shape, "last", 0)})

    def init(self, p: Value) -> State:
        most = zeros_like(p) if self.amsgrad else ABSENT
        if not self.axes:
            return CAME.State(zeros_like(p), exp_avg_sq=zeros_like(p), max_exp_avg_sq=most)
        row, column = (zeros_like(sum(p, axis)) for axis in reversed(self.axes))
        return CAME.State(zeros_like(p), row, column, zeros_like(row), zeros_like(column), max_exp_avg_sq=most)

    def update(h, p: Value, g: Value, s: State, t: Number):
        square = g * g + h.eps
        row, column, v, most = ABSENT, ABSENT, ABSENT, ABSENT
        if h.axes:
            row, column = h._averaged(s.exp_avg_sq_row, s.exp_avg_sq_col, square, h.beta2)
            moment = outer(row, column, h.axes[0])
        else:
            moment = v = h.beta2 * s.exp_avg_sq + (1 - h.beta2) * square
        if h.amsgrad:
            most = maximum(s.max_exp_avg_sq, sqrt(moment))
            moment = most / h.beta2
        step = bounded(g / sqrt(moment), h.clip)
        m = h.beta1 * s.exp_avg + (1 - h.beta1) * step
        if not h.axes:
            return p - h.lr * m, CAME.State(m, exp_avg_sq=v, max_exp_avg_sq=most)
        distance = (step - m) * (step - m) + h.eps_res
        far_row, far_column = h._averaged(s.exp_avg_res_row, s.exp_avg_res_col, distance, h.beta3)
        damped = m / sqrt(outer(far_row, far_column, h.axes[0]))
        return p - h.lr * damped, CAME.State(m, row, column, far_row, far_column, v, most)

    def _averaged(h, row: Array, column: Array, x: Value, beta: Number) -> tuple[Array, Array]:
        a, b = h.axes
        return beta * row + (1 - beta) * mean(x, b), beta * column + (1 - beta) * mean(x, a)


class SM3(Rule):
    """Adagrad with one sum per index of each axis, the least of which counts.  Anil et al. 2019, Algorithm SM3-II.

    ``momentum``: an average of the steps, without correction.  ``beta2``: squares are averaged with this decay, and an
    axis keeps the largest average so far; None sums them up.
    """

    lr: Rate = 0.1
    momentum: Decay = 0.9
    beta2: Decay | None = None
    eps: Epsilon = 1e-8

    search = {"lr": Log(1e-3, 1.0)}

    class State(NamedTuple):
        accumulator: tuple[Array, ...]
        momentum_buffer: Value

    def fit(self, shape: tuple[int, ...]) -> Self:
        if 0 in shape:
            raise ValueError(
                f"SM3 takes the largest element along each axis, and a parameter of shape {shape} has none"
            )
        return self

    def init(self, p: Value) -> State:
        return SM3.State(tuple(zeros_like(sum(p, axes)) for axes in _all_but_one(ndim(p))), zeros_like(p))

    def update(h, p: Value, g: Value, s: State, t: Number):
        least = reduce(minimum, s.accumulator)
        v = least + g * g if h.beta2 is None else h.beta2 * least + (1 - h.beta2) * g * g
        largest = tuple(amax(v, axes) for axes in _all_but_one(ndim(p)))
        if h.beta2 is not None:
            largest = tuple(map(maximum, s.accumulator, largest))
        step = where(v > 0, g / sqrt(v + h.eps), 0.0)
        m = h.momentum * s.momentum_buffer + (1 - h.momentum) * step
        return p - h.lr * m, SM3.State(largest, m)


def _all_but_one(ndim: int) -> list[tuple[int, ...]]:
    """For each axis all others; for a single number, once none."""
    return [tuple(j for j in range(ndim) if j != k) for k in range(max(ndim, 1))]
