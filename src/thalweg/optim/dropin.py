"""The base class of the drop-ins: groups with torch's keys, read by a convention; torch's checkpoints and errors."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from operator import is_
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.optim.optimizer import Optimizer as TorchOptimizer

from thalweg.conventions.meaning import Convention
from thalweg.kernels import Work, eager
from thalweg.optimizer import Optimizer, checkpoint
from thalweg.optimizer.hooks import hooked, uncompiled
from thalweg.optimizer.optimizer import Around
from thalweg.optimizer.settings import immutable
from thalweg.rule import Rule

_step: Callable[..., Any] = inspect.unwrap(Optimizer.step)
_mode: Callable[[Any], Any] = torch._C._get_dispatch_mode  # pyright: ignore
_FAKE: Any = torch._C._TorchDispatchModeKey.FAKE  # pyright: ignore


class DropIn(Optimizer):
    """An optimizer whose groups have torch's keys, which a convention translates.

    Attributes:
        convention: the meaning of the class's name and arguments.
        theirs: the step of torch's class.
    """

    convention: ClassVar[Convention]
    theirs: ClassVar[Callable[..., Any]]

    _step_supports_amp_scaling = False  # pyright: ignore -- torch's constructors make it true with fused=True
    clip_norm = clip_each = clip_value = ema = state_dtype = None
    nonfinite = "propagate"
    backend = "auto"
    capturable = False
    seed = 0
    training = True
    skipped_steps = 0  # pyright: ignore -- a property of the base class

    @hooked
    def step(self, closure: Callable[[], float] | None = None, *, zero_grad: bool = False) -> Any:
        """Like torch's; see `thalweg.Optimizer.step` for `zero_grad`."""
        if not self._is_torchs():
            return _step(self, closure, zero_grad=zero_grad)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            loss = type(self).theirs(self, closure)
            self._count()
            if zero_grad:
                self.zero_grad(set_to_none=False)
        return loss

    def _is_torchs(self) -> bool:
        """Whether only torch's own step will do.

        It differentiates through the step (``differentiable``), records it in CUDA graphs, or raises where there are
        none (``capturable``), and steps tensors that contain no numbers: fake and meta ones.
        """
        if _mode(_FAKE) is not None:
            return True
        for group in self.param_groups:
            if group.get("differentiable") or group.get("capturable"):
                return True
            for p in group["params"][:1]:
                if p.is_meta or isinstance(p, FakeTensor):
                    return True
        return False

    @uncompiled
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Like torch's."""
        TorchOptimizer.add_param_group(self, param_group)
        self._reset()

    def _reset(self) -> None:
        super()._reset()
        self._read: dict[int, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {}
        self._values: dict[int, tuple[Any, ...] | None] = {}

    def _settings(self, i: int, group: dict[str, Any]) -> dict[str, Any]:
        values = (*map(group.get, self.convention.arguments), group["params"])
        last = self._values.get(i)
        if last is not None and all(map(is_, values, last)):
            return self._read[i][2]
        ours = self._translated(i, group)
        # The same objects are the same values, unless they can be changed in place.
        self._values[i] = values if all(map(immutable, values[:-1])) else None
        return ours

    def _translated(self, i: int, group: dict[str, Any]) -> dict[str, Any]:
        arguments = self.convention.arguments
        theirs = {name: _plain(group.get(name, argument.default)) for name, argument in arguments.items()}
        if i in self._read and self._read[i][0] == theirs and self._read[i][2]["params"] is group["params"]:
            return self._read[i][2]
        settings = self.convention.settings(theirs)
        rule: Rule | None = None
        if i in self._read:
            _, last, ours = self._read[i]
            if all(x is not None and name in ours["rule"].numbers for name, x in settings.items() if x != last[name]):
                rule = ours["rule"]  # the formula is the same, so its kernel and layout can be kept
        rule = rule or self.convention.rule_of(settings)
        ours = {**rule.numbers, **settings, "rule": rule, "params": group["params"]}
        ours.setdefault("weight_decay", 0.0)
        ours.setdefault("decay_form", "l2")
        ours.setdefault("maximize", False)
        self._read[i] = theirs, settings, ours
        return ours

    def _work(self, i: int, group: dict[str, Any], first: int, around: Around) -> Work:
        work = super()._work(i, group, first, around)
        work.densify = self.convention.sparse
        return work

    def _number_dtype(self) -> torch.dtype:
        """The dtype of the numbers in the state: torch's default dtype, as in torch."""
        return eager.count_dtype()

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
        """Like torch's; torch's class can load it and continue from there."""
        if not self.convention.counted:  # torch keeps nothing of a parameter that was taken out without a buffer
            present = {p for group in self.param_groups for p in group["params"]}
            gone = [(p, held) for p, held in self.state.items() if p not in present]
            for p in [p for p, held in gone if isinstance(held, dict) and held.keys() == {"step"}]:
                del self.state[p]
        state = TorchOptimizer.state_dict(self)
        if not self.convention.counted:
            saved: dict[Any, Any] = state["state"]
            for i in (i for group in state["param_groups"] for i in group["params"]):
                if isinstance(held := saved.get(i), dict) and "step" in held:
                    saved[i] = {name: x for name, x in cast("dict[str, Any]", held).items() if name != "step"}
                    if not saved[i]:
                        del saved[i]
        return state

    @uncompiled
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a checkpoint of this class or of torch's.

        If both this optimizer and the checkpoint have parameter names, states are matched by name, in any order.

        Raises:
            ValueError: its groups, names or shapes are not those of this optimizer.
        """
        given: dict[str, Any] = {}

        def fitted(_: TorchOptimizer, state: dict[str, Any]) -> dict[str, Any]:
            given.update(checkpoint.by_name(self.param_groups, state))
            checkpoint.check_shapes(self.param_groups, self._rules(), given)
            return given

        # Runs after the user's hooks, which may change or unwrap what is loaded.
        hook = self.register_load_state_dict_pre_hook(fitted)
        try:
            TorchOptimizer.load_state_dict(self, dict(state_dict))
        finally:
            hook.remove()
        self._reset()
        self._uncast(given)
        for held, rule in self._held():
            for name in rule.State._fields:
                if name in held and held[name] is None:
                    del held[name]
        self._count()

    def _count(self) -> None:
        """Add the step count that torch's SGD does not save: any state with a buffer has been stepped at least once."""
        for held, rule in self._held():
            if not self.convention.counted and any(name in held for name in rule.State._fields):
                held.setdefault("step", torch.tensor(1.0, device="cpu"))

    def _rules(self) -> list[Rule]:
        """The rule of each group."""
        return [self._settings(i, group)["rule"] for i, group in enumerate(self.param_groups)]

    def _held(self) -> Iterator[tuple[dict[str, Any], Rule]]:
        """Each parameter's state, if it is a dictionary, with its rule; the user's own entries are left alone."""
        for rule, group in zip(self._rules(), self.param_groups, strict=True):
            for p in group["params"]:
                if p in self.state and isinstance(self.state[p], dict):
                    yield self.state[p], rule


def _plain(x: Any) -> Any:
    """A setting as numbers; a rate or the betas may be given as tensors."""
    if isinstance(x, tuple | list):
        return tuple(map(_plain, cast("tuple[Any, ...]", x)))
    return x.item() if isinstance(x, Tensor) else x


def constructor(theirs: type[TorchOptimizer]) -> Callable[..., None]:
    """Torch's constructor, whose errors then also say what is allowed."""

    @functools.wraps(theirs.__init__)
    def __init__(self: DropIn, params: Any, *arguments: Any, **keywords: Any) -> None:
        try:
            theirs.__init__(self, params, *arguments, **keywords)
        except ValueError as error:
            if not str(error).startswith("Invalid"):  # not about the value of an argument
                raise
            said = inspect.signature(theirs.__init__).bind(self, params, *arguments, **keywords).arguments
            raise ValueError(f"{error}{_allowed(type(self), said)}") from None

    return __init__


def _allowed(cls: type[DropIn], said: Mapping[str, Any]) -> str:
    """The allowed values of the first invalid argument, to be appended to torch's message."""
    for name, argument in cls.convention.arguments.items():
        try:
            if name in said:
                argument.check(f"{cls.__name__}'s {name}", said[name], cls.convention.template)
        except ValueError as error:
            return f": {error}"
    return ""
