"""An optimizer's parameters as native code sees them: looked at anew in every step, never believed.

Raw addresses are used of memory that was proven in this step to be plain, dense and on this machine, and still to be
what parameters and gradients show.  What cannot be proven natively is examined in Python, one parameter at a time; what
cannot be proven there either is stepped eagerly.
"""

import threading
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.kernels import gaps, layout, sharded
from thalweg.kernels.calls import native
from thalweg.kernels.records import FUSED, LIST, LOOK, PARAM, address
from thalweg.kernels.work import States

_DIMENSIONS = 8  # a parameter of more is stepped eagerly

Range = tuple[int, int]


class Parameters:
    """The parameters of an optimizer's groups, in order.

    Attributes:
        tensors: the parameters.
        group: the number of each one's group.
        records: of `PARAM`, one per parameter.
        job: the address of a `LOOK`.

    Args:
        groups: the groups' lists of parameters.
        found: the layout of torch's tensors in the memory where these are; by default of those on the CPU.
    """

    def __init__(self, groups: Sequence[list[Tensor]], found: NDArray[np.void] | None = None) -> None:
        found = layout.find() if found is None else found
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
        self.copies: dict[int, gaps.Copy] = {}
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
            for i in (*self.sharded, *self.copies):
                self._give(i)
            asked = self.native.look(self.job)
            if asked < 0:
                return None
            if kept is None or all(p.grad is g for p, g in zip(self.tensors, kept, strict=True)):
                return self._examined[:asked].tolist() if asked else []

    def _give(self, i: int) -> None:
        """Have other memory looked at than a parameter's own, where it is that which is stepped."""
        p, g = self.stepped(i), self.gradient(i)
        known = p is not None and g is not None
        self.records["object"][i] = id(p if known else self.tensors[i])
        self.records["given"][i] = cast(Any, g)._cdata if known else 0
        self._gradients += [p, g] if p is not None and g is not None else []

    def stepped(self, i: int) -> Tensor | None:
        """What a kernel steps of a parameter: itself, what this process has of it, or a copy without gaps.

        Returns:
            None for what only operations can step.
        """
        p = self.tensors[i]
        if i in self.copies:
            copied = self.copies[i].of(p)
            if copied is None:
                del self.copies[i]
            return copied
        return sharded.shard(p) if i in self.sharded else p

    def layouts(self, members: list[int]) -> NDArray[np.int64]:
        """The layout of what is stepped of each of these parameters, as they are enrolled, for `layout`."""
        dims = self._dims.reshape(len(self.tensors), -1)[members]
        return np.concatenate([self.records["ndim"][members, None], dims], 1)

    @staticmethod
    def layout(row: NDArray[np.int64]) -> tuple[list[int], list[int]]:
        """Sizes and strides."""
        n, *dims = row.tolist()
        return dims[:n], dims[n : 2 * n]

    def hand_back(self) -> None:
        """Copy what was stepped in a copy, and have autograd notice what was stepped in a part."""
        for i, copied in self.copies.items():
            if self.records["active"][i] == FUSED:
                copied.back(self.tensors[i])
        for i, p in self.sharded.items():
            if self.records["active"][i] == FUSED:
                torch.autograd.graph.increment_version(p)

    def gaps(self) -> tuple[list[int], list[int], list[int], list[int]]:
        """The memory of parameters with gaps: begins, ends, and whose each is; and where their storages begin."""
        extents = [gaps.extent(self.tensors[i]) for i in self.copies]
        bases = [self.tensors[i].untyped_storage().data_ptr() for i in self.copies]
        return [x[0] for x in extents], [x[1] for x in extents], list(self.copies), bases

    def gradient(self, i: int) -> Tensor | None:
        """The gradient of a parameter, or what this process has of it."""
        return sharded.gradient(self.tensors[i]) if i in self.sharded else self.tensors[i].grad

    def examine(self, asked: list[int]) -> list[int]:
        """What each of these parameters is, which could not be told natively.

        Returns:
            0 if only operations can step it; 1 if it is what it was but elsewhere; 2 if its layout is another.
        """
        found = self.enroll(asked)
        for k in [k for k, what in enumerate(found) if not what]:
            i = asked[k]
            p = self.stepped(i)
            if p is None:
                continue
            if _owned_otherwise(p):
                [found[k]] = self.enroll([i], trusted=True)
            if not found[k] and p is self.tensors[i] and (copied := gaps.copy_of(p)):
                self.copies[i] = copied
                self._give(i)
                [found[k]] = self.enroll([i])
        return [0 if i in self.twice else what for i, what in zip(asked, found, strict=True)] if self.twice else found

    def enroll(self, members: list[int], trusted: bool = False) -> list[int]:
        """See `native.enrolled`."""
        found = np.array(members, np.int64)
        self.native.enroll(self.job, address(found), len(found), trusted)
        return found.tolist()

    def aim(self, i: int, written: "Written") -> tuple[Tensor, Tensor] | None:
        """Find out in Python where a gradient is that could not be told natively; None if only operations can.

        Returns:
            the gradient, and the tensor to read: itself, or a copy that is laid out as its parameter.
        """
        given = self.gradient(i)
        if given is None or type(given) not in layout.TYPES or given.layout != torch.strided:
            return None
        p, g = self.stepped(i), given
        if p is None or g.shape != p.shape or layout.keys(g) != layout.plain() or not g.data_ptr():
            return None
        owners = written.owners([*ranges((given,))])
        if owners and min(owners) < i:
            return None  # torch has stepped what is the gradient by the time that it reads it
        if g.dtype != p.dtype or g.stride() != p.stride() or owners:
            # A copy first, as an operation that reads all before it writes.
            g = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype, device=p.device).copy_(g.detach())
        self.records["grad"][i] = g.data_ptr()
        self.records["active"][i] = FUSED
        self._gradients += [given, g]
        return given, g

    def tied(self, rest: Sequence[int], home: Container[int], written: "Written", states: States) -> list[int]:
        """Which parameters of buckets have memory in common with those that are stepped eagerly.

        They must be stepped eagerly, too: one parameter after another, as torch does.

        Args:
            rest: the numbers of the parameters that are stepped eagerly.
            home: those that have a bucket, whose memory `written` has.
            written: the memory that is written of buckets.
            states: the optimizer's state.
        """
        own: list[Range] = []
        read: list[Range] = []
        for i in rest:
            p = self.tensors[i]
            if i not in home:
                held = states.mapping.get(p) if states.exposed else None
                own += ranges((p, *(held.values() if isinstance(held, dict) else ())))
            read += ranges((p.grad,))
        found = written.owners([*own, *read]) - set(rest)
        active = np.flatnonzero(self.records["active"] == FUSED)
        if own and len(active):
            begins = self.records["grad"][active]
            ends = begins + (self.records["numel"] * self.records["itemsize"])[active]
            hit = Written(*_bounds(own), np.zeros(len(own), np.int64)).hit(begins, ends)
            found |= set(active[hit].tolist())
        return [i for i in found if self.records["active"][i] == FUSED]

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

    def hit(self, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of further ranges of addresses overlap any of these."""
        i = np.searchsorted(self._begins, ends)
        return (i > 0) & (self._ends[i - 1] > begins)

    def owners(self, others: Sequence[Range]) -> set[int]:
        """The owners of what any of further ranges overlaps."""
        if not others:
            return set()
        found: set[int] = set()
        for i in np.flatnonzero(self.hit(*_bounds(others))).tolist():
            begin, end = others[i]
            found |= set(self._owners[(self._begins < end) & (self._own_ends > begin)].tolist())
        return found


def _bounds(ranges: Sequence[Range]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The begins and the ends of ranges."""
    at = np.fromiter(chain.from_iterable(ranges), np.int64, 2 * len(ranges))
    return at[::2], at[1::2]


def ranges(tensors: Iterable[Any]) -> Iterator[Range]:
    """The addresses of the elements of those that are plain tensors with memory of their own."""
    for x in tensors:
        if type(x) not in layout.TYPES or x.layout != torch.strided:
            continue
        try:
            begin = x.data_ptr()
        except RuntimeError:  # without memory, as within torch.func
            continue
        if begin:
            yield (begin, begin + x.nbytes) if x.is_contiguous() else gaps.extent(x)


def _repeated(ids: list[int]) -> set[int]:
    count = Counter(ids)
    return {i for i, x in enumerate(ids) if count[x] > 1}


def _owned_otherwise(p: Tensor) -> bool:
    """Whether a parameter's memory is all its own in some other way: of NumPy, say, or shared by processes.

    What is copied when first written is made so here: asking for its address does that.
    """
    return type(p) in layout.TYPES and layout.keys(p) == layout.plain() and p.data_ptr() != 0
