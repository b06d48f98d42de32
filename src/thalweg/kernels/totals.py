"""Totals over all parameters, from what kernels have summed up of each."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.cutting import RESOLUTION
from thalweg.kernels.bucket import Bucket
from thalweg.kernels.work import Work
from thalweg.rule import shared_fields
from thalweg.trace import Graph, evaluate


def own(of: Graph, bucket: Bucket, works: Sequence[Work], sums: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
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
    made = evaluate(of, {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in given.items()})
    return {name: float((x + torch.zeros(len(rows), dtype=torch.float64)).sum()) for name, x in made.items()}


def alike(buckets: Sequence[Bucket]) -> bool:
    """Whether all members are stepped, and share the numbers that are one per optimizer."""
    known: dict[tuple[type, str], float] = {}
    for bucket in buckets:
        rows, rule = bucket.rows[: bucket.used], bucket.key.formula[0]
        if bucket.used != len(bucket.members):
            return False
        for name in shared_fields(bucket.rule.State):
            values = rows[:, 2 + bucket.kept.index(name)]
            first = known.setdefault((rule, name), float(values[0]) if len(values) else 0.0)
            if not bool((values == first).all()):
                return False
    return True
