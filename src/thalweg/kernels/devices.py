"""Which backend steps which group, by the device that its parameters are on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.kernels import foreach, sharded, triton
from thalweg.kernels.cuda import Cuda
from thalweg.kernels.work import Backend, Guard, States, Work


class Devices:
    """The backend of groups on several devices, or on one that is not the CPU.

    Groups on a device that Triton's kernels run on are stepped by these; those on the CPU by the CPU's backend; all
    others by torch's functions of lists.

    Args:
        host: the backend of groups on the CPU.
        everywhere: whether also groups on the CPU are to be stepped by Triton, in its interpreter.
    """

    def __init__(self, host: Backend, everywhere: bool = False) -> None:
        self._host = host
        self._everywhere = everywhere
        self._engines: dict[torch.device, Cuda] = {}
        self._firsts: list[Any] = []
        self._kind: list[torch.device | None] = []
        self._lists = foreach.Foreach()
        self._works: list[Work] = []
        self._mirrors: list[tuple[Work, Work]] = []
        self._states: States | None = None
        self._guard: Guard | None = None
        self._left_out: list[Work] = []

    def prepare(self, works: list[Work], states: States) -> None:
        """See `thalweg.kernels.work.Backend`."""
        self._guard, self._left_out, self._states = None, [], states
        firsts = [(id(work), len(work.params), work.params[0].device if work.params else None) for work in works]
        if firsts != self._firsts:
            kinds = [self._of(work) for work in works]
            self._firsts, self._kind, self._works = firsts, kinds, list(works)
            self._engines = {d: self._engines.get(d) or Cuda(d) for d in dict.fromkeys(kinds) if d is not None}
            self._mirrors = []
            first = 0
            for work, kind in zip(works, kinds, strict=True):
                if kind is None and self._on_host(work):
                    copy = Work(
                        work.template, work.form, work.params, first, work.member, work.state_dtype, work.seed,
                        titles=work.titles,
                    )  # fmt: skip
                    self._mirrors.append((work, copy))
                    first += len(work.params)
        for device, engine in self._engines.items():
            engine.prepare(self._on(device), states)
        if self._mirrors:
            self._host.prepare(self._copies(), states)

    def _of(self, work: Work) -> torch.device | None:
        """The device on which Triton's kernels step a group; None for other groups."""
        devices = {p.device for p in work.params}
        if len(devices) != 1:
            return None
        [device] = devices
        if device.type == "cpu" and not self._everywhere:
            return None
        reason = triton.lacking(device)
        if reason and self._everywhere:
            raise ValueError(f"backend is 'triton', and {_named(work)} is on {device}: {reason}")
        return None if reason else device

    def _on_host(self, work: Work) -> bool:
        return all(p.device.type == "cpu" for p in work.params)

    def _on(self, device: torch.device | None) -> list[Work]:
        return [work for work, kind in zip(self._works, self._kind, strict=True) if kind == device]

    def _others(self) -> list[Work]:
        """The groups that torch's functions of lists step."""
        return [work for work in self._on(None) if not self._on_host(work)]

    def _copies(self) -> list[Work]:
        """The groups on the CPU, numbered as if there were no others, with this step's numbers."""
        for work, copy in self._mirrors:
            copy.densify, copy.number_dtype, copy.scalars = work.densify, work.number_dtype, work.scalars
            copy.numbers, copy.before, copy.after, copy.factors = work.numbers, work.before, work.after, work.factors
        return [copy for _, copy in self._mirrors]

    # --------------------------------------------------------------------------------------- without asking a device

    def guards(self, works: Sequence[Work], guard: Guard) -> bool:
        """Whether all of a step can be decided on the devices, `guard` included; then the step does so."""
        if not self._engines or any(kind is None for kind in self._kind) or any(e.rest for e in self._engines.values()):
            return False
        if guard.may_skip and any(work.looks_ahead for work in works):
            return False  # the host must know which lookahead point the parameters hold
        if any(work.template.needs_finite for work in works):
            return False  # it must be told of what is not finite
        if len(self._engines) > 1 and any(work.totals for work in works):
            return False
        self._guard = guard
        return True

    @property
    def capturing(self) -> bool:
        """Whether the step is recorded in a CUDA graph instead of being taken."""
        return any(triton.capturing(device) for device in self._engines)

    def number(self) -> None:
        """Hand over the groups' numbers, if they have changed: those of the next step, before it is replayed."""
        for engine in self._engines.values():
            with _current(engine.device):
                engine.number(True)
                engine.reserve()

    @property
    def skipped(self) -> int:
        """How many steps were left out on the devices, which are asked."""
        return max((int(engine.skipped) for engine in self._engines.values()), default=0)

    def _guarded(self, guard: Guard, zero_grad: bool) -> None:
        engines = list(self._engines.values())
        for engine in engines:
            with _current(engine.device):
                engine.number(True)
                engine.refresh()
                engine.begin(guard)
                if guard.clip_each is not None:
                    engine.clip_each()
        if guard.clip_norm is not None or guard.skip:
            found: list[Tensor] = []
            for engine in engines:
                with _current(engine.device):
                    own = engine.squares("strict norm" if guard.skip else "norm")
                    found.append(engine.summed(own))
            for engine in engines:
                with _current(engine.device):
                    everything = [x.to(engine.device, non_blocking=True) for x in found]
                    engine.limit(torch.cat(everything) if len(everything) > 1 else everything[0], guard)
        for engine in engines:
            with _current(engine.device):
                engine.step(zero_grad, guard.may_skip)

    # ------------------------------------------------------------------------------------------- asking the devices

    def squares(self, works: list[Work], clipped: bool, strict: bool) -> NDArray[np.float64]:
        """See `thalweg.kernels.work.Backend`."""
        of = {id(work): np.zeros(len(work.params)) for work in self._works}
        for engine in self._engines.values():
            with _current(engine.device):
                self._hand_over(engine, clipped)
                own = engine.squares(("strict norm" if strict else "norm") if clipped else "own norm")
            values: NDArray[np.float64] = own.cpu().numpy().copy()
            rest = [(engine.members[i].work, engine.members[i].ordinal, engine.members[i].p) for i in engine.rest]
            if rest:
                values[engine.rest] = foreach.squares(rest, clipped, strict)
            values = sharded.summed([m.p for m in engine.members], values)
            for m, x in zip(engine.members, values.tolist(), strict=True):
                of[id(m.work)][m.ordinal - m.work.first] = x
        if others := self._others():
            self._place(of, others, self._lists.squares(others, clipped, strict))
        if self._mirrors:
            self._place(of, [work for work, _ in self._mirrors], self._host.squares(self._copies(), clipped, strict))
        return np.concatenate([of[id(work)] for work in works]) if works else np.zeros(0)

    def _place(self, of: dict[int, Any], works: Sequence[Work], found: NDArray[np.float64]) -> None:
        at = 0
        for work in works:
            of[id(work)] = found[at : at + len(work.params)]
            at += len(work.params)

    def _hand_over(self, engine: Cuda, clipped: bool = True) -> None:
        engine.live.fill_(1)
        engine.number(False)
        engine.refresh()
        if clipped and any(work.form.clip_each for work in self._works):
            engine.set_each()

    def step(self, works: list[Work], states: States, zero_grad: bool) -> None:
        """See `thalweg.kernels.work.Backend`."""
        if self._guard is not None:
            self._guarded(self._guard, zero_grad)
            return
        for engine in self._engines.values():
            for i, m in enumerate(engine.members):
                if any(m.work is work for work in self._left_out):
                    engine.leave_out(i)
            with _current(engine.device):
                self._hand_over(engine)
                rest = [(engine.members[i].work, engine.members[i].ordinal, engine.members[i].p) for i in engine.rest]
                engine.step(zero_grad, False)
                foreach.step(rest, states, zero_grad)
        others = [work for work in self._others() if not any(work is other for other in self._left_out)]
        if others:
            self._lists.prepare(others, states)
            self._lists.step(others, states, zero_grad)
        if self._mirrors:
            copies = self._copies()
            out = [copy for work, copy in self._mirrors if any(work is other for other in self._left_out)]
            if out:
                self._host.leave_out(out)
            self._host.step(copies, states, zero_grad)

    def leave_out(self, works: list[Work]) -> None:
        """See `thalweg.kernels.work.Backend`."""
        self._left_out = works

    def drop(self, groups: Sequence[list[Tensor]]) -> bool:
        """See `thalweg.kernels.work.Backend`."""
        return False


def _current(device: torch.device) -> Any:
    """A context in which a device is the current one: kernels are launched on its current stream."""
    return torch.cuda.device(device if device.type == "cuda" else -1)


def _named(work: Work) -> str:
    return f"parameter {work.title(work.first)} of shape {tuple(work.params[0].shape)}" if work.params else "a group"
