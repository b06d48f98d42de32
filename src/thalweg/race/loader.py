"""A ``DataLoader`` whose order and augmentation depend on the seed alone, and that goes on where it was."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from thalweg.problems.chance import seeded

_OWN_ORDER = ("sampler", "batch_sampler")


class Loader(DataLoader[Any]):
    """A ``DataLoader`` with a seed, a position, and an end.

    The order of each epoch is a permutation of its own generator.  Each batch is read with random numbers seeded by
    its place in the order, so augmentation depends neither on the number of workers nor on what else draws numbers.

    Args:
        dataset, batch_size, **options: as for ``DataLoader``; ``shuffle`` is True unless it is given, or the data set
            or a sampler has an order of its own.
        seed: of order and augmentation.
        over: whether to end, asked before each batch.
        iterating: a context to be in while it is iterated, which gives what to call when a batch has been dealt with.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int | None = 1,
        *,
        seed: int,
        over: Callable[[], bool],
        iterating: Callable[[], AbstractContextManager[Callable[[], None]]],
        **options: Any,
    ) -> None:
        self._over, self._iterating = over, iterating
        self._count, self._skip, self._start = 0, 0, torch.Tensor()
        self._order: Order | None = None
        chance = torch.Generator().manual_seed(seed)
        options = {"generator": torch.Generator().manual_seed(seed), **options}
        own = isinstance(dataset, IterableDataset) or batch_size is None or any(options.get(n) for n in _OWN_ORDER)
        if own:
            super().__init__(dataset, batch_size, **options)
            return
        shuffle, last = options.pop("shuffle", True), options.pop("drop_last", False)
        self._order = Order(len(cast(Any, dataset)), cast(int, batch_size), bool(last), chance if shuffle else None)
        super().__init__(Paired(dataset, seed), batch_sampler=self._order, **options)

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        order = self._order
        skipped, self._skip = self._skip, 0
        if order is not None:
            order.skip, skipped, self._count = skipped, 0, skipped
            self._start = order.state()
        batches = super().__iter__()
        for _ in range(skipped):  # of data with an order of its own
            next(batches)
            self._count += 1
        try:
            with self._iterating() as around:
                while not self._over() and (batch := next(batches, self)) is not self:
                    self._count += 1
                    yield batch
                    around()
        finally:
            self._count = 0

    def state_dict(self) -> dict[str, Any]:
        """The position: the epoch's order and the number of batches that were taken from it."""
        if self._order is None:
            return {"count": self._count}
        return {"count": self._count, "order": self._start if self._count else self._order.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a position: the next iteration begins there."""
        self._skip = state["count"]
        if self._order is not None:
            self._order.restore(state["order"])


class Batch(list[int]):
    """The indices of a batch, with its place in the order."""

    place: tuple[int, int] = (0, 0)

    def __reduce__(self) -> Any:
        return _batch, (list(self), self.place)


def _batch(indices: list[int], place: tuple[int, int]) -> Batch:
    batch = Batch(indices)
    batch.place = place
    return batch


class Order(BatchSampler):
    """Batches of indices, an epoch at each iteration: permuted by a generator, or in order without one."""

    def __init__(self, n: int, size: int, drop_last: bool, generator: torch.Generator | None) -> None:
        super().__init__(range(n), size, drop_last)  # checks the size
        self.n, self.generator = n, generator
        self.epoch, self.skip = 0, 0

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self.epoch, self.skip
        self.epoch, self.skip = epoch + 1, 0
        whole: Sequence[int] = range(self.n)
        if self.generator is not None:
            whole = cast("list[int]", torch.randperm(self.n, generator=self.generator).tolist())
        for k in range(first, len(self)):
            yield _batch(list(whole[k * self.batch_size : (k + 1) * self.batch_size]), (epoch, k))

    def state(self) -> tuple[int, Any]:
        """What the next epoch depends on."""
        return self.epoch, None if self.generator is None else self.generator.get_state()

    def restore(self, state: tuple[int, Any]) -> None:
        """Restore what `state` returned."""
        self.epoch, chance = state
        if self.generator is not None:
            self.generator.set_state(chance)


class Paired(Dataset[Any]):
    """A data set that reads each batch with random numbers of its own; all else is the given data set's."""

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitems__(self, batch: list[int]) -> list[Any]:
        epoch, k = batch.place if isinstance(batch, Batch) else (0, 0)
        with seeded((self.seed + 1_000_003 * epoch + k) % 2**63):
            several = getattr(self.dataset, "__getitems__", None)
            return several(list(batch)) if several else [self.dataset[i] for i in batch]

    def __getitem__(self, i: int) -> Any:
        return self.dataset[i]

    def __len__(self) -> int:
        return len(cast(Any, self.dataset))

    def __getattr__(self, name: str) -> Any:
        if name in ("dataset", "seed") or name.startswith("__"):  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)
