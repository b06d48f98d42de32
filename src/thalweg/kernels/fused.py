"""The fused CPU backend: one launch of a printed kernel steps every parameter that shares a formula."""

import math
import operator
import os
import threading
from collections.abc import Mapping
from typing import Any, cast

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.kernels import build, eager
from thalweg.kernels.table import Bank
from thalweg.kernels.work import Work
from thalweg.printers.numba import Source, Types

_SMALL = 16_384  # elements: below so many, one thread is done before a second has woken

_grad = operator.attrgetter("grad")
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_NO_TOTALS = np.empty(0)
_forked = False
_one_at_a_time = threading.Lock()


def _after_fork() -> None:
    # GNU OpenMP's threads do not survive a fork: its next parallel region would end the process.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Kernel:
    """A compiled kernel on the table of a bank."""

    def __init__(self, bank: Bank, source: Source) -> None:
        self.bank = bank
        self.module = build.load(source.text)
        self.names = tuple((g, n) for g, _, n in (name.partition(".") for name in source.numbers))
        self.kept = [name[2:] for name in source.kept]
        dtype = np.float64 if bank.types.arithmetic == torch.float64 else np.float32
        self.scalars = np.zeros((len(bank.rows), max(source.width, 1)), dtype)
        self.width = source.width
        self._cuts: dict[int, NDArray[np.int64]] = {}

    def run(self, totals: NDArray[np.float64] = _NO_TOTALS) -> list[tuple[float, ...]]:
        """Compute each row's scalars and launch; gives what the host computed beyond them, a row a tuple."""
        further: list[tuple[float, ...]] = []
        for i, row in enumerate(self.bank.rows):
            results = self.module.host(*row.arguments(self.names, row.t + 1))
            self.scalars[i, : self.width] = results[: self.width]
            further.append(results[self.width :])
        table = self.bank.table
        threads = 1 if _forked or self.bank.total < _SMALL else min(torch.get_num_threads(), _most_threads())
        if threads == 1:
            self.module.serial(table, 0, len(table), self.scalars, totals)
            return further
        if numba.get_num_threads() != threads:
            numba.set_num_threads(threads)
        if _needs_lock():
            with _one_at_a_time:
                self.module.parallel(table, self.cuts(threads), self.scalars, totals)
        else:
            self.module.parallel(table, self.cuts(threads), self.scalars, totals)
        return further

    def cuts(self, threads: int) -> NDArray[np.int64]:
        """Where to cut the table so that every thread has about as much to do."""
        if threads not in self._cuts:
            done = np.cumsum(self.bank.table[:, 0] + 32)  # a chunk costs about as much as 32 elements, however small
            ends = done[-1] * np.arange(threads + 1) / threads
            self._cuts[threads] = np.searchsorted(done, ends, side="left").astype(np.int64)
            self._cuts[threads][-1] = len(done)
        return self._cuts[threads]


def _most_threads() -> int:
    return int(numba.config.NUMBA_NUM_THREADS)  # pyright: ignore


def _needs_lock() -> bool:
    """Whether Numba's own thread pool is at work: the only one that two threads may not launch on at once."""
    try:
        return numba.threading_layer() == "workqueue"  # pyright: ignore[reportPrivateImportUsage]
    except ValueError:  # not chosen before the first launch
        return True


