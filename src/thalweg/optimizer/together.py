"""Several optimizers that step as one."""

# pyright: reportPrivateUsage=false
# A step of several optimizers is the step of each, with what they share done once.

from collections.abc import Sequence
from itertools import chain
from typing import Any

from torch import Tensor

from thalweg import kernels
from thalweg.kernels import States, Work
from thalweg.optimizer.optimizer import Optimizer
from thalweg.optimizer.switching import pending


class Together:
    """Steps optimizers of different parameters in one launch for all that have a formula in common.

    Each takes the step that it would take alone: with its own rule, hyperparameters, schedules, count of steps, norm
    and clipping, and leaves it out alone where its own gradients are not finite and it skips such steps.  Nothing that
    one does depends on the others, so one may diverge, or be removed.

    Args:
        optimizers: at least one; no two of the same parameters.  From here on they must not step by themselves.

    Attributes:
        optimizers: those that step.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        self._join()

    def step(self) -> None:
        """Take a step of every optimizer.

        Raises:
            RuntimeError: as `Optimizer.step`, of one of them; then none has taken a step.
        """
        if any(not optimizer.training for optimizer in self.optimizers):
            raise RuntimeError("an optimizer is in eval mode; call its train() before the step")
        with self._states.lock:
            self._step()

    def _step(self) -> None:
        own = [optimizer._begin() for optimizer in self.optimizers]
        works = [*chain.from_iterable(own)]
        self._engine.prepare(works, self._states)
        known: dict[tuple[bool, bool], Any] = {}

        def squares(_: list[Work], clipped: bool, strict: bool) -> Any:
            if (clipped, strict) not in known:
                known[clipped, strict] = self._engine.squares(works, clipped, strict)
            return known[clipped, strict]

        everyone = [*zip(self.optimizers, own, strict=True)]
        for optimizer, groups in everyone:
            optimizer._clip_each(groups, squares)
        takes = [optimizer._look(groups, squares) for optimizer, groups in everyone]
        if not all(takes):
            rest = [groups for groups, takes_it in zip(own, takes, strict=True) if not takes_it]
            self._engine.leave_out([*chain.from_iterable(rest)])
        stepped = [one for one, takes_it in zip(everyone, takes, strict=True) if takes_it]
        for optimizer, groups in stepped:
            optimizer._watch(groups)
        self._engine.step(works, self._states, zero_grad=False)
        switched = [optimizer._end(groups) for optimizer, groups in stepped]
        if any(switched):
            self._join()

    def keep(self, chosen: Sequence[int]) -> None:
        """Go on with some of the optimizers, by their positions."""
        self.optimizers = [self.optimizers[i] for i in chosen]
        self._join()

    def _join(self) -> None:
        """Derive anew what is derived from all groups, and put all states where one engine has them."""
        mapping: dict[Tensor, dict[str, Any]] = {}
        for optimizer in self.optimizers:
            own = {p for group in optimizer.param_groups for p in group["params"]}
            optimizer._states.hand_over()
            mapping.update({p: held for p, held in optimizer._states.mapping.items() if p in own})
        exposed = any(optimizer._states.exposed for optimizer in self.optimizers)
        self._states = States(mapping, exposed)
        self._engine = kernels.backend(self.optimizers[0].backend)
        first = 0
        for member, optimizer in enumerate(self.optimizers):
            optimizer._states, optimizer._engine = self._states, self._engine
            optimizer._works, optimizer._first, optimizer._member = {}, first, member
            optimizer._switching = any(map(pending, optimizer.param_groups))
            first += sum(len(group["params"]) for group in optimizer.param_groups)
