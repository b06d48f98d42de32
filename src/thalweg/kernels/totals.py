"""Totals over all parameters, from what kernels have summed up of each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.cutting import RESOLUTION
from thalweg.fields import shared_fields
from thalweg.kernels.bucket import Bucket
from thalweg.kernels.work import Work
from thalweg.trace import Graph, evaluate

Totals = dict[tuple[int, str], float]
"""Totals by the optimizer that they are of, where several step together, and by name."""


def own(of: Graph, bucket: Bucket, works: Sequence[Work], sums: Mapping[str, NDArray[np.float64]]) -> Totals:
    """What the members of a bucket that are stepped contribute to totals.

    Args:
        of: what is totalled, a number per parameter.
        bucket: the bucket, whose members are sorted into rows.
        works: the groups, with this step's numbers.
        sums: what was summed up, per member.
    """
    rows = bucket.rows[: bucket.used]
    members: NDArray[np.int64] = rows.view(np.int64)[:, 0]
    chosen: list[int] = members.tolist()
    groups = [works[bucket.parameters.group[bucket.members[m]]] for m in chosen]
    given: dict[str, NDArray[np.float64]] = {"t": rows[:, 1]}
    given |= {f"s.{name}": rows[:, 2 + k] for k, name in enumerate(bucket.kept)}
    given |= {name: x[members] for name, x in sums.items()}
    given["n"] = bucket.parameters.records["numel"][bucket.indices[members]].astype(np.float64)
    given[RESOLUTION] = np.full(len(rows), torch.finfo(bucket.key.types.arithmetic).eps)
    named = {id(work): work.named() for work in groups}
    for name in of.inputs:
        if name.startswith(("h.", "before.", "after.", "c.")):
            given[name] = np.array([named[id(work)][name] for work in groups], np.float64)
    totals: dict[tuple[int, str], float] = {}
    made = evaluate(of, {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in given.items()})
    whose = np.array([work.member for work in groups], np.int64)
    for name, x in made.items():
        each: Any = (x + torch.zeros(len(rows), dtype=torch.float64)).numpy()
        for member in set(whose.tolist()):
            totals[member, name] = float(each[whose == member].sum())
    return totals


def spread(totals: Totals, bucket: Bucket, works: Sequence[Work]) -> dict[str, NDArray[np.float64]]:
    """The totals that each member of a bucket has part in, by name."""
    whose = [works[bucket.parameters.group[i]].member for i in bucket.members]
    names = dict.fromkeys(name for _, name in totals)
    return {name: np.array([totals.get((member, name), 0.0) for member in whose]) for name in names}


def alike(buckets: Sequence[Bucket], works: Sequence[Work]) -> bool:
    """Whether all members are stepped, and share the numbers that are one per optimizer."""
    known: dict[tuple[type, int, str], float] = {}
    for bucket in buckets:
        rows, rule = bucket.rows[: bucket.used], bucket.key.formula[0]
        if bucket.used != len(bucket.members):
            return False
        members: list[int] = rows.view(np.int64)[:, 0].tolist()
        whose = [works[bucket.parameters.group[bucket.members[m]]].member for m in members]
        for name in shared_fields(bucket.rule.State):
            values: list[float] = rows[:, 2 + bucket.kept.index(name)].tolist()
            for member, x in zip(whose, values, strict=True):
                first = known.setdefault((rule, member, name), x)
                if x != first and (x == x or first == first):  # nan is like nan
                    return False
    return True
