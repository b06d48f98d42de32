"""The fused CPU backend: one launch of a printed kernel steps every parameter that shares a formula."""

from collections.abc import Sequence
from operator import is_
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.kernels import build, eager, launch, sharded
from thalweg.kernels.bucket import Bucket, Key, norm_source
from thalweg.kernels.calls import native
from thalweg.kernels.parameters import Parameters, Written
from thalweg.kernels.records import EAGER, SKIPPED
from thalweg.kernels.work import States, Work
from thalweg.printers.lowering import Types
from thalweg.printers.numba import Source
from thalweg.stages import Scalars


class Kernel:
    """A compiled kernel on the table of a bucket."""

    def __init__(self, bucket: Bucket, source: Source, groups: int) -> None:
        dtype = np.float64 if bucket.key.types.exact else np.float32
        scalars = np.zeros((len(bucket.rows), max(source.width, 1)), dtype)
        owners = [bucket.parameters.group[i] for i in bucket.members]
        self._groups = sorted(set(owners))
        self._values = np.zeros((groups, max(len(source.numbers), 1)))
        # Where each gradient is clipped by its own norm, every member has its own numbers.
        self._own = owners if bucket.key.form.clip_each else None
        values = self._values if self._own is None else self._values[owners]
        self._sources = _sources(source.numbers)
        self._members = bucket.indices
        self._factor = source.numbers.index("c.clip_each") if "c.clip_each" in source.numbers else None
        self.job = launch.Job(
            build.load(source.text), bucket.table, bucket.cuts, bucket.rows, values, scalars, bucket.new_numbers,
            bucket.small,
        )  # fmt: skip

    def run(self, works: list[Work], rows: int) -> None:
        """Compute the scalars of so many rows, and launch.

        Args:
            works: the groups, with this step's numbers.
            rows: how many rows the bucket's members have been sorted into.
        """
        if self._sources:
            for group in self._groups:
                work = works[group]
                held = (work.numbers, work.before, work.after, work.scalars)
                self._values[group] = [cast(Any, held[i])[key] for i, key in self._sources]
        if self._own is not None:
            self.job.groups[:] = self._values[self._own]
            if self._factor is not None:
                self.job.groups[:, self._factor] = np.concatenate([work.factors for work in works])[self._members]
        self.job.run(rows)


def _sources(names: tuple[str, ...]) -> list[tuple[int, Any]]:
    """Where `Kernel.run` finds the numbers of these names in the trace."""
    split = [name.partition(".") for name in names]
    at = {"h": 0, "before": 1, "after": 2, "c": 3}
    return [(at[source], Scalars._fields.index(key) if source == "c" else key) for source, _, key in split]


