"""What all modules for Numba have in common: the host's numbers, and how the function that steps a chunk begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent

import torch

from thalweg.cutting import RESOLUTION
from thalweg.printers.lowering import COMPARISONS, INFIX, Lowered, Syntax, Types
from thalweg.printers.passes import factors, rounded_at_random, summed_up
from thalweg.symbols import Symbol

MOST = 16_384
"""The most elements that a chunk may have: long, since reading from memory takes a while to get up to speed."""

COLUMNS = 3
"""The columns of a table before its arrays: how many elements a chunk has, its row of scalars, its salt."""

_FORMATS = {
    **INFIX,
    "pow": "{0} ** {1}",
    **{word: f"math.{word}({{0}})" for word in ("sqrt", "exp", "log", "sin", "cos", "tanh")},
    "cbrt": "cbrt({0})",
    "abs": "abs({0})",
    "where": "({1} if {0} else {2})",
    # As torch has them: not a number if either is.
    "maximum": "({0} if {0} >= {1} or {0} != {0} else {1})",
    "minimum": "({0} if {0} <= {1} or {0} != {0} else {1})",
}
VALUES = Syntax(
    _FORMATS
    | {
        "single": "(one * float32({0}))",
        "sign": "(one if {0} > zero else (-one if {0} < zero else zero))",
    },
    "(one if {0} else zero)",
    str,
)
# A quotient by zero and a root below it are inf and nan here as on tensors: `error_model` is numpy's.
_NUMBERS = Syntax(
    _FORMATS
    | {
        "single": "float64(float32({0}))",
        "sign": "(1.0 if {0} > 0.0 else (-1.0 if {0} < 0.0 else 0.0))",
    },
    "(1.0 if {0} else 0.0)",
    lambda x: f"float64({x!r})",
)

_MODULE = '''"""Printed by thalweg from an update rule's formula."""

import math

from numba import cfunc, float32, float64, njit

from thalweg.kernels.memory import add, real64, save_real64, stream, word
from thalweg.kernels.roots import cbrt

{streams}
scalar, save_scalar, _ = stream({scalars}, "{real}", {streams_count})
inf, nan = math.inf, math.nan


@cfunc("void(int64, int64, int64, int64)", nopython=True, error_model="numpy")
def numbers(row, group, scalars, new):
{host}


