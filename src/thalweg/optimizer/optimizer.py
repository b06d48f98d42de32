"""`Optimizer`: any rule as a ``torch.optim.Optimizer``."""

import math
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer as TorchOptimizer
from torch.optim.optimizer import ParamsT

from thalweg import kernels
from thalweg.hyperparameters import check
from thalweg.kernels import StateMemoryError, States, Work
from thalweg.optimizer import checkpoint, gradients, ondevice, points, switching
from thalweg.optimizer.course import of
from thalweg.optimizer.following import advance, by_name, observe, upcoming
from thalweg.optimizer.hooks import hooked, profiler_enabled, uncompiled, unguarded
from thalweg.optimizer.settings import RANGES, Nonfinite, check_parameters, check_rates, immutable, settle
from thalweg.rule import Rule
from thalweg.schedules import Schedule
from thalweg.stages import DecayForm, Scalars, Stages
from thalweg.switch import Switch, read

_CONFIGURATION = (
    "rule", "schedule", "clip_norm", "clip_eps", "clip_in", "clip_each", "clip_value", "ema", "nonfinite",
    "state_dtype", "seed", "backend", "capturable", "training", "skipped_steps", "switch",
)  # fmt: skip

_add_param_group = unguarded(TorchOptimizer.add_param_group)


class Around(NamedTuple):
    """The services around the rule in a step: which there are, and the numbers that are the same for all groups."""

    scaled: bool
    scale: float
    clip_each: bool
    clip_value: float | None
    clip_norm: bool
    ema: float | None


class Held(NamedTuple):
    """What was found out about a group in an earlier step.

    Attributes:
        key: what its formula and its place depend on.
        work: what is to be done to it.
        read: reads all its settings that a step depends on.
        state: all of these and what else `work` was made from, or None if that may change unseen.
    """

    key: Any
    work: Work
    read: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    state: Any


