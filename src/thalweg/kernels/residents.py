"""Parameters on one device: which of them printed kernels can step, and where they and their gradients are."""

from collections.abc import Sequence
from operator import is_

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.fields import array_fields
from thalweg.kernels import eager, sharded, triton
from thalweg.kernels.batch import Batch, Key, Member, alike, sources
from thalweg.kernels.records import EAGER, FUSED, SKIPPED
from thalweg.kernels.sight import Sight, place
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
        self._sight: Sight | None = None
        self._aimed: NDArray[np.int64] | None = None
        self._settled: NDArray[np.int64] = np.zeros(0, np.int64)
        self.batches: list[Batch] = []
        self._home: dict[int, tuple[Batch, int]] = {}
        self._states: States | None = None
        self._never: NDArray[np.int64] = np.zeros(0, np.int64)
        self._totalled: list[int] = []
        self.which: list[NDArray[np.int64]] = []
        self.live = torch.ones(1, dtype=torch.int32, device=device)

    @torch.no_grad()
    def prepare(self, works: Sequence[Work], states: States) -> None:
        """Look at groups, parameters, gradients and state anew: once a step, before the rest."""
        same = states is self._states and len(works) == len(self._works) and all(map(is_, works, self._works))
        if (
            not same
            or self._sight is None
            or not self._sight.look()
            or (states.exposed and not all(batch.holds(states) for batch in self.batches))
        ):
            if triton.capturing(self.device):
                raise RuntimeError(FIRST)
            self._enlist(works, states)
        self._aim(states)

    def _enlist(self, works: Sequence[Work], states: States) -> None:
        """Begin anew: what is derived from groups, parameters and state is forgotten."""
        self._works, self._states = list(works), states
        sight = self._sight = Sight([work.params for work in works], self.device)
        self._aimed = None
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
        self.batches, self.which = [], []
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
        self._sizes = np.array([_bytes(m.local) for m in self.members], np.int64)
        never = self._overlapping() | {i for i in range(len(self.members)) if i not in self._home}
        self._never = np.array(sorted(never), np.int64)
        self._totalled = [i for i, m in enumerate(self.members) if m.work.totals]
        for batch, which in zip(self.batches, self.which, strict=True):
            batch.watch(sight.native, which.tolist())
        sight.trust([i for i in self._home if i not in never])
        sight.look()
        sight.examine_all()

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
        rule = work.fitted(member.p)
        types = Types(p.dtype, work.state_dtype or real, real, array_fields(rule.State))
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
        assert self._sight is not None
        return _shared(self._sight.places, self._sizes)

    def _aim(self, states: States) -> None:
        """Note where gradients are, and which parameters have one."""
        sight = self._sight
        assert sight is not None
        active, at, given = sight.active.copy(), sight.grads.copy(), sight.active != SKIPPED
        for i in sight.asked:
            g = self.members[i].p.grad
            at[i], given[i] = place(g), g is not None
            active[i] = SKIPPED if g is None else FUSED if self._fits(i, g) else EAGER
        active[self._never] = np.where(given[self._never], EAGER, SKIPPED)
        seen = np.concatenate([active, at, sight.asked])
        if self._aimed is not None and np.array_equal(seen, self._aimed):
            sight.settle(self._settled)
            return
        self._aimed = None
        tied = _shared(at, np.where(active == FUSED, self._sizes, 0))
        if sight.asked:  # of the others native code has found out
            tied |= self._tied(at)
        active[[i for i in tied if active[i] == FUSED]] = EAGER
        self._total(active)
        self.rest = np.flatnonzero(active == EAGER).tolist()
        stepped = active == FUSED
        for batch, which in zip(self.batches, self.which, strict=True):
            mine = stepped[which]
            batch.aim(sight.places[which], at[which], mine)
            fresh = np.flatnonzero(mine & ~batch.started).tolist()
            if fresh:
                if triton.capturing(self.device):
                    raise RuntimeError(FIRST)
                batch.start(fresh, states)
        asked = {i for i in sight.asked if stepped[i]}
        for batch, which in zip(self.batches, self.which, strict=True):
            batch.untold = [k for k, i in enumerate(which.tolist()) if i in asked] if asked else []
        self._aimed, self._settled = seen, active
        sight.settle(active)

    def leave_out(self, i: int) -> None:
        """Do not step a parameter this time, although it has a gradient."""
        assert self._sight is not None
        if i in self.rest:
            self.rest.remove(i)
        elif i in self._home:
            self._home[i][0].rest(self._home[i][1])
        active = self._sight.active.copy()
        active[i] = SKIPPED
        self._sight.settle(active)
        self._aimed = None  # to be looked at again

    def _total(self, active: NDArray[np.int64]) -> None:
        """Leave rules with totals to operations on tensors where not all of their parameters are stepped here."""
        rules = {type(self.members[i].work.template) for i in self._totalled if active[i] != FUSED}
        for i in self._totalled:
            if type(self.members[i].work.template) in rules and active[i] == FUSED:
                active[i] = EAGER

    def _fits(self, i: int, g: Tensor) -> bool:
        """Whether a gradient can be read, and set to zero, as its parameter is laid out."""
        p = self.members[i].local
        if sharded.is_sharded(self.members[i].p):
            found = sharded.gradient(self.members[i].p)
            return found is not None and found.dtype == p.dtype and found.shape == p.shape and alike(found, p)
        if g.device != self.device:
            member = self.members[i]
            raise RuntimeError(
                f"parameter {member.work.title(member.ordinal)} of shape {tuple(p.shape)} is on {self.device}, and its "
                f"gradient on {g.device}; move the model before the backward pass, or set the gradient to None"
            )
        plain = type(g) is Tensor and g.layout == torch.strided and g.dtype == p.dtype and g.shape == p.shape
        return plain and alike(g, p)

    def _tied(self, at: NDArray[np.int64]) -> set[int]:
        """The parameters whose gradient is in memory that the step writes."""
        assert self._sight is not None
        begins, sizes = self._sight.places, self._sizes
        order = np.argsort(begins)
        begins, ends = begins[order], (begins + sizes)[order]
        if not len(begins):
            return set()
        left = np.searchsorted(begins, at, "right") - 1
        right = np.searchsorted(begins, at + np.maximum(sizes, 1), "left") - 1
        hit = (at > 0) & (sizes > 0) & (((left >= 0) & (ends[left] > at)) | (right > left))
        return set(np.flatnonzero(hit).tolist())


def _shared(begins: NDArray[np.int64], sizes: NDArray[np.int64]) -> set[int]:
    """Which of these ranges of addresses overlap others."""
    used = np.flatnonzero((begins > 0) & (sizes > 0))
    if len(used) < 2 or np.diff(np.sort(begins[used])).min() >= sizes.max():
        return set()
    order = used[np.argsort(begins[used])]
    reached = np.maximum.accumulate(begins[order] + sizes[order])
    if not np.any(begins[order][1:] < reached[:-1]):
        return set()
    found: set[int] = set()
    end, last = 0, -1
    for i in order.tolist():
        if begins[i] < end:
            found |= {last, i}
        if begins[i] + sizes[i] > end:
            end, last = int(begins[i] + sizes[i]), i
    return found


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
