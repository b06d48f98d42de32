"""Running a kernel's worker on several threads: those of torch's own OpenMP runtime.

A second pool beside torch's would fight with it for the cores, since idle OpenMP threads go on spinning for a while:
measured on two cores, an empty launch between torch's operations took 2 µs on torch's threads and 10 µs on Numba's.
"""

import ctypes
import glob
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.printers.numba import SHARES

PIECES = 64
"""Into how many a table is cut at most.  A thread takes the next when done with one: a busy core holds up nobody."""

_SMALL = 1_500_000  # bytes: where a step moves fewer, one thread is done before a second has woken up
_MOST = 256  # threads

_forked = False


def _after_fork() -> None:
    # OpenMP's threads do not survive a fork: a child that waits for them waits for ever.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def forked() -> bool:
    """Whether this process was forked from one that may have had threads, which are then missing here."""
    return _forked


@cache
def _openmp() -> tuple[Any, int]:
    """``GOMP_parallel(worker, job, threads, flags)`` of the OpenMP runtime that torch has loaded, or None.

    And the address of its ``omp_get_thread_num``, or 0.
    """
    folder = Path(torch.__file__).parent
    found = [p for name in ("gomp", "iomp5", "omp") for p in glob.glob(f"{folder}*/**/lib{name}*.so*", recursive=True)]
    for path in found:
        try:
            runtime = ctypes.CDLL(path)
            parallel, number = runtime.GOMP_parallel, runtime.omp_get_thread_num
        except (OSError, AttributeError):
            continue
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel, ctypes.cast(number, ctypes.c_void_p).value or 0
    return None, 0


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="thalweg")


def small(count: int, traffic: int) -> bool:
    """Whether so many elements, of which a step moves so many bytes each, are too few for a second thread."""
    return count * traffic < _SMALL


def cuts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where to cut chunks of so many elements into at most `PIECES` that cost about the same, both ends included."""
    cost = counts + 32  # a chunk costs about as much as 32 elements, however small it is
    middle: NDArray[np.float64] = np.cumsum(cost) - cost / 2  # a chunk belongs to the piece that has its middle
    pieces = min(PIECES, len(counts))
    return np.searchsorted(middle, int(cost.sum()) * np.arange(pieces + 1) / pieces).astype(np.int64)


class Job:
    """A worker and what it works on.

    The worker is a C function of the address of ten int64: how many threads there are, how many pieces, the addresses
    of the cuts between these, of the table, of the scalars and of the totals that each chunk leaves, the bytes of a row
    of the table, the salt of rounding by chance, how many rows there are, and the address of a function that gives the
    thread's number.  After `SHARES` bytes follows, a line of cache a thread, how much of its share of the pieces is
    taken: each begins with its own, the same at every step, which its core may still have in its cache, and goes on
    with what others have left.  `small` says that a single thread is quickest.
    """

    def __init__(
        self, worker: int, table: NDArray[Any], scalars: NDArray[Any], totals: NDArray[np.float64], small: bool
    ) -> None:
        self._address = worker
        self._worker = ctypes.CFUNCTYPE(None, ctypes.c_int64)(worker)
        self._kept = (table, scalars, totals)
        self._cuts = cuts(table[:, 0])
        pieces = len(self._cuts) - 1
        addresses: list[int] = [self._cuts.ctypes.data, table.ctypes.data, scalars.ctypes.data, totals.ctypes.data]
        self._parallel, number = _openmp()
        words = [1, pieces, *addresses, table.strides[0], 0, len(table), number]
        self._most = min(_MOST, pieces)
        self._job = np.zeros(SHARES // 8 + 8 * self._most, np.int64)
        self._job[: len(words)] = words
        self._taken = self._job[SHARES // 8 :: 8]
        self._at = self._job.ctypes.data
        self._small = small

    def run(self, salt: int) -> None:
        """Do all of it, on as many threads as torch uses."""
        threads = 1 if self._small or _forked else min(torch.get_num_threads(), self._most)
        self._job[0], self._job[7] = threads, salt
        self._taken[:threads] = 0
        if threads == 1:
            self._worker(self._at)
        elif self._parallel is not None:
            self._parallel(self._address, self._at, threads, 0)
        else:
            pool = _pool(threads - 1, os.getpid())
            waiting = [pool.submit(self._worker, self._at) for _ in range(threads - 1)]
            self._worker(self._at)
            for helper in waiting:
                helper.result()
