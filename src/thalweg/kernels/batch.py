"""Parameters on one device whose step is one formula on the same types: their state, and the table of where it is.

The table has a row per parameter.  It is on the device, and written anew where an address, or which parameters have a
gradient, has changed.  Counts of steps and numbers of the state are on the device, too, in blocks of which each state
shows its own.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import increment_version

from thalweg import trace
from thalweg.kernels import eager, scratch, sharded, triton
from thalweg.kernels.evaluation import count
from thalweg.kernels.parameters import Parameters
from thalweg.kernels.shown import Entry, Shown
from thalweg.kernels.work import StateMemoryError, States, Work
from thalweg.printers import triton as printer
from thalweg.printers.lowering import Types
from thalweg.printers.noise import LOW, SEED, TENSOR
from thalweg.printers.triton import COLUMNS, Source
from thalweg.rule import Rule
from thalweg.stages import Stages

_PLACE = len(COLUMNS)
Parts = tuple[Source | trace.Graph, ...]
_SOURCES: dict[Any, Parts] = {}


class Key(NamedTuple):
    """What parameters of a batch have in common.

    Attributes:
        formula: the rule's class, its options, and the names of its numbers.
        form: the stages around it.
        types: of parameters, state and arithmetic.
        step_dtype: of counts of steps.
        number_dtype: of the numbers of the state.
        ndim: the number of axes, if the rule depends on it, else 0.
    """

    formula: tuple[type[Rule], tuple[tuple[str, Any], ...], tuple[str, ...]]
    form: Stages
    types: Types
    step_dtype: torch.dtype
    number_dtype: torch.dtype
    ndim: int


class Member(NamedTuple):
    """A parameter.

    Attributes:
        work: its group.
        ordinal: its number among all parameters of the optimizer.
        p: the parameter.
        local: the memory that is stepped: itself, or the part that this process has.
    """

    work: Work
    ordinal: int
    p: Tensor
    local: Tensor


def sources(rule: Rule, key: Key, zero_grad: bool) -> Parts:
    """What runs one after the other in a step, printed once for all optimizers that have the formula."""
    what = (*key, zero_grad)
    if what not in _SOURCES:
        *totalled, last = trace.rounds(trace.step(rule, key.form, key.ndim))
        given = printer.columns(key.formula[2])
        _SOURCES[what] = printer.step(last, key.types, zero_grad, given, totalled)
    return _SOURCES[what]


def norm(key: Key, what: str) -> Source:
    """The source of the gradients' sums of squares: ``"norm"``, ``"strict norm"`` or ``"own norm"``."""
    form = key.form.unscaled if what == "own norm" else key.form
    if (form, key.types, what) not in _SOURCES:
        of = trace.square(form, what == "strict norm")
        _SOURCES[form, key.types, what] = (printer.sums(of, key.types, printer.columns(key.formula[2])),)
    found = _SOURCES[form, key.types, what][0]
    assert isinstance(found, Source)
    return found


