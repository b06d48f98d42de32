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

_SMALL = 2_000_000  # bytes: where fewer are moved, one thread is done before a second has woken up
_PIECES = 64  # threads take the next piece when done with one, so that a busy core holds up nobody

_forked = False


def _after_fork() -> None:
    # OpenMP's threads do not survive a fork: a child that waits for them waits for ever.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _openmp() -> Any:
    """``GOMP_parallel(worker, job, threads, flags)`` of the OpenMP runtime that torch has loaded, or None."""
    folder = Path(torch.__file__).parent
    found = [p for name in ("gomp", "iomp5", "omp") for p in glob.glob(f"{folder}*/**/lib{name}*.so*", recursive=True)]
    for path in found:
        try:
            parallel = ctypes.CDLL(path).GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel
    return None


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="thalweg")


class Job:
    """A worker and what it works on.

    The worker is a C function of the address of nine int64: the next piece to take, how many pieces there are, the
    addresses of the cuts between them, of the table, of the scalars and of the totals that each chunk leaves, the bytes
    of a row of the table, the salt of rounding by chance, and how many rows there are.  It moves `traffic` bytes an
    element.
    """

    def __init__(
        self, worker: int, table: NDArray[Any], scalars: NDArray[Any], totals: NDArray[np.float64], traffic: int
    ) -> None:
        self._address = worker
        self._worker = ctypes.CFUNCTYPE(None, ctypes.c_int64)(worker)
        self._kept = (table, scalars, totals)
        done = np.cumsum(table[:, 0] + 32)  # a chunk costs about as much as 32 elements, however small it is
        pieces = min(_PIECES, len(table))
        self._cuts = np.searchsorted(done, done[-1] * np.arange(pieces + 1) / pieces).astype(np.int64)
        self._cuts[-1] = len(table)
        addresses: list[int] = [self._cuts.ctypes.data, table.ctypes.data, scalars.ctypes.data, totals.ctypes.data]
        self._job = np.array([0, pieces, *addresses, table.strides[0], 0, len(table)], np.int64)
        self._at = self._job.ctypes.data
        self._small = int(done[-1]) * traffic < _SMALL

    def run(self, salt: int) -> None:
        """Do all of it, on as many threads as torch uses."""
        self._job[0], self._job[7] = 0, salt
        threads = 1 if self._small or _forked else torch.get_num_threads()
        if threads == 1:
            self._worker(self._at)
        elif (parallel := _openmp()) is not None:
            parallel(self._address, self._at, threads, 0)
        else:
            pool = _pool(threads - 1, os.getpid())
            waiting = [pool.submit(self._worker, self._at) for _ in range(threads - 1)]
            self._worker(self._at)
            for helper in waiting:
                helper.result()
