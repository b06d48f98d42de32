"""Lowered passes as Python source for Numba: the host's numbers, then a loop over the elements of each chunk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import indent
from typing import Any

import torch

from thalweg.plan import stages
from thalweg.printers.lowering import COMPARISONS, INFIX, Lowered, Syntax, Types, lower
from thalweg.symbols import Symbol
from thalweg.trace import Graph, graph

MOST = 16_384
"""The most elements that a chunk may have: long, since reading from memory takes a while to get up to speed."""

SHARES = 256
"""Bytes from the beginning of a job to where its threads' shares are counted, one cache line each."""

COLUMNS = 3
"""The columns of a table before its arrays: how many elements a chunk has, its row of scalars, its salt."""

_AHEAD = 6
"""How many chunks ahead memory is asked for: the arrays of small parameters lie all over it."""

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
_VALUES = Syntax(
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

from thalweg.kernels.memory import ask, fetch, flush, real64, restore, save_real64, stream, take, word
from thalweg.kernels.records import JOB, offsets
from thalweg.kernels.roots import cbrt

J = offsets(JOB)
{streams}
scalar, save_scalar, _ = stream({scalars}, "{real}", {streams_count})
inf, nan = math.inf, math.nan


@cfunc("void(int64)", nopython=True, error_model="numpy")
def host(job):
    rows, groups, scalars = word(job + J.rows), word(job + J.groups), word(job + J.scalars)
    for r in range(word(job + J.row_count)):
        row = rows + 8 * r * word(job + J.row_words)
        group = groups + 8 * word(row) * word(job + J.group_words)
        new = word(job + J.number_out) + 8 * r * {kept}
{host}


{chunk}


@cfunc("void(int64)", nopython=True, error_model="numpy")
def worker(job):
{mode}
    pieces, cuts, table = word(job + J.pieces), word(job + J.cuts), word(job + J.table)
    scalars, totals, wide = word(job + J.scalars), word(job + J.totals), word(job + J.row_bytes)
    threads = word(job + J.threads)
    me = ask(word(job + J.thread)) % threads
    for k in range(threads):
        share = (me + k) % threads
        last = pieces * (share + 1) // threads
        piece = pieces * share // threads + take(job + {shares} + 64 * share)
        while piece < last:
            for c in range(word(cuts + 8 * piece), word(cuts + 8 * piece + 8)):
                row = table + c * wide
                ahead = row + {ahead} * wide
                if c + {ahead} < word(job + J.chunks):
                    for a in range({first}, {last}):
                        fetch(word(ahead + 8 * a))
                        fetch(word(ahead + 8 * a) + 64)
                chunk(
                    word(row), {columns}, scalars + word(row + 8) * {width}, word(row + 16), totals + 8 * {sums} * c
                    {more}
                )
            piece = pieces * share // threads + take(job + {shares} + 64 * share)
{unmode}
'''


_STEP = """\
@njit(error_model="numpy", fastmath={fastmath})
def chunk(count, {bases}, scalars, salt, totals):
    zero, one = {real}(0), {real}(1)
{lifted}
    for i in range(count):
{body}"""

_ROWS = """\
@njit(error_model="numpy", fastmath={fastmath})
def chunk(count, {bases}, scalars, salt, totals, wide):
    zero, one = {real}(0), {real}(1)
{lifted}
{begin}
{clear}
    for row in range(count // wide):
{first}
        for j in range(wide):
            i = row * wide + j
{body}
{rest}
{end}"""

# In several places at once: a core reads a single stream at two thirds of the speed, or less.
_SUMS = """\
@njit(error_model="numpy", fastmath={fastmath})
def terms({bases}, scalars, i):
    zero, one = {real}(0), {real}(1)
{lifted}
{body}


@njit(error_model="numpy", fastmath={fastmath})
def chunk(count, {bases}, scalars, salt, totals):
{begin}
    part = {part}
{split}
    for i in range({places} * part, count):
{rest}
{end}"""


@dataclass(frozen=True)
class Source:
    """What is printed from a graph.

    Attributes:
        text: a module.  Its ``host`` computes the scalars of each row, its ``worker`` steps a table of chunks; both
            are C functions of the address of a `thalweg.kernels.records.JOB`.
        arrays: the arrays that the kernel works on, by their names in the trace.
        numbers: what ``host`` reads of a group, by its names in the trace and in this order.
        sums: what the kernel sums up per chunk, by its names in the trace; a step's last pass, nothing.
        width: how many scalars a row has.
        kept: the numbers of the state, whose new values ``host`` leaves at ``number_out``.
        traffic: how many bytes the kernel reads and writes per element.
        salted: whether anything is rounded at random.
        folded: what it sums up per column in each chunk, by its names in the trace.
    """

    text: str
    arrays: tuple[str, ...]
    numbers: tuple[str, ...]
    sums: tuple[str, ...]
    width: int
    kept: tuple[str, ...]
    traffic: int
    salted: bool
    folded: tuple[str, ...] = ()


def step(
    traced: Graph, types: Types, zero_grad: bool, rows: bool = False, totalled: Sequence[Graph] = ()
) -> tuple[Source | Graph, ...]:
    """What runs one after the other in a whole step, of a graph from `thalweg.trace.step`.

    Args:
        traced: the step.
        types: its types.
        zero_grad: whether the last pass leaves gradients zero.
        rows: whether passes go over matrices row by row; see `thalweg.plan.stages`.
        totalled: what is to be totalled over all parameters before; see `thalweg.trace.rounds`.

    Returns:
        the source of each pass over the elements, and the graphs of words for arrays that come between them; and after
        what is summed up for totals, the graph of these.
    """
    *before, last = stages(traced, rows)
    assert last.elements is not None, "a step writes parameters"
    lowered = lower(last.elements, types)
    earlier = [stage for part in totalled for stage in stages(part)] + before
    passes = [*(lower(stage.elements, types) for stage in earlier if stage.elements), lowered]
    names = _columns(passes)
    held = tuple(lowered.kept)
    parts: list[Source | Graph] = []
    for stage in earlier:
        if stage.elements and all(node.kind == "number" for node in stage.elements.outputs.values()):
            parts.append(stage.elements)
            continue
        if stage.elements and rows:
            parts.append(_by_rows(lower(stage.elements, types), types, names, False, held))
        elif stage.elements:
            terms, kept = (
                {name: x for name, x in stage.elements.outputs.items() if name.startswith(kind)} for kind in "rw"
            )
            if terms:
                parts.append(sums(graph(terms), types, names, held))
            if kept:
                parts.append(_writing(lower(graph(kept), types), types, names, False, held))
        if stage.arrays:
            parts.append(stage.arrays)
    return (*parts, (_by_rows if rows else _writing)(lowered, types, names, zero_grad, held))


def _columns(passes: Sequence[Lowered]) -> tuple[str, ...]:
    """The arrays of the table: parameters, gradients, state, and what only this step needs."""
    found = dict.fromkeys(["p", "g"])
    for lowered in passes:
        found |= dict.fromkeys([*lowered.read, *lowered.lines, *lowered.changed])
        found |= {f"part{name[1:]}": None for name in lowered.changed if name.startswith("z.")}
    order = ("w", "y", "z", "part")
    place = {name: 1 + order.index(kind) if (kind := name.partition(".")[0]) in order else 0 for name in found}
    return tuple(sorted((name for name in found if not name.startswith("r.")), key=place.__getitem__))


def _by_rows(lowered: Lowered, types: Types, names: tuple[str, ...], zero_grad: bool, held: tuple[str, ...]) -> Source:
    """A pass over matrices row by row: it may read and sum up a number per row or column."""
    outputs = lowered.changed
    written = {name: x for name, x in outputs.items() if name[:2] not in ("r.", "y.", "z.")}
    lines = [_store(names.index(name), _stored(lowered, x), types.of(name), name) for name, x in written.items()]
    if zero_grad:
        lines.append(f"store{names.index('g')}(a{names.index('g')}, i, zero)")
    summed = tuple(name for name in outputs if name.startswith("r."))
    text: dict[str, list[str]] = {"clear": [], "first": [], "rest": [], "begin": [], "end": []}
    for k, name in enumerate(summed):
        text["begin"].append(f"    t{k} = float64(0)")
        lines.append(f"t{k} += {_term(lowered, outputs[name])}")
        text["end"].append(f"    save_real64(totals + {8 * k}, t{k})")
    for name, own in lowered.lines.items():
        k = names.index(name)
        if name.startswith("y."):
            text["first"].append(f"        {own} = load{k}(a{k}, row)")
    columns = [f"{own} = load{names.index(name)}(a{names.index(name)}, j)"
               for name, own in lowered.lines.items() if name.startswith("z.")]  # fmt: skip
    for name, x in outputs.items():
        if name.startswith("y."):
            k = names.index(name)
            text["first"].append(f"        s{k} = float64(0)")
            lines.append(f"s{k} += {_term(lowered, x)}")
            text["rest"].append(f"        store{k}(a{k}, row, {_name(types.arithmetic)}(s{k}))")
        elif name.startswith("z."):
            k = names.index(f"part{name[1:]}")
            text["clear"].append(f"    for j in range(wide):\n        store{k}(a{k}, j, float64(0))")
            lines.append(f"store{k}(a{k}, j, load{k}(a{k}, j) + {_term(lowered, x)})")
    moved = [*lowered.read, *written, *(["g"] if zero_grad else [])]
    adds = '"reassoc"' if summed or text["first"] else ""
    leave = ", ".join(x for x in ("" if types.exact else '"contract"', adds) if x)
    return _print(
        lowered, _ROWS, names, types, lines, moved, f"{{{leave}}}" if leave else "False", summed, held,
        columns, {name: "\n".join(found) for name, found in text.items()},
        tuple(name for name in outputs if name.startswith("z.")),
    )  # fmt: skip


def _writing(lowered: Lowered, types: Types, names: tuple[str, ...], zero_grad: bool, held: tuple[str, ...]) -> Source:
    lines = [
        _store(names.index(name), _stored(lowered, x), types.of(name), name) for name, x in lowered.changed.items()
    ]
    if zero_grad:
        lines.append(f"store{names.index('g')}(a{names.index('g')}, i, zero)")
    moved = [*lowered.read, *lowered.changed, *(["g"] if zero_grad else [])]
    return _print(lowered, _STEP, names, types, lines, moved, "False" if types.exact else '{"contract"}', (), held)


def _stored(lowered: Lowered, x: Symbol) -> str:
    return _VALUES.truth.format(lowered.use(x)) if x.op in COMPARISONS else lowered.use(x)


def rounded_at_random(name: str, dtype: torch.dtype) -> bool:
    """Whether an array is stored rounded up or down at random: what a state gathers in small steps would be lost."""
    return dtype == torch.bfloat16 and name not in ("p", "g") and not name.startswith("w.")


def _store(k: int, x: str, dtype: torch.dtype, name: str) -> str:
    if rounded_at_random(name, dtype):
        return f"dither{k}(a{k}, i, {x}, salt + i)"
    return f"store{k}(a{k}, i, {x})"


def sums(traced: Graph, types: Types, names: tuple[str, ...] = ("p", "g"), held: tuple[str, ...] = ()) -> Source:
    """The source of sums over a tensor.

    Args:
        traced: a graph whose outputs are the terms.
        types: its types.
        names: the arrays of the table.
        held: the numbers of the state, in the order in which a row has them.
    """
    inexact = Types(types.parameter, types.state, torch.float32)
    lowered = lower(traced, inexact)
    terms = [_term(lowered, x) for x in lowered.graph.outputs.values()]
    # Without leave to reassociate, a sum is not vectorised.
    return _print(
        lowered, _SUMS, names, types, [f"return ({', '.join(terms)},)"], lowered.read, '{"contract", "reassoc"}',
        tuple(lowered.graph.outputs), held,
    )  # fmt: skip


def _term(lowered: Lowered, x: Symbol) -> str:
    """A term of a sum in float64: products, as of norms, may be beyond float32."""
    factors = {"mul": x.args, "pow": x.args[:1] * 2}.get(x.op, ())
    product = len(factors) == 2 and all(a.kind == "value" for a in factors)
    if x.op == "pow" and not (x.args[1].op == "const" and x.args[1].args[0] == 2):
        product = False
    return " * ".join(f"float64({_stored(lowered, a)})" for a in (factors if product else (x,)))


def _print(
    lowered: Lowered,
    chunk: str,
    names: tuple[str, ...],
    types: Types,
    lines: list[str],
    moved: Sequence[str],
    fastmath: str,
    summed: tuple[str, ...] = (),
    held: tuple[str, ...] = (),
    columns: Sequence[str] = (),
    around: Mapping[str, str] | None = None,
    folded: tuple[str, ...] = (),
) -> Source:
    inputs = lowered.inputs
    loads = [f"{inputs[name]} = load{names.index(name)}(a{names.index(name)}, i)" for name in lowered.read]
    values = [f"{name} = {x}" for name, x in lowered.values(_VALUES)]
    real = str(types.arithmetic).removeprefix("torch.")
    bases = ", ".join(f"a{i}" for i in range(len(names)))
    lifted = "\n".join(f"    {name} = scalar(scalars, {i})" for i, name in enumerate(lowered.scalars.values()))
    inside = indent("\n".join([*loads, *columns, *values, *lines]), " " * {_STEP: 8, _SUMS: 4, _ROWS: 12}[chunk])
    around = _adding(summed, bases, len(moved)) if around is None else around
    # Subnormals are slow, and flushed to zero; but not where a formula asks which side of zero something is on.
    asked = COMPARISONS | {"sign"}
    flushes = not types.exact and not any(n.op in asked for n in lowered.graph.nodes if n.kind == "value")
    width = max(len(lowered.scalars), 1)
    numbers = tuple(name for name in lowered.numbers if name != "t" and not name.startswith("s."))
    text = _MODULE.format(
        chunk=chunk.format(fastmath=fastmath, bases=bases, real=real, lifted=lifted, body=inside, **around),
        sums=len(summed),
        streams="\n".join(
            f'load{i}, store{i}, dither{i} = stream({i}, "{_name(types.of(name))}", {len(names) + 1}, {name!r})'
            for i, name in enumerate(names)
        ),
        streams_count=len(names) + 1,
        host=indent("\n".join(_host(lowered, numbers, held, width, real)), " " * 8),
        kept=len(lowered.kept),
        real=real,
        scalars=len(names),
        columns=", ".join(f"word(row + {8 * (i + COLUMNS)})" for i in range(len(names))),
        more=f", word(row + {8 * (COLUMNS + len(names))})" if chunk == _ROWS else "",
        first=COLUMNS,
        last=COLUMNS + len(names),
        ahead=_AHEAD,
        shares=SHARES,
        width=width * types.arithmetic.itemsize,
        mode="    mode = flush()" if flushes else "",
        unmode="    restore(mode)" if flushes else "",
    )
    salted = any(rounded_at_random(name, types.of(name)) for name in lowered.changed)
    traffic = sum(types.of(name).itemsize for name in moved)
    return Source(text, names, numbers, summed, len(lowered.scalars), tuple(lowered.kept), traffic, salted, folded)


def _adding(summed: tuple[str, ...], bases: str, read: int) -> dict[str, Any]:
    """The lines that add up so many terms of so many arrays."""
    places = max(4 // max(read, 1), 1)
    begin, split, rest, end = list[str](), ["    for i in range(part):"], list[str](), list[str]()
    # A sum for each place, and no name for a tuple: Numba would not vectorise the loop well, or not at all.
    for k in range(len(summed)):
        own = [f"t{k}_{place}" for place in range(places)]
        begin.append(f"    {' = '.join(own)} = float64(0)")
        split += [f"        {t} += terms({bases}, scalars, i + {j} * part)[{k}]" for j, t in enumerate(own)]
        rest.append(f"        {own[0]} += terms({bases}, scalars, i)[{k}]")
        end.append(f"    save_real64(totals + {8 * k}, {' + '.join(own)})")
    lines = {"begin": begin, "split": split if places > 1 else [], "rest": rest, "end": end}
    part = f"count // {places}" if places > 1 else "0"
    return {"places": places, "part": part} | {name: "\n".join(text) for name, text in lines.items()}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _host(lowered: Lowered, numbers: tuple[str, ...], kept: tuple[str, ...], width: int, real: str) -> list[str]:
    """The lines of ``host`` for one row, which holds the group, the step and the numbers of the state."""
    lines: list[str] = []
    for name in lowered.numbers:
        if name == "t":
            source = "real64(row + 8)"
        elif name.startswith("s."):
            source = f"real64(row + {16 + 8 * kept.index(name)})"
        else:
            source = f"real64(group + {8 * numbers.index(name)})"
        lines.append(f"{lowered.inputs[name]} = {source}")
    lines += [f"{name} = {x}" for name, x in lowered.host(_NUMBERS)]
    results = lowered.results()
    for k, name in enumerate(results[: len(lowered.scalars)]):
        lines.append(f"save_scalar(scalars, {width} * r + {k}, {real}({name}))")
    for k, name in enumerate(results[len(lowered.scalars) :]):
        lines.append(f"save_real64(new + {8 * k}, float64({name}))")
    return lines
