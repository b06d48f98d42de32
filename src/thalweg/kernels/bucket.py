"""Parameters whose step is one formula on the same types: their state, and the work table of their chunks.

The table has a row per chunk: the count of elements, its row of scalars, its salt, and the address of each array there.
What can change from step to step (which parameters have a gradient, where things are, how often each was stepped) is
written into it natively, in every step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from thalweg import trace
from thalweg.fields import array_fields, leaves, number_fields
from thalweg.kernels import eager, launch, layout, scratch, sharded
from thalweg.kernels.key import Key, Parts, is_total, sources
from thalweg.kernels.parameters import Parameters
from thalweg.kernels.records import BUCKET, address
from thalweg.kernels.shown import Entry, Shown, part
from thalweg.kernels.work import States, Work
from thalweg.printers.source import COLUMNS, MOST, Source
from thalweg.rule import Rule

_ALIGNED = 16  # elements: every parameter's state begins on a cache line
_SMALL = 16_384  # elements: more have memory of their own for their state
_GRAIN = 32_768  # elements: up to so many torch stays on the thread that calls it, and cannot hang in a forked child


@dataclass(slots=True, frozen=True)
class _Kept:
    """The state of a member.

    Attributes:
        entry: its dictionary, or None while nobody has asked for it.
        tensors: what is in the dictionary, in the bucket's order.
    """

    entry: dict[str, Any] | None
    tensors: list[Tensor]


_HIDDEN = _Kept(None, [])


class Bucket:
    """Parameters that share a formula.

    Attributes:
        rule: the rule as it is for the members.
        members: the number of each among all parameters.
        used: how many rows the members have in this step; 0 if none of them is stepped by a kernel.
        arrays: the values of the state, by their names in the trace.
        scratch: for each member, what the passes of a step write for each other.
        totals: whether a step needs totals over all parameters.
        each: whether each member has numbers of its own.
        small: whether to run on one thread.  Decided once for all kernels, so that the step finds in its cache what
            the norm has just read.
    """

    def __init__(self, key: Key, rule: Rule, seed: int, parameters: Parameters) -> None:
        self.key = key
        self.parameters = parameters
        self.members: list[int] = []
        self.used = 0
        self.rule = rule
        parts = self.sources(False)
        passes = [part for part in parts if isinstance(part, Source)]
        step = passes[-1]
        self.arrays = tuple(name for name in step.arrays[2:] if name.partition(".")[0] not in ("w", "y", "z", "part"))
        graphs = [part for part in parts if isinstance(part, trace.Graph)]
        self.totals = any(is_total(part) for part in graphs)
        self._has_arrays = not all(is_total(part) for part in graphs)
        self._between = step.arrays[2 + len(self.arrays) :]
        self._owners = scratch.shared(parts)
        self.scratch: list[dict[str, Tensor]] = []
        self._others: list[list[tuple[str, Tensor, int, torch.Size]]] = []  # arrays: where each is, of which shape
        self.kept = [name.removeprefix("s.") for name in step.kept]
        self._names = [name.removeprefix("s.") for name in self.arrays]
        self._traffic = sum(source.traffic for source in passes)
        # What is summed up over a parameter is a number of its own, as is the factor that clips its gradient.
        self.each = len(parts) > 1 or key.form.clip_each
        self._salted = step.salted
        self._seed = seed
        self._kept: list[_Kept] = []
        self._shown: Shown | None = None
        self._hidden = 0
        self._blocks: list[Tensor] = []
        self._at = np.zeros((0, len(self.arrays)), np.int64)  # where each member's arrays begin
        self._steps = np.zeros(0, np.int64)
        self._numbers = np.zeros((0, len(self.kept)), np.int64)
        self._layouts = parameters.layouts([])
        self._record = np.zeros(1, BUCKET)
        self.job = address(self._record)

    def extend(self, members: list[int], works: Sequence[Work], states: States) -> None:
        """Take further parameters, each with the state that is shown of it, or a new one that is not shown."""
        held = states.mapping
        if self._has_arrays:  # words for arrays find the state there
            for i in members:
                p = self.parameters.tensors[i]
                eager.start(works[self.parameters.group[i]], p, states.of(p))
        shown = [i for i in members if held.get(self.parameters.tensors[i])] if held else []
        fresh = [i for i in members if i not in shown] if shown else members
        if fresh:
            self._begin(fresh, [works[self.parameters.group[i]] for i in fresh])
        for i in shown:
            entry = states.mapping[self.parameters.tensors[i]]
            tensors = self._tensors(entry)
            self._kept.append(_Kept(entry, tensors))
            at = [part(x).data_ptr() for x in tensors]
            self._append([at[: len(self.arrays)]], [at[len(self.arrays)]], [at[len(self.arrays) + 1 :]])
            known = {*self._names, "step", *self.kept}
            arrays = array_fields(self.rule.State)
            own = [(name, x) for name, x in entry.items() if name.partition(".")[0] in arrays]
            self._others.append([(name, x, x.data_ptr(), x.shape) for name, x in own if name not in known])
        # Of the time when the values began: until they are shown, the parameter may come to have another layout.
        self._layouts = np.concatenate([self._layouts, self.parameters.layouts(fresh + shown)])
        self.members += fresh + shown
        if self._between:
            params = (cast(Tensor, self.parameters.stepped(i)) for i in fresh + shown)
            self.scratch += [scratch.room(p, self._between, self.key.types, self._owners) for p in params]
        else:
            self.scratch += [{}] * len(members)
        self.parameters.records["home"][members] = 1
        self._lay(states)

    def _append(self, at: Any, steps: Any, numbers: Any) -> None:
        n = len(steps)
        self._at = np.concatenate([self._at, np.array(at, np.int64).reshape(n, len(self.arrays))])
        self._steps = np.concatenate([self._steps, np.array(steps, np.int64)])
        self._numbers = np.concatenate([self._numbers, np.array(numbers, np.int64).reshape(n, len(self.kept))])

    def _tensors(self, entry: dict[str, Any]) -> list[Tensor]:
        """The tensors of a state in the bucket's order: arrays, the count of steps, numbers."""
        return [entry[name] for name in (*self._names, "step", *self.kept)]

    def fits(self, i: int, entry: dict[str, Any]) -> bool:
        """Whether the state that is shown of a parameter can be stepped where it is."""
        p = cast(Tensor, self.parameters.stepped(i))
        for name in self._names:
            x = part(entry.get(name))
            if not _plain(x) or x.dtype != self.key.types.state or x.shape != p.shape or not _strided_as(x, p):
                return False
        scalars = [
            (entry.get("step"), self.key.step_dtype),
            *((entry.get(n), self.key.number_dtype) for n in self.kept),
        ]
        return all(x is not None and _plain(x) and x.numel() == 1 and x.dtype == dtype for x, dtype in scalars)

    def _begin(self, members: list[int], works: list[Work]) -> None:
        """Allocate the state of parameters that have none: as it begins, and not shown."""
        counts = self.parameters.records["numel"][members]
        firsts = {number: self._first(work) for number, work in {id(work): work for work in works}.items()}
        at: list[np.ndarray[Any, Any]] = []
        for name in self._names:
            at.append(self._block(members, counts, self.key.types.state))
            whole = {first[name] for first in firsts.values()}
            if whole != {0.0}:
                for k, (i, work) in enumerate(zip(members, works, strict=True)):
                    p = cast(Tensor, self.parameters.stepped(i))
                    view = self._view(p.shape, p.stride(), int(at[-1][k]))
                    self._fill(view, firsts[id(work)][name], work, p, name)
        scalars = [("step", self.key.step_dtype), *((name, self.key.number_dtype) for name in self.kept)]
        own: list[np.ndarray[Any, Any]] = []
        for name, dtype in scalars:
            values = {number: first.get(name, 0.0) for number, first in firsts.items()}
            if len(firsts) == 1:
                block = torch.full((len(works),), cast(Any, next(iter(values.values()))), dtype=dtype, device="cpu")
            else:
                block = torch.tensor([values[id(work)] for work in works], dtype=dtype, device="cpu")
            self._blocks.append(block)
            own.append(block.data_ptr() + dtype.itemsize * np.arange(len(works)))
        self._kept += len(members) * [_HIDDEN]
        columns = np.stack(at, 1) if at else np.zeros((len(members), 0), np.int64)
        self._append(columns, own[0], np.stack(own[1:], 1) if own[1:] else np.zeros((len(members), 0), np.int64))

    def _block(self, members: list[int], counts: np.ndarray[Any, Any], dtype: torch.dtype) -> np.ndarray[Any, Any]:
        """Zeros for every parameter, small ones side by side; where each begins."""
        large = counts > _SMALL
        padded = np.where(large, 0, -(-counts // _ALIGNED) * _ALIGNED)
        blocks = [torch.empty(int(padded.sum()), dtype=dtype, device="cpu")]
        at = blocks[0].data_ptr() + dtype.itemsize * (np.cumsum(padded) - padded)
        for k in np.flatnonzero(large).tolist():
            p = cast(Tensor, self.parameters.stepped(members[k]))
            blocks.append(torch.empty_strided(p.shape, p.stride(), dtype=dtype, device="cpu"))
            at[k] = blocks[-1].data_ptr()
        for block in blocks:
            flat = block.as_strided((block.numel(),), (1,))
            for piece in torch.split(flat, _GRAIN) if launch.forked() else (flat,):
                piece.zero_()
        self._blocks += blocks
        return at

    def _view(self, shape: Sequence[int], stride: Sequence[int], at: int) -> Tensor:
        """What of a block is a parameter's: the block itself, if it is nobody else's."""
        block = self._holding(at)
        if block.shape == tuple(shape) and block.stride() == tuple(stride):
            return block
        return torch.as_strided(block, shape, stride, (at - block.data_ptr()) // block.itemsize)

    def reveal(self, states: States, only: int | None = None) -> bool:
        """Show the state of all members, or of one, as ordinary tensors; whether any has moved to memory of its own."""
        if not self._hidden:
            return False
        hidden = [m for m, kept in enumerate(self._kept) if kept.entry is None and only in (None, self.members[m])]
        if not hidden:
            return False
        names = [*self._names, "step", *self.kept]
        for m in hidden:
            p = self.parameters.tensors[self.members[m]]
            tensors: list[Tensor] = []
            for column, name in enumerate(names):
                begin = int(self._where(m)[column])
                if name == "step" or name in self.kept:
                    tensors.append(self._view((), (), begin).clone())
                else:
                    shape, stride = self.parameters.layout(self._layouts[m])
                    own = self._view(shape, stride, begin)
                    if own is not self._holding(begin):  # to save a view saves all of its block
                        own = own.clone(memory_format=torch.preserve_format)
                    tensors.append(sharded.like(p, own) if sharded.is_sharded(p) else own)
            entry = states.of(p)
            values = dict(zip(names, tensors, strict=True))
            entry.update({name: values[name] for name in self._order()})
            self._kept[m] = _Kept(entry, tensors)
            at = [part(x).data_ptr() for x in tensors]
            self._at[m], self._steps[m] = at[: len(self.arrays)], at[len(self.arrays)]
            self._numbers[m] = at[len(self.arrays) + 1 :]
        if all(kept.entry is not None for kept in self._kept):
            self._blocks = []
        self._point(states)
        return True

    def _order(self) -> list[str]:
        """The names of a state in the order in which torch has them."""
        fields = [name for name in self.rule.State._fields if name in (*self._names, *self.kept)]
        return ["step", *fields, *(name for name in self._names if name not in fields)]

    def _where(self, m: int) -> list[int]:
        return [*self._at[m].tolist(), int(self._steps[m]), *self._numbers[m].tolist()]

    def _holding(self, at: int) -> Tensor:
        return next(b for b in self._blocks if b.data_ptr() <= at < b.data_ptr() + max(b.numel(), 1) * b.itemsize)

    def holds(self, states: States) -> bool:
        """Whether the state that is shown is still that which is stepped, where it is stepped."""
        if self._shown is not None and not self._shown.holds(states.mapping):
            return False
        return all(
            states.of(self.parameters.tensors[i]).get(name) is noted and noted.data_ptr() == at and noted.shape == shape
            for i, others in zip(self.members, self._others, strict=False)
            for name, noted, at, shape in others
        )

    def renew(self) -> None:
        """Count up the versions of the state that is shown."""
        if self._shown is not None:
            self._shown.renew()

    def _lay(self, states: States) -> None:
        """Cut the members into chunks."""
        records = self.parameters.records
        counts = records["numel"][self.members]
        if self.key.rows:
            wide = np.array([p.shape[1] for p in self.tensors()], np.int64)
            most = np.array([scratch.height(*p.shape) * p.shape[1] for p in self.tensors()], np.int64)
        else:
            wide, most = np.ones(len(counts), np.int64), np.full(len(counts), MOST, np.int64)
        pieces = -(-counts // most)
        self.owner = np.repeat(np.arange(len(counts)), pieces)
        self.first = np.concatenate([[0], np.cumsum(pieces)]).astype(np.int64)
        start = (np.arange(len(self.owner)) - self.first[self.owner]) * most[self.owner]
        self._sizes = np.minimum(counts[self.owner] - start, most[self.owner]).astype(np.int64)
        self._wide = wide[self.owner]
        self._start = start
        self._offsets = (start * self.key.types.parameter.itemsize).astype(np.int64)
        self.table = np.zeros((len(self.owner), COLUMNS + 3 + len(self.arrays) + len(self._between)), np.int64)
        self.cuts = launch.cuts(self._sizes)
        self.indices = np.array(self.members, np.int64)
        words = 3 + len(self.kept)
        self.rows = np.zeros((len(self.members) + 1, words))
        self.new_numbers = np.zeros((len(self.members) + 1, max(len(self.kept), 1)))
        slots = 8
        while slots < 2 * len(self.members):
            slots *= 2
        self._slots = np.zeros((slots, 2), np.int64)
        self.small = launch.small(int(counts.sum()), self._traffic)
        b = self._record[0]
        b["params"], b["members"], b["count"] = address(records), address(self.indices), len(self.members)
        b["first"], b["sizes"], b["offsets"] = address(self.first), address(self._sizes), address(self._offsets)
        b["table"], b["row_bytes"] = address(self.table), self.table.strides[0]
        b["step_bytes"], b["number_bytes"] = self.key.step_dtype.itemsize, self.key.number_dtype.itemsize
        b["number_count"], b["number_out"] = len(self.kept), address(self.new_numbers)
        b["rows"], b["row_words"] = address(self.rows), words
        b["slots"], b["slot_mask"], b["stamp"] = address(self._slots), slots - 1, 0
        b["each"], b["seed"], b["salted"] = int(self.each), self._seed, int(self._salted)
        self._point(states)

    def _point(self, states: States) -> None:
        """Point the table and the record at the state, and note what is shown of it."""
        end = COLUMNS + 2 + len(self.arrays)
        self.table[:, COLUMNS + 2 : end] = self._at[self.owner] + self._start[:, None] * self.key.types.state.itemsize
        for column, name in enumerate(self._between, end):
            at = np.array([room[name].data_ptr() for room in self.scratch], np.int64)[self.owner]
            rows = self._start // self._wide
            chunk = np.arange(len(self.owner)) - self.first[self.owner]
            ahead = {"w": self._start, "y": rows, "z": 0, "part": chunk * self._wide}[name.partition(".")[0]]
            self.table[:, column] = at + ahead * self.key.types.of(name).itemsize
        self.table[:, end + len(self._between)] = self._wide
        self._at, self._steps, self._numbers = map(np.ascontiguousarray, (self._at, self._steps, self._numbers))
        self._record[0]["steps"], self._record[0]["numbers"] = address(self._steps), address(self._numbers)
        shown = [
            Entry(self.members[m], kept.entry, kept.tensors, self._where(m))
            for m, kept in enumerate(self._kept)
            if kept.entry is not None
        ]
        names = [*self._names, "step", *self.kept]
        self._hidden = len(self._kept) - len(shown)
        self._shown = Shown(self.parameters, states.mapping, shown, names, len(self.arrays)) if shown else None

    def tensors(self) -> list[Tensor]:
        """The parameters of the members, as they are stepped."""
        return [cast(Tensor, self.parameters.stepped(i)) for i in self.members]

    def ranges(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The memory that a step writes: begins, ends, and whose it is."""
        records = self.parameters.records[self.members]
        size = self.key.types.state.itemsize
        begins = [records["data"], *self._at.T, self._steps, *self._numbers.T]
        widths = [
            records["numel"] * records["itemsize"],
            *len(self.arrays) * [records["numel"] * size],
            np.full(len(records), self.key.step_dtype.itemsize),
            *len(self.kept) * [np.full(len(records), self.key.number_dtype.itemsize)],
        ]
        ends = [begin + width for begin, width in zip(begins, widths, strict=True)]
        others = [(x, i) for i, own in zip(self.members, self._others, strict=False) for _, x, *_ in own]
        at, last = ([x.data_ptr() + end * x.nbytes for x, _ in others] for end in (0, 1))
        owners = np.concatenate([np.tile(self.indices, len(begins)), np.array([i for _, i in others], np.int64)])
        return (
            np.concatenate([*begins, np.array(at, np.int64)]),
            np.concatenate([*ends, np.array(last, np.int64)]),
            owners,
        )

    def bases(self) -> list[int]:
        """Where memory begins that a step writes: of the parameters, and of the state that is shown."""
        shown = [self._where(m) for m, kept in enumerate(self._kept) if kept.entry is not None]
        return [*self.parameters.records["base"][self.members].tolist(), *(at for row in shown for at in row)]

    def _first(self, work: Work) -> dict[str, float | None]:
        """What each field of a state begins with; None for a tensor that depends on the parameter."""
        rule = self.rule.bind(work.numbers)
        first, other = (leaves(rule.init(cast(Any, x))) for x in (0.0, 1.0))
        if first != other:
            first |= dict.fromkeys(first.keys() - number_fields(rule.State))
        return first | ({"ema": None} if work.form.ema else {})

    def _fill(self, view: Tensor, first: float | None, work: Work, p: Tensor, name: str) -> None:
        if first:
            view.fill_(first)
        elif first is None and name == "ema":
            view.copy_(p.detach())
        elif first is None:
            view.copy_(leaves(self.rule.bind(work.numbers).init(p.detach().to(eager.arithmetic(p.dtype))))[name])

    def sources(self, zero_grad: bool) -> Parts:
        """What runs one after the other in a step."""
        return sources(self.rule, self.key, zero_grad)


def _plain(x: Any) -> bool:
    return type(x) in layout.TYPES and layout.keys(x) == layout.plain() and x.data_ptr() != 0


def _strided_as(x: Tensor, p: Tensor) -> bool:
    return all(a == b or n == 1 for a, b, n in zip(x.stride(), p.stride(), p.shape, strict=True))