class Fused:
    """The backend of printed kernels; parameters that these cannot take are stepped eagerly."""

    def __init__(self) -> None:
        self._works: list[Work] = []
        self._parameters: Parameters | None = None
        self._states: States | None = None
        self._buckets: dict[Key, Bucket] = {}
        self._kernels: dict[tuple[int, str], Kernel] = {}
        self._rest: list[int] = []
        self._home: dict[int, Key] = {}
        self._written: Written | None = None
        self._overlapping: set[int] = set()
        self._copied: list[Tensor] = []

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

    def _enlist(self, works: list[Work], states: States) -> None:
        """Begin anew: what is derived from groups, parameters and state is forgotten."""
        if self._states is not None:
            self._reveal()
        groups = [work.params for work in works]
        self._parameters = Parameters(groups)
        self._works, self._states = list(works), states
        states.reveal = self._reveal
        self._buckets, self._kernels, self._home = {}, {}, {}
        self._overlapping, self._written = set(), None

    def _reveal(self) -> None:
        for bucket in self._buckets.values():
            assert self._states is not None
            bucket.reveal(self._states)

    @torch.no_grad()
    def _examine(self, asked: list[int], works: list[Work], states: States) -> None:
        """Decide in Python about parameters that native code could not tell."""
        found = self._parameters
        assert found is not None
        new: dict[Key, list[int]] = {}
        alike: dict[tuple[int, torch.dtype, int], tuple[Key | None, list[int]]] = {}
        moved = False
        fit: list[int] = []
        eagerly: set[int] = set()
        for i in asked:
            changed = found.examine(i)
            if changed == 2 and i in self._home:
                self._enlist(works, states)
                self._examine(self._look_again(), works, states)
                return
            if not changed:
                eagerly.add(i)
                continue
            if i not in self._home:
                p, work = found.tensors[i], works[found.group[i]]
                own = id(p) if states.mapping and states.mapping.get(p) else 0
                kind = (id(work), p.dtype, own)  # those without a state of their own are alike
                if kind not in alike:
                    key = self._key(i, work, states)
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
                self._buckets[key] = Bucket(key, works[found.group[members[0]]], found)
            self._buckets[key].extend(members, works, states)
            self._home.update(dict.fromkeys(members, key))
            own = id(self._buckets[key])
            self._kernels = {what: kernel for what, kernel in self._kernels.items() if what[0] != own}
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
        self._rest = sorted(set(self._rest))

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
        rule = work.template
        formula = (type(rule), tuple(rule.options.items()), tuple(rule.numbers))
        found: Any = states.mapping.get(p)
        step, number = eager.count_dtype(), work.number_dtype
        if found and not isinstance(found, dict):
            return None
        entry = cast("dict[str, Any]", found or {})
        if entry:
            eager.start(work, p, entry)
            if isinstance(entry["step"], Tensor) and entry["step"].dtype in (torch.float32, torch.float64):
                step = entry["step"].dtype
        key = Key(formula, work.form, types, step, number)
        if entry:
            bucket = self._buckets.get(key) or Bucket(key, work, self._parameters)
            for name in bucket.kept:
                dtype = getattr(entry.get(name), "dtype", None)
                if dtype in (torch.float32, torch.float64) and dtype != number:
                    key = key._replace(number_dtype=dtype)
            bucket = self._buckets.get(key) or Bucket(key, work, self._parameters)
            if not bucket.fits(i, entry):
                return None
        return key

    def squares(self, works: list[Work], clipped: bool, strict: bool) -> NDArray[np.float64]:
        """See `thalweg.kernels.work.Backend`."""
        found = self._parameters
        assert found is not None
        parts = np.zeros(len(found.tensors))
        if self._rest:
            parts[self._rest] = eager.squares(self._others(works), clipped, strict)
        for bucket in self._buckets.values():
            if bucket.used:
                kernel = self._kernel(bucket, ("strict norm" if strict else "norm") if clipped else "own norm")
                kernel.run(works, bucket.used)
                # Whatever the threads, added up in one order.
                parts[bucket.indices] = np.bincount(bucket.owner, kernel.job.totals, len(bucket.members))
        return sharded.summed(found.tensors, parts) if found.sharded else parts

    def step(self, works: list[Work], states: States, zero_grad: bool) -> None:
        """See `thalweg.kernels.work.Backend`."""
        found = self._parameters
        assert found is not None
        for bucket in self._buckets.values():
            if bucket.used:
                kernel = self._kernel(bucket, "zero" if zero_grad else "step")
                kernel.run(works, bucket.used)
                native().finish(bucket.job)
                bucket.renew()
        if found.copies or found.sharded:
            found.hand_back()
        if zero_grad:
            for g in self._copied:
                g.detach().zero_()
        for work, i, p in self._others(works) if self._rest else ():
            eager.step(work, p, states.of(p), zero_grad, i)
        found.release()
        if states.exposed:  # whoever holds the mapping sees in it what this step has begun
            self._reveal()

    def _others(self, works: list[Work]) -> list[tuple[Work, int, Tensor]]:
        """The parameters not stepped by a kernel in this step, in order; each with its group and its number."""
        found = self._parameters
        assert found is not None
        for i in self._rest:
            if i in self._home and self._states is not None:
                self._buckets[self._home[i]].reveal(self._states, i)
        return [(works[found.group[i]], i, found.tensors[i]) for i in self._rest]

    def _kernel(self, bucket: Bucket, what: str) -> Kernel:
        if (id(bucket), what) not in self._kernels:
            key = bucket.key
            if what == "own norm":
                source = norm_source(key.form.unscaled, key.types, False)
            elif "norm" in what:
                source = norm_source(key.form, key.types, what != "norm")
            else:
                source = bucket.source(what == "zero")
            self._kernels[id(bucket), what] = Kernel(bucket, source, len(self._works))
        return self._kernels[id(bucket), what]

    def drop(self, groups: Sequence[list[Tensor]]) -> bool:
        """See `thalweg.kernels.work.Backend`."""
        return self._parameters is not None and self._parameters.are(groups) and self._parameters.drop()
