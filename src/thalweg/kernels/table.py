"""A bank of parameters whose step is one formula on the same types, and its work table.

The table has a row a chunk of so many elements at most: the count, which row of scalars it uses, and the address of
each array there.  It is kept between steps; only addresses that moved are written again.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg import trace
from thalweg.kernels import states
from thalweg.kernels.work import Work
from thalweg.printers import numba as printer
from thalweg.printers.numba import Source, Types


class Row:
    """Parameters of a group that were stepped equally often: they share a row of scalars."""

    def __init__(self, work: Work, t: int, kept: dict[str, float]) -> None:
        self.work = work
        self.t = t
        self.kept = kept

    def arguments(self, names: tuple[tuple[str, str], ...], t: int) -> list[float]:
        """The numbers that a printed ``host`` wants, by their names in the trace, split at the dot."""
        work = self.work
        groups = {"h": work.numbers, "before": work.before, "after": work.after, "s": self.kept, "t": {"": t}}
        return [getattr(work.scalars, name) if group == "c" else groups[group][name] for group, name in names]


class Bank:
    """Parameters that share a formula, with the table of their chunks."""

    def __init__(
        self, works: list[Work], params: list[Tensor], types: Types, state: Mapping[Tensor, dict[str, Any]]
    ) -> None:
        self.works = works
        self.params = params
        self.types = types
        self.form = works[0]
        self._layouts = [(p.dtype, p.shape, p.stride()) for p in params]
        self._plain = all(p.is_contiguous() for p in params)
        self._same = all(getattr(p, "grad_dtype", p.dtype) == p.dtype for p in params)
        self._copied: list[tuple[Tensor, Tensor]] = []
        self._numbers = states.adopt(self.params, self.works, state, self.types.state)
        source = self.step_source(False)
        kept_names = [name[2:] for name in source.kept]
        self._number_state(state, kept_names)
        self._lay(state, source.arrays[2:])

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
        self.total = int(counts.sum())

    def aim(self, grads: list[Tensor], fresh: bool) -> bool:
        """Point the table at the memory of parameters and gradients; False if a parameter's layout has changed.

        Args:
            grads: the gradients, in the order of the parameters.
            fresh: whether there are others among them than last time.
        """
        if fresh:
            # Autograd, and the setter of `p.grad`, hold a gradient to its parameter's size, dtype and device: what is
            # left to look at is how it lies in memory.
            plain = self._plain and self._same and all(map(Tensor.is_contiguous, grads))
            self._copied = [] if plain else self._unlike(grads)
        for g, copy in self._copied:
            copy.copy_(g.detach())
        if self._copied:
            copies = {id(g): copy for g, copy in self._copied}
            grads = [copies.get(id(g), g) for g in grads]
        # Addresses are read every time: `p.data = …` moves a tensor without changing the object.
        moved = list(map(Tensor.data_ptr, self.params))
        if moved != self._at:
            if self._layouts != [(p.dtype, p.shape, p.stride()) for p in self.params]:
                return False
            self._at = moved
            self.table[:, 2] = np.array(moved)[self.owner] + self._offset
        self.table[:, 3] = np.fromiter(map(Tensor.data_ptr, grads), np.int64, len(grads))[self.owner] + self._offset
        return True

    def _unlike(self, grads: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The gradients that are not laid out as their parameters, each with memory for a copy that is."""
        return [
            (g, torch.empty_strided(p.shape, p.stride(), dtype=p.dtype))
            for p, g in zip(self.params, grads, strict=True)
            if g.stride() != p.stride() or g.dtype != p.dtype
        ]

    def clear(self) -> None:
        """Set to zero the gradients that the kernel saw as copies."""
        for g, _ in self._copied:
            g.detach().zero_()

    def salt(self) -> int:
        """What the chances of this step's rounding depend on: the seed and the step."""
        return self.rows[0].work.seed * 0x9E3779B97F4A7C15 + self.rows[0].t * 0xD1B54A32D192ED03 & 0x3FFFFFFFFFFFFFFF

    def advance(self, names: list[str], further: list[tuple[float, ...]]) -> None:
        """Count a step, and keep the new numbers of the state: `further`, a row a tuple."""
        self._numbers["step"].add_(1.0)
        for row, numbers in zip(self.rows, further, strict=True):
            row.t += 1
            row.kept.update(zip(names, numbers, strict=True))
        for column, name in enumerate(names):
            values = torch.tensor([numbers[column] for numbers in further], dtype=torch.float64)
            self._numbers[name].copy_(values[self._row_of])

    def step_source(self, zero_grad: bool) -> Source:
        """The source of the step."""
        return printer.step(trace.step(self.form.template, self.form.form), self.types, zero_grad)

    def norm_source(self, strict: bool) -> Source:
        """The source of the gradients' sum of squares."""
        return printer.norm(trace.gradient(self.form.form, strict), self.types)
