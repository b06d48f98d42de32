"""A bank of parameters whose step is one formula on the same types, and its work table.

The table has a row a chunk of so many elements at most: the count, which row of scalars it uses, and the address of
each array there.  It is kept between steps; only addresses that moved are written again.
"""

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from thalweg import trace
from thalweg.kernels import build, launch, states
from thalweg.kernels.addresses import Column
from thalweg.kernels.work import Work
from thalweg.printers import numba as printer
from thalweg.printers.numba import Source, Types
from thalweg.stages import Scalars

_count = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(build.native().count.address)


class Row:
    """Parameters of a group that were stepped equally often: they share a row of scalars."""

    def __init__(self, work: Work, t: int, kept: dict[str, float]) -> None:
        self.work = work
        self.t = t
        self.kept = kept

    def arguments(self, sources: list[tuple[int, Any]], t: int) -> list[float]:
        """The numbers that a printed ``host`` wants, by what `sources` says of each."""
        work = self.work
        held = (work.numbers, work.before, work.after, self.kept, work.scalars, (t,))
        return [cast(Any, held[i])[key] for i, key in sources]


def sources(names: tuple[str, ...]) -> list[tuple[int, Any]]:
    """Where `Row.arguments` finds the numbers of these names in the trace."""
    split = [name.partition(".") for name in names]
    at = {"h": 0, "before": 1, "after": 2, "s": 3, "c": 4, "t": 5}
    keys: dict[str, Callable[[str], Any]] = {"c": Scalars._fields.index, "t": lambda _: 0}
    return [(at[group], keys.get(group, str)(name)) for group, _, name in split]


