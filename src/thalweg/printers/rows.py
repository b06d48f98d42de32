"""Passes over matrices row by row: they may read, and sum up, a number per row and per column."""

import re
from collections.abc import Sequence
from textwrap import indent

from thalweg.printers.lowering import Lowered, Types
from thalweg.printers.passes import summed_up
from thalweg.printers.source import COLUMNS, Loop, Source, module, name_of, term

TOGETHER = 4
"""Rows that are gone over together: sums of columns are loaded and stored once for all of them, and a core reads in
several places at once, which is faster where it only reads."""

_CHUNK = """\
{head}
    wide = word(entry + {wide})
{begin}
{several}
{single}
{end}"""

_ROWS = """\
    for row in range({first}, {last}, {together}):
{before}
        for j in range(wide):
{body}
{after}"""


def by_rows(lowered: Lowered, types: Types, names: tuple[str, ...], zero_grad: bool, held: tuple[str, ...]) -> Source:
    """A pass over matrices row by row.

    Args:
        lowered: what is computed.
        types: the types.
        names: the arrays of the table.
        zero_grad: whether the gradient is set to zero.
        held: the numbers of the state, in the order in which a row of numbers has them.
    """
    loop = Loop.of(lowered, names, types, zero_grad)
    outputs = lowered.changed
    summed = tuple(name for name in outputs if name.startswith("r."))
    folded = tuple(name for name in outputs if name.startswith("z."))
    together = TOGETHER if folded or all(map(summed_up, outputs)) else 1
    begin = [f"    t{k}_{r} = float64(0)" for k in range(len(summed)) for r in range(together)]
    for name in folded:
        k = names.index(f"part{name[1:]}")
        begin.append(f"    for j in range(wide):\n        store{k}(a{k}, j, float64(0))")
    end = [f"    save_real64(totals + {8 * k}, {_plus(f't{k}', together)})" for k in range(len(summed))]
    whole = f"count // wide // {together} * {together}"
    chunk = _CHUNK.format(
        head=loop.head, wide=8 * (COLUMNS + len(names)),
        begin="\n".join(begin), end="\n".join(end),
        several=_rows(lowered, loop, names, types, "0", whole, together),
        single=_rows(lowered, loop, names, types, whole, "count // wide", 1) if together > 1 else "",
    )  # fmt: skip
    return module(lowered, chunk, names, types, zero_grad, summed, held, folded, together)


def _plus(name: str, count: int) -> str:
    return " + ".join(f"{name}_{r}" for r in range(count))


def _rows(
    lowered: Lowered, loop: Loop, names: tuple[str, ...], types: Types, first: str, last: str, together: int
) -> str:
    """The loop over rows of a chunk, so many together."""
    before: list[str] = []
    body: list[str] = []
    after: list[str] = []
    for name, own in lowered.lines.items():
        k = names.index(name)
        if name.startswith("z."):
            body.append(f"{own} = load{k}(a{k}, j)")
    columns = {own for name, own in lowered.lines.items() if name.startswith("z.")}
    for r in range(together):
        lines = [f"i = (row + {r}) * wide + j", *loop.loads, *loop.values]
        for name, own in lowered.lines.items():
            k = names.index(name)
            if name.startswith("y."):
                before.append(_own(f"{own} = load{k}(a{k}, row + {r})", r, columns))
        summed = 0
        for name, x in lowered.changed.items():
            if not summed_up(name):
                continue
            found = term(lowered, x)
            if name.startswith("r."):
                lines.append(f"t{summed}_{r} = add(t{summed}_{r}, {found})")
                summed += 1
            elif name.startswith("y."):
                k = names.index(name)
                before.append(f"s{k}_{r} = float64(0)")
                lines.append(f"s{k}_{r} = add(s{k}_{r}, {found})")
                after.append(f"store{k}(a{k}, row + {r}, {name_of(types.arithmetic)}(s{k}_{r}))")
            else:
                lines.append(f"c{names.index(f'part{name[1:]}')} = {found}")
        body += [_own(line, r, columns) for line in [*lines, *loop.stores]]
    for name in lowered.changed:
        if name.startswith("z."):
            k = names.index(f"part{name[1:]}")
            body.append(f"store{k}(a{k}, j, load{k}(a{k}, j) + ({_plus(f'c{k}', together)}))")
    return _ROWS.format(
        first=first, last=last, together=together, before=_lines(before, 8), body=_lines(body, 12),
        after=_lines(after, 8),
    )  # fmt: skip


def _lines(lines: Sequence[str], depth: int) -> str:
    return indent("\n".join(lines), " " * depth)


def _own(line: str, r: int, shared: set[str]) -> str:
    """A line with the names of one of the rows that are gone over together."""
    line = re.sub(r"\b([xc]\d+|i)\b", lambda found: found[0] if found[0] in shared else f"{found[0]}_{r}", line)
    return re.sub(r"\b((?:load|store|dither)\d+)\b", rf"\1_{r}", line)
