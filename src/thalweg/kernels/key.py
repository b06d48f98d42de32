"""What parameters of a bucket have in common, and what is printed for it: the parts of a step."""

from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from thalweg import plan, trace
from thalweg.printers import numba as printer
from thalweg.printers.lowering import Types
from thalweg.printers.source import MOST, Source
from thalweg.rule import Rule
from thalweg.stages import Stages


class Key(NamedTuple):
    """What parameters of a bucket have in common.

    Attributes:
        formula: the rule's class, its options, and the names of its numbers.
        ndim: the number of axes, if the rule depends on it, else 0.
        rows: whether passes go over matrices row by row.
    """

    formula: tuple[type[Rule], tuple[tuple[str, Any], ...], tuple[str, ...]]
    form: Stages
    types: Types
    step_dtype: torch.dtype
    number_dtype: torch.dtype
    ndim: int
    rows: bool = False


Parts = tuple[Source | trace.Graph, ...]
_SOURCES: dict[Any, Parts] = {}


def sources(rule: Rule, key: Key, zero_grad: bool) -> Parts:
    """What runs one after the other in a step, printed once for all optimizers that have the formula."""
    what = (key.formula, key.ndim, key.rows, key.form, key.types, zero_grad)
    if what not in _SOURCES:
        *totalled, last = trace.rounds(trace.step(rule, key.form, key.ndim))
        _SOURCES[what] = printer.step(last, key.types, zero_grad, key.rows, totalled)
    return _SOURCES[what]


def is_total(part: Source | trace.Graph) -> bool:
    """Whether a part of a step gives what is totalled over all parameters, rather than words for arrays."""
    return isinstance(part, trace.Graph) and all(name.startswith("q.") for name in part.outputs)


_ROWS: dict[Any, bool] = {}


def by_rows(rule: Rule, key: Key, p: Tensor) -> bool:
    """Whether passes go over a parameter row by row: it is a dense matrix, and there are numbers per row or column."""
    what = (key.formula, key.form)
    if not rule.fits or p.ndim != 2 or p.stride() != (p.shape[1], 1) or p.shape[1] > MOST:
        return False
    if what not in _ROWS:
        _ROWS[what] = plan.has_rows(trace.step(rule, key.form, 2))
    return _ROWS[what]


def sums_up(rule: Rule, key: Key) -> bool:
    """Whether a step needs sums over a whole parameter."""
    return len(sources(rule, key, False)) > 1


def arrays(rule: Rule, key: Key) -> tuple[str, ...]:
    """The arrays of the kernel of a step, by their names in the trace."""
    return cast(Source, sources(rule, key, False)[-1]).arrays


@cache
def norm_source(form: Stages, types: Types, strict: bool) -> Source:
    """The source of the gradients' sum of squares."""
    return printer.sums(trace.square(form, strict), types)
