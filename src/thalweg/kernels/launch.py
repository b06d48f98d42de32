"""Running a kernel on several threads: those of torch's own OpenMP runtime.

A second pool beside torch's would fight with it for the cores, since idle OpenMP threads go on spinning for a while:
measured on two cores, an empty launch between torch's operations took 2 µs on torch's threads and 10 µs on Numba's.
"""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.kernels import build
from thalweg.kernels.records import JOB, SHARES, address
from thalweg.printers.source import COLUMNS, Source

PIECES = 64
"""Into how many a table is cut at most.  A thread takes the next when done with one: a busy core holds up nobody."""

_SMALL = 1_500_000  # bytes: where a step moves fewer, one thread is done before a second has woken up
_MOST = 256  # threads
_JOB = ctypes.PYFUNCTYPE(None, ctypes.c_int64)  # with Python's lock held: nobody may drop what addresses lead to

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
    for path in _runtimes():
        try:
            runtime = ctypes.PyDLL(path)  # which keeps Python's lock during a call
            parallel, number = runtime.GOMP_parallel, runtime.omp_get_thread_num
        except (OSError, AttributeError):
            continue
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel, ctypes.cast(number, ctypes.c_void_p).value or 0
    return None, 0


def _runtimes() -> list[str]:
    """The files of OpenMP runtimes that came with torch; other packages may have loaded theirs."""
    folder = Path(torch.__file__).parent
    try:  # what this process has loaded: to search torch's folder takes 0.2 s
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
        mapped = {path for path in mapped if path.startswith(str(folder))}
    except OSError:
        mapped = {str(path) for near in (folder, folder.with_name("torch.libs")) for path in near.rglob("lib*omp*")}
    names = ("libgomp", "libiomp5", "libomp")
    found = [(names.index(name), path) for path in mapped for name in names if Path(path).name.startswith(name)]
    return [path for _, path in sorted(found)]


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
    """A kernel, and what it works on: a `thalweg.kernels.records.JOB`.

    Past byte `SHARES` of it there is one cache line per thread: the number of pieces already taken from that thread's
    share.  Each thread starts with its own share, which its core may still have cached from the last step, then takes
    from the others'.

    Attributes:
        groups: the numbers of each group.
        totals: what each chunk has summed up, a column per sum.
    """

    def __init__(
        self,
        source: Source,
        table: NDArray[Any],
        cuts: NDArray[np.int64],
        rows: NDArray[np.float64],
        groups: NDArray[np.float64],
        real: type[np.floating[Any]],
        number_out: NDArray[np.float64] | None = None,
        small: bool = False,
    ) -> None:
        module, loops = build.load(source.text), build.native("loops")
        self._address = loops.worker.address
        self._worker, self._host = _JOB(loops.worker.address), _JOB(loops.host.address)
        scalars = np.zeros((len(rows), max(source.width, 1)), real)
        self.groups, self.totals = groups, np.zeros((len(table), len(source.sums)))
        self._kept = (table, cuts, rows, number_out, scalars)
        pieces = len(cuts) - 1
        self._parallel, number = _openmp()
        self._most = min(_MOST, pieces)
        self._small = small
        self._job = np.zeros(SHARES // 8 + 8 * self._most, np.int64)
        self._taken = self._job[SHARES // 8 :: 8]
        self._at = address(self._job)
        self._record: Any = self._job[: JOB.itemsize // 8].view(JOB)[0]
        job = self._record
        job["pieces"], job["cuts"], job["thread"] = pieces, address(cuts), number
        job["numbers"], job["chunk"], job["flushes"] = module.numbers.address, module.chunk.address, source.flushes
        job["table"], job["row_bytes"], job["chunks"] = address(table), table.strides[0], len(table)
        job["columns"], job["arrays"] = COLUMNS, len(source.arrays)
        job["scalars"], job["scalar_bytes"] = address(scalars), scalars.strides[0]
        job["totals"], job["total_bytes"] = address(self.totals), 8 * len(source.sums)
        job["rows"], job["row_words"] = address(rows), rows.shape[1]
        job["groups"], job["group_words"] = address(groups), groups.shape[1]
        job["number_out"], job["kept"] = 0 if number_out is None else address(number_out), len(source.kept)
        self._threads: Any = self._job[:1]
        self._row_count: Any = self._job[JOB.names.index("row_count") :]  # pyright: ignore

    def run(self, rows: int) -> None:
        """Compute the scalars of so many rows, then do all chunks, on as many threads as torch uses."""
        self._row_count[0] = rows
        self._host(self._at)
        threads = 1 if self._small or _forked else min(torch.get_num_threads(), self._most)
        self._threads[0] = threads
        self._taken[:threads] = 0
        if threads == 1:
            self._worker(self._at)
        elif self._parallel is not None:
            self._parallel(self._address, self._at, threads, 0)
        else:
            worker = ctypes.CFUNCTYPE(None, ctypes.c_int64)(self._address)
            waiting = [_pool(threads - 1, os.getpid()).submit(worker, self._at) for _ in range(threads - 1)]
            worker(self._at)
            for helper in waiting:
                helper.result()
