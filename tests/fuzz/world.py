"""Runs a program in two worlds, line by line, and finds the first difference between them."""

import contextlib
import io
import math
import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

import thalweg
from fuzz import verbs
from thalweg import conventions, optim, rules

TOLERANCE = {
    torch.float64: 1e-10, torch.complex128: 1e-10, torch.float32: 3e-5, torch.complex64: 3e-5,
    torch.bfloat16: 2e-2, torch.float16: 4e-3,
}  # fmt: skip


class AsRules:
    """torch's names, as `thalweg.Optimizer`s by the torch convention."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def make(params: Any, **keywords: Any) -> Any:
            return conventions.optimizer("torch", name, params, **keywords)

        return make


SOURCES: dict[str, tuple[Any, str]] = {
    "torch": (torch.optim, "auto"),
    "optim": (optim, "auto"),
    "eager": (optim, "eager"),
    "fused": (optim, "numba"),
    "rules": (AsRules(), "auto"),
}
"""The meaning of ``optim`` in each world, and its backend."""


@dataclass(frozen=True)
class Program:
    """Lines of Python, and the two worlds that run them; the first one's results are taken as right.

    Attributes:
        lines: the program; a line may itself be several lines of Python.
        worlds: the names of the two worlds; if the first is empty, only the second runs, and must not raise.
        lenient: whether results are not compared: the program only must not crash or raise.
        versions: whether version counters are compared too.
        quiet: whether nothing is looked at before the last line, so that state stays where nobody has asked for it.
        strict: whether the first world must not raise either; otherwise the program ends where it does.
    """

    lines: tuple[str, ...]
    worlds: tuple[str, str] = ("torch", "optim")
    lenient: bool = False
    versions: bool = False
    strict: bool = True
    quiet: bool = False

    def __str__(self) -> str:
        right, other = self.worlds
        return "\n".join(
            [
                f"# worlds: {right}, {other}{', lenient' if self.lenient else ''}{', quiet' if self.quiet else ''}",
                *self.lines,
            ]
        )


@dataclass(frozen=True)
class Difference:
    """What was different in the second world: the kind, by which differences are counted, the line, and details."""

    kind: str
    line: int
    text: str


class World:
    """The namespace of a program: the names that it can use, and those that it has defined."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.ours = source != "torch"
        module, self.backend = SOURCES[source]
        self.names: dict[str, Any] = {name: getattr(verbs, name) for name in verbs.__all__}
        self.names |= {
            "optim": module,
            "ps": [],
            "kept": [],
            "hooked": [],
            "said": [],
            "thalweg": thalweg,
            "rules": rules,
        }
        self.versions: dict[str, tuple[weakref.ref[Tensor], int]] = {}

    def run(self, code: CodeType, seed: int) -> BaseException | None:
        """Run a line; returns the error that it raised."""
        torch.default_generator.manual_seed(seed)  # three times as fast as torch.manual_seed, which looks for devices
        before = os.environ.get("THALWEG_BACKEND")
        if self.backend != "auto":
            os.environ["THALWEG_BACKEND"] = self.backend
        try:
            exec(code, self.names)
        except Exception as error:
            return error
        finally:
            if before is None:
                os.environ.pop("THALWEG_BACKEND", None)
            else:
                os.environ["THALWEG_BACKEND"] = before
        return None

    def optimizers(self) -> Iterator[tuple[str, Optimizer]]:
        """The optimizers in the program's variables, by name."""
        for name, x in self.names.items():
            if isinstance(x, Optimizer):
                yield name, x

    def advanced(self) -> set[str]:
        """The names of the tensors whose version counters have advanced since the last call."""
        before, self.versions = self.versions, {}
        moved: set[str] = set()
        for name, x in self.tensors():
            with contextlib.suppress(RuntimeError):  # inference tensors have no version counter
                self.versions[name] = weakref.ref(x), x._version
                if name in before and before[name][0]() is x and before[name][1] < x._version:
                    moved.add(name)
        return moved

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and the tensors of their states, by name."""
        for i, p in enumerate(self.names["ps"]):
            yield f"ps[{i}]", p
        for name, optimizer in self.optimizers():
            for g, group in enumerate(optimizer.param_groups):
                for i, p in enumerate(group["params"]):
                    where = f"{name}.param_groups[{g}]['params'][{i}]"
                    yield where, p
                    for key in verbs.states(optimizer, p):
                        yield f"{name}.state[{where}][{key!r}]", optimizer.state[p][key]


@cache
def compiled(line: str) -> CodeType:
    """A line of a program, compiled."""
    return compile(line, "<program>", "exec")


def run(program: Program, at: Callable[[int, int], None] = lambda line, world: None) -> Difference | None:
    """Run a program in its two worlds; returns the first difference, or None.

    Args:
        program: what to run.
        at: called before each line with its index and that of the world, since a process that dies cannot report them.
    """
    worlds = [World(source) for source in program.worlds if source]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return _run(program, worlds, at)
        finally:
            torch.set_num_threads(1)
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
            torch.set_grad_enabled(True)


def _run(program: Program, worlds: Sequence[World], at: Callable[[int, int], None]) -> Difference | None:
    global _least, _fed_back
    # Values rounded to float32 stay inexact when they are cast to float64, and torch keeps some numbers of NAdam and
    # ASGD in float32.  If all gradients are clipped together, the least exact parameter determines all others' error.
    text = "".join(program.lines)
    named = [torch.float32, torch.float16, torch.bfloat16] if "clip_norm" in text else []
    mixed = [TOLERANCE[dtype] for dtype in named if str(dtype).removeprefix("torch.") in text]
    rounded = any(word in text for word in ("double", "NAdam", "ASGD"))
    _least = max([*mixed, TOLERANCE[torch.float32] if rounded else 0.0])
    # What is added to a gradient is as exact as the parameter that it is computed from.
    _fed_back = "backward" in text or "weight_decay" in text
    _scales.clear()
    unseen: Difference | None = None  # a version counter; any other difference is reported instead
    for n, line in enumerate(program.lines):
        code = compiled(line)
        errors: list[BaseException | None] = []
        for w, world in enumerate(worlds):
            at(n, w)
            errors.append(world.run(code, n))
            if errors[0] is not None and program.lenient:
                return None
        right, other = errors if len(worlds) == 2 else (None, *errors)
        if right is None and isinstance(other, ValueError) and _REFUSED in str(other):
            break
        if right is None and other is not None:
            return Difference(f"raises {type(other).__name__}", n, f"{type(other).__name__}: {other}")
        if right is not None and program.strict:
            return Difference(f"raises {type(right).__name__} in the first world", n, str(right))
        if right is not None:
            break  # how much a step does before it raises may differ
        seen = not program.quiet and any(word in line for word in ("step(", "load", "fresh", "again", "said"))
        if program.quiet and "step(" in line and not program.lenient:
            _observe(worlds[0])
        due = seen or n == len(program.lines) - 1
        if due and len(worlds) == 2 and not program.lenient and "concurrently" not in line:
            with verbs.plain(), torch.no_grad():
                try:
                    found = _differ(*worlds)
                except Exception as error:  # a tensor that cannot be read, or lists of different lengths
                    found = f"cannot be compared: {type(error).__name__}", str(error)
                missing = worlds[0].advanced() - worlds[1].advanced() if program.versions else set[str]()
            if found is not None:
                return Difference(found[0], n, found[1])
            if missing and unseen is None and "step(" in line:
                name = min(missing)
                kind = f"version of {'state' if '.state[' in name else 'parameter'}"
                unseen = Difference(kind, n, f"{name} was changed in place, and its version counter was not advanced")
    return unseen


Found = tuple[str, str] | None
_REFUSED = ", the parameter has ("  # a state of another shape is refused on loading; torch loads it
_least = 0.0
_fed_back = False
_scales: dict[str, float] = {}


def _observe(right: World) -> None:
    """Note how large the values in the first world are now; the second is not to be asked for its state."""
    with verbs.plain(), torch.no_grad(), contextlib.suppress(Exception):
        _differ(right, right)


def _differ(right: World, other: World) -> Found:
    """The first difference between two worlds now."""
    for i, (p, q) in enumerate(zip(right.names["ps"], other.names["ps"], strict=True)):
        if found := _unlike(f"ps[{i}]", "parameter", p, q):
            return found
    if right.names["said"] != other.names["said"]:
        return "errors", f"{other.names['said']} are raised, and should be {right.names['said']}"
    theirs = dict(other.optimizers())
    compared = set(map(id, right.names["ps"]))
    for name, optimizer in right.optimizers():
        if found := _optimizers(name, optimizer, theirs[name], compared):
            return found
    return None


def _optimizers(name: str, right: Optimizer, other: Optimizer, compared: set[int]) -> Found:
    if len(right.param_groups) != len(other.param_groups):
        return "groups", f"{name} has {len(right.param_groups)} and {len(other.param_groups)} groups"
    for g, (group, theirs) in enumerate(zip(right.param_groups, other.param_groups, strict=True)):
        where = f"{name}.param_groups[{g}]"
        for key, x in group.items():
            if key in theirs and isinstance(x, int | float) and theirs[key] != x:
                return "settings", f"{where}[{key!r}] is {theirs[key]}, and should be {x}"
        if len(group["params"]) != len(theirs["params"]):
            return "groups", f"{where} has {len(theirs['params'])} parameters, and should have {len(group['params'])}"
        for i, (p, q) in enumerate(zip(group["params"], theirs["params"], strict=True)):
            own = f"{where}['params'][{i}]"
            if id(p) not in compared and (found := _unlike(own, "parameter", p, q)):
                return found
            if found := _states(own, right, p, other, q):
                return found
    return None


def _states(where: str, right: Optimizer, p: Tensor, other: Optimizer, q: Tensor) -> Found:
    held: dict[str, Any] = right.state.get(p) or {}
    theirs: dict[str, Any] = other.state.get(q) or {}
    for key, x in held.items():
        if x is None:
            continue
        if key not in theirs:
            return "state missing", f"the state of {where} has no {key!r}"
        least = TOLERANCE.get(p.dtype, 0.0) if _fed_back else 0.0
        what = "step" if key == "step" else "state"
        # What was there earlier is known by shape: the parameter may be in another group by now, or a copy.
        if found := _unlike(f"{key!r} of {where}", what, x, theirs[key], least, f"{key} {tuple(p.shape)}"):
            return found
    if not held and any(isinstance(x, Tensor) and x.ndim for x in theirs.values()):
        return "state left over", f"the state of {where} has {sorted(theirs)}, and should be empty"
    return None


def _unlike(where: str, what: str, x: Any, y: Any, least: float = 0.0, known_as: str = "") -> Found:
    """The difference between two tensors or numbers, if it is more than rounding."""
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.ndim == 0:
        if isinstance(x, Tensor | int | float) and isinstance(y, Tensor | int | float):
            return _far(where, what, torch.as_tensor(x).detach(), torch.as_tensor(y).detach(), least, known_as or where)
        return None if type(x) is type(y) else (f"{what} type", f"{where} is {type(y)}, and should be {type(x)}")
    if type(x) is not type(y):
        return f"{what} type", f"{where} is a {type(y).__name__}, and should be a {type(x).__name__}"
    if x.shape != y.shape:
        return f"{what} shape", f"{where} has shape {tuple(y.shape)}, and should have {tuple(x.shape)}"
    if x.device != y.device:
        return f"{what} device", f"{where} is on {y.device}, and should be on {x.device}"
    if what == "parameter" and x.dtype != y.dtype:
        return f"{what} type", f"{where} is {y.dtype}, and should be {x.dtype}"
    return _far(where, what, verbs.inner(x.detach()), verbs.inner(y.detach()), least, known_as or where)


def _far(where: str, what: str, x: Tensor, y: Tensor, least: float, known_as: str) -> Found:
    if x.device.type == "meta" or x.numel() == 0 or x.layout != torch.strided:
        return None
    scale = float(x.abs().max())
    if math.isfinite(scale):  # after cancellation, rounding errors are still relative to the earlier, larger values
        scale = _scales[known_as] = max(scale, _scales.get(known_as, 0.0))
    if x.dtype == y.dtype and torch.equal(x, y):
        return None
    tolerance = max(_least, least, TOLERANCE.get(x.dtype, 0.0), TOLERANCE.get(y.dtype, 0.0))
    wide = torch.complex128 if x.is_complex() else torch.float64
    x, y = x.to(wide), y.to(wide)
    off = float((x - y).abs().max())
    if off <= tolerance * scale and scale < math.inf:
        return None
    finite = x.isfinite()
    if not torch.equal(finite, y.isfinite()):
        return f"{what} not finite", f"{where}: {_few(y)}, and should be {_few(x)}"
    if not bool(finite.any()):
        return None
    scale, off = float(x[finite].abs().max()), float((x - y)[finite].abs().max())
    if off <= tolerance * scale:
        return None
    return f"{what} value", f"{where} is off by {off:.2g} at a scale of {scale:.2g}: {_few(y)}, and should be {_few(x)}"


def _few(x: Tensor) -> str:
    return repr(cast(Any, x.reshape(-1)[:6].tolist()))
