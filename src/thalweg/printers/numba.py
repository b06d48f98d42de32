"""A traced step as Python source for Numba: the host's numbers, then a loop over the elements of each chunk."""

from dataclasses import dataclass
from textwrap import indent

import torch

from thalweg.maths import WORDS, Symbol
from thalweg.trace import Graph, graph, operands

MOST = 16_384
"""The most elements that a chunk may have: long, since reading from memory takes a while to get up to speed."""

SHARES = 128
"""Bytes from the beginning of a job to where its threads' shares are counted, a line of cache each."""

_AHEAD = 6
"""How many chunks ahead memory is asked for: the arrays of small parameters lie all over it."""

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**"}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_CALLS = {word: f"math.{word}({{}})" for word in ("sqrt", "exp", "log", "sin", "cos", "tanh")} | {
    "abs": "abs({})",
    "neg": "-{}",
    "single": "(one * float32({0}))",
    "sign": "(one if {0} > zero else (-one if {0} < zero else zero))",
    # As torch has them: not a number if either is.
    "maximum": "({0} if {0} >= {1} or {0} != {0} else {1})",
    "minimum": "({0} if {0} <= {1} or {0} != {0} else {1})",
    "where": "({1} if {0} else {2})",
}

_MODULE = '''"""Printed by thalweg from an update rule's formula."""

import math

from numba import cfunc, float32, float64, njit

from thalweg import maths
from thalweg.kernels.memory import ask, fetch, flush, restore, stream, take, word

{streams}
scalar, _, _ = stream({scalars}, "{real}")
_, put, _ = stream({totals}, "float64")


def host({numbers}):
{host}
    return ({results})


{chunk}


@cfunc("void(int64)", nopython=True, error_model="numpy")
def worker(job):
    mode = flush()
    pieces, cuts, table, scalars, totals = word(job, 1), word(job, 2), word(job, 3), word(job, 4), word(job, 5)
    threads = word(job, 0)
    me = ask(word(job, 9)) % threads
    for k in range(threads):
        share = (me + k) % threads
        last = pieces * (share + 1) // threads
        piece = pieces * share // threads + take(job + {shares} + 64 * share)
        while piece < last:
            for c in range(word(cuts, piece), word(cuts, piece + 1)):
                row = table + c * word(job, 6)
                ahead = row + {ahead} * word(job, 6)
                if c + {ahead} < word(job, 8):
                    for a in range(2, {arrays}):
                        fetch(word(ahead, a))
                        fetch(word(ahead, a) + 64)
                total = chunk(word(row, 0), {columns}, scalars + word(row, 1) * {width}, word(job, 7) + c * {most})
                if totals:
                    put(totals, c, total)
            piece = pieces * share // threads + take(job + {shares} + 64 * share)
    restore(mode)
'''


_STEP = """\
@njit(error_model="numpy", fastmath={fastmath})
def chunk(count, {bases}, scalars, salt):
    zero, one = {real}(0), {real}(1)
{lifted}
    for i in range(count):
{body}
    return 0.0"""

# In four places at once: a core reads a single stream at two thirds of the speed, or less.
_NORM = """\
@njit(error_model="numpy", fastmath={fastmath})
def square({bases}, scalars, i):
    zero, one = {real}(0), {real}(1)
{lifted}
{body}
    return x * x


@njit(error_model="numpy", fastmath={fastmath})
def chunk(count, {bases}, scalars, salt):
    total = float64(0)
    part = count // 4
    for i in range(part):
        total += square({bases}, scalars, i) + square({bases}, scalars, i + part)
        total += square({bases}, scalars, i + 2 * part) + square({bases}, scalars, i + 3 * part)
    for i in range(4 * part, count):
        total += square({bases}, scalars, i)
    return total"""


@dataclass(frozen=True)
class Types:
    """The dtypes of a kernel: of parameters and gradients, of the state, and of the arithmetic."""

    parameter: torch.dtype
    state: torch.dtype
    arithmetic: torch.dtype

    def of(self, array: str) -> torch.dtype:
        """The dtype of an array, by its name in the trace."""
        return self.parameter if array in ("p", "g") else self.state


@dataclass(frozen=True)
class Source:
    """What is printed from a graph.

    Attributes:
        text: a module.  Its ``host`` computes a row of scalars; its ``worker`` does a `thalweg.kernels.launch.Job`, on
            a table whose columns are a chunk's count, its row of scalars and the addresses of the `arrays`.
        arrays: the arrays that the kernel works on, by their names in the trace.
        numbers: the arguments of ``host``, by their names in the trace.
        width: how many of the host's results are scalars of the kernel.
        kept: the numbers of the state, whose new values are the host's further results.
        traffic: how many bytes the kernel reads and writes an element.
    """

    text: str
    arrays: tuple[str, ...]
    numbers: tuple[str, ...]
    width: int
    kept: tuple[str, ...]
    traffic: int


def step(traced: Graph, types: Types, zero_grad: bool) -> Source:
    """The source of a whole step, of a graph from `thalweg.trace.step`; with `zero_grad` it leaves gradients zero."""
    # In float64, whose users want the formula's own numbers, nothing is reordered or contracted.
    exact = types.arithmetic == torch.float64
    lowered = graph(traced.outputs, reduce=not exact)
    changed = {
        n: x for n, x in lowered.outputs.items() if x.kind == "value" and not (x.op == "input" and x.args == (n,))
    }
    body = _Body(lowered)
    arrays = tuple(dict.fromkeys(["p", "g", *body.read, *changed]))
    lines = [_store(arrays.index(name), body.use(x), types.of(name), name) for name, x in changed.items()]
    if zero_grad:
        lines.append(f"store{arrays.index('g')}(a{arrays.index('g')}, i, zero)")
    kept = tuple(name for name, x in lowered.outputs.items() if x.kind == "number")
    moved = [*body.read, *changed, *(["g"] if zero_grad else [])]
    return _print(body, _STEP, arrays, types, lines, moved, kept, "False" if exact else '{"contract"}')


