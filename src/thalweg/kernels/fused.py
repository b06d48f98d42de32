"""The fused CPU backend: one launch of a printed kernel steps every parameter that shares a formula."""

import contextlib
from collections import Counter
from collections.abc import Generator, Hashable, Sequence
from operator import is_
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.kernels import eager, reference, sharded, totals
from thalweg.kernels.bucket import Bucket
from thalweg.kernels.calls import native
from thalweg.kernels.kernel import Kernel
from thalweg.kernels.key import Key, Parts, arrays, by_rows, is_total, norm_source, sums_up
from thalweg.kernels.parameters import Parameters, Written
from thalweg.kernels.records import EAGER, FUSED, SKIPPED
from thalweg.kernels.slots import Slots
from thalweg.kernels.work import States, Work
from thalweg.printers.lowering import Types
from thalweg.trace import Graph

Parting = Generator[totals.Totals, totals.Totals, dict[str, NDArray[np.float64]]]


class Fused:
    """The backend of printed kernels; parameters that these cannot take are stepped eagerly."""

    def __init__(self) -> None:
        self._works: list[Work] = []
        self._parameters: Parameters | None = None
        self._states: States | None = None
        self._buckets: dict[Key, Bucket] = {}
        self._kernels: dict[tuple[int, str], list[Kernel | Graph]] = {}
        self._rest: list[int] = []
        self._home: dict[int, Key] = {}
        self._written: Written | None = None
        self._overlapping: set[int] = set()
        self._copied: list[Tensor] = []
        self._totals = False

    def prepare(self, works: list[Work], states: States) -> None:
        """See `thalweg.kernels.work.Backend`."""
        found = self._parameters
        same = found is not None and len(works) == len(self._works)
        same = same and all(map(is_, works, self._works)) and states is self._states
        if not same or (states.exposed and not all(bucket.holds(states) for bucket in self._buckets.values())):
            self._enlist(works, states)
        assert self._parameters is not None
        asked = self._parameters.look()
        if asked is None:
            self._enlist(works, states)
            asked = self._look_again()
        self._rest, self._copied = [], []
        if asked or self._overlapping:
            self._examine(asked, works, states)
        for bucket in self._buckets.values():
            bucket.used = native().assign(bucket.job)
        if self._totals:
            self._share(works)

    def _enlist(self, works: list[Work], states: States) -> None:
        """Begin anew: what is derived from groups, parameters and state is forgotten."""
        if self._states is not None:
            self._reveal()
        groups = [work.params for work in works]
        self._parameters = Parameters(groups)
        self._works, self._states = list(works), states
        states.reveal = self._reveal
        self._buckets, self._kernels, self._home = {}, {}, {}
        self._overlapping, self._written, self._totals = set(), None, False

    def _share(self, works: list[Work]) -> None:
        """Have rules with totals stepped eagerly, if the numbers that their parameters share are not all known here."""
        found = self._parameters
        assert found is not None
        buckets = [bucket for bucket in self._buckets.values() if bucket.totals]
        eagerly = any(works[found.group[i]].totals for i in self._rest)
        if eagerly or not totals.alike(buckets, works):
            for bucket in buckets:
                bucket.used = 0
                for i in bucket.members:
                    if found.records["active"][i] == FUSED:
                        self._eagerly(i)
            self._rest = sorted(set(self._rest))

    def _reveal(self) -> None:
        assert self._states is not None
        moved = [bucket.reveal(self._states) for bucket in self._buckets.values()]
        if any(moved):
            self._note()

    @torch.no_grad()
    def _examine(self, asked: list[int], works: list[Work], states: States) -> None:
        """Decide in Python about parameters that native code could not tell."""
        found = self._parameters
        assert found is not None
        new: dict[Key, list[int]] = {}
        alike: dict[Hashable, tuple[Key | None, list[int]]] = {}
        moved = False
        fit: list[int] = []
        eagerly: set[int] = set()
        examined = found.examine(asked)
        for i, changed, kind in zip(asked, examined, self._kinds(asked, works, states), strict=True):
            if changed == 2 and i in self._home:
                self._enlist(works, states)
                self._examine(self._look_again(), works, states)
                return
            if not changed:
                eagerly.add(i)
                continue
            if i not in self._home:
                if kind not in alike:
                    key = self._key(i, works[found.group[i]], states)
                    alike[kind] = key, [] if key is None else new.setdefault(key, [])
                key, members = alike[kind]
                if key is None:
                    eagerly.add(i)
                    continue
                members.append(i)
            moved = moved or changed == 1
            fit.append(i)
        for key, members in new.items():
            if key not in self._buckets:
                work = works[found.group[members[0]]]
                rule = work.fitted(found.tensors[members[0]])
                self._buckets[key] = Bucket(key, rule, work.seed, found)
            self._buckets[key].extend(members, works, states)
            self._home.update(dict.fromkeys(members, key))
            own = id(self._buckets[key])
            self._kernels = {what: kernel for what, kernel in self._kernels.items() if what[0] != own}
        self._totals = any(bucket.totals for bucket in self._buckets.values())
        if new or moved:
            self._note()
        # What was found out is known to native code now, but for gradients of which only Python can tell.
        left = self._look_again() if fit else asked
        for i in left:
            if i in eagerly or i not in self._home or i in self._overlapping or not self._aim(i):
                self._eagerly(i)
        for i in self._overlapping:
            if found.records["active"][i] != SKIPPED:
                self._eagerly(i)
        if self._rest and self._written is not None:
            for i in found.tied(self._rest, self._home, self._written, states):
                self._eagerly(i)
        self._rest = sorted(set(self._rest))

    def _kinds(self, members: list[int], works: list[Work], states: States) -> list[Hashable]:
        """What decides on the bucket of each of these parameters; those of one kind have the same."""
        found = self._parameters
        assert found is not None
        kinds: list[Hashable] = found.records[["group", "dtype"]][members].tolist()
        if not (states.mapping or found.sharded or any(work.fits for work in works)):
            return kinds
        for k, i in enumerate(members):
            p = found.tensors[i]
            shape = (p.shape, p.stride()) if works[found.group[i]].fits else None
            own = id(p) if states.mapping and states.mapping.get(p) else 0  # those without state of their own are alike
            kinds[k] = kinds[k], i in found.sharded, shape, own
        return kinds

    def _eagerly(self, i: int) -> None:
        """Have a parameter stepped eagerly this time."""
        assert self._parameters is not None
        self._parameters.records["active"][i] = EAGER
        self._rest.append(i)

    def _aim(self, i: int) -> bool:
        """Have a gradient read that native code could not tell; False if only operations can."""
        assert self._parameters is not None
        assert self._written is not None
        aimed = self._parameters.aim(i, self._written)
        if aimed is None:
            return False
        given, read = aimed
        if given is not read:
            self._copied.append(given)
        return True

    def _look_again(self) -> list[int]:
        assert self._parameters is not None
        asked = self._parameters.look()
        assert asked is not None, "the lists of parameters were changed by another thread during a step"
        return asked

    def _note(self) -> None:
        """Find out which memory is written, and by whom twice."""
        assert self._parameters is not None
        ranges = [bucket.ranges() for bucket in self._buckets.values()]
        if ranges:
            begins, ends, owners, bases = self._parameters.gaps()
            ranges.append((np.array(begins, np.int64), np.array(ends, np.int64), np.array(owners, np.int64)))
            self._written = Written(*(np.concatenate(column) for column in zip(*ranges, strict=True)))
            self._overlapping = self._written.overlapping()
            self._parameters.note([*bases, *(base for bucket in self._buckets.values() for base in bucket.bases())])

    def _key(self, i: int, work: Work, states: States) -> Key | None:
        """The bucket that a parameter belongs to, or None if it is to be stepped eagerly."""
        assert self._parameters is not None
        p = self._parameters.tensors[i]
        real = eager.arithmetic(p.dtype)
        types = Types(p.dtype, work.state_dtype or real, real)
        rule = work.fitted(p)
        if work.totals and (rule.fits or i in self._parameters.sharded):
            return None
        formula = (type(rule), tuple(rule.options.items()), tuple(rule.numbers))
        ndim = p.ndim if rule.fits else 0
        found: Any = states.mapping.get(p)
        step, number = eager.count_dtype(), work.number_dtype
        if found and not isinstance(found, dict):
            return None
        key = Key(formula, work.form, types, step, number, ndim)
        key = key._replace(rows=by_rows(rule, key, cast(Tensor, self._parameters.stepped(i))))
        if eager.narrows(work, arrays(rule, key)):
            return None
        entry = cast("dict[str, Any]", found or {})
        if entry:
            eager.start(work, p, entry)
            if isinstance(entry["step"], Tensor) and entry["step"].dtype in (torch.float32, torch.float64):
                step = entry["step"].dtype
                key = key._replace(step_dtype=step)
        if i in self._parameters.sharded and sums_up(rule, key):
            return None  # of what this process has, its kernel would have the sums
        if entry:
            bucket = self._buckets.get(key) or Bucket(key, rule, work.seed, self._parameters)
            for name in bucket.kept:
                dtype = getattr(entry.get(name), "dtype", None)
                if dtype in (torch.float32, torch.float64) and dtype != number:
                    key = key._replace(number_dtype=dtype)
            bucket = self._buckets.get(key) or Bucket(key, rule, work.seed, self._parameters)
            if not bucket.fits(i, entry):
                return None
        return key

    def squares(self, works: list[Work], clipped: bool, strict: bool) -> NDArray[np.float64]:
        """See `thalweg.kernels.work.Backend`."""
        found = self._parameters
        assert found is not None
        parts = np.zeros(len(found.tensors))
        for bucket in self._buckets.values():
            if bucket.used:
                what = ("strict norm" if strict else "norm") if clipped else "own norm"
                parts[bucket.indices] = self._run(bucket, what, works)["r.0"]
        if self._rest:  # after the buckets, which count members that are stepped eagerly this time as nothing
            parts[self._rest] = eager.squares(self._others(works), clipped, strict)
        return sharded.summed(found.tensors, parts) if found.sharded else parts

    def step(self, works: list[Work], states: States, zero_grad: bool) -> None:
        """See `thalweg.kernels.work.Backend`."""
        found = self._parameters
        assert found is not None
        used = [bucket for bucket in self._buckets.values() if bucket.used]
        if self._totals:
            self._together([bucket for bucket in used if bucket.totals], "zero" if zero_grad else "step", works)
        for bucket in used:
            if not bucket.totals:
                self._run(bucket, "zero" if zero_grad else "step", works)
            native().finish(bucket.job)
            bucket.renew()
        if found.copies or found.sharded:
            found.hand_back()
        if zero_grad:
            for g in self._copied:
                g.detach().zero_()
        if self._rest:
            rest = [member for member in self._others(works) if member[2].grad is not None]
            reference.step(rest, states, zero_grad)
        found.release()
        if states.exposed:  # whoever holds the mapping sees in it what this step has begun
            self._reveal()

    def _others(self, works: list[Work]) -> list[tuple[Work, int, Tensor]]:
        """The parameters not stepped by a kernel in this step, in order; each with its group and its number."""
        found = self._parameters
        assert found is not None
        assert self._states is not None
        moved = [self._buckets[self._home[i]].reveal(self._states, i) for i in self._rest if i in self._home]
        if any(moved):
            self._note()
        return [(works[found.group[i]], i, found.tensors[i]) for i in self._rest]

    def _run(self, bucket: Bucket, what: str, works: list[Work]) -> dict[str, NDArray[np.float64]]:
        """Run all parts of what is to be done to a bucket; what they have summed up, per member."""
        known = self._kernels.get((id(bucket), what), ())
        if len(known) == 1 and isinstance(known[0], Kernel):  # most rules have one pass
            known[0].run(works, {})
            return known[0].sums()
        parts = self._parts(bucket, what, works)
        try:
            next(parts)
        except StopIteration as done:
            return done.value
        raise AssertionError("totals are asked for by a step that has none")

    def _together(self, buckets: list[Bucket], what: str, works: list[Work]) -> None:
        """Run all parts of a step of buckets, with totals over all that have rules of one class."""
        waiting = [(bucket.key.formula[0], self._parts(bucket, what, works)) for bucket in buckets]
        answers: list[Any] = [None] * len(waiting)
        while waiting:
            asked: list[tuple[Any, Parting, totals.Totals]] = []
            for (rule, parts), answer in zip(waiting, answers, strict=True):
                with contextlib.suppress(StopIteration):
                    asked.append((rule, parts, parts.send(answer)))
            whole: dict[Any, Counter[tuple[int, str]]] = {}
            for rule, _, own in asked:
                whole.setdefault(rule, Counter()).update(own)
            waiting, answers = [(rule, parts) for rule, parts, _ in asked], [whole[rule] for rule, _, _ in asked]

    def _parts(self, bucket: Bucket, what: str, works: list[Work]) -> "Parting":
        """The same bit by bit: yields what is to be totalled over all parameters, and is sent the totals."""
        if (id(bucket), what) not in self._kernels:
            key = bucket.key
            if what == "own norm":
                parts: Parts = (norm_source(key.form.unscaled, key.types, False),)
            elif "norm" in what:
                parts = (norm_source(key.form, key.types, what != "norm"),)
            else:
                parts = bucket.sources(what == "zero")
            self._kernels[id(bucket), what] = [
                part if isinstance(part, Graph) else Kernel(bucket, part, len(self._works)) for part in parts
            ]
        sums: dict[str, NDArray[np.float64]] = {}
        slots: Slots | None = None
        for part in self._kernels[id(bucket), what]:
            if isinstance(part, Kernel):
                part.run(works, sums)
                if part.summed:
                    sums |= part.sums()
            elif is_total(part):
                found = yield totals.own(part, bucket, works, sums)
                sums |= totals.spread(found, bucket, works)
            else:
                assert self._states is not None
                slots = slots or Slots(bucket, works, self._states)
                slots.run(part, sums)
        if slots is not None:
            slots.finish()
        return sums

    def leave_out(self, works: list[Work]) -> None:
        """See `thalweg.kernels.work.Backend`."""
        found = self._parameters
        assert found is not None
        for work in works:
            found.records["active"][work.first : work.first + len(work.params)] = SKIPPED
        self._rest = [i for i in self._rest if found.records["active"][i] != SKIPPED]
        for bucket in self._buckets.values():
            bucket.used = native().assign(bucket.job)
        if self._totals:
            self._share(self._works)

    def drop(self, groups: Sequence[list[Tensor]]) -> bool:
        """See `thalweg.kernels.work.Backend`."""
        return self._parameters is not None and self._parameters.are(groups) and self._parameters.drop()