class Fused:
    """The backend of printed kernels; parameters that these cannot take are stepped eagerly."""

    def __init__(self) -> None:
        self._works: list[Work] = []
        self._params: list[Tensor] = []
        self._grads: list[Tensor | None] = []
        self._with: list[bool] = []
        self._banks: list[tuple[Bank, list[int]]] = []
        self._kernels: dict[tuple[int, str], Kernel] = {}
        self._rest: list[tuple[Work, Tensor]] = []

    def norm(self, works: list[Work]) -> float:
        """See `thalweg.kernels.work.Backend`."""
        squares = [eager.norm(self._rest) ** 2] if self._rest else []
        for i, (bank, _) in enumerate(self._banks):
            totals = np.empty(len(bank.table))
            self._kernel(i, "norm").run(totals)
            squares.append(float(totals.sum()))  # a sum of chunks, and these do not depend on the threads
        return math.sqrt(sum(squares))

    def step(self, works: list[Work], state: Mapping[Tensor, dict[str, Any]], zero_grad: bool) -> None:
        """See `thalweg.kernels.work.Backend`."""
        for i, (bank, _) in enumerate(self._banks):
            kernel = self._kernel(i, "zero" if zero_grad else "step")
            bank.advance(kernel.kept, kernel.run())
            if zero_grad:
                bank.clear()
        for work, p in self._rest:
            eager.step(work, p, state[p], zero_grad)

    def _kernel(self, i: int, what: str) -> Kernel:
        if (i, what) not in self._kernels:
            bank = self._banks[i][0]
            source = bank.norm_source() if what == "norm" else bank.step_source(zero_grad=what == "zero")
            self._kernels[i, what] = Kernel(bank, source)
        return self._kernels[i, what]

    def prepare(self, works: list[Work], state: Mapping[Tensor, dict[str, Any]]) -> None:
        """Bring banks and tables up to date with groups, parameters and gradients: quickly where little changed."""
        params = [p for work in works for p in work.params] if len(works) > 1 else works[0].params
        grads: list[Tensor | None] = list(map(_grad, params))
        known = (
            len(works) == len(self._works)
            and len(params) == len(self._params)
            and all(map(operator.is_, works, self._works))
            and all(map(operator.is_, params, self._params))
        )
        if not known or not self._aim(grads):
            self._lay(works, list(params), grads, state)

    def _aim(self, grads: list[Tensor | None]) -> bool:
        """Point every bank at its gradients; False where other parameters have one, or a layout changed."""
        if not all(map(operator.is_, grads, self._grads)):
            self._grads = grads
            if list(map(_is_there, grads)) != self._with:
                return False
        return all(bank.aim(_pick(grads, indices)) for bank, indices in self._banks)

    def _lay(
        self,
        works: list[Work],
        params: list[Tensor],
        grads: list[Tensor | None],
        state: Mapping[Tensor, dict[str, Any]],
    ) -> None:
        """Sort the parameters that have a gradient into banks."""
        self._works, self._params, self._grads = list(works), params, grads
        self._with = list(map(_is_there, grads))
        self._kernels, self._rest = {}, []
        banks: dict[Any, tuple[list[Work], list[int]]] = {}
        owners = [work for work in works for _ in work.params]
        seen: set[Tensor] = set()
        for i, (work, p, g) in enumerate(zip(owners, params, grads, strict=True)):
            if g is None or p in seen:
                continue
            seen.add(p)
            if _dense(p) and g.layout == torch.strided and g.device == p.device:
                rule = work.template
                key = (type(rule), tuple(rule.options.items()), work.form, p.dtype)
                in_bank = banks.setdefault(key, ([], []))
                in_bank[0].append(work)
                in_bank[1].append(i)
            else:
                self._rest.append((work, p))
        self._banks = []
        for key, (in_works, indices) in banks.items():
            real = eager.arithmetic(key[-1])
            bank = Bank(in_works, [params[i] for i in indices], Types(key[-1], real, real), state)
            bank.aim(_pick(grads, indices))
            self._banks.append((bank, indices))


def _pick(grads: list[Tensor | None], indices: list[int]) -> list[Tensor]:
    """The gradients of a bank, all of which are there."""
    return cast("list[Tensor]", grads if len(indices) == len(grads) else [grads[i] for i in indices])


def _is_there(g: Tensor | None) -> bool:
    return g is not None


def _dense(p: Tensor) -> bool:
    """Whether a parameter is real numbers in this machine's memory, each element once and none between."""
    if p.device.type != "cpu" or p.layout != torch.strided or p.dtype not in _DTYPES or p.numel() == 0:
        return False
    if p.is_contiguous():
        return True
    reach = sorted((stride, size) for stride, size in zip(p.stride(), p.shape, strict=True) if size > 1)
    expected = 1
    for stride, size in reach:
        if stride != expected:
            return False
        expected *= size
    return True
