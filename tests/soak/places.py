"""Where the races of a soak keep their records and do their runs, with the faults that are possible there."""

import contextlib
import io
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import sqlalchemy as sa

import postgres
from processes import ended, tree
from soak.proxy import Proxy

Fault = Callable[["Place", int, Random], None]


class Place:
    """A store, and processes of this machine for the runs.

    Attributes:
        faults: what may happen, by name; each is given the place, the process of the driver, and chance.
        options: further options of ``thalweg race``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options: list[str] = ["--workers", "2"]
        self.faults: Mapping[str, Fault] = {"driver": _driver, "worker": _worker, "both": _both, "clock": _clock}
        self.store = ""
        self._stores = itertools.count()

    def renew(self) -> None:
        """Another store, which is empty."""
        self.store = f"sqlite:///{self.folder / f'lab-{next(self._stores)}.db'}"

    def mend(self) -> None:
        """Undo what a fault has left."""

    def own(self) -> set[int]:
        """The processes that belong to the place, and not to a race."""
        return set()

    def close(self) -> None:
        """End everything."""


class Sqlite(Place):
    """A file on a small disk, where that can be mounted."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.disk = folder / "disk"
        self.disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(self.disk)], capture_output=True
        )
        self.mounted = not mounted.returncode
        if self.mounted:
            self.faults = {**self.faults, "full disk": _full}

    def renew(self) -> None:
        for left in self.disk.iterdir():
            left.unlink()
        self.store = f"sqlite:///{self.disk / 'lab.db'}"

    def mend(self) -> None:
        (self.disk / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.disk)], check=True)


class Postgres(Place):
    """A server behind a way that can be cut."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = postgres.Server(folder)
        self.server.start()
        assert self.server.url.port
        self.proxy = Proxy(self.server.url.port)
        self.faults = {**self.faults, "database": _database, "connection": _connection}

    def renew(self) -> None:
        name = f"lab{next(self._stores)}"
        made = sa.create_engine(self.server.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with made.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        url = self.server.url.set(port=self.proxy.port, drivername="postgresql", database=name)
        self.store = url.render_as_string()

    def own(self) -> set[int]:
        return {self.server.pid}

    def close(self) -> None:
        self.proxy.close()
        self.server.stop()


class Ray(Place):
    """A cluster of two nodes, with a file as its store."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        super().__init__(folder)
        self.short = tempfile.mkdtemp(prefix="r")  # since sockets need a short name
        os.environ |= {"RAY_TMPDIR": self.short, "RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
        self._node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            self.cluster: Any = Cluster(initialize_head=True, head_node_args=self._node)
            self.cluster.add_node(**self._node)
        self.options = ["--ray", self.cluster.address]
        self.faults = {"driver": _driver, "ray worker": _ray_worker, "node": _lost_node, "clock": _clock}

    def own(self) -> set[int]:
        processes = (infos for node in self.cluster.list_all_nodes() for infos in node.all_processes.values())
        return {info.process.pid for infos in processes for info in infos}

    def mend(self) -> None:
        if not self.cluster.worker_nodes:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                self.cluster.add_node(**self._node)

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            self.cluster.shutdown()
        shutil.rmtree(self.short, ignore_errors=True)


def _driver(place: Place, pid: int, chance: Random) -> None:
    os.kill(pid, signal.SIGKILL)


def _worker(place: Place, pid: int, chance: Random) -> None:
    workers: list[int] = []
    while not workers and not ended({pid}):  # they may not have been started
        workers = [one for one in tree(pid) if _leads(one)]
        time.sleep(0.01)
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)


def _both(place: Place, pid: int, chance: Random) -> None:
    _worker(place, pid, chance)
    _driver(place, pid, chance)


def _clock(place: Place, pid: int, chance: Random) -> None:
    """The problem's file sets the time of the driver by what is in this file."""
    (place.folder / "clock").write_text(str(chance.choice([-1, 1]) * chance.randrange(10**9)))


def _full(place: Place, pid: int, chance: Random) -> None:
    assert isinstance(place, Sqlite)
    with contextlib.suppress(OSError), open(place.disk / "ballast", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _database(place: Place, pid: int, chance: Random) -> None:
    assert isinstance(place, Postgres)
    place.server.stop(signal.SIGKILL)
    time.sleep(chance.random())
    place.server.start()


def _connection(place: Place, pid: int, chance: Random) -> None:
    assert isinstance(place, Postgres)
    place.proxy.cut()
    threading.Timer(chance.random(), place.proxy.mend).start()


def _ray_worker(place: Place, pid: int, chance: Random) -> None:
    """Kill a process that does runs of Ray, wherever it is."""
    while not ended({pid}):
        for one in tree(os.getpid()):
            with contextlib.suppress(OSError):
                if b"ray::_do" in Path(f"/proc/{one}/cmdline").read_bytes():
                    os.kill(one, signal.SIGKILL)
                    return
        time.sleep(0.01)


def _lost_node(place: Place, pid: int, chance: Random) -> None:
    assert isinstance(place, Ray)
    if nodes := [*place.cluster.worker_nodes]:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            place.cluster.remove_node(nodes[0], allow_graceful=False)


def _leads(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False
