"""torch.optim's classes, by torch's names and arguments, with torch's numbers and checkpoints: a drop-in.

``thalweg.optim.Adam(model.parameters(), lr=1e-3)`` is a ``torch.optim.Adam`` whose step is Thalweg's.  The classes
are made from the torch column of `thalweg.conventions.TABLE`: each takes torch's constructor, and so its signature,
checks and groups, and reads its groups by that table.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer as TorchOptimizer

from thalweg.conventions import TABLE
from thalweg.conventions.meaning import Convention
from thalweg.kernels import Work
from thalweg.optimizer import Optimizer, checkpoint
from thalweg.optimizer.hooks import uncompiled
from thalweg.rule import Rule

__all__ = ["ASGD", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop"]


class DropIn(Optimizer):
    """What the classes have in common: groups with torch's keys, read by a convention.

    Attributes:
        convention: what the class's name and arguments mean.
    """

    convention: ClassVar[Convention]

    _step_supports_amp_scaling = False  # pyright: ignore -- torch's constructors make it true with fused=True
    clip_norm = clip_each = clip_value = ema = state_dtype = None
    nonfinite = "propagate"
    backend = "auto"
    seed = 0
    training = True
    skipped_steps = 0

    @uncompiled
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's."""
        TorchOptimizer.add_param_group(self, param_group)
        self._reset()

    def _reset(self) -> None:
        super()._reset()
        self._read: dict[int, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {}

    def _settings(self, i: int, group: dict[str, Any]) -> dict[str, Any]:
        arguments = self.convention.arguments
        theirs = {name: _plain(group.get(name, argument.default)) for name, argument in arguments.items()}
        if i in self._read and self._read[i][0] == theirs:
            return self._read[i][2]
        settings = self.convention.settings(theirs)
        rule: Rule | None = None
        if i in self._read:
            _, last, ours = self._read[i]
            if all(name in ours["rule"].numbers for name, x in settings.items() if x != last[name]):
                rule = ours["rule"]  # the same formula: nothing is compiled or laid out anew
        rule = rule or self.convention.rule_of(settings)
        ours = {**rule.numbers, **settings, "rule": rule, "params": group["params"]}
        ours.setdefault("weight_decay", 0.0)
        ours.setdefault("decay_form", "l2")
        self._read[i] = theirs, settings, ours
        return ours

    def _work(self, i: int, group: dict[str, Any]) -> Work:
        work = super()._work(i, group)
        work.differentiable = bool(group.get("differentiable"))
        work.densify = self.convention.sparse
        rate = group["lr"]
        if work.differentiable and isinstance(rate, Tensor):
            work.numbers["lr"] = cast(float, rate)  # so that autograd sees it
        return work

    def __getstate__(self) -> dict[str, Any]:
        return TorchOptimizer.__getstate__(self)

    def __repr__(self) -> str:
        rules = dict.fromkeys(self._stated(i, group) for i, group in enumerate(self.param_groups))
        return f"{super().__repr__()}\n{self.convention.source}'s convention: {'; '.join(rules)}"

    def _stated(self, i: int, group: dict[str, Any]) -> str:
        ours = self._settings(i, group)
        rule: Rule = ours["rule"]
        decay = f", weight decay {ours['decay_form']}" if ours["weight_decay"] else ""
        return f"{rule.bind({name: float(ours[name]) for name in rule.numbers})}{decay}"

    @uncompiled
    def state_dict(self) -> dict[str, Any]:
        """As torch's: it loads into torch's class, which goes on from it."""
        state = TorchOptimizer.state_dict(self)
        if not self.convention.counted:
            held = state["state"]
            for i in [i for group in state["param_groups"] for i in group["params"] if i in held]:
                held[i] = {name: x for name, x in held[i].items() if name != "step"}
                if not held[i]:
                    del held[i]
        return state

    @uncompiled
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, of this class or of torch's.

        Where the parameters' names are known on both sides, states are matched by name, whatever the order.

        Raises:
            ValueError: its groups, names or shapes are not those of this optimizer.
        """
        given: dict[str, Any] = {}

        def fitted(_: TorchOptimizer, state: dict[str, Any]) -> dict[str, Any]:
            given.update(checkpoint.by_name(self.param_groups, state))
            checkpoint.check_shapes(self.param_groups, given)
            return given

        # As the last of the hooks: those of the user may change or unwrap what is loaded.
        hook = self.register_load_state_dict_pre_hook(fitted)
        try:
            TorchOptimizer.load_state_dict(self, dict(state_dict))
        finally:
            hook.remove()
        self._reset()
        self._uncast(given)
        for group in self.param_groups:
            for held in (self.state[p] for p in group["params"] if p in self.state):
                for name in [name for name, x in held.items() if x is None]:
                    del held[name]
                if held:  # torch's SGD counts no steps: what has a buffer was stepped
                    held.setdefault("step", torch.tensor(1.0))


def _plain(x: Any) -> Any:
    return x.item() if isinstance(x, Tensor) else x


def _constructor(theirs: type[TorchOptimizer]) -> Callable[..., None]:
    """Torch's constructor, with what is allowed added to its errors."""

    @functools.wraps(theirs.__init__)
    def __init__(self: DropIn, params: Any, *arguments: Any, **keywords: Any) -> None:
        try:
            theirs.__init__(self, params, *arguments, **keywords)
        except ValueError as error:
            said = inspect.signature(theirs.__init__).bind(self, params, *arguments, **keywords).arguments
            raise ValueError(f"{error}{_allowed(type(self), said)}") from None

    return __init__


def _allowed(cls: type[DropIn], said: Mapping[str, Any]) -> str:
    """What is allowed for the first argument that is not, to be added to torch's message."""
    for name, argument in cls.convention.arguments.items():
        try:
            argument.check(f"{cls.__name__}'s {name}", said.get(name, argument.default), cls.convention.rule)
        except ValueError as error:
            return f": {error}"
    return ""


def _class(name: str, convention: Convention) -> type[DropIn]:
    theirs: type[TorchOptimizer] = getattr(torch.optim, name)
    parent = theirs.__mro__[1].__name__  # AdamW is an Adam, as in torch
    ours = globals()[parent] if parent in TABLE["torch"].names else DropIn
    doc = (
        f"``torch.optim.{name}``: its arguments, its numbers, its checkpoints; stepped by Thalweg.\n\n"
        "``foreach``, ``fused`` and ``capturable`` are accepted and change nothing; ``differentiable=True`` is stepped "
        f"by plain torch operations, which autograd sees.\n\n{theirs.__doc__}"
    )
    body = {"__doc__": doc, "__module__": __name__, "__init__": _constructor(theirs), "convention": convention}
    return cast("type[DropIn]", type(name, (ours, theirs), body))


if TYPE_CHECKING:  # for editors and type checkers, with torch's constructors; what runs is made from the table below

    class SGD(torch.optim.SGD, DropIn): ...  # pyright: ignore

    class Adagrad(torch.optim.Adagrad, DropIn): ...  # pyright: ignore

    class RMSprop(torch.optim.RMSprop, DropIn): ...  # pyright: ignore

    class Adam(torch.optim.Adam, DropIn): ...  # pyright: ignore

    class AdamW(torch.optim.AdamW, Adam): ...  # pyright: ignore

    class NAdam(torch.optim.NAdam, DropIn): ...  # pyright: ignore

    class RAdam(torch.optim.RAdam, DropIn): ...  # pyright: ignore

    class Adamax(torch.optim.Adamax, DropIn): ...  # pyright: ignore

    class Adadelta(torch.optim.Adadelta, DropIn): ...  # pyright: ignore

    class ASGD(torch.optim.ASGD, DropIn): ...  # pyright: ignore

    class Rprop(torch.optim.Rprop, DropIn): ...  # pyright: ignore

else:
    for _name, _convention in TABLE["torch"].names.items():
        globals()[_name] = _class(_name, _convention)
