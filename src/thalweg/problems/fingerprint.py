"""Fingerprints of problems and rules: hashes of data, weights and code that are the same in every process.

Code is described by what it does, not by where it is: a function by its compiled code, its defaults, the values in its
closure and the globals that it reads, and so on through the helpers that it calls.  Libraries are represented by the
names used from them.  Files that were loaded by `thalweg.problems.sources`, and modules that workers import by name,
are hashed whole.
"""

import functools
import hashlib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from thalweg.problems import sources

_Cached = type(functools.cache(len))
_OF_EVERY_CLASS = {
    "__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__", "__static_attributes__", "__annotations__",
    "__qualname__", "_abc_impl", "__annotate_func__", "__annotations_cache__",
}  # fmt: skip


def digest(*things: Any) -> tuple[str, dict[str, str]]:
    """A hash of `things` and of everything they refer to, and a hash of each of the user's files among that."""
    describe = _Describer()
    text = repr(describe(things))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest(), describe.files


def fingerprint(parts: Mapping[str, str]) -> str:
    """One hash of many."""
    return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()


def content(values: Tensor) -> str:
    """A hash of a tensor: its type, its shape and every bit of it."""
    found = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    if values.layout is not torch.strided:
        values = values.to_dense()
    plain = values.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
    found.update(plain.view(torch.uint8).numpy().data)
    return found.hexdigest()


