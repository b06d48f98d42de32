"""Does runs on a Ray cluster.  Nothing else in the package knows Ray.

A task of Ray is a run, or runs that advance together.  Ray places it where there is room, and says when the worker or
its node is lost; then it is begun again elsewhere.  The race itself stays in its own process, the only one that writes
to the store.
"""

import contextlib
import importlib
import io
import logging
import pickle
import signal
import socket
import threading
import uuid
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from thalweg import lifelines
from thalweg.problems import Problem, Training
from thalweg.race import streaming
from thalweg.race.job import Fault, Job, Source, WorkerError, pack
from thalweg.race.places import ATTEMPTS, Hear, Keep, died
from thalweg.race.plan import Task
from thalweg.store import Points, Run

_ANSWERS = 10.0
"""Seconds for an address to accept a connection."""
_LEFT_OUT = ["races/", ".git/", ".venv/", "venv/", "__pycache__/", "checkpoints/", "*.db", "*.db-wal", "*.db-shm"]
"""What is not sent of the folder of the user's file."""


class Cluster:
    """A Ray cluster; see `thalweg.race.places.Place`.  Created by `connect`."""

    def __init__(self, ray: Any, source: Source, resources: dict[str, float]) -> None:
        self._ray, self._source, self._resources = ray, source, resources
        self._race: Any = None

    @property
    def slots(self) -> int:
        """How many runs, or groups of runs that advance together, it has room for at present."""
        there: dict[str, float] = self._ray.cluster_resources()
        needed = {"CPU": self._resources["num_cpus"], "GPU": self._resources["num_gpus"]}
        room = [int(there.get(name, 0) // amount) for name, amount in needed.items() if amount]
        return max(min(room, default=1), 1)

    def do(self, job: Job, tasks: deque[Task], keep: Keep, hear: Hear) -> None:
        """Do all tasks.

        Raises:
            WorkerError: the workers cannot read the race, read another one, or die again and again of the same run.
        """
        ray = self._ray
        packed = pack(self._source, job)
        if packed is None:
            raise WorkerError("the problem cannot be sent to other processes, nor to a cluster; leave --ray out")
        # The paths of imports stay here: other machines have their own.
        race = [ray.put([pickle.dumps(uuid.uuid4().hex), *packed[1:]])]
        mailbox = ray.remote(_Mailbox).options(num_cpus=0, max_restarts=-1).remote()
        submit = ray.remote(_do).options(max_retries=0, **self._resources)
        taken = mailbox.take.remote()
        ready: deque[tuple[list[Task], int]] = deque()
        flying: dict[Any, tuple[list[Task], int, set[str]]] = {}
        try:
            while tasks or ready or flying:
                slots = self.slots if tasks or ready else 0
                if slots:
                    ready += [(some, 0) for some in job.divided(tasks, slots)]
                while ready and len(flying) < slots:
                    some, tried = ready.popleft()
                    flying[submit.remote(race, some, mailbox)] = some, tried, self._nodes()
                ray.wait([*flying], num_returns=1, timeout=streaming.EVERY)
                done, _ = ray.wait([*flying], num_returns=len(flying), timeout=0)
                for ref in done:
                    some, tried, nodes = flying.pop(ref)
                    try:
                        answer: list[Run] | Fault = ray.get(ref)
                    except Exception as error:
                        if not isinstance(error, ray.exceptions.RayError):
                            raise
                        ready.extendleft(self._after(error, job, some, tried, nodes))
                        continue
                    if isinstance(answer, Fault):
                        raise pickle.loads(answer.packed)
                    for run in answer:
                        keep(run)
                taken = self._taken(mailbox, taken, hear)
        finally:
            for ref in flying:
                with suppress(Exception):
                    ray.cancel(ref, force=True)
            with suppress(Exception):
                ray.kill(mailbox)

    def _taken(self, mailbox: Any, taken: Any, hear: Hear) -> Any:
        """Hand on the points that have come, without waiting for any; returns what to ask for the next ones."""
        ray = self._ray
        if not ray.wait([taken], timeout=0)[0]:
            return taken
        with suppress(ray.exceptions.RayError):  # its node was lost, and with it some points
            hear(ray.get(taken))
        return mailbox.take.remote()

    def _after(
        self, error: Any, job: Job, some: list[Task], tried: int, nodes: set[str]
    ) -> list[tuple[list[Task], int]]:
        """What to begin again after a worker or a node was lost: halves, since there may have been too little memory.

        A lost node is not the fault of the run.
        """
        tried += nodes <= self._nodes()
        if tried >= ATTEMPTS:
            raise died(some[0], type(error).__name__)
        if len(some) > 1 and not (job.plan.halving and some[0].phase == "tune"):
            half = len(some) // 2
            return [(some[:half], tried), (some[half:], tried)]
        return [(some, tried)]

    def _nodes(self) -> set[str]:
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}


@contextmanager
def connect(address: str, problem: Problem | Training, source: Source) -> Generator[Cluster]:
    """A cluster at an address, ``auto`` for the one that runs on this machine, until the end of the context.

    The folder of the user's file is sent to its workers, and they run in a copy of it.

    Raises:
        WorkerError: Ray is not installed, or no cluster answers.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise WorkerError("--ray needs Ray, which is not installed; pip install 'thalweg[ray]'") from None
    folder = problem.folder if isinstance(source.problem, str) else None
    environment: dict[str, Any] = {}
    if folder is not None:
        environment = {"working_dir": str(folder), "excludes": _LEFT_OUT}
        source = Source(_relative(cast(str, source.problem)), source.data)
    ours = not ray.is_initialized()
    if ours:
        _reach(address)
        _begin(ray, address, environment)
    try:
        yield Cluster(ray, source, {"num_cpus": problem.cpus, "num_gpus": problem.gpus})
    finally:
        if ours:
            ray.shutdown()


def _relative(text: str) -> str:
    """The text of a user's problem as it is in the folder of its file."""
    file, colon, function = text.rpartition(":")
    return f"{Path(file).name}{colon}{function}" if file.endswith(".py") else Path(text).name


def _reach(address: str) -> None:
    """Look whether something answers at an address, for which Ray would wait for minutes.

    Raises:
        WorkerError: nothing does.
    """
    host, colon, port = address.rpartition(":")
    if address in ("auto", "local") or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), _ANSWERS).close()
    except (OSError, ValueError, OverflowError) as error:
        why = str(getattr(error, "strerror", None) or error) if colon else "it has no port"
        raise WorkerError(
            f"no Ray cluster answers at {address} ({why}); write HOST:PORT as ray start --head says it, or auto on a "
            "machine of the cluster"
        ) from None


