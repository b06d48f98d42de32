"""Reproducible randomness."""

import random
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch


class Chance:
    """All random numbers from a seed on; it may be used for a while, left, and gone on with."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._states: tuple[Any, ...] | None = None

    @contextmanager
    def used(self) -> Generator[None]:
        """Draw from here, on one thread, since sums depend on the number of threads; restore what was before after."""
        threads, python, arrays = torch.get_num_threads(), random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            if self._states is None:
                torch.manual_seed(self._seed)
                random.seed(self._seed)
                np.random.seed(self._seed % 2**32)
            else:
                torch.set_rng_state(self._states[0])
                random.setstate(self._states[1])
                np.random.set_state(self._states[2])
            torch.set_num_threads(1)
            try:
                yield
            finally:
                self._states = torch.get_rng_state(), random.getstate(), np.random.get_state()
                torch.set_num_threads(threads)
                random.setstate(python)
                np.random.set_state(arrays)


def reproducible(seed: int) -> AbstractContextManager[None]:
    """Seed all random number generators and use one thread; restore both after."""
    return Chance(seed).used()


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Seed the global random numbers of the CPU, of NumPy and of Python; restore them after."""
    state = get_state()
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        set_state(state)


def get_state() -> tuple[Any, ...]:
    """The states of the global random number generators: of the CPU, of NumPy, of Python and of GPUs in use."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.default_generator.get_state(), np.random.get_state(), random.getstate(), gpus


def set_state(state: tuple[Any, ...]) -> None:
    """Restore what `get_state` returned."""
    torch.default_generator.set_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])
    if state[3]:
        torch.cuda.set_rng_state_all(state[3])