class Batch:
    """Parameters that share a formula.

    Attributes:
        key: what they share.
        rule: the rule as it is for them.
        members: the parameters.
        started: which have a state.
        active: which are stepped this time.
        untold: those of them of which native code cannot tell.
        steps: their counts of steps.
        held: the numbers of their states, by name.
        own: each parameter's own numbers, by `own_names`.
        given: a row of numbers for each group.
        groups: the groups, in the order of these rows.
        scratch: for each, what the passes of a step write for each other.
        live: on the device, whether the step is taken.
    """

    def __init__(self, key: Key, rule: Rule, members: Sequence[Member], live: Tensor, states: States) -> None:
        self.key, self.rule, self.members, self.live = key, rule, list(members), live
        device, n = live.device, len(members)
        parts = sources(rule, key, False)
        last = parts[-1]
        assert isinstance(last, Source)
        self.own_names, self.arrays = last.own, last.arrays
        self._state = [name for name in self.arrays[2:] if name.partition(".")[0] in ("s", "ema")]
        between = [name for name in self.arrays if name.startswith("w.")]
        self._owners = scratch.shared(parts)
        self.salts = torch.zeros(n, dtype=torch.int64, device=device)
        self.scratch = [self._room(m.local, between) if between else {} for m in members]
        self.kept = [name.removeprefix("s.") for name in last.kept]
        self.steps = torch.zeros(n, dtype=key.step_dtype, device=device)
        self.held = {name: torch.zeros(n, dtype=key.number_dtype, device=device) for name in self.kept}
        self.counts = np.zeros(n)
        self.entries: list[dict[str, Any]] = [{} for _ in members]
        self.tensors: list[list[Tensor]] = [[] for _ in members]
        self.started = np.zeros(n, bool)
        self.active = np.zeros(n, bool)
        self.untold: list[int] = []
        self._native: Parameters | None = None
        self._which: list[int] = []
        self._shown: Shown | None = None
        self.groups = list({id(m.work): m.work for m in members}.values())
        rows = {id(work): k for k, work in enumerate(self.groups)}
        self.columns = printer.columns(key.formula[2])
        self._known: list[list[float]] = []
        self.given = torch.zeros(len(self.groups), len(self.columns), dtype=torch.float64, device=device)
        self.rows = np.array([rows[id(m.work)] for m in members], np.int64)
        self.group = torch.from_numpy(self.rows).to(device)
        own = np.zeros((n, len(self.own_names)))
        own[:, 0] = 1.0
        for k, name in enumerate(self.own_names):
            if name.partition(".")[0] == "n":
                own[:, k] = [count(m.local, name) for m in members]
        self.own = torch.from_numpy(own).to(device)
        self._lay(device)
        for i, m in enumerate(members):
            if states.mapping.get(m.p):
                self._take(i, states)

    def _room(self, p: Tensor, between: Sequence[str]) -> dict[str, Tensor]:
        """Memory for what the passes of a step write for each other, which is as much as a parameter has."""
        try:
            return scratch.room(p, between, self.key.types, self._owners)
        except torch.OutOfMemoryError as error:
            raise StateMemoryError(p) from error

    def _lay(self, device: torch.device) -> None:
        """Lay out the table and the chunks."""
        self.sizes = np.array([m.local.numel() for m in self.members], np.int64)
        n = -(-self.sizes // triton.LONG)
        firsts = np.concatenate([[0], np.cumsum(n)])
        row = np.repeat(np.arange(len(n)), n)
        begin = (np.arange(len(row)) - firsts[row]) * triton.LONG
        self.pieces = len(row)
        self.chunks = torch.from_numpy(np.stack([row, begin], 1).astype(np.int64)).to(device)
        self.firsts = torch.from_numpy(firsts.astype(np.int64)).to(device)
        self._host = np.zeros((len(self.members), self.wide), np.int64)
        self._host[:, 1] = self.rows
        for i, m in enumerate(self.members):
            self._host[i, 2] = (m.work.seed * SEED + m.ordinal * TENSOR) & LOW
            self._host[i, _PLACE] = m.local.data_ptr()
            for name, x in self.scratch[i].items():
                if name in self.arrays:
                    self._host[i, _PLACE + self.arrays.index(name)] = x.data_ptr()
        self.table = torch.from_numpy(self._host.copy()).to(device)
        self._stale = False
        self.aligned = False

    @property
    def wide(self) -> int:
        """How many columns the table has."""
        return _PLACE + len(self.arrays)

    def column(self, name: str) -> int:
        """Where a group's row has a number."""
        return self.columns.index(name)

    # -------------------------------------------------------------------------------------------------- the state

    def _names(self) -> list[str]:
        return [name.removeprefix("s.") for name in self._state]

    def start(self, which: Sequence[int], states: States) -> None:
        """Begin the state of members that are stepped for the first time."""
        numbers: dict[str, list[float]] = {name: [] for name in self.kept}
        for i in which:
            member = self.members[i]
            entry: dict[str, Any] = {}
            eager.start(member.work, member.local, entry)
            for name in self.kept:
                numbers[name].append(float(entry[name]))
            held = states.of(member.p)
            held.update({name: sharded.like(member.p, x) if member.local is not member.p and x.ndim else x
                         for name, x in entry.items() if name not in held})  # fmt: skip
            self._point(i, held)
        at = torch.tensor(list(which))
        for name, values in numbers.items():
            self.held[name][at.to(self.held[name].device)] = torch.tensor(
                values, dtype=self.key.number_dtype, device=self.held[name].device
            )
        self._stale = True

    def _take(self, i: int, states: States) -> None:
        """Take over a state that is shown."""
        entry = states.mapping[self.members[i].p]
        self.counts[i] = float(entry["step"])
        self.steps[i] = self.counts[i]
        for name in self.kept:
            self.held[name][i] = float(entry[name])
        self._point(i, entry)

    def _point(self, i: int, entry: dict[str, Any]) -> None:
        """Have a state's dictionary show the count and the numbers that are stepped, and the table its arrays."""
        entry["step"] = self.steps[i]
        entry.update({name: self.held[name][i] for name in self.kept})
        self.entries[i] = entry
        self.tensors[i] = [entry[name] for name in (*self._names(), "step", *self.kept)]
        for name in self._state:
            at = _PLACE + self.arrays.index(name)
            self._host[i, at] = _local(entry[name.removeprefix("s.")]).data_ptr()
        self.started[i] = True
        self._stale, self._shown = True, None

    def watch(self, parameters: Parameters | None, which: Sequence[int]) -> None:
        """Take notice of what native code knows of the members, and of their numbers there."""
        self._native, self._which = parameters, list(which)

    def holds(self, states: States) -> bool:
        """Whether the states that are shown are those that are stepped, where they are."""
        if self._shown is not None:
            rest = np.flatnonzero(~self.started).tolist()
            return self._shown.holds(states.mapping) and not any(states.mapping.get(self.members[i].p) for i in rest)
        if not self._same(states):
            return False
        told = self._native is not None and bool(self._native.records["home"][self._which][self.started].all())
        if told and self.started.any() and isinstance(states.mapping, dict):
            assert self._native is not None
            entries = [
                Entry(self._which[i], self.entries[i], self.tensors[i], [_local(x).data_ptr() for x in self.tensors[i]])
                for i in np.flatnonzero(self.started).tolist()
            ]
            names = self._names()
            self._shown = Shown(self._native, states.mapping, entries, (*names, "step", *self.kept), len(names))
        return True

    def renew(self) -> None:
        """Count up the versions of the state of the members that were stepped."""
        if self._shown is not None:
            self._shown.renew()
        if self._shown is None or self.untold:
            which = self.stepped() if self._shown is None else self.untold
            increment_version([x for i in which for x in self.tensors[i]])

    def _same(self, states: States) -> bool:
        for i in np.flatnonzero(self.started).tolist():
            entry = self.entries[i]
            if states.mapping.get(self.members[i].p) is not entry:
                return False
            names = (*self._names(), "step", *self.kept)
            if any(entry.get(name) is not x for name, x in zip(names, self.tensors[i], strict=True)):
                return False
            for name, x in zip(self._state, self.tensors[i], strict=False):
                if _local(x).data_ptr() != self._host[i, _PLACE + self.arrays.index(name)]:
                    return False
        return all(self.started[i] or not states.mapping.get(m.p) for i, m in enumerate(self.members))

    def fits(self, member: Member, entry: dict[str, Any]) -> bool:
        """Whether a state that is shown of a parameter can be stepped where it is."""
        for name, of in zip(self._names(), self._state, strict=True):
            x = entry.get(name)
            if not isinstance(x, Tensor):
                return False
            x, p = _local(x), member.local
            same = x.shape == p.shape and alike(x, p) and x.device == p.device
            if not same or x.dtype != self.key.types.of(of) or x.layout != torch.strided:
                return False
        return all(isinstance(entry.get(name), Tensor) and entry[name].numel() == 1 for name in ("step", *self.kept))

    # ------------------------------------------------------------------------------------------ what a step begins with

    def aim(self, places: NDArray[np.int64], grads: NDArray[np.int64], stepped: NDArray[np.bool_]) -> None:
        """Note where the parameters and their gradients are, and which are stepped."""
        self._host[:, _PLACE] = places
        self._host[:, _PLACE + 1] = np.where(stepped, grads, 0)
        self._host[:, 0] = np.where(stepped, self.sizes, 0)
        self._host[:, 3] = stepped
        self._stale = True

    def rest(self, i: int) -> None:
        """Leave a parameter out."""
        self._host[i, 0] = self._host[i, 3] = 0
        self._stale = True

    def tables(self) -> Iterator[Tensor]:
        """What is on the device for the kernels alone, beside parameters and state."""
        yield from (self.table, self.chunks, self.firsts, self.given, self.own, self.salts, self.group)
        yield from (x for room in self.scratch for x in room.values())

    def refresh(self, send: Any, always: bool) -> None:
        """Write the table anew if it has changed, or `always`; `send` copies an array to a tensor, in stream order."""
        if self._stale or always:
            self.active = self._host[:, 3] != 0
            self.aligned = not int(np.bitwise_or.reduce(self._host[:, _PLACE:], axis=None)) & 15
            send(self._host, self.table)
            self._stale = False

    def number(self, send: Any) -> None:
        """Hand over what is known of the groups, if it has changed."""
        named = [work.named() for work in self.groups]
        known = [[found[name] for name in self.columns] for found in named]
        if known != self._known:
            self._known = known
            send(np.array(known), self.given)

    def forget(self) -> None:
        """Have the groups' numbers handed over in the next step, changed or not."""
        self._known = []

    def stepped(self) -> Iterator[int]:
        """The members that are stepped this time."""
        yield from np.flatnonzero(self.active).tolist()


def alike(x: Tensor, p: Tensor) -> bool:
    """Whether the elements of a tensor lie as those of another of the same shape."""
    return all(n == 1 or a == b for n, a, b in zip(p.shape, x.stride(), p.stride(), strict=True))


def _local(x: Tensor) -> Tensor:
    """The memory of a tensor: its own, or of a sharded one the part that this process has."""
    found = sharded.shard(x) if sharded.is_sharded(x) else None
    return x if found is None else found
