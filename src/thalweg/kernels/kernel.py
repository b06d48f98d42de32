"""A compiled pass over the parameters of a bucket: its numbers are gathered, and it is launched."""

from collections.abc import Mapping
from operator import is_
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from thalweg.kernels import launch, scratch
from thalweg.kernels.bucket import Bucket
from thalweg.kernels.evaluation import count
from thalweg.kernels.work import Work
from thalweg.printers.passes import is_own
from thalweg.printers.source import Source
from thalweg.stages import Scalars


class Kernel:
    """A compiled kernel on the table of a bucket.

    Attributes:
        summed: what it sums up, by its names in the trace.
    """

    def __init__(self, bucket: Bucket, source: Source, groups: int) -> None:
        owners = [bucket.parameters.group[i] for i in bucket.members]
        self._bucket = bucket
        self._groups = sorted(set(owners))
        self._values = np.zeros((groups, max(len(source.numbers), 1)))
        self._owners = owners if bucket.each else None
        values = self._values if self._owners is None else self._values[owners]
        self._own = {name: k for k, name in enumerate(source.numbers) if is_own(name)}
        self._nothing = dict.fromkeys(self._own, 0.0)
        self._last: list[tuple[Any, ...]] = [(None,) * 5] * groups
        self._sources = [_source(name) for name in source.numbers]
        self.summed = source.sums
        self._folded = source.folded
        self._job = launch.Job(
            source, bucket.table, bucket.cuts, bucket.rows, values,
            np.float64 if bucket.key.types.exact else np.float32, bucket.new_numbers, bucket.small,
        )  # fmt: skip

    def run(self, works: list[Work], sums: Mapping[str, NDArray[np.float64]]) -> None:
        """Compute the scalars of each row, and launch.

        Args:
            works: the groups, with this step's numbers.
            sums: what earlier passes have summed up, per member.
        """
        if self._sources:
            for group in self._groups:
                work = works[group]
                held = (work.numbers, work.before, work.after, work.scalars, self._nothing)
                # These are replaced as a whole, never changed in place.
                if not all(map(is_, held, self._last[group])):
                    self._values[group] = [cast(Any, held[i])[key] for i, key in self._sources]
                    self._last[group] = held
        if self._owners is not None:
            self._job.groups[:] = self._values[self._owners]
            for name, column in self._own.items():
                self._job.groups[:, column] = sums[name] if name in sums else self._number(name, works)
        self._job.run(self._bucket.used)
        if self._folded:
            scratch.fold(self._bucket.scratch, self._folded)

    def _number(self, name: str, works: list[Work]) -> NDArray[Any]:
        """A number of each member's own."""
        if name == "n" or name.startswith("n."):
            return np.array([count(p, name) for p in self._bucket.tensors()])
        return np.concatenate([work.factors for work in works])[self._bucket.indices]

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """What was summed up, per member of the bucket: whatever the threads, in one order."""
        if not self.summed:
            return {}
        bucket = self._bucket
        columns: list[Any] = [np.bincount(bucket.owner, x, len(bucket.members)) for x in self._job.totals.T]
        return dict(zip(self.summed, columns, strict=True))


def _source(name: str) -> tuple[int, Any]:
    """Where `Kernel.run` finds a number, by its name in the trace."""
    if is_own(name):
        return 4, name
    source, _, key = name.partition(".")
    at = {"h": 0, "before": 1, "after": 2, "c": 3}[source]
    return at, Scalars._fields.index(key) if source == "c" else key
