"""The fused CPU backend: one launch of a printed kernel steps every parameter that shares a formula."""

import ctypes
import math
import operator
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from thalweg.kernels import build, eager, launch
from thalweg.kernels.addresses import CHANGED, SAME, Addresses
from thalweg.kernels.table import Bank, sources
from thalweg.kernels.work import Work
from thalweg.printers.numba import Source, Types

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

_total = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64, ctypes.c_int64)(build.native().total.address)
_grad = operator.attrgetter("grad")


class Kernel:
    """A compiled kernel on the table of a bank."""

    def __init__(self, bank: Bank, source: Source) -> None:
        self.bank = bank
        module = build.load(source.text)
        self.host: Any = module.host
        self.sources = sources(source.numbers)
        self.kept = [name[2:] for name in source.kept]
        self.width = source.width
        dtype = np.float64 if bank.types.arithmetic == torch.float64 else np.float32
        self.scalars = np.zeros((len(bank.rows), max(source.width, 1)), dtype)
        totals = np.zeros(len(bank.table))
        self._totals = totals.ctypes.data, len(totals)
        self.job = launch.Job(module.worker.address, bank.table, self.scalars, totals, bank.small)

    def total(self) -> float:
        """The sum of what the chunks left."""
        return _total(*self._totals)

    def run(self) -> list[tuple[float, ...]]:
        """Compute each row's scalars and launch; gives what the host computed beyond them, a row a tuple."""
        further: list[tuple[float, ...]] = []
        for i, row in enumerate(self.bank.rows):
            results = self.host(*row.arguments(self.sources, row.t + 1))
            if self.width:
                self.scalars[i, : self.width] = results[: self.width]
            further.append(results[self.width :])
        self.job.run(self.bank.salt())
        return further


class Fused:
    """The backend of printed kernels; parameters that these cannot take are stepped eagerly."""

    def __init__(self) -> None:
        self._works: list[Work] = []
        self._params: list[Tensor] = []
        self._with: list[bool] = []
        self._banks: list[Bank] = []
        self._addresses: Addresses | None = None
        self._kernels: dict[tuple[int, str], Kernel] = {}
        self._rest: list[tuple[Work, Tensor]] = []

    def norm(self, works: list[Work], strict: bool) -> float:
        """See `thalweg.kernels.work.Backend`."""
        squares = [eager.norm(self._rest, strict) ** 2] if self._rest else []
        for i in range(len(self._banks)):
            kernel = self._kernel(i, "strict norm" if strict else "norm")
            kernel.run()
            squares.append(kernel.total())  # a sum of chunks, and these do not depend on the threads
        return math.sqrt(sum(squares))

    def step(self, works: list[Work], state: Mapping[Tensor, dict[str, Any]], zero_grad: bool) -> None:
        """See `thalweg.kernels.work.Backend`."""
        for i, bank in enumerate(self._banks):
            kernel = self._kernel(i, "zero" if zero_grad else "step")
            bank.advance(kernel.kept, kernel.run())
            bank.release(zero_grad)
        for work, p in self._rest:
            eager.step(work, p, state[p], zero_grad)

    def _kernel(self, i: int, what: str) -> Kernel:
        if (i, what) not in self._kernels:
            bank = self._banks[i]
            source = bank.norm_source(what != "norm") if "norm" in what else bank.step_source(zero_grad=what == "zero")
            self._kernels[i, what] = Kernel(bank, source)
        return self._kernels[i, what]

    def prepare(self, works: list[Work], state: Mapping[Tensor, dict[str, Any]]) -> None:
        """Bring banks and tables up to date with groups, parameters and gradients: quickly where little changed."""
        params = [p for work in works for p in work.params] if len(works) > 1 else works[0].params
        if _are(works, self._works) and _are(params, self._params) and self._look():
            return
        self._lay(works, list(params), state)

    def drop(self, params: list[Tensor]) -> bool:
        """See `thalweg.kernels.work.Backend`."""
        if self._addresses is None or not _are(params, self._params):
            return False
        self._addresses.drop()
        return True

    def _look(self) -> bool:
        """Point the banks at where things are now; False if parameters have to be sorted anew."""
        found = self._addresses
        if found is not None and (changed := found.look()) != CHANGED:
            return changed == SAME or all(bank.move(found.params[bank.indices].tolist()) for bank in self._banks)
        grads = list(map(_grad, self._params))
        return _there(grads) == self._with and all(bank.aim(_pick(grads, bank.indices)) for bank in self._banks)

    @torch.no_grad()
    def _lay(self, works: list[Work], params: list[Tensor], state: Mapping[Tensor, dict[str, Any]]) -> None:
        """Sort the parameters that have a gradient into banks."""
        self._works, self._addresses = [], None  # whatever breaks off in here, the next step begins anew
        self._params = params
        grads: list[Tensor | None] = list(map(_grad, params))
        self._with = _there(grads)
        self._kernels, self._rest = {}, []
        banks: dict[Any, tuple[list[Work], list[int]]] = {}
        owners = [work for work in works for _ in work.params]
        seen: set[Tensor] = set()
        for i, (work, p, g) in enumerate(zip(owners, params, grads, strict=True)):
            if g is None or p in seen:
                continue
            seen.add(p)
            if _dense(p) and not work.differentiable and g.layout == torch.strided and g.device == p.device:
                rule = work.template
                key = (type(rule), tuple(rule.options.items()), work.form, work.state_dtype, p.dtype)
                in_bank = banks.setdefault(key, ([], []))
                in_bank[0].append(work)
                in_bank[1].append(i)
            else:
                self._rest.append((work, p))
        self._banks = []
        for key, (in_works, indices) in banks.items():
            real = eager.arithmetic(key[-1])
            types = Types(key[-1], key[-2] or real, real)
            self._banks.append(Bank(in_works, [params[i] for i in indices], indices, types, state))
            self._banks[-1].aim(_pick(grads, indices))
        self._works = list(works)
        alike = not self._rest and all(bank.alike for bank in self._banks)
        self._addresses = Addresses.of(params, [bank.column for bank in self._banks]) if alike else None


def _are(these: Sequence[object], those: Sequence[object]) -> bool:
    """Whether two lists hold the same objects."""
    return len(these) == len(those) and all(map(operator.is_, these, those))


def _pick(grads: list[Tensor | None], indices: list[int]) -> list[Tensor]:
    """The gradients of a bank, all of which are there."""
    return cast("list[Tensor]", grads if len(indices) == len(grads) else [grads[i] for i in indices])


def _there(grads: list[Tensor | None]) -> list[bool]:
    """Which of them there are."""
    return list(map(operator.is_not, grads, repeat(None)))


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
