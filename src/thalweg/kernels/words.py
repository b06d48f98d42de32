"""What printed Triton kernels call: words that Triton does not have, and the kernels that are the same for every rule.

Everything is summed up in float64 and in an order that depends on the sizes alone, so steps repeat bit by bit.
"""

# pyright: basic
# What is here is Triton's language, of which only the syntax is Python's.

import triton
import triton.language as tl


@triton.jit
def power(x, y):
    """The power of x to y, in float64, as IEEE 754 has it for the bases and exponents of formulas."""
    a, b = x.to(tl.float64), y.to(tl.float64)
    size = tl.exp2(b * tl.log2(tl.abs(a)))
    even = tl.floor(b * 0.5) == b * 0.5
    signed = tl.where(tl.floor(b) == b, tl.where(even, size, -size), float("nan"))
    size = tl.where(a < 0, signed, size)
    return tl.where(b == 0, 1.0, tl.where(a == 1, 1.0, size)).to(x.dtype)


@triton.jit
def cbrt(x):
    """The cube root, of negative numbers, too."""
    a = tl.abs(x.to(tl.float64))
    y = tl.exp2(tl.log2(a) / 3)
    better = y - (y - a / (y * y)) / 3
    y = tl.where(a > 0, tl.where(a < float("inf"), better, a), a)
    return tl.where(x < 0, -y, y).to(x.dtype)


@triton.jit
def tanh(x):
    """The hyperbolic tangent."""
    a = x.to(tl.float64)
    power = tl.exp(-2 * tl.abs(a))
    large = (1 - power) / (1 + power)
    small = tl.abs(a) * (1 - a * a / 3)  # as exact, below 1e-4
    y = tl.where(tl.abs(a) < 1e-4, small, large)
    return tl.where(a < 0, -y, y).to(x.dtype)


@triton.jit
def sign(x):
    """-1, 0 or 1; 0 for what is not a number."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


@triton.jit
def nearest(x):
    """The nearest number that bfloat16 has, of two the even one; Triton's interpreter rounds otherwise."""
    bits = x.to(tl.float32).to(tl.uint32, bitcast=True)
    up = bits + (((bits >> 16) & 1) + 0x7FFF)
    kept = (up & tl.full((), 0xFFFF0000, tl.uint32)).to(tl.float32, bitcast=True)
    return tl.where((bits & 0x7FFFFFFF) >= 0x7F800000, x.to(tl.float32), kept)


@triton.jit
def fold(totals, firsts, into, table, wide, fields, field, sums, k, BLOCK: tl.constexpr):
    """Add up what the chunks of a parameter have summed up; 0 for one that is left out."""
    row = tl.program_id(0)
    first = tl.load(firsts + row)
    after = tl.load(firsts + row + 1)
    total = tl.zeros((BLOCK,), tl.float64)
    for begin in range(first, after, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        total += tl.load(totals + at * sums + k, mask=at < after, other=0.0)
    found = tl.where(tl.load(table + row * wide + 3) != 0, tl.sum(total), 0.0)
    tl.store(into + row * fields + field, found)


@triton.jit
def clip_each(own, rows, fields, most, BLOCK: tl.constexpr):
    """Turn the squares of norms, each parameter's first own number, into factors that leave no norm above `most`."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = own + row * fields
    norm = tl.sqrt(tl.load(at, mask=row < rows, other=0.0))
    limit = tl.load(most)
    tl.store(at, limit / tl.where(norm >= limit, norm, tl.where(norm != norm, norm, limit)), mask=row < rows)


@triton.jit
def begin(given, groups, columns, column, scale, found, live, SCALED: tl.constexpr, FOUND: tl.constexpr):
    """Whether a step is taken, as far as a gradient scaler tells; and one over its scale, for each group."""
    flag = tl.full((), 1, tl.int32)
    if FOUND:
        flag = (tl.load(found) == 0).to(tl.int32)
    tl.store(live, flag)
    if SCALED:
        factor = 1.0 / tl.load(scale).to(tl.float64)
        for group in range(groups):
            tl.store(given + group * columns + column, factor)


@triton.jit
def guard(
    squares,
    count,
    given,
    groups,
    columns,
    column,
    limits,
    live,
    skipped,
    CLIP: tl.constexpr,
    SKIP: tl.constexpr,
    SINGLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The factor that clips all gradients together, for each group; and whether their norm is finite.

    Args:
        squares: of the norm of each gradient.
        count: how many there are.
        given: the groups' rows, whose `column` is written.
        groups: how many there are.
        columns: how many numbers each has.
        column: which of them is written.
        limits: the largest norm, and what is added to the norm.
        live: whether the step is taken.
        skipped: counts the steps that are left out for a norm that is not finite.
        CLIP: whether to clip.
        SKIP: whether such steps are left out.
        SINGLE: whether norms are added up in float32.
        BLOCK: how many squares are read at a time.
    """
    total = tl.zeros((BLOCK,), tl.float32 if SINGLE else tl.float64)
    for first in range(0, count, BLOCK):
        at = first + tl.arange(0, BLOCK)
        own = tl.load(squares + at, mask=at < count, other=0.0)
        if SINGLE:
            norms = tl.sqrt(own).to(tl.float32)
            own = norms * norms
        total += own
    norm = tl.sqrt(tl.sum(total).to(tl.float64))
    if CLIP:
        most = tl.load(limits)
        bounded = norm + tl.load(limits + 1)
        if SINGLE:
            bounded = bounded.to(tl.float32).to(tl.float64)
        factor = most / tl.where(bounded >= most, bounded, tl.where(bounded != bounded, bounded, most))
        for group in range(groups):
            tl.store(given + group * columns + column, factor)
    if SKIP:
        finite = (tl.abs(norm) < float("inf")).to(tl.int32)
        before = tl.load(live)
        tl.store(live, before * finite)
        tl.store(skipped, tl.load(skipped) + before * (1 - finite))