{chunk}
'''

_HEAD = """\
@cfunc("void(int64, int64, int64, int64)", nopython=True, error_model="numpy", fastmath={contract})
def chunk(entry, scalars, salt, totals):
    count = word(entry)
{arrays}
    zero, one = {real}(0), {real}(1)
{lifted}"""


@dataclass(frozen=True)
class Source:
    """What is printed from a graph.

    Attributes:
        text: a module.  Its ``numbers`` computes the scalars of a row of numbers, its ``chunk`` steps a chunk: C
            functions that `thalweg.kernels.loops` calls.
        arrays: the arrays that the kernel works on, by their names in the trace.
        numbers: what is read of a group, by its names in the trace and in this order.
        sums: what the kernel sums up per chunk, by its names in the trace; a step's last pass, nothing.
        width: how many scalars a row has.
        kept: the numbers of the state, whose new values are left at ``number_out``.
        traffic: how many bytes the kernel reads and writes per element.
        salted: whether anything is rounded at random.
        flushes: whether subnormal numbers are flushed to zero.
        folded: what it sums up per column in each chunk, by its names in the trace.
        touched: the arrays that are read or written.
    """

    text: str
    arrays: tuple[str, ...]
    numbers: tuple[str, ...]
    sums: tuple[str, ...]
    width: int
    kept: tuple[str, ...]
    traffic: int
    salted: bool
    flushes: bool
    folded: tuple[str, ...] = ()
    touched: frozenset[str] = frozenset()


def stored(lowered: Lowered, x: Symbol) -> str:
    """What is stored of a value, which may be a truth value."""
    return VALUES.truth.format(lowered.use(x)) if x.op in COMPARISONS else lowered.use(x)


def term(lowered: Lowered, x: Symbol) -> str:
    """A term of a sum in float64."""
    return " * ".join(f"float64({stored(lowered, a)})" for a in factors(x))


@dataclass(frozen=True)
class Loop:
    """The lines of the loop over the elements of a chunk, element i.

    Attributes:
        loads: those that read arrays.
        values: those that compute.
        stores: those that write arrays.
        head: the beginning of the function that steps a chunk.
        bases: the names that hold where arrays begin.
        lifted: the lines before the loop, which read the numbers.
        real: the type of the arithmetic.
        contract: the leave to contract a product and a sum, for Numba's ``fastmath``.
    """

    loads: list[str]
    values: list[str]
    stores: list[str]
    head: str
    bases: str
    lifted: str
    real: str
    contract: str

    @staticmethod
    def of(lowered: Lowered, names: Sequence[str], types: Types, zero_grad: bool = False) -> "Loop":
        """The loop of a pass on the arrays `names`; its results that are none of these are not stored."""
        inputs = lowered.inputs
        stores = [
            _store(names.index(name), stored(lowered, x), types.of(name), name)
            for name, x in lowered.changed.items()
            if not summed_up(name)
        ]
        if zero_grad:
            stores.append(f"store{names.index('g')}(a{names.index('g')}, i, zero)")
        lifted = "\n".join(f"    {name} = scalar(scalars, {i})" for i, name in enumerate(lowered.scalars.values()))
        real, contract = name_of(types.arithmetic), "False" if types.exact else '{"contract"}'
        arrays = "\n".join(f"    a{i} = word(entry + {8 * (i + COLUMNS)})" for i in range(len(names)))
        return Loop(
            [f"{inputs[name]} = load{names.index(name)}(a{names.index(name)}, i)" for name in lowered.read],
            [f"{name} = {x}" for name, x in lowered.values(VALUES)],
            stores,
            _HEAD.format(contract=contract, arrays=arrays, real=real, lifted=lifted),
            ", ".join(f"a{i}" for i in range(len(names))),
            lifted,
            real,
            contract,
        )


def _store(k: int, x: str, dtype: torch.dtype, name: str) -> str:
    if rounded_at_random(name, dtype):
        return f"dither{k}(a{k}, i, {x}, salt + i)"
    return f"store{k}(a{k}, i, {x})"


def module(
    lowered: Lowered,
    chunk: str,
    names: tuple[str, ...],
    types: Types,
    zero_grad: bool,
    summed: tuple[str, ...],
    held: tuple[str, ...],
    folded: tuple[str, ...] = (),
    together: int = 0,
) -> Source:
    """A module around ``chunk``, the function that steps a chunk; the rest as in `Source`.

    Args:
        lowered: what is computed.
        chunk: the source of the function.
        names: the arrays of the table.
        types: the types.
        zero_grad: whether the gradient is set to zero.
        summed: what is summed up.
        held: the numbers of the state, in the order in which a row of numbers has them.
        folded: what is summed up per column.
        together: how many rows of a matrix ``chunk`` goes over together, or 0 for no rows.  It accesses each by
            functions of its own, such as ``load2_0``: what is in other rows is other memory.
    """
    real, count = name_of(types.arithmetic), (1 + together) * len(names) + 1
    # Subnormals are slow, and flushed to zero; but not where a formula asks which side of zero something is on.
    asked = COMPARISONS | {"sign"}
    flushes = not types.exact and not any(n.op in asked for n in lowered.graph.nodes if n.kind == "value")
    numbers = tuple(name for name in lowered.numbers if name not in ("t", RESOLUTION) and not name.startswith("s."))
    text = _MODULE.format(
        chunk=chunk,
        streams="\n".join(
            f"{', '.join(f'{f}{i}{own}' for f in ('load', 'store', 'dither'))} = "
            f'stream({len(names) * r + i}, "{name_of(types.of(name))}", {count}, {name!r})'
            for r, own in enumerate(["", *(f"_{r}" for r in range(together))])
            for i, name in enumerate(names)
        ),
        streams_count=count,
        host=indent("\n".join(_host(lowered, numbers, held, types) or ["pass"]), " " * 4),
        real=real,
        scalars=count - 1,
    )
    written = [name for name in lowered.changed if not summed_up(name)]
    salted = any(rounded_at_random(name, types.of(name)) for name in written)
    moved = [*lowered.read, *written, *(["g"] if zero_grad else [])]
    traffic = sum(types.of(name).itemsize for name in moved)
    return Source(
        text, names, numbers, summed, len(lowered.scalars), tuple(lowered.kept), traffic, salted, flushes, folded,
        frozenset(moved),
    )  # fmt: skip


def name_of(dtype: torch.dtype) -> str:
    """The name of a dtype, as of torch and NumPy."""
    return str(dtype).removeprefix("torch.")


def _host(lowered: Lowered, numbers: tuple[str, ...], kept: tuple[str, ...], types: Types) -> list[str]:
    """The lines of ``numbers`` for one row, which holds the group, the step and the numbers of the state."""
    lines: list[str] = []
    for name in lowered.numbers:
        if name == "t":
            source = "real64(row + 8)"
        elif name == RESOLUTION:
            source = repr(torch.finfo(types.arithmetic).eps)
        elif name.startswith("s."):
            source = f"real64(row + {16 + 8 * kept.index(name)})"
        else:
            source = f"real64(group + {8 * numbers.index(name)})"
        lines.append(f"{lowered.inputs[name]} = {source}")
    lines += [f"{name} = {x}" for name, x in lowered.host(_NUMBERS)]
    results = lowered.results()
    for k, name in enumerate(results[: len(lowered.scalars)]):
        lines.append(f"save_scalar(scalars, {k}, {name_of(types.arithmetic)}({name}))")
    for k, name in enumerate(results[len(lowered.scalars) :]):
        lines.append(f"save_real64(new + {8 * k}, float64({name}))")
    return lines