def _begin(ray: Any, address: str, environment: dict[str, Any]) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        # Ray prints where it connects to, on standard output and error.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            ray.init(
                address=address, runtime_env=environment, namespace=f"thalweg-{uuid.uuid4().hex}", log_to_driver=False,
                logging_level=logging.ERROR, include_dashboard=False,
            )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        said = " ".join(str(error).split())
        raise WorkerError(
            f"the Ray cluster {address} cannot be used ({said}); start one with ray start --head, or give its address"
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)  # Ray puts its own in their place


class _Mailbox:
    """An actor that collects points until the race asks for them."""

    def __init__(self) -> None:
        self._points: list[Points] = []

    def put(self, points: Sequence[Points]) -> None:
        self._points.extend(points)

    def take(self) -> list[Points]:
        found, self._points = self._points, []
        return found


class _Worker:
    """What a worker of Ray knows of the race that it last had a task of."""

    race = ""
    problem: Any = None
    job: Any = None


def _do(race: list[Any], tasks: list[Task], mailbox: Any) -> list[Run] | Fault:
    """Do some tasks in a worker of Ray; whatever is raised is an answer, so that Ray's own errors are lost workers."""
    ray: Any = importlib.import_module("ray")
    try:
        packed: list[bytes] = ray.get(race[0])
        if _Worker.race != (name := pickle.loads(packed[0])):
            _prepare(packed)
            _Worker.race = name

        def send(points: Sequence[Points]) -> None:
            mailbox.put.remote(points)

        with lifelines.holding(), streaming.to(send):
            return _Worker.job.do(_Worker.problem, tasks)
    except BaseException as error:
        return Fault.of(error)


def _prepare(packed: list[bytes]) -> None:
    try:
        source: Source = pickle.loads(packed[1])
        _Worker.problem = source.load()
        _Worker.job = replace(pickle.loads(packed[2]), apart=True)
    except BaseException as error:  # a user's file may even call exit
        raise WorkerError(
            f"a worker of the Ray cluster cannot read the race ({type(error).__name__}: {error}); all that the "
            "problem's file needs must be beside it, or installed on every node"
        ) from error
    _Worker.job.compare(source, _Worker.problem)