class _Describer:
    """Describes things as nested tuples of plain values; each object once, however often it is met."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # keeps the object alive, so that its id is not reused

    def __call__(self, thing: Any) -> Any:
        if thing is None or isinstance(thing, bool | int | float | complex | str | bytes):
            return f"{type(thing).__name__} {thing!r}"
        if id(thing) in self._seen:
            return ("again", self._seen[id(thing)])
        self._seen[id(thing)] = len(self._seen)
        self._kept.append(thing)
        try:
            return self._described(thing)
        except Exception:  # inspecting an object may run its own code
            return _named(type(thing))

    def _described(self, thing: Any) -> Any:
        match thing:
            case Tensor():
                return ("tensor", content(thing), thing.requires_grad)
            case np.ndarray() if thing.dtype != object:
                array = cast("np.ndarray[Any, Any]", thing)
                return ("array", str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest())
            case Mapping() if thing is not os.environ:  # a loss reads at most a part of it
                return (_named(type(cast(Any, thing))), [(self(k), self(v)) for k, v in cast(Any, thing).items()])
            case set() | frozenset():
                return ("set", sorted(map(_member, cast("set[Any]", thing))))
            case tuple() | list():
                return (_named(type(cast(Any, thing))), [self(item) for item in cast("list[Any]", thing)])
            case ModuleType():
                return self._module(thing)
            case CodeType():
                return (thing.co_code, thing.co_names, thing.co_varnames, self(thing.co_consts))
            case FunctionType():
                return self._function(thing)
            case MethodType():
                return (self(thing.__func__), self(thing.__self__))
            case functools.partial():
                made = cast("functools.partial[Any]", thing)
                return ("partial", self(made.func), self(made.args), self(made.keywords))
            case staticmethod() | classmethod():
                return (type(cast(Any, thing)).__name__, self(cast(Any, thing).__func__))
            case property():
                return ("property", self(thing.fget), self(thing.fset))
            case nn.Module():
                return self._network(thing)
            case type():
                return self._class(thing)
            case _:
                return self._other(thing)

    def _function(self, function: FunctionType) -> Any:
        if self._is_foreign(function):
            return _named(function)
        scope = function.__globals__
        used = sorted({name for code in _nested(function.__code__) for name in code.co_names} & scope.keys())
        return (
            _named(function),
            # Code in a file that is hashed whole needs no further description, which would depend on Python's version.
            None if self._is_covered(function) else self(function.__code__),
            self(function.__defaults__),
            self(function.__kwdefaults__),
            [self(thing) for cell in function.__closure__ or () for thing in _held(cell)],
            [(name, self(scope[name])) for name in used if name != "__builtins__"],
        )

    def _class(self, cls: type) -> Any:
        if self._is_foreign(cls):
            return _named(cls)
        own = {name: thing for name, thing in vars(cls).items() if name not in _OF_EVERY_CLASS}
        self._is_covered(cls)  # its file belongs to the problem, too
        return (_named(cls), [self(base) for base in cls.__bases__], [(name, self(own[name])) for name in sorted(own)])

    def _module(self, module: ModuleType) -> Any:
        if not _is_foreign(module.__name__):
            self._file(module)
        return ("module", module.__name__)

    def _network(self, module: nn.Module) -> Any:
        return ([self(part) for part in layers(module)], weights(module))

    def _other(self, thing: Any) -> Any:
        if isinstance(thing, _Cached):
            return ("cached", self(cast(Any, thing).__wrapped__))
        if thing is os.environ or (callable(thing) and hasattr(thing, "__qualname__")):
            return _named(thing)  # the latter is compiled
        if hasattr(thing, "__dict__") and not self._is_foreign(type(thing)):
            return (self(type(thing)), self(vars(thing)))
        # Objects that cannot be copied, such as locks, files or generators, raise and are described by type alone.
        made = thing.__reduce_ex__(2)
        if isinstance(made, str):
            return (_named(type(thing)), made)
        state = [list(cast("Iterator[Any]", part)) if isinstance(part, Iterator) else part for part in made]
        return (_named(type(thing)), [self(part) for part in state])

    def _is_foreign(self, thing: Any) -> bool:
        return _is_foreign(thing.__module__)

    def _is_covered(self, thing: Any) -> bool:
        """Whether the file in which a function or class stands is hashed whole, as it was run."""
        module = sys.modules.get(thing.__module__)
        if module is None:
            return False
        self._file(module)
        return sources.read(module) is not None

    def _file(self, module: ModuleType) -> None:
        file = getattr(module, "__file__", None)
        # Workers have a different __main__; files read by `sources` are recorded there.
        if module.__name__ != "__main__" and sources.read(module) is None and file and os.path.isfile(file):
            name = module.__name__.replace(".", "/") + os.path.splitext(file)[1]
            self.files[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()


def weights(module: nn.Module) -> list[tuple[str, str, bool]]:
    """Parameters and buffers by name: a hash of each, and whether it is trained."""
    held = [*module.named_parameters(), *module.named_buffers()]
    return [(name, content(values), values.requires_grad) for name, values in held if not is_lazy(values)]


def layers(module: nn.Module) -> list[tuple[str, type, dict[str, Any]]]:
    """The structure of a network: the name, class and settings of each part."""
    # A module's repr omits some settings: all of them for CrossEntropyLoss(label_smoothing=0.1), for example.
    parts = cast("Iterator[tuple[str, nn.Module]]", cast(Any, module).named_modules())
    return [(name, type(part), _settings(part)) for name, part in parts]


def _settings(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in sorted(vars(module).items()) if name[0] != "_" and name != "training"}


def _nested(code: CodeType) -> Iterator[CodeType]:
    """A function's code, including that of nested functions."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _held(cell: Any) -> list[Any]:
    """The value in a cell of a closure; nothing if its variable is not assigned yet."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _member(thing: Any) -> str:
    """A member of a set, whose order changes from process to process."""
    return repr(thing) if isinstance(thing, bool | int | float | complex | str | bytes) else _named(type(thing))


def _is_foreign(name: str | None) -> bool:
    """Whether a module belongs to a library, so that the names used from it suffice."""
    if name is None or name == "builtins":
        return True
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        return name != "__main__" and name in sys.modules
    return sources.is_library(file)


def _named(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def rule_code(cls: type) -> str:
    """A hash of the formula of a rule's class, and of what it inherits, its own helpers included."""
    texts = [_text(base) for base in cls.__mro__ if _is_foreign(base.__module__)]
    return digest(texts, cls)[0]


@functools.cache
def _text(cls: type) -> str:
    try:
        return inspect.getsource(cls) if cls.__module__.startswith("thalweg.") else _named(cls)
    except (OSError, TypeError):
        return _named(cls)
