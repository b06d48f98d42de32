"""Passes as Triton source: the numbers of every parameter, then the elements of each chunk.

The host does no arithmetic: what a step needs of a group is in a table on the device, and so are counts of steps, sums
and numbers of the state, from which a kernel computes each parameter's numbers in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from textwrap import indent

import torch

from thalweg.cutting import RESOLUTION
from thalweg.printers.lowering import COMPARISONS, INFIX, Lowered, Syntax, Types, lower
from thalweg.printers.noise import STEP, mix, of_array
from thalweg.printers.passes import Pass, factors, is_own, of_group, passes, rounded_at_random, summed_up
from thalweg.stages import Scalars
from thalweg.symbols import Symbol
from thalweg.trace import Graph

COLUMNS = ("count", "group", "salt", "steps")
"""The columns of a table before its arrays: how many elements are stepped, the row of the group, where the noise
begins, and whether the parameter is stepped at all: one without elements is, too."""

OWN = ("c.clip_each", "n")
"""The first numbers of each parameter's own, for every step; sums follow."""

_FORMATS = {
    **INFIX,
    "pow": "power({0}, {1})",
    **{word: f"tl.{word}({{0}})" for word in ("exp", "log", "sin", "cos", "abs")},
    "tanh": "tanh({0})",
    "cbrt": "cbrt({0})",
    "sign": "sign({0})",
    "where": "tl.where(({0}) != 0, {1}, {2})",  # the condition may be a number that another kernel has left
    # As torch has them: not a number if either is.
    "maximum": "tl.where({0} >= {1}, {0}, tl.where({0} != {0}, {0}, {1}))",
    "minimum": "tl.where({0} <= {1}, {0}, tl.where({0} != {0}, {0}, {1}))",
}
# Triton's own quotient and root of float32 are off by some units in the last place.
_SINGLE = Syntax(
    _FORMATS | {"div": "tl.div_rn({0}, {1})", "sqrt": "tl.sqrt_rn({0})", "single": "{0}"},
    "({0}).to(tl.float32)",
    str,
)
_DOUBLE = Syntax(
    _FORMATS | {"sqrt": "tl.sqrt({0})", "single": "({0}).to(tl.float32).to(tl.float64)"},
    "({0}).to(tl.float64)",
    lambda x: f"tl.full((), {_literal(x)}, tl.float64)",
)

_MODULE = '''"""Printed by thalweg from an update rule's formula."""

import triton
import triton.language as tl

from thalweg.kernels.words import cbrt, nearest, power, sign, tanh


@triton.jit
def numbers(
    table, given, own, live, steps, salts, {held}scalars, rows, columns, wide, fields, width: tl.constexpr,
    BLOCK: tl.constexpr
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < rows
    entry = table + row * wide
    group = tl.load(entry + 1, mask=inside, other=0) * columns
    mine = row * fields
    stepped = inside & (tl.load(entry + 3, mask=inside, other=0) != 0) & (tl.load(live + row * 0) != 0)
    count = tl.load(steps + row, mask=inside, other=0.0).to(tl.float64) + 1
{host}


@triton.jit
def chunk(
    table, chunks, scalars, salts, live, totals, wide, width: tl.constexpr, LONG: tl.constexpr, BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr
):
    index = tl.program_id(0).to(tl.int64)
    row = tl.load(chunks + 2 * index)
    begin = tl.multiple_of(tl.load(chunks + 2 * index + 1), 16)
    entry = table + row * wide
    end = tl.minimum(tl.load(entry), begin + LONG)
    end = tl.maximum(end, begin)
{guard}
{lifted}
{begin}
    whole = begin + (end - begin) // BLOCK * BLOCK
    for first in range(begin, whole, BLOCK):
        i = first + tl.arange(0, BLOCK)
{whole}
    for first in range(whole, end, BLOCK):
        i = first + tl.arange(0, BLOCK)
        inside = i < end
{rest}
{end}
'''


@dataclass(frozen=True)
class Source:
    """What is printed from a pass.

    Attributes:
        text: a module.  Its ``numbers`` computes the scalars of each parameter, its ``chunk`` steps a chunk or sums it
            up.
        arrays: the arrays of the table, by their names in the trace.
        sums: what is summed up per chunk, by its names in the trace.
        width: how many scalars a parameter has.
        held: the numbers of the state, which ``numbers`` is given.
        kept: those whose new values it writes.
        last: whether it writes the parameter, and so ends the step.
        salted: whether anything is rounded at random.
        exact: whether a product and a sum must not be contracted.
        own: each parameter's own numbers, in order, by their names in the trace.
        touched: the arrays that are read or written.
    """

    text: str
    arrays: tuple[str, ...]
    sums: tuple[str, ...]
    width: int
    held: tuple[str, ...]
    kept: tuple[str, ...]
    last: bool
    salted: bool
    exact: bool
    own: tuple[str, ...]
    touched: frozenset[str] = field(default=frozenset())


