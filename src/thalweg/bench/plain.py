"""The plain kernel measures memory bandwidth: it moves the same arrays as a rule, with almost no arithmetic.

Each array that the step reads is read once and each one that it writes is written once, in long contiguous pieces:
x ← k·x + g.  Bytes over time is the bandwidth that can be attained with that mix of reads and writes.
"""

from typing import cast

import numpy as np
import torch

from thalweg import trace
from thalweg.kernels import launch
from thalweg.printers import numba as printer
from thalweg.printers.lowering import Types
from thalweg.printers.source import COLUMNS, Source
from thalweg.rule import Rule
from thalweg.stages import Stages

LARGEST = 2**25
"""The largest number of elements in an array; it is far beyond any cache, so bandwidth no longer depends on the size.
"""

_PIECE = 2**20


class Plain:
    """The plain kernel with arrays of its own.

    Attributes:
        arrays: its arrays.
        bytes: the bytes moved by one run.
    """

    def __init__(self, rule: Rule, form: Stages, dtype: torch.dtype, parameters: int) -> None:
        count = min(parameters, LARGEST)
        g, k = trace.value("g"), trace.number("k")
        plain = trace.graph({name: k * trace.value(name) + g for name in written(rule, form)})
        arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
        types = Types(dtype, arithmetic, arithmetic)
        source = cast(Source, printer.step(plain, types, zero_grad=False)[0])
        self.arrays = [torch.ones(count, dtype=types.of(name)) for name in source.arrays]
        self.bytes = count * source.traffic
        piece = min(_PIECE, -(-count // torch.get_num_threads()))
        starts = np.arange(0, count, piece)
        table = np.zeros((len(starts), COLUMNS + len(self.arrays)), np.int64)
        table[:, 0] = np.minimum(count - starts, piece)
        for column, array in enumerate(self.arrays, COLUMNS):
            table[:, column] = array.data_ptr() + starts * array.itemsize
        real = np.float64 if arithmetic == torch.float64 else np.float32
        rows, groups = np.zeros((1, 2)), np.array([[0.5]])
        small = launch.small(count, source.traffic)
        self._job = launch.Job(source, table, launch.cuts(table[:, 0]), rows, groups, real, small=small)

    def run(self) -> None:
        """Move the bytes once."""
        self._job.run(1)


def written(rule: Rule, form: Stages) -> list[str]:
    """The arrays that a step changes, by their names in the trace."""
    outputs = trace.step(rule, form).outputs.items()
    return [n for n, node in outputs if node.kind == "value" and not (node.op == "input" and node.args == (n,))]