class Optimizer(TorchOptimizer):
    """Steps parameters by a rule, with clipping, weight decay, averaging and other services for training.

    The order of a step: the gradient is unscaled, clipped by its own norm, by value, by the global norm, negated if
    maximizing, given its l2 decay; then the parameter is decayed (``scaled``, ``independent``), stepped by the rule
    and averaged.

    Args:
        params: parameters, named parameters or parameter groups.  A group may have its own ``rule``, any of its
            hyperparameters by name, ``weight_decay``, ``decay_form`` and ``maximize``.
        rule: the update rule of groups without their own; or a `thalweg.Switch` from one rule to another, which each
            group makes independently; or the text of either, as in ``"adam(lr=1e-3)"``.
        lr: the learning rate, in place of the rule's.
        schedule: a schedule of the learning rate, or of any hyperparameter and ``weight_decay`` by name; a group may
            have its own.  Its step counts the updates that were applied, and is saved with the state; on a GPU also
            those that were left out, of which the host is not told.  Scheduled values may not be set by hand.
        weight_decay: λ ≥ 0.
        decay_form: ``l2``, λθ added to the gradient; ``scaled``, known as decoupled, θ ← θ − ηλθ (Loshchilov & Hutter
            2019, as in torch's AdamW); ``independent``, known as fully decoupled, θ ← θ − λ(η/η₀)θ (as written in the
            same paper: only the schedule scales it).  The default is ``l2``, as in torch.optim.Adam; with a rule that
            rescales the gradient, as Adam does, a warning says so, since this is not the decay of AdamW.
        clip_norm: the largest global norm of all gradients together, as in ``torch.nn.utils.clip_grad_norm_``.
        clip_eps: added to the global norm when clipping: 1e-6 in torch, 0 in Keras and optax.
        clip_in: the precision in which the parameters' norms are added up to the global norm for clipping:
            ``float64``, or ``float32`` as in pytorch_optimizer.
        clip_each: the largest norm of each parameter's own gradient, as in Keras's ``clipnorm``.
        clip_value: the largest magnitude of an element, as in ``torch.nn.utils.clip_grad_value_``.
        ema: the decay of a moving average of the weights, to which `eval` switches.
        nonfinite: what to do if a gradient is not finite: ``propagate`` it, ``skip`` the whole step, or ``raise``.  The
            last two leave parameters and state unchanged.
        maximize: step up rather than down.
        state_dtype: ``torch.bfloat16`` halves the memory of the state, with stochastic rounding so that small changes
            are kept on average; by default float32, or the parameter's own type if that is wider.
        seed: the seed of that rounding.
        backend: ``numba`` for the fused CPU kernels, ``triton`` for the fused CUDA kernels, ``foreach`` for torch's
            functions of lists, ``eager`` for the formula on tensors, ``auto`` for the fastest available on the device
            of each group or the one in ``THALWEG_BACKEND``.
        capturable: whether `step` may be captured in a CUDA graph; then call `replayed` after each replay.

    Attributes:
        rule: the update rule; with a `switch`, its first rule.
        switch: the switch, or None.
        skipped_steps: the number of steps that ``nonfinite="skip"`` has skipped.
        training: whether the parameters are at the training point; see `eval`.

    Raises:
        ValueError: a setting is out of its range, a text cannot be read, or a parameter is not a floating-point
            leaf tensor.
        TypeError: a parameter is not a tensor, or `rule` is not a rule.

    Warns:
        UserWarning: `weight_decay` is given without `decay_form`, and the form makes a great difference to the rule.
    """

    rule: Rule
    switch: Switch | None = None
    capturable: bool = False
    training: bool

    def __init__(
        self,
        params: ParamsT,
        rule: Rule | Switch | str,
        *,
        lr: float | None = None,
        schedule: Schedule | Mapping[str, Schedule] | None = None,
        weight_decay: float = 0.0,
        decay_form: DecayForm | None = None,
        clip_norm: float | None = None,
        clip_eps: float = 1e-6,
        clip_in: Literal["float64", "float32"] = "float64",
        clip_each: float | None = None,
        clip_value: float | None = None,
        ema: float | None = None,
        nonfinite: Nonfinite = "propagate",
        maximize: bool = False,
        state_dtype: torch.dtype | None = None,
        seed: int = 0,
        backend: str = "auto",
        capturable: bool = False,
    ) -> None:
        given = read(rule)
        if lr is not None:
            if isinstance(given, Switch):
                raise ValueError(f"lr is {lr!r} beside {given}; write it in the rule that it is of")
            given = given.replace(lr=lr)
        if isinstance(given, Switch):
            self.switch, given = given, given.first
        self.rule = given
        self.clip_norm: float | None = check("clip_norm", clip_norm, RANGES["clip_norm"])
        self.clip_eps: float = check("clip_eps", clip_eps, RANGES["clip_eps"])
        self.clip_in: Literal["float64", "float32"] = check("clip_in", clip_in, RANGES["clip_in"])
        self.clip_each: float | None = check("clip_each", clip_each, RANGES["clip_each"])
        self.clip_value: float | None = check("clip_value", clip_value, RANGES["clip_value"])
        self.ema: float | None = check("ema", ema, RANGES["ema"])
        self.nonfinite: Nonfinite = check("nonfinite", nonfinite, RANGES["nonfinite"])
        if state_dtype not in (None, torch.float32, torch.bfloat16):
            raise ValueError(f"state_dtype is {state_dtype}; allowed is None, torch.float32 or torch.bfloat16")
        self.state_dtype, self.seed = state_dtype, int(seed)
        self.backend, self.capturable = backend, bool(capturable)
        self._reset()
        self.schedule = by_name(schedule)
        self.training = True
        self._skipped = 0
        defaults = {
            **given.numbers,
            "weight_decay": weight_decay,
            "decay_form": decay_form,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    @property
    def state(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride] -- an attribute in torch
        """The state of each parameter that was ever stepped: count of steps, averages …, by torch's names.

        What is changed, replaced or deleted here is what the next step goes on from.
        """
        return self._states.shown

    @state.setter
    def state(self, mapping: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        # The first is torch's own, made at the start: nobody else has seen it.
        self._states = States(mapping, exposed=hasattr(self, "_states"))

    @property
    def skipped_steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] -- the drop-ins' is always 0
        """The number of steps that ``nonfinite="skip"`` has left out; a device that has counted them is asked."""
        return self._skipped + ondevice.skipped(self)

    @skipped_steps.setter
    def skipped_steps(self, count: int) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._skipped = count - ondevice.skipped(self)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether torch.amp.GradScaler leaves the unscaling to `step`, as grad_scale and found_inf.

        It must where the step clips, since unscaling comes first, and then costs no pass of its own.  Where the step
        does not clip the user may, between the scaler and the step, and needs unscaled gradients for it.  On a device
        it must, too, since the scaler would ask the device whether to step.
        """
        return ondevice.takes_scale(self) or any(
            limit is not None for limit in (self.clip_norm, self.clip_each, self.clip_value)
        )

    def _reset(self) -> None:
        """Discard everything derived from groups and state, after these have changed."""
        if hasattr(self, "_states"):
            self._states.hand_over()
        if hasattr(self, "_engine"):
            ondevice.keep_count(self)
        self._engine, self._elsewhere = kernels.backend(self.backend), False
        self._works: dict[int, Held] = {}
        self._changed = False  # whether any was made or has other numbers, since rates were checked
        # The numbers of the first parameter and of this optimizer, where several step together.
        self._first, self._member = 0, 0
        self._switching = any(map(switching.pending, getattr(self, "param_groups", ())))

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "state" in state:
            self._states = States(state["state"], exposed=True)
        names = {name: "_skipped" if name == "skipped_steps" else name for name in state if name != "state"}
        super().__setstate__({names[name]: state[name] for name in names})
        self._reset()

    @uncompiled
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; see `Optimizer` for what a group may have."""
        group = dict(param_group)
        rule = read(group.pop("rule", self.switch or self.rule))
        schedules = by_name(group.pop("schedule", self.schedule))
        if isinstance(rule, Switch):
            rule, schedules = switching.begin(group, rule, schedules)
            self._switching = True
        _add_param_group(self, settle(group, rule, schedules, self.defaults))
        added = self.param_groups[-1]
        for foreign in self.rule.numbers.keys() - added["rule"].numbers.keys():
            del added[foreign]
        try:
            check_parameters(added)
            ondevice.one_device(added)
        except ValueError:
            self.param_groups.pop()
            raise

    @overload
    def step(self, closure: None = None, *, zero_grad: bool = False) -> None: ...
    @overload
    def step(self, closure: Callable[[], float], *, zero_grad: bool = False) -> float: ...
    @hooked
    def step(self, closure: Callable[[], float] | None = None, *, zero_grad: bool = False) -> float | None:
        """Take one step.

        Args:
            closure: clears the gradients, computes the loss, calls ``backward`` and returns the loss.
            zero_grad: also set the gradients to zero, in the same pass, instead of calling `zero_grad`.

        Returns:
            The loss that the closure returned, or None.

        Raises:
            RuntimeError: the parameters are at the point to evaluate (call `train` first), a gradient is sparse, or one
                is not finite and ``nonfinite="raise"``.
        """
        if not self.training:
            raise RuntimeError("the optimizer is in eval mode; call optimizer.train() before optimizer.step()")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with self._states.lock:
            try:
                self._step(zero_grad)
            except StateMemoryError as error:
                ondevice.no_memory(self, error)
        return loss

    def _step(self, zero_grad: bool) -> None:
        ondevice.route(self)
        if not hasattr(self._engine, "guards") and getattr(self, "found_inf", None):
            return  # as GradScaler asks; an engine of a device looks at that there
        works = self._begin()
        self._engine.prepare(works, self._states)
        guarded = ondevice.guarded(self, works)
        if not guarded and getattr(self, "found_inf", None):
            return
        if not guarded:
            self._clip_each(works, self._engine.squares)
        if guarded or self._look(works, self._engine.squares):
            self._watch(works)
            self._engine.step(works, self._states, zero_grad)
            if ondevice.captured(self):
                return
            if self._end(works):
                self._reset()
            ondevice.hand_over(self)

    def replayed(self) -> None:
        """Say that a captured step was replayed: schedules move, and the next step's numbers go to the device.

        To be called after each replay of a CUDA graph that contains a `step`, on the stream of the replay; see
        ``capturable``.
        """
        self._end(self._begin())
        ondevice.hand_over(self)

    def _begin(self) -> list[Work]:
        """What a step is to do to each group."""
        self._upcoming = [upcoming(group) for group in self.param_groups]
        around = Around(
            *ondevice.scale(self), self.clip_each is not None, self.clip_value, self.clip_norm is not None, self.ema
        )
        works: list[Work] = []
        first = self._first
        for i, group in enumerate(self.param_groups):
            works.append(self._work(i, group, first, around))
            first += len(group["params"])
        if self._changed:
            check_rates(works)
            self._changed = False
        return works

    def _watch(self, works: list[Work]) -> None:
        """Look at what a step starts from, for groups that switch when their steps say so."""
        if self._switching:
            switching.watch(works, self.param_groups, self.state)

    def _end(self, works: list[Work]) -> bool:
        """Count a step that was taken; whether a group has switched to another rule."""
        for work, group, values in zip(works, self.param_groups, self._upcoming, strict=True):
            if work.looks_ahead:
                points.follow(group, self._states, work.after)
            if values:
                advance(group, values)
        return self._switching and switching.advance(works, self.param_groups, self.state)

    def observe(self, metric: float) -> None:
        """Pass a validation metric to data-driven schedules, such as ``schedules.plateau``; others ignore it."""
        for group in self.param_groups:
            observe(group, metric)

    @uncompiled
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, or with ``set_to_none=False`` set them to zero."""
        if not set_to_none or profiler_enabled():
            super().zero_grad(set_to_none)
            return
        groups = [group["params"] for group in self.param_groups]
        if not self._engine.drop(groups):
            for group in groups:
                for p in group:
                    p.grad = None

    def _work(self, i: int, group: dict[str, Any], first: int, around: Around) -> Work:
        """What is to be done to a group, whose first parameter has this number, with these services around its rule."""
        group = self._settings(i, group)
        base_lr, dtype = of(group).base_lr, self._number_dtype()
        held = self._works.get(i)
        known = held is not None and held.key[0] is group["rule"]
        if held is not None and known and not self._upcoming[i] and not held.work.looks_ahead:
            state = (held.read(group), id(group["params"]), first, around, base_lr, dtype)
            if state == held.state:  # as in most steps; a step of a small model takes as long as to find this out
                return held.work
        rule: Rule = group["rule"]
        decay = float(group["weight_decay"])
        decays = decay or "weight_decay" in self._upcoming[i]
        form = Stages(around.scaled, around.clip_each, around.clip_value is not None, around.clip_norm,
                      group["maximize"], group["decay_form"] if decays else None, self.ema is not None)  # fmt: skip
        key = (rule, id(group["params"]), first, form)
        if held is None or held.key != key:
            made = Work(
                rule, form, group["params"], first, self._member, self.state_dtype, self.seed,
                titles=group.get("param_names") or (),
            )  # fmt: skip
            held = Held(
                key, made, itemgetter("rule", "lr", "weight_decay", "decay_form", "maximize", *made.names), None
            )
        work = held.work
        work.numbers = {name: float(group[name]) for name in work.names}
        work.after = work.numbers
        if work.looks_ahead:
            work.after = {name: self._upcoming[i].get(name, x) for name, x in work.numbers.items()}
        work.before = points.made_with(group, work.numbers)
        value = math.inf if self.clip_value is None else self.clip_value
        base_lr = float(group["lr"] if base_lr is None else base_lr) or 1.0
        work.scalars = Scalars(1.0 / around.scale, value, decay, base_lr, self.ema or 0.0)
        work.number_dtype = dtype
        values = held.read(group)
        fixed = all(map(immutable, values[1:]))  # a tensor may have another value in the next step
        state = (values, id(group["params"]), first, around, of(group).base_lr, dtype) if fixed else None
        self._works[i], self._changed = held._replace(state=state), True
        return work

    def _number_dtype(self) -> torch.dtype:
        """The dtype of the numbers of the state."""
        return torch.float64

    def _settings(self, i: int, group: dict[str, Any]) -> dict[str, Any]:
        """The settings of group `i` under our names, for classes that call them otherwise."""
        return group

    def _clip_each(self, works: list[Work], squares: gradients.Squares) -> None:
        """Clip each gradient by its own norm."""
        gradients.clip_each(works, squares, self)

    def _look(self, works: list[Work], squares: gradients.Squares) -> bool:
        """Look at all gradients together: clip by their norm; False where the step is left out, which is counted."""
        takes = gradients.look(works, squares, self, self.param_groups, self._first)
        if not takes:
            self.skipped_steps += 1
        return takes

    @uncompiled
    def eval(self) -> None:
        """Switch the parameters to the point to evaluate or save: the average of the weights, or θ for lookahead
        methods.

        Without lookahead and averaging the parameters already are that point.  Calling it twice has no further effect;
        `train` restores the training point bit for bit.
        """
        if not self.training:
            return
        self.training = False
        for p, held, rule in self._stepped():
            points.show(p, held, rule)

    @uncompiled
    def train(self) -> None:
        """Switch the parameters back to the training point, after `eval`."""
        if self.training:
            return
        self.training = True
        for p, held, _ in self._stepped():
            points.hide(p, held)

    def _stepped(self) -> Iterator[tuple[Tensor, dict[str, Any], Rule]]:
        """Each parameter that was ever stepped, its state, and the rule with the numbers of its lookahead point.

        Only those whose points to train and to evaluate may differ: to show all states makes later steps slower.
        """
        rules: list[Rule] = [self._settings(i, group)["rule"] for i, group in enumerate(self.param_groups)]
        if not self._states.exposed and self.ema is None and not any(rule.looks_ahead for rule in rules):
            return
        state = self.state
        for template, group in zip(rules, self.param_groups, strict=True):
            before = template.bind(points.made_with(group, {name: group[name] for name in template.numbers}))
            for p in group["params"]:
                if state.get(p):
                    yield p, state[p], before

    @uncompiled
    def state_dict(self) -> dict[str, Any]:
        """As torch's, of tensors, numbers and text only.  Rules are stored as text, and checked when loading.

        The state of parameters that are in no group any more is left out.
        """

        def saved(_: TorchOptimizer, state: dict[str, Any]) -> None:
            checkpoint.as_text(state["param_groups"])
            state["training"], state["skipped_steps"] = self.training, self.skipped_steps

        present = {p for group in self.param_groups for p in group["params"]}
        gone = {p: held for p, held in self.state.items() if isinstance(p, Tensor) and p not in present}
        for p in gone:
            del self.state[p]
        # The first hook, so that the user's hooks see what is saved.
        hook = self.register_state_dict_post_hook(saved, prepend=True)
        try:
            return super().state_dict()
        finally:
            hook.remove()
            self.state.update(gone)

    @uncompiled
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a `state_dict`, including hyperparameters.

        If the parameters' names are known on both sides (``model.named_parameters()``), states are matched by name,
        in any order; otherwise by position, as in torch.

        Raises:
            ValueError: its groups, rules, parameters or shapes are not those of this optimizer.
        """
        own = list(self.param_groups)
        given: dict[str, Any] = {}

        def fitted(_: TorchOptimizer, state: dict[str, Any]) -> dict[str, Any]:
            given.update(checkpoint.fitted(self.param_groups, state))
            return given

        # The last hook, since the user's hooks may change or unwrap what is loaded.
        hook = self.register_load_state_dict_pre_hook(fitted)
        try:
            super().load_state_dict(dict(state_dict))
        finally:
            hook.remove()
        for group, before in zip(self.param_groups, own, strict=True):
            switching.restore(group, before)
        self._uncast(given)
        self._reset()
        self.training = bool(given.get("training", True))
        self.skipped_steps = int(given.get("skipped_steps", 0))

    def _uncast(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the types of the state after torch has loaded it."""
        rules = [self._settings(i, group)["rule"] for i, group in enumerate(self.param_groups)]
        checkpoint.uncast(self.param_groups, rules, self.state, state_dict, self.state_dtype, self._number_dtype())

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _CONFIGURATION}}
