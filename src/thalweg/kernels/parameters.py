"""An optimizer's parameters as native code sees them: looked at anew in every step, never believed.

Raw addresses are used of memory that was proven in this step to be plain, dense and on this machine, and still to be
what parameters and gradients show.  What cannot be proven natively is examined in Python, one parameter at a time; what
cannot be proven there either is stepped eagerly.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.kernels import layout, sharded
from thalweg.kernels.calls import native
from thalweg.kernels.records import FUSED, LIST, LOOK, PARAM, address

_DIMENSIONS = 8  # a parameter of more is stepped eagerly

Range = tuple[int, int]


class Parameters:
    """The parameters of an optimizer's groups, in order.

    Attributes:
        tensors: the parameters.
        group: the number of each one's group.
        records: of `PARAM`, one per parameter.
        job: the address of a `LOOK`.
    """

    def __init__(self, groups: Sequence[list[Tensor]]) -> None:
        found = layout.find()
        assert found is not None
        self.native: Any = native()
        self.lists = list(groups)
        self.tensors = [p for group in groups for p in group]
        self.group = [i for i, group in enumerate(groups) for _ in group]
        n = len(self.tensors)
        self.records = np.zeros(n, PARAM)
        ids = np.fromiter(map(id, self.tensors), np.int64, n)
        self.records["listed"] = self.records["object"] = ids
        self.records["group"] = self.group
        self.records["ordinal"] = np.arange(n)
        self.records["dims"] = 2 * _DIMENSIONS * np.arange(n)
        self.sharded = sharded.among(self.tensors)
        # A parameter that is there twice is stepped twice, one time after the other.
        self.twice = set[int]() if len(set(ids.tolist())) == n else _repeated(ids.tolist())
        self._dims = np.zeros(2 * _DIMENSIONS * n, np.int64)
        self._lists = np.array([(id(group), len(group)) for group in groups], LIST)
        self._examined = np.zeros(n + 1, np.int64)
        self._types = np.fromiter(map(id, layout.TYPES), np.int64)
        self._layout = found
        self._bases = np.zeros(1, np.int64)
        self._look = np.zeros(1, LOOK)
        job = self._look[0]
        job["params"], job["count"] = address(self.records), n
        job["lists"], job["list_count"] = address(self._lists), len(groups)
        job["dims"], job["dimensions"] = address(self._dims), _DIMENSIONS
        job["layout"], job["examined"] = address(found), address(self._examined)
        job["types"], job["type_count"] = address(self._types), len(self._types)
        self.job = address(self._look)
        self._gradients: list[Tensor] = []
        self.note([])

    def are(self, groups: Sequence[list[Tensor]]) -> bool:
        """Whether these are the lists of parameters that there were, as objects; `look` sees what is in them."""
        return len(groups) == len(self.lists) and all(map(lambda a, b: a is b, groups, self.lists))

    def look(self) -> list[int] | None:
        """Look at all parameters; the numbers of those to examine in Python, or None if the lists have changed."""
        alone = threading.active_count() == 1
        while True:
            # Another thread may drop a gradient during the step: it is kept alive, and must be the one looked at.
            kept = None if alone else [p.grad for p in self.tensors]
            self._gradients = [] if kept is None else [g for g in kept if g is not None]
            for i, p in self.sharded.items():
                self._give(i, p)
            asked = self.native.look(self.job)
            if asked < 0:
                return None
            if kept is None or all(p.grad is g for p, g in zip(self.tensors, kept, strict=True)):
                return self._examined[:asked].tolist()

    def _give(self, i: int, p: Tensor) -> None:
        """Have the memory looked at that this process has of a parameter sharded over several."""
        shard, g = sharded.shard(p), sharded.gradient(p)
        known = shard is not None and g is not None
        self.records["object"][i] = id(shard) if known else id(p)
        self.records["given"][i] = cast(Any, g)._cdata if known else 0
        self._gradients += [shard, g] if shard is not None and g is not None else []

    def gradient(self, i: int) -> Tensor | None:
        """The gradient of a parameter, or what this process has of it."""
        return sharded.gradient(self.tensors[i]) if i in self.sharded else self.tensors[i].grad

    def examine(self, i: int) -> int:
        """What a parameter is that could not be told natively.

        Returns:
            0 if only operations can step it; 1 if it is what it was but elsewhere; 2 if its layout is another.
        """
        if i in self.twice:
            return 0
        found = self.native.enroll(self.job, i, 0)
        if found:
            return found
        p = self.tensors[i]
        shard = sharded.shard(p) if i in self.sharded else p
        trusted = shard is not None and _owned_otherwise(shard)
        return self.native.enroll(self.job, i, 1) if trusted else 0

    def again(self, i: int) -> bool:
        """Look at one parameter again, after it was examined: whether its gradient is where native code can tell."""
        while True:
            g = self.gradient(i)
            told = self.native.again(self.job, i)
            if self.gradient(i) is g:
                break
        self._gradients += [] if g is None else [g]
        return told == FUSED

    def aim(self, i: int, written: "Written") -> tuple[Tensor, Tensor] | None:
        """Find out in Python where a gradient is that could not be told natively; None if only operations can.

        Returns:
            the gradient, and the tensor to read: itself, or a copy that is laid out as its parameter.
        """
        given, p = self.gradient(i), self.tensors[i]
        if given is None or type(given) not in layout.TYPES or given.layout != torch.strided:
            return None
        p, g = sharded.shard(p) if i in self.sharded else p, given
        if p is None or g.shape != p.shape or layout.keys(g) != layout.plain() or not g.data_ptr():
            return None
        begin = g.data_ptr()
        alike = g.dtype == p.dtype and g.stride() == p.stride()
        if not alike or written.touches((begin, begin + p.numel() * p.element_size())):
            # A copy first, as an operation that reads all before it writes.
            g = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype).copy_(g.detach())
        self.records["grad"][i] = g.data_ptr()
        self.records["active"][i] = FUSED
        self._gradients += [given, g]
        return given, g

    def release(self) -> None:
        """Let go of gradients that were held for one step."""
        self._gradients = []

    def note(self, bases: list[int]) -> None:
        """Note where memory begins that is written in a step, so that gradients in it are noticed."""
        size = 8
        while size < 4 * (len(bases) + 1):
            size *= 2
        self._bases = np.zeros(size, np.int64)
        self._look[0]["bases"], self._look[0]["base_mask"] = address(self._bases), size - 1
        written = np.array(bases, np.int64)
        self.native.write(self.job, address(written), len(written))

    def drop(self) -> bool:
        """Set all gradients to None; False if the lists of parameters have changed."""
        return not self.sharded and self.native.drop(self.job) == 0


class Written:
    """The memory that a step writes, as ranges of addresses."""

    def __init__(self, begins: NDArray[np.int64], ends: NDArray[np.int64], owners: NDArray[np.int64]) -> None:
        order = np.argsort(begins, kind="stable")
        self._begins, self._ends, self._owners = begins[order], np.maximum.accumulate(ends[order]), owners[order]
        self._own_ends = ends[order]

    def overlapping(self) -> set[int]:
        """The owners of ranges that overlap another one."""
        close = np.flatnonzero(self._begins[1:] < self._ends[:-1])
        found: set[int] = set()
        for i in close.tolist():
            over = self._own_ends[: i + 1] > self._begins[i + 1]
            found |= {int(self._owners[i + 1]), *map(int, self._owners[: i + 1][over])}
        return found

    def touches(self, at: Range) -> bool:
        """Whether a range of addresses overlaps any of these."""
        i = int(np.searchsorted(self._begins, at[1]))
        return i > 0 and bool(self._ends[i - 1] > at[0])


def _repeated(ids: list[int]) -> set[int]:
    count = Counter(ids)
    return {i for i, x in enumerate(ids) if count[x] > 1}


def _owned_otherwise(p: Tensor) -> bool:
    """Whether a parameter's memory is all its own in some other way: of NumPy, say, or shared by processes.

    What is copied when first written is made so here: asking for its address does that.
    """
    return type(p) in layout.TYPES and layout.keys(p) == layout.plain() and p.data_ptr() != 0
