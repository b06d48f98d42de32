"""The backend that runs every step operation by operation on tensors, as the formula is written."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg.kernels import eager, rounds, sharded
from thalweg.kernels.work import States, Work


class Eager:
    """The backend that takes whatever torch can: complex numbers, any strides, any device."""

    def __init__(self) -> None:
        self._left_out: list[Work] = []

    def prepare(self, works: list[Work], states: States) -> None:
        """See `thalweg.kernels.work.Backend`."""
        self._left_out = []

    def leave_out(self, works: list[Work]) -> None:
        """See `thalweg.kernels.work.Backend`."""
        self._left_out = works

    def squares(self, works: list[Work], clipped: bool, strict: bool) -> NDArray[np.float64]:
        """See `thalweg.kernels.work.Backend`."""
        members = [(work, work.first + i, p) for work in works for i, p in enumerate(work.params)]
        return sharded.summed([p for _, _, p in members], eager.squares(members, clipped, strict))

    def step(self, works: list[Work], states: States, zero_grad: bool) -> None:
        """See `thalweg.kernels.work.Backend`."""
        stepped = [work for work in works if not any(work is other for other in self._left_out)]
        given = ((work, work.first + i, p) for work in stepped for i, p in enumerate(work.params))
        members = [member for member in given if member[2].grad is not None]
        self._step(members, states, zero_grad)

    def _step(self, members: Iterable[tuple[Work, int, Tensor]], states: States, zero_grad: bool) -> None:
        step(members, states, zero_grad)

    def drop(self, groups: Sequence[list[Tensor]]) -> bool:
        """See `thalweg.kernels.work.Backend`."""
        return False


def step(members: Iterable[tuple[Work, int, Tensor]], states: States, zero_grad: bool) -> None:
    """Step parameters that have a gradient, each with its group and its number among all."""
    together: list[tuple[Work, int, Tensor]] = []
    for work, i, p in members:
        if work.totals:
            together.append((work, i, p))
        else:
            eager.step(work, p, states.of(p), zero_grad, i)
    if together:
        rounds.step(together, states, zero_grad)