def _store(k: int, x: str, dtype: torch.dtype, name: str) -> str:
    if dtype == torch.bfloat16 and name != "p":  # what a state gathers in small steps would be lost in rounding
        return f"dither{k}(a{k}, i, {x}, salt + i)"
    return f"store{k}(a{k}, i, {x})"


def norm(traced: Graph, types: Types) -> Source:
    """The source of a sum of squares, of a graph whose output ``g`` is the gradient as the norm sees it."""
    lowered = graph(traced.outputs, reduce=True)
    body = _Body(lowered)
    lines = [f"x = float64({body.use(lowered.outputs['g'])})"]
    # Without leave to reassociate, a sum is not vectorised.
    return _print(body, _NORM, ("p", "g"), types, lines, body.read, (), '{"contract", "reassoc"}')


class _Body:
    """The lines that compute a graph's values, and the numbers that they need from the host."""

    def __init__(self, lowered: Graph) -> None:
        self.lowered = lowered
        self.names = {node: f"x{i}" for i, node in enumerate(lowered.nodes)}
        self.scalars: dict[Symbol, str] = {}
        values = [n for n in lowered.nodes if n.kind == "value"]
        self.read = [n.args[0] for n in values if n.op == "input"]
        self.lines = [f"{self.names[n]} = {self._expression(n)}" for n in values if n.op != "input"]

    def use(self, node: Symbol) -> str:
        """A node as an operand: a value by its name, a number as a scalar from the host."""
        return self.names[node] if node.kind == "value" else self.scalars.setdefault(node, f"k{len(self.scalars)}")

    def _expression(self, node: Symbol) -> str:
        parts = [self._operand(node, i) for i in range(len(operands(node)))]
        if node.op == "pow" and node.args[1].op == "const" and node.args[1].args[0] == 2:
            return f"{parts[0]} * {parts[0]}"
        infix = (_INFIX | _COMPARE).get(node.op)
        return f"{parts[0]} {infix} {parts[1]}" if infix else _CALLS[node.op].format(*parts)

    def _operand(self, node: Symbol, i: int) -> str:
        text = self.use(node.args[i])
        condition = node.args[i].op in _COMPARE and node.args[i].kind == "value"
        return f"(one if {text} else zero)" if condition and not (node.op == "where" and i == 0) else text

    def host(self, kept: tuple[str, ...]) -> tuple[list[str], list[str], list[str]]:
        """The host's arguments, its lines and its results."""
        nodes = [n for n in self.lowered.nodes if n.kind == "number"]
        arguments = [n.args[0] for n in nodes if n.op == "input"]
        lines = [f"{self.names[n]} = {self._on_host(n)}" for n in nodes if n.op != "input"]
        results = [self.names[n] for n in (*self.scalars, *(self.lowered.outputs[k] for k in kept))]
        return arguments, lines, results

    def _on_host(self, node: Symbol) -> str:
        if node.op == "const":
            return f"float({str(node.args[0])!r})"
        parts = [self.names[a] for a in node.args]
        infix = (_INFIX | _COMPARE).get(node.op)
        if infix:
            return f"{parts[0]} {infix} {parts[1]}"
        return f"maths.{node.op}({', '.join(parts)})" if node.op in WORDS else _CALLS[node.op].format(*parts)


def _print(
    body: _Body,
    chunk: str,
    arrays: tuple[str, ...],
    types: Types,
    lines: list[str],
    moved: list[str],
    kept: tuple[str, ...],
    fastmath: str,
) -> Source:
    arguments, host, results = body.host(kept)
    inputs = {n.args[0]: body.names[n] for n in body.lowered.nodes if n.op == "input"}
    loads = [f"{inputs[name]} = load{arrays.index(name)}(a{arrays.index(name)}, i)" for name in body.read]
    real = str(types.arithmetic).removeprefix("torch.")
    bases = ", ".join(f"a{i}" for i in range(len(arrays)))
    lifted = "\n".join(f"    {name} = scalar(scalars, {i})" for i, name in enumerate(body.scalars.values()))
    inside = indent("\n".join([*loads, *body.lines, *lines]), " " * (8 if chunk == _STEP else 4))
    text = _MODULE.format(
        chunk=chunk.format(fastmath=fastmath, bases=bases, real=real, lifted=lifted, body=inside),
        streams="\n".join(
            f'load{i}, store{i}, dither{i} = stream({i}, "{str(types.of(name)).removeprefix("torch.")}")'
            for i, name in enumerate(arrays)
        ),
        numbers=", ".join(inputs[name] for name in arguments),
        host="\n".join(f"    {line}" for line in host) or "    pass",
        results="".join(f"{name}, " for name in results),
        real=real,
        columns=", ".join(f"word(row, {i + 2})" for i in range(len(arrays))),
        scalars=len(arrays),
        totals=len(arrays) + 1,
        most=MOST,
        ahead=_AHEAD,
        shares=SHARES,
        arrays=len(arrays) + 2,
        width=max(len(body.scalars), 1) * types.arithmetic.itemsize,
    )
    traffic = sum(types.of(name).itemsize for name in moved)
    return Source(text, arrays, tuple(arguments), len(body.scalars), kept, traffic)
