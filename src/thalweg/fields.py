"""The state of a rule: a named tuple, whose annotations say of which shape each field is."""

import typing
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

from thalweg.maths import Array, Number, Shared, Value, zeros_like

ABSENT: Value = cast(Any, None)
"""The default of a state field that exists only with some options."""


class NoState(NamedTuple):
    """The state of a rule without state."""


def zeros(state: type[Any], p: Value) -> Any:
    """A state of zeros for a parameter `p`."""
    numbers = number_fields(state)
    return state(*(0.0 if name in numbers else zeros_like(p) for name in state._fields))


@cache
def number_fields(state: type[Any]) -> frozenset[str]:
    """The fields of a state that are one number per parameter tensor, or per optimizer."""
    return frozenset(name for name, hint in typing.get_type_hints(state).items() if hint in (Number, Shared))


@cache
def shared_fields(state: type[Any]) -> frozenset[str]:
    """The fields of a state that are one number per optimizer."""
    return frozenset(name for name, hint in typing.get_type_hints(state).items() if hint is Shared)


@cache
def array_fields(state: type[Any]) -> frozenset[str]:
    """The fields of a state that have another shape than the parameter, or are several such arrays."""
    hints = typing.get_type_hints(state).items()
    return several_fields(state) | {name for name, hint in hints if hint is Array}


@cache
def several_fields(state: type[Any]) -> frozenset[str]:
    """The fields of a state that are tuples of arrays, such as a factor for each axis."""
    hints = typing.get_type_hints(state).items()
    return frozenset(name for name, hint in hints if typing.get_origin(hint) is tuple)


def leaves(state: Any) -> dict[str, Any]:
    """What is in a state by name, without what is absent; several arrays in a field are ``name.0``, ``name.1`` …"""
    found: dict[str, Any] = {}
    for name, x in state._asdict().items():
        if isinstance(x, tuple):
            found.update({f"{name}.{k}": part for k, part in enumerate(cast("tuple[Any, ...]", x))})
        elif x is not ABSENT:
            found[name] = x
    return found


def gathered(like: Any, find: Callable[[str, Any], Any]) -> Any:
    """A state like another, with what `find` returns for the name and the entry of each of its `leaves`."""
    return type(like)(*(
        tuple(find(f"{name}.{k}", part) for k, part in enumerate(cast("tuple[Any, ...]", x)))
        if isinstance(x, tuple) else ABSENT if x is ABSENT else find(name, x)
        for name, x in like._asdict().items()
    ))  # fmt: skip
