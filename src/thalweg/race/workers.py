"""Does runs in worker processes of this machine, each with one thread and its own copy of the data.

Runs that can advance together are given to a worker together; see `thalweg.race.population`.

Workers are independent processes connected by pipes, rather than forked or spawned by ``multiprocessing``.  Therefore a
script that runs a race needs no ``if __name__ == "__main__"``, a killed worker is replaced instead of breaking the
pool, and a worker whose parent was killed sees its pipe close and ends.  Each leads its own process group, so that
processes started by the user's code end with it.
"""

import json
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from queue import SimpleQueue
from typing import IO, Any, cast

import cloudpickle

from thalweg import lifelines
from thalweg.race.channel import Channel
from thalweg.race.job import Fault, Job, Source
from thalweg.race.places import ATTEMPTS, Hear, Keep, died
from thalweg.race.plan import Task
from thalweg.race.streaming import Streamed
from thalweg.store import Run

# A worker gets its parent's import paths before it imports anything else; -P keeps the current folder out of its own.
_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from thalweg import lifelines
lifelines.end_with(int(sys.argv[2]))
from thalweg.race import worker
worker.main()
"""


class Processes:
    """Worker processes; see `thalweg.race.places.Place`.

    Args:
        source: where the problem comes from.
        packed: the race as `thalweg.race.job.pack` has packed it.
        slots: the number of processes.
    """

    def __init__(self, source: Source, packed: list[bytes], slots: int) -> None:
        self._source, self._packed, self.slots = source, packed, slots
        self._begun: list[subprocess.Popen[bytes]] = []

    @contextmanager
    def begun(self, most: int) -> Generator[None]:
        """Start the processes, but no more than `most`: what they import takes seconds, in which something else can be
        done.  At the end of the context those that have got nothing to do are ended.
        """
        try:
            for _ in range(min(most, self.slots)):
                self._begun.append(_start(self._source))
            yield
        finally:
            for worker in self._begun:
                _end(worker)
                _close(worker)
            self._begun.clear()

    def do(self, job: Job, tasks: deque[Task], keep: Keep, hear: Hear) -> None:
        """Do all tasks.

        Raises:
            WorkerError: the workers cannot read the race, read another one, or die again and again of the same run.
        """
        # What the threads have for this one: points as they come, and each future when it has ended.
        inbox: SimpleQueue[Streamed | Future[list[Run]]] = SimpleQueue()
        ready: deque[list[Task]] = deque()
        flying = 0
        halving = job.plan.halving
        packed = [*self._packed[:-1], cloudpickle.dumps(job)]
        with (
            closing(_Crew(self._source, packed, halving, inbox, self._begun)) as crew,
            ThreadPoolExecutor(self.slots) as threads,
        ):
            try:
                while tasks or ready or flying:
                    ready.extend(job.divided(tasks, self.slots))
                    while ready and flying < self.slots:
                        threads.submit(crew.do, ready.popleft()).add_done_callback(inbox.put)
                        flying += 1
                    found = inbox.get()
                    if isinstance(found, Streamed):
                        hear(found.points)
                        continue
                    flying -= 1
                    for run in found.result():
                        keep(run)
            finally:
                crew.dismiss()  # before the executor waits for its threads, which wait for the workers


class _Crew:
    """The workers, one for each thread that asks; the first ones are those that have `begun`."""

    def __init__(
        self,
        source: Source,
        packed: list[bytes],
        halving: bool,
        inbox: "SimpleQueue[Any]",
        begun: list[subprocess.Popen[bytes]],
    ) -> None:
        self._source, self._packed, self._halving, self._inbox, self._begun = source, packed, halving, inbox, begun
        self._of_thread = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []
        self._ended: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._dismissed = False

    def do(self, tasks: list[Task]) -> list[Run]:
        """The runs of some tasks, done by this thread's worker; if that dies, new ones start half of them each, since
        there may have been too little memory for all, and a run alone again.
        """
        ended = ""
        task = tasks[0]
        for _ in range(ATTEMPTS):
            worker: subprocess.Popen[bytes] | None = getattr(self._of_thread, "worker", None)
            try:
                if worker is None:
                    worker = self._of_thread.worker = self._started()
                    _send(worker, *self._packed)
                _send(worker, tasks)
                return _receive(worker, self._inbox)
            except (EOFError, pickle.UnpicklingError):
                self._of_thread.worker = None
                if worker:
                    ended = self._buried(worker)
                if self._dismissed:
                    break
                if len(tasks) > 1 and not (self._halving and task.phase == "tune"):
                    half = len(tasks) // 2
                    return self.do(tasks[:half]) + self.do(tasks[half:])
        raise died(task, ended)

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._dismissed:
                raise EOFError
            worker = self._begun.pop() if self._begun else _start(self._source)
            self._all.append(worker)
        return worker

    def _buried(self, worker: subprocess.Popen[bytes]) -> str:
        """End the children of a worker that has ended; returns how it ended."""
        with self._lock:
            if worker in self._all:
                self._all.remove(worker)
                self._ended.append(worker)
                _end(worker)
        code = worker.wait()
        return f"killed by signal {-code} (out of memory?)" if code < 0 else f"with exit code {code}"

    def dismiss(self) -> None:
        """End all workers, whatever they are doing."""
        with self._lock:
            self._dismissed = True
            for worker in self._all:
                lifelines.end_group(worker.pid)
            for worker in self._all:
                _end(worker)
            self._ended.extend(self._all)
            self._all.clear()

    def close(self) -> None:
        """Close the pipes, once no thread reads from them."""
        for worker in self._ended:
            _close(worker)


def _start(source: Source) -> subprocess.Popen[bytes]:
    # Workers have sessions of their own, so that Ctrl-C reaches only this process, which then ends them.
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _START, json.dumps(source.paths), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def _end(worker: subprocess.Popen[bytes]) -> None:
    lifelines.end_group(worker.pid)  # a worker's children may outlive it
    worker.wait()


def _close(worker: subprocess.Popen[bytes]) -> None:
    for pipe in (worker.stdin, worker.stdout):
        with suppress(OSError):  # unsent data cannot be flushed
            cast("IO[bytes]", pipe).close()


def _send(worker: subprocess.Popen[bytes], *things: Any) -> None:
    with suppress(OSError):  # it has ended, but its last answer can still be read
        for thing in things:
            _channel(worker).send(thing)


def _receive(worker: subprocess.Popen[bytes], inbox: "SimpleQueue[Any]") -> list[Run]:
    answer: list[Run] | Fault | Streamed
    while isinstance(answer := _channel(worker).receive(), Streamed):
        inbox.put(answer)
    if isinstance(answer, Fault):
        raise pickle.loads(answer.packed)
    return answer


def _channel(worker: subprocess.Popen[bytes]) -> Channel:
    """The other end of a worker's pipes."""
    reads, writes = cast("IO[bytes]", worker.stdout), cast("IO[bytes]", worker.stdin)
    return Channel(reads.fileno(), writes.fileno())
