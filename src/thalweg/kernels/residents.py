"""Parameters on one device: which of them printed kernels can step, and where they and their gradients are."""

from collections.abc import Sequence
from operator import is_
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.kernels import eager, sharded, triton
from thalweg.kernels.batch import Batch, Key, Member, sources
from thalweg.kernels.work import States, Work
from thalweg.printers.lowering import Types
from thalweg.rule import Rule

FIRST = "the first step cannot be captured, since it makes the state; take one on a side stream before"
_DTYPES = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})


class Residents:
    """The parameters of some groups, which are all on one device.

    Attributes:
        members: all of them.
        batches: those that printed kernels step, by their formula.
        which: the positions of each batch's parameters.
        rest: the parameters that have a gradient and are not stepped by these this time, by their positions.
        live: on the device, whether the step is taken.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rest: list[int] = []
        self.members: list[Member] = []
        self._works: list[Work] = []
        self._flat: list[Tensor] = []
        self._places: list[int] = []
        self._grads: list[Tensor | None] = []
        self._aims: list[int] = []
        self.batches: list[Batch] = []
        self._home: dict[int, tuple[Batch, int]] = {}
        self._states: States | None = None
        self._apart: set[int] = set()
        self._unfit: set[int] = set()
        self.which: list[NDArray[np.int64]] = []
        self.live = torch.ones(1, dtype=torch.int32, device=device)

    @torch.no_grad()
    def prepare(self, works: Sequence[Work], states: States) -> None:
        """Look at groups, parameters, gradients and state anew: once a step, before the rest."""
        flat = [p for work in works for p in work.params]
        same = states is self._states and len(flat) == len(self._flat) and len(works) == len(self._works)
        same = same and all(map(is_, works, self._works)) and all(map(is_, flat, self._flat))
        places = _places(flat)
        if (
            not same
            or places != self._places
            or (states.exposed and not all(batch.holds(states) for batch in self.batches))
        ):
            if triton.capturing(self.device):
                raise RuntimeError(FIRST)
            self._enlist(works, flat, places, states)
        grads = [p.grad for p in flat]
        aims = _places(grads)
        if aims != self._aims or not all(map(is_, grads, self._grads)):
            self._aim(grads, aims, states)

    def _enlist(self, works: Sequence[Work], flat: list[Tensor], places: list[int], states: States) -> None:
        """Begin anew: what is derived from groups, parameters and state is forgotten."""
        self._works, self._flat, self._places, self._states = list(works), flat, places, states
        self._grads, self._aims = [], []
        self.renew()
        found: dict[Key, list[int]] = {}
        rules: dict[Key, Rule] = {}
        self.members, self._home = [], {}
        for work in works:
            for k, p in enumerate(work.params):
                local = sharded.shard(p) if sharded.is_sharded(p) else p
                i = len(self.members)
                self.members.append(Member(work, work.first + k, p, p if local is None else local))
                key = self._key(self.members[i], states)
                if key is not None:
                    found.setdefault(key, []).append(i)
                    rules.setdefault(key, work.fitted(p))
        self.batches, self.which, self._unfit = [], [], set()
        for key, which in found.items():
            members = [self.members[i] for i in which]
            batch = Batch(key, rules[key], members, self.live, states)
            shown = [bool(states.mapping.get(m.p)) for m in members]
            unfit = [m for m, is_shown in zip(members, shown, strict=True)
                     if is_shown and not batch.fits(m, states.mapping[m.p])]  # fmt: skip
            if unfit:
                which = [i for i in which if not any(self.members[i] is one for one in unfit)]
                batch = Batch(key, rules[key], [self.members[i] for i in which], self.live, states)
            self.batches.append(batch)
            self.which.append(np.array(which, np.int64))
            self._home.update({i: (batch, k) for k, i in enumerate(which)})
        self._apart = self._overlapping()

    def renew(self) -> None:
        """Forget what was derived from the parameters."""

    def _key(self, member: Member, states: States) -> Key | None:
        """What a parameter's batch has in common, or None if it is to be stepped otherwise."""
        work, p = member.work, member.local
        held = states.mapping.get(member.p)
        plain = (
            p.device == self.device
            and type(p) in (Tensor, torch.nn.Parameter)
            and p.layout == torch.strided
            and p.is_floating_point()
        )
        if not plain or not _dense(p) or not _is_dictionary(held) or p.dtype not in _DTYPES:
            return None
        real = eager.arithmetic(p.dtype)
        types = Types(p.dtype, work.state_dtype or real, real)
        rule = work.fitted(member.p)
        if sharded.is_sharded(member.p) and (rule.fits or work.totals):
            return None
        formula = (type(rule), tuple(rule.options.items()), tuple(rule.numbers))
        step = eager.count_dtype()
        key = Key(formula, work.form, types, step, work.number_dtype, p.ndim if rule.fits else 0)
        if held and isinstance(held.get("step"), Tensor):
            eager.start(work, member.local, held)
        if sharded.is_sharded(member.p) and len(sources(rule, key, False)) > 1:
            return None  # of what this process has, its kernel would have the sums
        return key

    def _overlapping(self) -> set[int]:
        """The parameters whose memory others have, too."""
        spans = sorted((place, place + _bytes(m.local), i)
                       for i, (m, place) in enumerate(zip(self.members, self._places, strict=True)))  # fmt: skip
        found: set[int] = set()
        end, last = 0, -1
        for begin, after, i in spans:
            if begin < end and after > begin:
                found |= {last, i}
            if after > end:
                end, last = after, i
        return found

    def _aim(self, grads: list[Tensor | None], aims: list[int], states: States) -> None:
        """Note where gradients are, and which parameters have one."""
        before, places = self._grads or [None] * len(grads), self._aims or [0] * len(grads)
        for i, (g, old, place, last) in enumerate(zip(grads, before, aims, places, strict=True)):
            if g is not old or place != last:
                (self._unfit.discard if g is None or self._fits(i, g) else self._unfit.add)(i)
        given = np.array([g is not None for g in grads], bool)
        at = np.array(aims, np.int64)
        out = self._apart | self._unfit | self._tied(at)
        out |= {i for i in range(len(grads)) if i not in self._home} if len(self._home) < len(grads) else set()
        self.rest = sorted(i for i in out if given[i])
        stepped = given.copy()
        stepped[self.rest] = False
        whole = np.array(self._places, np.int64)
        for batch, which in zip(self.batches, self.which, strict=True):
            mine = stepped[which]
            batch.aim(whole[which], at[which], mine)
            fresh = np.flatnonzero(mine & ~batch.started).tolist()
            if fresh:
                batch.start(fresh, states)
        self._grads, self._aims = grads, aims
        self._total(grads)

    def leave_out(self, i: int) -> None:
        """Do not step a parameter this time, although it has a gradient."""
        if i in self.rest:
            self.rest.remove(i)
        elif i in self._home:
            self._home[i][0].rest(self._home[i][1])
        self._grads, self._aims = [], []  # to be looked at again

    def _total(self, grads: list[Tensor | None]) -> None:
        """Leave rules with totals to operations on tensors where not all of their parameters are stepped here."""
        rules = {type(m.work.template) for i, m in enumerate(self.members)
                 if m.work.totals and (grads[i] is None or i in self.rest or i not in self._home)}  # fmt: skip
        for i, m in enumerate(self.members):
            if type(m.work.template) in rules and grads[i] is not None and i not in self.rest:
                self.rest.append(i)
                self._home[i][0].rest(self._home[i][1])
        self.rest.sort()

    def _fits(self, i: int, g: Tensor) -> bool:
        """Whether a gradient can be read, and set to zero, as its parameter is laid out."""
        p = self.members[i].local
        if sharded.is_sharded(self.members[i].p):
            found = sharded.gradient(self.members[i].p)
            return found is not None and found.stride() == p.stride()
        if g.device != self.device:
            raise RuntimeError(
                f"parameter {self.members[i].ordinal} of shape {tuple(p.shape)} is on {self.device}, and its gradient "
                f"on {g.device}; move the model before the backward pass, or set the gradient to None"
            )
        return (
            type(g) is Tensor and g.layout == torch.strided and g.dtype == p.dtype and g.shape == p.shape
            and g.stride() == p.stride()
        )  # fmt: skip

    def _tied(self, at: NDArray[np.int64]) -> set[int]:
        """The parameters whose gradient is in memory that the step writes."""
        begins = np.array(self._places, np.int64)
        sizes = np.array([_bytes(m.local) for m in self.members], np.int64)
        order = np.argsort(begins)
        begins, ends = begins[order], (begins + sizes)[order]
        if not len(begins):
            return set()
        left = np.searchsorted(begins, at, "right") - 1
        right = np.searchsorted(begins, at + np.maximum(sizes, 1), "left") - 1
        hit = (at > 0) & (sizes > 0) & (((left >= 0) & (ends[left] > at)) | (right > left))
        return set(np.flatnonzero(hit).tolist())


def _places(tensors: Sequence[Tensor | None]) -> list[int]:
    """Where tensors are, 0 for none."""
    try:
        found = [0 if x is None else x.data_ptr() for x in tensors]
    except (RuntimeError, NotImplementedError):  # of a sparse gradient
        return list(map(_place, tensors))
    return list(map(_place, tensors)) if sharded.among([x for x in tensors if x is not None]) else found


def _place(x: Tensor | None) -> int:
    try:
        return 0 if x is None else (cast(Any, x)._local_tensor if sharded.is_sharded(x) else x).data_ptr()
    except (RuntimeError, NotImplementedError):
        return -1


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _dense(p: Tensor) -> bool:
    """Whether the elements of a tensor are side by side in memory, none twice."""
    expected = 1
    for stride, n in sorted((s, n) for s, n in zip(p.stride(), p.shape, strict=True) if n != 1):
        if stride != expected and p.numel():
            return False
        expected *= n
    return True


def _is_dictionary(held: object) -> bool:
    return not held or isinstance(held, dict)
