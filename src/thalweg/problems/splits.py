"""The data of a problem, split by split: tensors in memory, in any structure, or what a factory of loaders gives."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

Batch: TypeAlias = Any
"""Tensors in any structure of tuples, lists and dictionaries."""


def leaves(structure: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested tuples, lists and dictionaries, each with its place, as in ``0.input_ids``."""
    if isinstance(structure, Mapping):
        items = [*cast("Mapping[Any, Any]", structure).items()]
    elif isinstance(structure, tuple | list):
        items = [*enumerate(cast("Sequence[Any]", structure))]
    else:
        yield name, structure
        return
    for key, part in items:
        yield from leaves(part, f"{name}.{key}" if name else str(key))


def mapped(function: Callable[..., Any], structure: Any, *others: Any) -> Any:
    """The same structure with `function` of each leaf, and of those at the same place in the others."""
    if isinstance(structure, Mapping):
        named = cast("Mapping[Any, Any]", structure)
        made: Any = {key: mapped(function, part, *(other[key] for other in others)) for key, part in named.items()}
        return made if type(named) is dict else cast(Any, type(named))(made)
    if isinstance(structure, tuple | list):
        row = cast("Sequence[Any]", structure)
        parts = [mapped(function, part, *(other[i] for other in others)) for i, part in enumerate(row)]
        return cast(Any, type(row))(*parts) if hasattr(row, "_fields") else cast(Any, type(row))(parts)
    return function(structure, *others)


def count(batch: Batch) -> int:
    """The number of examples in a batch: the rows of its first tensor; 1 if there is none."""
    return next((len(x) for _, x in leaves(batch) if isinstance(x, Tensor) and x.ndim), 1)


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device."""

    def there(x: Any) -> Any:
        return x.to(device) if isinstance(x, Tensor) else x

    return mapped(there, batch)


@dataclass(frozen=True)
class Rows:
    """A split in memory: tensors in any structure, with the examples along their first dimension."""

    data: Any
    size: int

    @property
    def nbytes(self) -> int:
        """The bytes of its tensors."""
        return sum(x.nbytes for _, x in leaves(self.data))

    def take(self, at: Any) -> Batch:
        """Some of the examples: a slice, or a tensor of indices."""

        def some(x: Tensor) -> Tensor:
            # Indexing goes element by element, selecting row by row: less than half of the time.
            return x.index_select(0, at) if isinstance(at, Tensor) and at.device == x.device else x[at]

        return mapped(some, self.data)

    def batches(self, size: int) -> Iterator[Batch]:
        """All examples in order, so many at a time."""
        for start in range(0, self.size, size):
            yield self.take(slice(start, start + size))

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return type(self)(moved(self.data, device), self.size)


@dataclass(frozen=True)
class Loaded:
    """A split that a factory of loaders gives, batch after batch.

    Attributes:
        factory: called without arguments in each run; returns something that can be iterated again and again, such
            as a ``DataLoader``.
        size: the number of examples; 0 if it is not known.
        batch_size: the number of examples in the first batch.
        first: that batch.
    """

    factory: Callable[[], Iterable[Batch]]
    size: int
    batch_size: int
    first: Batch

    nbytes = 0

    def batches(self, size: int) -> Iterator[Batch]:
        """An epoch of a new loader, in batches of the loader's own size."""
        return iter(self.factory())


def read(what: str, given: Any, pairs: bool) -> Rows | Loaded:
    """A split from what the user gave: tensors, a data set whose items are read once, or a factory of loaders.

    Args:
        what: the split, for errors.
        given: the tensors, the data set or the factory.
        pairs: whether batches must be pairs of inputs and targets.

    Raises:
        ValueError: it is none of these, is empty, or its tensors differ in length.
    """
    if isinstance(given, DataLoader):
        raise ValueError(
            f"{what} is a DataLoader, whose order would depend on the runs before; give a function that makes one, as "
            "in lambda: DataLoader(data, batch_size=64, shuffle=True)"
        )
    if isinstance(given, TensorDataset):
        given = given.tensors
    if isinstance(given, Dataset):
        given = _collected(what, cast("Dataset[Any]", given), pairs)
    if callable(given) and not isinstance(given, Tensor):
        return _loaded(what, given, pairs)
    return _pair(what, given) if pairs else _rows(what, given)


