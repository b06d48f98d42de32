"""Where the parameters on one device and their gradients are: read in every step from torch's own objects.

Native code tells it of most tensors, as on the CPU.  What it cannot tell is asked of torch, one tensor after another.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import increment_version

from thalweg.kernels import layout, sharded
from thalweg.kernels.calls import counting
from thalweg.kernels.parameters import Parameters
from thalweg.kernels.records import EAGER, EXAMINE, FUSED


class Sight:
    """The parameters of some groups, all on one device.

    Attributes:
        native: what native code knows of them; None where torch's objects are not laid out as expected.
        tensors: the parameters.
        places: where each is, or the part of it that this process has.
        active: what becomes of each in this step; see `thalweg.kernels.records`.
        grads: where the gradients are, 0 for none.
        asked: the numbers of the parameters that native code could not tell of.
    """

    def __init__(self, groups: Sequence[list[Tensor]], device: torch.device) -> None:
        found = layout.on(device)
        self.native = None if found is None else Parameters(groups, found)
        self._groups = list(groups)
        self.tensors = [p for group in groups for p in group]
        self._known = [_layout(p) for p in self.tensors]
        self.places = np.array([place(p) for p in self.tensors], np.int64)
        self.active = np.full(len(self.tensors), EXAMINE, np.int64)
        self.grads = np.zeros(len(self.tensors), np.int64)
        self.asked = list(range(len(self.tensors)))

    def trust(self, members: Sequence[int]) -> None:
        """Have native code look at these parameters, of which it is known that kernels can step them."""
        if self.native is None or not members:
            return
        records = self.native.records
        for i in self.native.sharded.keys() & set(members):
            records["object"][i] = id(sharded.shard(self.tensors[i]))
        found = self.native.enroll(list(members), trusted=True)
        records["home"][[i for i, known in zip(members, found, strict=True) if known]] = 1
        self.native.note([base for base in map(_storage, self.tensors) if base])

    def look(self) -> bool:
        """Look at all parameters; False if there are others than there were, or one is elsewhere."""
        if self.native is not None:
            asked = self.native.look()
            if asked is None:
                return False
            self.asked, self.active = asked, self.native.records["active"].copy()
            self.grads = np.where(self.active == FUSED, self.native.records["grad"], 0)
        else:
            flat = [p for group in self._groups for p in group]
            if len(flat) != len(self.tensors) or any(p is not q for p, q in zip(flat, self.tensors, strict=True)):
                return False
        return not any(
            place(self.tensors[i]) != self.places[i] or _layout(self.tensors[i]) != self._known[i] for i in self.asked
        )

    def examine_all(self) -> None:
        """Have every parameter looked at by torch this time."""
        self.asked = list(range(len(self.tensors)))

    def settle(self, active: NDArray[np.int64]) -> None:
        """Note what becomes of each parameter in this step."""
        if self.native is not None and (self.asked or not np.array_equal(active, self.active)):
            records = self.native.records["active"]
            records[:] = active
            records[self.asked] = EAGER  # native code does not know where their versions are counted
        self.active = active

    def count(self, zero_grad: bool) -> None:
        """Count up the versions of what kernels have written: autograd must see that what it has saved is no more."""
        told = [i for i in self.asked if self.active[i] == FUSED]
        if self.native is not None:
            counting().count(self.native.job, zero_grad)
            told += [i for i in self.native.sharded if self.active[i] == FUSED]
        if told:
            increment_version([self.tensors[i] for i in told])
            if zero_grad:
                increment_version([cast(Tensor, self.tensors[i].grad) for i in told])

    def release(self) -> None:
        """Let go of gradients that were held for one step."""
        if self.native is not None:
            self.native.release()


def place(x: Tensor | None) -> int:
    """Where a tensor is, or the part of it that this process has; 0 for none, and -1 if it has no one place."""
    try:
        return 0 if x is None else (cast(Any, x)._local_tensor if sharded.is_sharded(x) else x).data_ptr()
    except (RuntimeError, NotImplementedError):
        return -1


def _storage(p: Tensor) -> int:
    """Where the memory begins that a tensor is part of; 0 if it has none."""
    own: Any = cast(Any, p)._local_tensor if sharded.is_sharded(p) else p
    try:
        return own.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0


def _layout(p: Tensor) -> tuple[Any, ...]:
    own: Any = cast(Any, p)._local_tensor if sharded.is_sharded(p) else p
    return own.dtype, own.device, own.layout, own.shape, own.stride() if own.layout == torch.strided else None
