"""What comes between the passes of a step on a device: words for arrays, and totals over all parameters."""

from typing import Any

import torch
from torch import Tensor

from thalweg.cutting import RESOLUTION
from thalweg.kernels.batch import Batch
from thalweg.kernels.evaluation import count, evaluate
from thalweg.kernels.work import States
from thalweg.trace import Graph
from thalweg.trace import evaluate as evaluated


def is_total(part: Graph) -> bool:
    """Whether a part of a step gives what is totalled over all parameters, rather than words for arrays."""
    return all(name.startswith("q.") for name in part.outputs)


def totals(of: Graph, batch: Batch) -> dict[str, Tensor]:
    """What the parameters of a batch contribute to totals, on its device.

    Args:
        of: what is totalled, a number per parameter.
        batch: the batch, all of whose parameters are stepped.
    """
    given: dict[str, Any] = {"t": batch.steps.to(torch.float64) + 1}
    given |= {f"s.{name}": x.to(torch.float64) for name, x in batch.held.items()}
    given |= {name: batch.own[:, k] for k, name in enumerate(batch.own_names)}
    given |= {name: batch.given[batch.group, k] for k, name in enumerate(batch.columns) if name not in given}
    given[RESOLUTION] = torch.finfo(batch.key.types.arithmetic).eps
    nothing = torch.zeros(len(batch.members), dtype=torch.float64, device=batch.own.device)
    return {name: (x + nothing).sum() for name, x in evaluated(of, given).items()}


class Words:
    """The words for arrays in one step of a batch: operations on whole tensors on its device.

    What is done now and then depends on the count of steps.  The host knows it, unless a step may be left out without
    its notice; then it has to ask the device.
    """

    def __init__(self, batch: Batch, unknown: bool, states: States | None) -> None:
        self._batch = batch
        self._members = list(batch.stepped())
        self._given: list[dict[str, Any]] = []
        shown = states is not None and states.exposed
        for i in self._members:
            member, row = batch.members[i], int(batch.rows[i])
            given: dict[str, Any] = {**member.work.named()}
            for name in ("c.unscale", "c.clip_norm"):
                given[name] = batch.given[row, batch.column(name)]
            given["c.clip_each"] = batch.own[i, 0]
            given |= {f"s.{name}": x for name, x in batch.entries[i].items()}
            known = not (unknown or shown or batch.counts[i] != batch.counts[i])
            given["t"] = float(batch.counts[i]) + 1 if known else batch.steps[i].to(torch.float64) + 1
            self._given.append(given | batch.scratch[i])
        self._unknown = unknown
        self._new: list[tuple[dict[str, Any], str, Any]] = []

    @torch.no_grad()
    def run(self, of: Graph) -> None:
        """Evaluate the words between two passes."""
        batch = self._batch
        for i, given in zip(self._members, self._given, strict=True):
            for name, node in of.inputs.items():
                kind = name.partition(".")[0]
                if kind == "r":
                    given[name] = batch.own[i, batch.own_names.index(name)]
                elif kind == "n":
                    given[name] = count(batch.members[i].local, name)
                elif name == RESOLUTION:
                    given[name] = torch.finfo(batch.key.types.arithmetic).eps
                elif name in given and node.kind == "value":
                    given[name] = given[name].to(batch.key.types.arithmetic)
        made = evaluate(of, self._given, [batch.scratch[i] for i in self._members])
        for i, given, new in zip(self._members, self._given, made, strict=True):
            for name, x in new.items():
                kind = name.partition(".")[0]
                if kind == "r":
                    batch.own[i, batch.own_names.index(name)] = x
                elif kind == "w":
                    batch.scratch[i][name].copy_(x)
                elif kind == "a":
                    given[name] = x
                else:
                    self._new.append((batch.entries[i], name.removeprefix("s."), x))

    @torch.no_grad()
    def finish(self) -> None:
        """Keep the new arrays of the state, after everything has read the old ones; of a step that is taken."""
        for entry, name, x in self._new:
            entry[name].copy_(torch.where(self._batch.live != 0, x, entry[name]) if self._unknown else x)