def kind(value: object) -> str:
    """A description of a value, for a sentence."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    return f"a {type(value).__name__}"


_OTHERWISE = "; for batches of another structure write a loss of (model, batch)"


def _pair(what: str, data: Any) -> Rows:
    """A split as two tensors of equal, positive length."""
    pair = tuple(cast("list[Any]", data)) if isinstance(data, tuple | list) else ()
    if len(pair) != 2:
        raise ValueError(
            f"{what} is {kind(cast(Any, data))}; wanted is a pair (inputs, targets) of tensors, a Dataset, or a "
            f"function that makes a DataLoader{_OTHERWISE}"
        )
    for role, values in zip(("inputs", "targets"), pair, strict=True):
        if not isinstance(values, Tensor) or values.ndim == 0:
            raise ValueError(f"{what} has {kind(values)} for {role}; wanted is a tensor with a row for every sample")
    x, y = cast("tuple[Tensor, Tensor]", pair)
    if len(x) != len(y):
        raise ValueError(f"{what} has {len(x):,} inputs and {len(y):,} targets; wanted are as many of one as the other")
    if len(x) == 0:
        raise ValueError(f"{what} is empty")
    return Rows((x, y), len(x))


def _rows(what: str, data: Any) -> Rows:
    """A split as tensors of equal, positive length, in any structure."""
    found = [*leaves(data)]
    for name, values in found:
        if not isinstance(values, Tensor) or values.ndim == 0:
            at = f"{kind(values)} at {name}" if name else kind(values)
            raise ValueError(
                f"{what} has {at}; wanted are tensors with a row for every sample, a Dataset, or a function that makes "
                "a DataLoader"
            )
    sizes = {name: len(values) for name, values in found}
    if len({*sizes.values()}) > 1:
        told = ", ".join(f"{n:,} at {name}" for name, n in sizes.items())
        raise ValueError(f"{what} has tensors of {told} samples; wanted are as many of each")
    if not any(sizes.values()):
        raise ValueError(f"{what} is empty")
    return Rows(data, max(sizes.values()))


def _collected(what: str, data: Dataset[Any], pairs: bool) -> Any:
    """Every item of a data set, read once, stacked."""
    n = _length(data)
    if n is None:
        raise ValueError(f"{what} is {kind(data)}, which has no length; wanted is a Dataset with __len__")
    if n == 0:
        raise ValueError(f"{what} is empty")
    items: list[Any] = []
    for i in range(n):
        try:
            item = data[i]
            if pairs:
                x, y = item
                item = (x, y)
            items.append(mapped(torch.as_tensor, item))
        except Exception as error:
            wanted = "pair" if pairs else "structure"
            message = f"{what}: item {i} is no {wanted} of tensors or numbers ({type(error).__name__}: {error})"
            raise ValueError(message) from error
    try:
        return mapped(lambda *parts: torch.stack(parts), *items)
    except (RuntimeError, LookupError, TypeError) as error:
        raise ValueError(
            f"{what} has items of several shapes; wanted is one shape, or a function that makes a DataLoader with a "
            "collate_fn"
        ) from error


def _loaded(what: str, factory: Callable[[], Any], pairs: bool) -> Loaded:
    try:
        loader = factory()
        first = next(iter(loader), None)
    except Exception as error:
        raise ValueError(
            f"{what} is a function that raises {type(error).__name__}: {error}; wanted is one without arguments that "
            "makes a DataLoader"
        ) from error
    if first is None:
        raise ValueError(f"{what} is empty")
    if isinstance(loader, Iterator):
        raise ValueError(
            f"{what} is a function that returns {kind(cast(Any, loader))}, of which there is one epoch only; wanted is "
            "a DataLoader, or another object that can be iterated again and again"
        )
    if pairs and not (isinstance(first, tuple | list) and len(cast("Sequence[Any]", first)) == 2):
        raise ValueError(
            f"{what} has {kind(cast(Any, first))} for a batch; wanted is a pair (inputs, targets){_OTHERWISE}"
        )
    return Loaded(factory, _length(getattr(loader, "dataset", None)) or 0, count(first), first)


def _length(data: Any) -> int | None:
    """The length of a data set, if it says one; those that are streams may raise."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None