class Bank:
    """Parameters that share a formula, with the table of their chunks.

    Attributes:
        indices: where each of the parameters is among all of the optimizer's.
        small: whether one thread is quickest: for all kernels alike, since one finds in its cache what the other left.
    """

    def __init__(
        self,
        works: list[Work],
        params: list[Tensor],
        indices: list[int],
        types: Types,
        state: Mapping[Tensor, dict[str, Any]],
    ) -> None:
        self.works = works
        self.params = params
        self.indices = indices
        self.types = types
        self.form = works[0]
        self._layouts = [(p.dtype, p.shape, p.stride()) for p in params]
        self._plain = all(p.is_contiguous() for p in params)
        self._same = all(getattr(p, "grad_dtype", p.dtype) == p.dtype for p in params)
        self._copied: list[tuple[Tensor, Tensor]] = []
        self._numbers = states.adopt(self.params, self.works, state, self.types.state)
        self._steps = self._numbers["step"].data_ptr(), len(params)
        source = self.step_source(False)
        kept_names = [name[2:] for name in source.kept]
        self._number_state(state, kept_names)
        self._lay(state, source.arrays[2:])
        self.small = launch.small(int(self.table[:, 0].sum()), source.traffic)

    def _number_state(self, state: Mapping[Tensor, dict[str, Any]], kept_names: list[str]) -> None:
        """Sort the parameters into rows."""
        self.rows: list[Row] = []
        known: dict[tuple[Any, ...], int] = {}
        row_of: list[int] = []
        for p, work in zip(self.params, self.works, strict=True):
            kept = {name: float(state[p][name]) for name in kept_names}
            key = (id(work), int(state[p]["step"]), *kept.values())
            if key not in known:
                known[key] = len(self.rows)
                self.rows.append(Row(work, key[1], kept))
            row_of.append(known[key])
        self._row_of = torch.tensor(row_of)

    def _lay(self, state: Mapping[Tensor, dict[str, Any]], arrays: tuple[str, ...]) -> None:
        """Cut the parameters into chunks."""
        counts = np.array([p.numel() for p in self.params])
        chunks = -(-counts // printer.MOST)
        self.owner = np.repeat(np.arange(len(counts)), chunks)
        start = (np.arange(len(self.owner)) - np.repeat(np.cumsum(chunks) - chunks, chunks)) * printer.MOST
        self.table = np.zeros((len(self.owner), 4 + len(arrays)), np.int64)
        self.table[:, 0] = np.minimum(counts[self.owner] - start, printer.MOST)
        self.table[:, 1] = self._row_of.numpy()[self.owner]
        for column, name in enumerate(arrays, 4):
            base = np.array([state[p][name.removeprefix("s.")].data_ptr() for p in self.params])
            self.table[:, column] = base[self.owner] + start * self.types.state.itemsize
        self._offset = start * self.types.parameter.itemsize
        self._at: list[int] = []

    @property
    def alike(self) -> bool:
        """Whether every gradient is laid out as its parameter, so that addresses say all there is to know."""
        return self._same and not self._copied

    def aim(self, grads: list[Tensor]) -> bool:
        """Point the table at the memory of parameters and gradients; False if a parameter's layout has changed.

        Args:
            grads: the gradients, in the order of the parameters.
        """
        # Autograd, and the setter of `p.grad`, hold a gradient to its parameter's size, dtype and device: what is left
        # to look at is how it lies in memory.
        plain = self._plain and self._same and all(map(Tensor.is_contiguous, grads))
        self._copied = [] if plain else self._unlike(grads)
        for g, copy in self._copied:
            copy.copy_(g.detach())
        if self._copied:
            copies = {id(g): copy for g, copy in self._copied}
            grads = [copies.get(id(g), g) for g in grads]
        at = list(map(Tensor.data_ptr, self.params))
        if at != self._at and not self.move(at):
            return False
        self.table[:, 3] = np.fromiter(map(Tensor.data_ptr, grads), np.int64, len(grads))[self.owner] + self._offset
        return True

    @property
    def column(self) -> Column:
        """Where the addresses of gradients go."""
        return Column(self.table[:, 3], np.array(self.indices)[self.owner], self._offset)

    def move(self, at: list[int]) -> bool:
        """Point the table at other memory of the parameters: `p.data = …` moves a tensor, the object stays the same."""
        if self._layouts != [(p.dtype, p.shape, p.stride()) for p in self.params]:
            return False
        self._at = at
        self.table[:, 2] = np.array(at)[self.owner] + self._offset
        return True

    def _unlike(self, grads: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The gradients that are not laid out as their parameters, each with memory for a copy that is."""
        return [
            (g, torch.empty_strided(p.shape, p.stride(), dtype=p.dtype))
            for p, g in zip(self.params, grads, strict=True)
            if g.stride() != p.stride() or g.dtype != p.dtype
        ]

    def release(self, zero_grad: bool) -> None:
        """Let go of gradients that the kernel saw as copies, set to zero if they are to be."""
        for g, _ in self._copied if zero_grad else ():
            g.detach().zero_()
        self._copied = []

    def salt(self) -> int:
        """What the chances of this step's rounding depend on: the seed and the step."""
        return self.rows[0].work.seed * 0x9E3779B97F4A7C15 + self.rows[0].t * 0xD1B54A32D192ED03 & 0x3FFFFFFFFFFFFFFF

    def advance(self, names: list[str], further: list[tuple[float, ...]]) -> None:
        """Count a step, and keep the new numbers of the state: `further`, a row a tuple."""
        _count(*self._steps)
        for row, numbers in zip(self.rows, further, strict=True):
            row.t += 1
            row.kept.update(zip(names, numbers, strict=True))
        for column, name in enumerate(names):
            if len(further) == 1:
                self._numbers[name].fill_(further[0][column])
            else:
                values = torch.tensor([numbers[column] for numbers in further], dtype=torch.float64)
                torch.index_select(values, 0, self._row_of, out=self._numbers[name])

    def step_source(self, zero_grad: bool) -> Source:
        """The source of the step."""
        return printer.step(trace.step(self.form.template, self.form.form), self.types, zero_grad)

    def norm_source(self, strict: bool) -> Source:
        """The source of the gradients' sum of squares."""
        return printer.norm(trace.gradient(self.form.form, strict), self.types)
