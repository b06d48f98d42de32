"""State that users can see: looked at in each step, since they may have edited it, however they did."""

from collections.abc import MutableMapping, Sequence
from itertools import chain
from operator import is_
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from thalweg.kernels import layout, sharded
from thalweg.kernels.calls import watch
from thalweg.kernels.parameters import Parameters
from thalweg.kernels.records import ENTRY, HELD, address


class Entry(NamedTuple):
    """The state of one parameter.

    Attributes:
        param: the parameter's number.
        held: the dictionary.
        tensors: what is in it under the names of `Shown`.
        addresses: where the elements of each are.
    """

    param: int
    held: dict[str, Any]
    tensors: list[Tensor]
    addresses: list[int]


class Shown:
    """The dictionaries and tensors of state of some parameters, as they are when this is made."""

    def __init__(
        self,
        parameters: Parameters,
        mapping: MutableMapping[Tensor, dict[str, Any]],
        entries: Sequence[Entry],
        names: Sequence[str],
        arrays: int,
    ) -> None:
        """Note what there is.

        Args:
            parameters: the parameters of the optimizer.
            mapping: the optimizer's state.
            entries: those to look at, at least one.
            names: what each has.
            arrays: how many of the names, the first ones, are arrays; the others are single numbers.
        """
        self._job = parameters.job
        self._mapping = mapping
        self._entries = [entry.held for entry in entries]
        self._params = [parameters.tensors[entry.param] for entry in entries]
        self._names = names
        self._tensors = list(chain.from_iterable(entry.tensors for entry in entries))
        rows: list[tuple[int, ...]] = []
        for entry in entries:
            for k, (x, at) in enumerate(zip(entry.tensors, entry.addresses, strict=True)):
                local: Any = part(x)
                rows.append((id(local), entry.param, at, 0, layout.code(local.dtype), int(k >= arrays)))
        self._held = np.array(rows, HELD)
        self._versions = np.array([(id(mapping), 0), *((id(held), 0) for held in self._entries)], ENTRY)
        self._changed()
        self._in_place()

    def holds(self, mapping: MutableMapping[Tensor, dict[str, Any]]) -> bool:
        """Whether the optimizer's state is still that, and where it was."""
        return mapping is self._mapping and (not self._changed() or self._same()) and self._in_place()

    def renew(self) -> None:
        """Count up the versions of the tensors whose parameters were stepped natively."""
        watch().renew(self._job, address(self._held), len(self._held))

    def _changed(self) -> int:
        """Whether any dictionary has changed since this was last asked, or may have."""
        if not isinstance(self._mapping, dict):  # a mapping of the user's own, whose contents nobody numbers
            return -1
        return watch().changed(self._job, address(self._versions), len(self._versions))

    def _same(self) -> bool:
        """Whether the dictionaries still have the same tensors."""
        if not all(map(is_, map(self._mapping.get, self._params), self._entries)):
            return False
        try:
            values = [entry[name] for entry in self._entries for name in self._names]
        except KeyError:
            return False
        return all(map(is_, values, self._tensors))

    def _in_place(self) -> bool:
        """Whether each tensor is where it was; notes at first whose memory it is."""
        return watch().held(self._job, address(self._held), len(self._held)) == len(self._held)


def part(x: Any) -> Any:
    """A tensor, or what this process has of one that is sharded over several."""
    return sharded.shard(x) if isinstance(x, Tensor) and sharded.is_sharded(x) else x
