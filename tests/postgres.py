"""Starts a PostgreSQL server for the tests, on loopback, if PostgreSQL is installed."""

import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from processes import wait_for

_stores = itertools.count()


class Server:
    """A server that keeps its data in a folder; skips the test if there can be none.

    Args:
        folder: the folder.
        password: what it asks for; nothing by default.

    Attributes:
        url: of its database, for SQLAlchemy.
    """

    def __init__(self, folder: Path, password: str | None = None) -> None:
        begin = [_installed("initdb"), "-D", str(folder / "data"), "-U", "me", "-E", "UTF8"]
        if password is None:
            begin += ["-A", "trust"]
        else:
            (folder / "password").write_text(password, encoding="utf-8")
            begin += ["-A", "scram-sha-256", f"--pwfile={folder / 'password'}"]
        prefix: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root, so in a user namespace it sees another id
            prefix = ["unshare", "--map-user=1000", "--map-group=1000"]
            if not shutil.which("unshare") or subprocess.run([*prefix, "true"], capture_output=True).returncode:
                pytest.skip("PostgreSQL does not run as root, and there are no user namespaces here")
        subprocess.run([*prefix, *begin, "--locale=C", "--no-sync"], check=True, capture_output=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        run = [_installed("postgres"), "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
        self._run, self._log = [*prefix, *run], folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = sa.URL.create("postgresql+psycopg", "me", password, "127.0.0.1", port, "postgres")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        end = time.monotonic() + 60
        while True:
            with open(self._log, "w") as log:
                process = self._process = subprocess.Popen(self._run, stdout=log, stderr=log)
            wait_for(lambda process=process: process.poll() is not None or _answers(self.url))
            if process.poll() is None:
                return
            # What a killed server has left may need a while to go.
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.2)

    @property
    def pid(self) -> int:
        """The process that is the server now, and the parent of its others; 0 if there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it by a signal."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()


@contextmanager
def server(folder: Path) -> Generator[sa.URL]:
    """The URL of a server that keeps its data in `folder`; skips the test if none can be started."""
    made = Server(folder)
    try:
        made.start()
        yield made.url
    finally:
        made.stop()


def fresh(url: sa.URL) -> str:
    """The URL of an empty store on a server."""
    schema = f"store{next(_stores)}"
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    return url.set(query={"options": f"-csearch_path={schema}"}).render_as_string()


def _installed(tool: str) -> str:
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    folders = [
        os.environ.get("PATH", ""),
        *map(str, Path("/usr/lib/postgresql").glob("*/bin")),
    ]  # Debian
    found = shutil.which(tool, path=os.pathsep.join(folders))
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    return found


def _answers(url: sa.URL) -> bool:
    with suppress(OperationalError), sa.create_engine(url, poolclass=sa.NullPool).connect():
        return True
    return False