def columns(numbers: Sequence[str]) -> tuple[str, ...]:
    """What is known of a group, in the order of its row: the rule's numbers, three times, and those of the stages."""
    groups = [f"{group}.{name}" for group in ("h", "before", "after") for name in numbers]
    return (*groups, *(f"c.{name}" for name in Scalars._fields))


def step(
    traced: Graph, types: Types, zero_grad: bool, given: Sequence[str], totalled: Sequence[Graph] = ()
) -> tuple[Source | Graph, ...]:
    """What runs one after the other in a whole step; see `thalweg.printers.passes.passes`.

    Args:
        traced: the step.
        types: its types.
        zero_grad: whether gradients are left zero.
        given: what is known of a group; see `columns`.
        totalled: what is to be totalled over all parameters before.
    """
    parts = passes(traced, types, zero_grad, totalled=totalled)
    found = dict.fromkeys(OWN)
    for part in parts:
        of = part.graph if isinstance(part, Pass) else part
        found |= dict.fromkeys(name for name in (*of.inputs, *of.outputs) if is_own(name))
    return tuple(
        part if isinstance(part, Graph) else _printed(part, types, tuple(given), tuple(found)) for part in parts
    )


def sums(traced: Graph, types: Types, given: Sequence[str]) -> Source:
    """The source of sums over the gradients of a graph whose outputs are the terms."""
    return _printed(Pass(traced, ("p", "g"), ()), types, tuple(given), OWN)


def _printed(part: Pass, types: Types, given: tuple[str, ...], own: tuple[str, ...]) -> Source:
    single = replace(types, arithmetic=torch.float32)
    lowered = lower(part.graph, types if part.writes else single)
    real = f"tl.{_name(types.arithmetic)}"
    syntax = _DOUBLE if types.exact else _SINGLE
    summed = tuple(filter(summed_up, lowered.changed))
    # What is summed up is a value, but where a rule has only numbers to sum up it is none.
    written = [name for name in lowered.changed if not summed_up(name)]
    salted = any(rounded_at_random(name, types.of(name)) for name in written)
    touched = {*lowered.read, *written, *(["g"] if part.zero_grad else [])}
    lifted = _pointers(part.names, types, touched)
    lifted += [f"{name} = tl.load(scalars + row * width + {k})" for k, name in enumerate(lowered.scalars.values())]
    lifted += ["salt = tl.load(salts + row)"] if salted else []
    guard = "end = tl.where(tl.load(live) != 0, end, begin)" if part.writes else ""
    body = [*_values(lowered, part, types, syntax, real, written), *_terms(lowered, summed, syntax)]
    text = _MODULE.format(
        held="".join(f"held{k}, " for k in range(len(part.held))),
        host=_indented(_host(lowered, part, types, given, own), 4),
        guard=f"    {guard}" if guard else "",
        lifted=_indented(lifted, 4),
        begin=_indented([f"t{k} = tl.zeros((BLOCK,), tl.float64)" for k in range(len(summed))], 4),
        whole=_indented([line.replace(_MASKS[0], "").replace(_MASKS[1], "") for line in body], 8),
        rest=_indented([_masked(line) for line in body], 8),
        end=_indented([f"tl.store(totals + index * {len(summed)} + {k}, tl.sum(t{k}))" for k in range(len(summed))], 4),
    )  # fmt: skip
    return Source(
        text, part.names, summed, len(lowered.scalars), part.held, tuple(lowered.kept), part.last, salted, types.exact,
        own, frozenset(touched),
    )  # fmt: skip


_MASKS = ("<inside>", "<inside, zero>")
"""Where a mask belongs in a line, of a store and of a load."""


def _masked(line: str) -> str:
    line = line.replace(_MASKS[0], ", mask=inside").replace(_MASKS[1], ", mask=inside, other=0")
    if line.startswith("t") and " += " in line:
        name, _, term = line.partition(" += ")
        return f"{name} += tl.where(inside, {term}, 0.0)"
    return line


def _indented(lines: Sequence[str], depth: int) -> str:
    return indent("\n".join(lines), " " * depth)


def _pointers(names: Sequence[str], types: Types, touched: set[str]) -> list[str]:
    lines: list[str] = []
    hints: list[str] = []
    for k, name in enumerate(names):
        if name in touched:
            kind = f"tl.pointer_type(tl.{_name(types.of(name))})"
            lines.append(f"a{k} = tl.load(entry + {len(COLUMNS) + k}).to({kind})")
            hints.append(f"    a{k} = tl.multiple_of(a{k}, 16)")
    return [*lines, "if ALIGNED:", *hints] if hints else lines


