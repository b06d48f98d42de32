"""Starts a PostgreSQL server for the tests, on loopback, if PostgreSQL is installed."""

import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from processes import wait_for

_stores = itertools.count()


@contextmanager
def server(folder: Path) -> Generator[sa.URL]:
    """The URL of a server that keeps its data in `folder`; skips the test if none can be started."""
    begin = [_installed("initdb"), "-D", str(folder / "data"), "-U", "me", "-A", "trust", "-E", "UTF8", "--locale=C"]
    prefix: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root, so in a user namespace it sees another id
        prefix = ["unshare", "--map-user=1000", "--map-group=1000"]
        if not shutil.which("unshare") or subprocess.run([*prefix, "true"], capture_output=True).returncode:
            pytest.skip("PostgreSQL does not run as root, and there are no user namespaces here")
    subprocess.run([*prefix, *begin, "--no-sync"], check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = [_installed("postgres"), "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([*prefix, *run], stdout=log, stderr=log)
    try:
        url = sa.URL.create("postgresql+psycopg", username="me", host="127.0.0.1", port=port, database="postgres")
        wait_for(lambda: process.poll() is not None or _answers(url))
        assert process.poll() is None, (folder / "log").read_text()
        yield url
    finally:
        process.terminate()
        process.wait()


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
