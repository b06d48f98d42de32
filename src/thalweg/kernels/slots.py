"""Words for arrays, between the passes of a step: evaluated for all parameters of a bucket, equal shapes in batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.cutting import RESOLUTION
from thalweg.fields import number_fields
from thalweg.kernels.bucket import Bucket
from thalweg.kernels.evaluation import count, evaluate
from thalweg.kernels.records import FUSED
from thalweg.kernels.work import States, Work
from thalweg.trace import Graph


class Slots:
    """The words for arrays in one step of a bucket."""

    def __init__(self, bucket: Bucket, works: Sequence[Work], states: States) -> None:
        parameters = bucket.parameters
        active = parameters.records["active"][bucket.indices]
        self._bucket = bucket
        self._members = np.flatnonzero(active == FUSED).tolist()
        numbers = number_fields(bucket.rule.State)
        self._given: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []
        for m in self._members:
            i = bucket.members[m]
            work, entry = works[parameters.group[i]], states.of(parameters.tensors[i])
            given: dict[str, Any] = {**work.named()}
            for name, x in entry.items():
                given[f"s.{name}"] = float(x) if name in numbers else x
            self._given.append(given | bucket.scratch[m] | {"t": float(entry["step"]) + 1})
            self._entries.append(entry)
        self._tensors = bucket.tensors()
        self._new: list[tuple[dict[str, Any], str, Any]] = []

    @torch.no_grad()
    def run(self, of: Graph, sums: dict[str, NDArray[np.float64]]) -> None:
        """Evaluate the words between two passes.

        Args:
            of: the words, as one of the parts of a step.
            sums: what passes have summed up, per member; these words' numbers are added.
        """
        bucket = self._bucket
        for m, given in zip(self._members, self._given, strict=True):
            for name, node in of.inputs.items():
                if name in sums:
                    given[name] = sums[name][m]
                elif name.partition(".")[0] == "n":
                    given[name] = count(self._tensors[m], name)
                elif name == RESOLUTION:
                    given[name] = torch.finfo(bucket.key.types.arithmetic).eps
                elif name in given and node.kind == "value":
                    given[name] = given[name].to(bucket.key.types.arithmetic)
        made = evaluate(of, self._given, [bucket.scratch[m] for m in self._members])
        for m, given, entry, new in zip(self._members, self._given, self._entries, made, strict=True):
            for name, x in new.items():
                kind = name.partition(".")[0]
                if kind == "r":
                    sums.setdefault(name, np.zeros(len(bucket.members)))[m] = float(x)
                elif kind in ("w", "y", "z"):
                    bucket.scratch[m][name].copy_(x)
                elif kind == "a":
                    given[name] = x
                else:
                    self._new.append((entry, name.removeprefix("s."), x))

    @torch.no_grad()
    def finish(self) -> None:
        """Keep the new arrays of the state, after everything has read the old ones."""
        for entry, name, x in self._new:
            entry[name].copy_(x)