def _values(lowered: Lowered, part: Pass, types: Types, syntax: Syntax, real: str, written: Sequence[str]) -> list[str]:
    """The lines that load, compute and store the elements ``i``."""
    inputs = lowered.inputs
    place = part.names.index
    lines = [f"{inputs[name]} = tl.load(a{place(name)} + i<inside, zero>).to({real})" for name in lowered.read]
    lines += [f"{name} = {x}" for name, x in lowered.values(syntax)]
    for name in written:
        x, dtype = _stored(lowered, lowered.changed[name], syntax), types.of(name)
        if rounded_at_random(name, dtype):
            lines += _dithered(x, place(name), name)
            x = f"r{place(name)}"
        elif dtype == torch.bfloat16:
            x = f"nearest({x})"
        # A number may be all that is stored of a value.
        lines.append(f"tl.store(a{place(name)} + i, ({x}).to(tl.{_name(dtype)})<inside>)")
    if part.zero_grad:
        zeros = f"tl.zeros((BLOCK,), tl.{_name(types.parameter)})"
        lines.append(f"tl.store(a{place('g')} + i, {zeros}<inside>)")
    return lines


def _terms(lowered: Lowered, summed: Sequence[str], syntax: Syntax) -> list[str]:
    lines: list[str] = []
    for k, name in enumerate(summed):
        found = (f"({_stored(lowered, x, syntax)}).to(tl.float64)" for x in factors(lowered.changed[name]))
        lines.append(f"t{k} += {' * '.join(found)}")
    return lines


def _stored(lowered: Lowered, x: Symbol, syntax: Syntax) -> str:
    """What is stored of a value, which may be a truth value."""
    return syntax.truth.format(lowered.use(x)) if x.op in COMPARISONS else lowered.use(x)


def _dithered(x: str, k: int, name: str) -> list[str]:
    """The lines that round float32 at random to what bfloat16 has, by the noise of `thalweg.printers.noise`."""
    lines = [f"m{k} = (i + (salt + {of_array(name)})).to(tl.uint32)"]

    def line(text: str) -> str:
        lines.append(f"m{k}_{len(lines)} = {text}")
        return f"m{k}_{len(lines) - 1}"

    mixed = mix(
        f"m{k}",
        xor=lambda a, b: line(f"{a} ^ {b}"),
        shift=lambda a, by: line(f"{a} >> {by}"),
        times=lambda a, by: line(f"{a} * tl.full((), {by}, tl.uint32)"),
    )
    lines.append(f"f{k} = ({x}).to(tl.float32)")
    lines.append(f"b{k} = f{k}.to(tl.uint32, bitcast=True)")
    lines.append(f"n{k} = (b{k} & 0x7FFFFFFF) >= 0x7F800000")
    lines.append(f"u{k} = (b{k} + ({mixed} & 0xFFFF)) & tl.full((), 0xFFFF0000, tl.uint32)")
    lines.append(f"r{k} = tl.where(n{k}, f{k}, u{k}.to(tl.float32, bitcast=True))")
    return lines


def _host(lowered: Lowered, part: Pass, types: Types, given: Sequence[str], own: Sequence[str]) -> list[str]:
    """The lines of ``numbers`` for a block of parameters."""
    lines: list[str] = []
    for name in lowered.numbers:
        if name == "t":
            source = "count"
        elif name == RESOLUTION:
            source = f"tl.full((), {torch.finfo(types.arithmetic).eps!r}, tl.float64)"
        elif name.startswith("s."):
            source = f"tl.load(held{part.held.index(name)} + row, mask=inside, other=0.0).to(tl.float64)"
        elif of_group(name):
            source = f"tl.load(given + group + {given.index(name)}, mask=inside, other=0.0)"
        else:
            source = f"tl.load(own + mine + {own.index(name)}, mask=inside, other=0.0)"
        lines.append(f"{lowered.inputs[name]} = {source}")
    lines += [f"{name} = {x}" for name, x in lowered.host(_DOUBLE)]
    kind = f"tl.{_name(types.arithmetic)}"
    for k, node in enumerate(lowered.scalars):
        lines.append(f"tl.store(scalars + row * width + {k}, ({_number(lowered, node)}).to({kind}), mask=inside)")
    for name, node in lowered.kept.items():
        k = part.held.index(name)
        lines.append(f"tl.store(held{k} + row, ({_number(lowered, node)}).to(held{k}.dtype.element_ty), mask=stepped)")
    if part.last:
        lines.append("tl.store(steps + row, count.to(steps.dtype.element_ty), mask=stepped)")
        lines.append("base = tl.load(entry + 2, mask=inside, other=0)")
        lines.append(f"tl.store(salts + row, (base + count.to(tl.int64) * {STEP}) & 0xFFFFFFFF, mask=inside)")
    return lines


def _number(lowered: Lowered, node: Symbol) -> str:
    name = lowered.names[node]
    return _DOUBLE.truth.format(name) if node.op in COMPARISONS else name


def _literal(x: float) -> str:
    return 'float("nan")' if x != x else f'float("{x}")' if x in (float("inf"), -float("inf")) else repr(x)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
