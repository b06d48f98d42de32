"""Where stores are: paths and database URLs as text, and engines for them."""

import os
import sqlite3
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc

from thalweg.store.errors import StoreError, StoreWarning

WAIT = 30.0
"""Seconds before reporting that another program has locked a file."""
PATIENCE = 600.0
"""Seconds before giving up on that lock, or on a server that has been lost."""
_DRIVER = "postgresql+psycopg"
_ALIVE = {
    "connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}  # fmt: skip
"""What libpq does about a server that no longer answers: a lost connection is noticed within half a minute."""

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where a store is.

    Attributes:
        name: for messages; without a password.
        url: for SQLAlchemy.
        file: of a SQLite file, its path.
        many: whether it is for many races: if it was given as a URL.
    """

    name: str
    url: sa.URL
    file: Path | None = None
    many: bool = False

    @classmethod
    def of(cls, place: "str | Path | Place") -> "Place":
        """The place at a path or database URL.

        Raises:
            StoreError: the URL cannot be used.
        """
        if isinstance(place, Place):
            return place
        if not (isinstance(place, str) and "://" in place):
            path = Path(place)
            return cls(str(path), sa.URL.create("sqlite", database=str(path)), path)
        try:
            url = sa.make_url(place)
            if url.drivername in ("postgres", "postgresql"):
                url = url.set(drivername=_DRIVER)
            url.get_dialect()
        except (exc.ArgumentError, exc.NoSuchModuleError, ValueError):  # which repeat what they were given
            raise StoreError(_ADVICE) from None
        if url.get_backend_name() not in ("postgresql", "sqlite"):
            raise StoreError(_ADVICE)
        file = (
            Path(url.database)
            if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
            else None
        )
        return cls(shown(url), url, file, True)

    @property
    def memory(self) -> bool:
        """Whether the store is in memory, and this process's alone."""
        return self.file is None and self.url.get_backend_name() == "sqlite"

    def race(self) -> "tuple[Place, str | None]":
        """The store and the name of the race in ``STORE/RACE``; None if there is only a store.

        Raises:
            StoreError: there is no such file.
        """
        if self.file is None:
            database, _, name = (self.url.database or "").partition("/")
            store = Place(*_named(self.url.set(database=database)), None, True)
            return store, name or None
        for file in (self.file, *self.file.parents):
            if file.is_file():
                name = "/".join(self.file.parts[len(file.parts) :])
                where = Place.of(f"sqlite:///{file}") if self.many else Place.of(file)
                return where, name or None
        return self, None


_ADVICE = (
    "the database URL cannot be used; write postgresql://user@host/name or sqlite:///file.db, and for a password set "
    "PGPASSWORD or use a ~/.pgpass file"
)


def _named(url: sa.URL) -> tuple[str, sa.URL]:
    return shown(url), url


def shown(url: sa.URL) -> str:
    """A URL for people: without its password, its query and its driver."""
    return url.set(query={}, drivername=url.get_backend_name()).render_as_string(hide_password=True)


def engine(place: Place) -> sa.Engine:
    """An engine that writes.

    Raises:
        StoreError: the driver is not installed.
    """
    if not place.url.drivername.startswith("sqlite"):
        try:
            return sa.create_engine(place.url, connect_args=_ALIVE, pool_pre_ping=True)
        except ModuleNotFoundError:
            raise StoreError(
                f"{place.name} needs psycopg, which is not installed; pip install 'thalweg[postgres]'"
            ) from None
    made = sa.create_engine(place.url, connect_args={"timeout": WAIT})

    # Left alone, Python's driver begins a transaction only to write, so two processes could both create the tables.
    @event.listens_for(made, "connect")
    def _(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA wal_autocheckpoint = 1")  # so that a copy of the file alone has what had ended

    @event.listens_for(made, "begin")
    def _(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return made


def reader(place: Place) -> sa.Engine:
    """An engine that only reads: it neither creates a file nor keeps one open.

    Raises:
        StoreError: there is no such file, or the driver is not installed.
    """
    if place.file is None:
        return engine(place).execution_options(isolation_level="REPEATABLE READ")
    if not place.file.is_file():
        raise StoreError(f"there is no store {place.name}; run a race first, or check the name")
    file = place.file.absolute()

    def connect() -> sqlite3.Connection:
        # Beside a file in WAL mode whose log is gone SQLite makes another, even to read.
        if _is_wal(file) and not file.with_name(f"{file.name}-wal").exists():
            return _opened(f"{file.as_uri()}?immutable=1")
        try:
            return _opened(f"{file.as_uri()}?mode=ro")
        except sqlite3.OperationalError:
            if any(file.with_name(f"{file.name}{end}").exists() for end in ("-wal", "-journal")):
                raise
            return _opened(f"{file.as_uri()}?immutable=1")

    made = sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)
    event.listen(made, "begin", _begin)  # what is read at once belongs together
    return made


def _is_wal(file: Path) -> bool:
    """Whether a SQLite file says that its changes are in a log beside it."""
    with suppress(OSError), file.open("rb") as opened:
        return opened.read(20)[18:20] == b"\2\2"
    return False


def identity(path: Path | None) -> tuple[int, int] | None:
    """What tells a file from another at the same path; None if there is none."""
    try:
        about = os.stat(path or "")
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _opened(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=WAIT, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def write_ahead(made: sa.Engine, on: bool) -> bool:
    """Let readers of a SQLite file go on while it is written, by a log beside it (WAL); or go back to a file alone.

    Where that is not possible, as on some network disks or while others have it open, all stays as it is.

    Returns:
        Whether it is so now.
    """
    mode = ""
    with suppress(exc.SQLAlchemyError, sqlite3.Error):
        connection = made.raw_connection()
        try:
            connection.cursor().execute(f"PRAGMA busy_timeout = {1000 if on else 0}")
            [mode] = connection.cursor().execute(f"PRAGMA journal_mode = {'WAL' if on else 'DELETE'}").fetchone()
            connection.cursor().execute(f"PRAGMA busy_timeout = {int(1000 * WAIT)}")
        finally:
            connection.close()
    return mode == ("wal" if on else "delete")


def patiently(do: Callable[[], T], name: str) -> T:
    """Do it as soon as the store can be reached: no other program has locked it, and the server answers.

    What is done must be right when done twice, since a connection may be lost after a commit and before its answer.
    """
    began, pause, told = time.monotonic(), 0.05, False
    while True:
        try:
            return do()
        except (exc.OperationalError, exc.InterfaceError) as error:
            locked = "locked" in str(error.orig)
            sqlite = isinstance(error.orig, sqlite3.Error)
            if (sqlite and not locked) or time.monotonic() - began > PATIENCE:
                raise
            if not told:
                why = "is held by another program" if locked else "cannot be reached"
                warnings.warn(f"{name} {why}; the race waits for it", StoreWarning, stacklevel=2)
                told = True
            if not sqlite:  # which has waited already
                time.sleep(pause)
                pause = min(2 * pause, 5.0)
