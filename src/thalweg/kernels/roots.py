"""The cube root as code that LLVM vectorises, as it does neither a power nor a call into a library."""

import math
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


class _Format(NamedTuple):
    """A float's type, its bits, the least normal number, and the number to add in `_guess`, the steps from there."""

    real: Any
    word: Any
    least: float
    offset: float
    steps: int


_SHORT = ir.IntType(32)
# The offsets are those of FreeBSD's cbrt and cbrtf.
_FORMATS = {
    types.float32: _Format(ir.FloatType(), _SHORT, 2.0**-126, 709958130.0, 3),
    types.float64: _Format(ir.DoubleType(), ir.IntType(64), 2.0**-1022, 715094163.0, 4),
}


@intrinsic
def cbrt(typing: Any, x: Any) -> Any:
    """The cube root of a float, to two units in the last place; zero, infinity and nan as they are."""
    if x not in _FORMATS:
        return None
    real, word, least, offset, steps = _FORMATS[x]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], word)
        sign = builder.and_(bits, word(1 << (word.width - 1)))
        size = builder.bitcast(builder.xor(bits, sign), real)
        # Subnormal numbers have no exponent to take a third of.
        small = builder.fcmp_ordered("<", size, real(least))
        scaled = builder.select(small, builder.fmul(size, real(2.0**96)), size)
        root = _guess(builder, scaled, real, word, offset)
        for _ in range(steps):  # Newton's method
            ratio = builder.fdiv(scaled, builder.fmul(root, root))
            root = builder.fadd(root, builder.fmul(builder.fsub(ratio, root), real(1 / 3)))
        root = builder.select(small, builder.fmul(root, real(2.0**-32)), root)
        found = builder.bitcast(builder.or_(builder.bitcast(root, word), sign), real)
        finite = builder.fcmp_ordered("<", size, real(math.inf))
        positive = builder.fcmp_ordered(">", size, real(0.0))
        return builder.select(builder.and_(finite, positive), found, args[0])

    return x(x), generate


def _guess(builder: Any, x: Any, real: Any, word: Any, offset: float) -> Any:
    """The cube root of a positive, normal number to 5 %: its exponent is divided by three, as a number of its bits."""
    bits = builder.bitcast(x, word)
    # Of a double the upper half is enough, and conversions of 32 bits are vectorised everywhere.
    high = builder.trunc(builder.lshr(bits, word(32)), _SHORT) if word is not _SHORT else bits
    third = builder.fadd(builder.fmul(builder.sitofp(high, real), real(1 / 3)), real(offset))
    moved = builder.fptosi(third, _SHORT)
    return builder.bitcast(builder.shl(builder.zext(moved, word), word(32)) if word is not _SHORT else moved, real)
