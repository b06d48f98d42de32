"""Allows one driver at a time in a race, since two would do everything twice.

No clock is involved: a lock on a file ends with the process that holds it, and one in PostgreSQL with its connection.
"""

import hashlib
import os
import socket
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy import exc

from thalweg.store.errors import StoreError
from thalweg.store.places import Place, patiently

_LINGERS = 60.0
"""Seconds to wait for a lock of a connection that is lost on this side only; servers notice that within so long."""


def locked(place: Place, race: str) -> FileLock:
    """The lock of a race in a SQLite file, now held by this process, whatever path or URL leads to the file.

    Raises:
        StoreError: another process holds it.
    """
    assert place.file is not None
    real = place.file.resolve()
    # Of the name a hash, since with its letters that of the file could become too long.
    lock = FileLock(real.with_name(f".{real.name}.{hashlib.sha256(race.encode()).hexdigest()[:8]}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        which, other = (f"/{race}", "") if place.many else ("", ", or choose another with --out")
        raise StoreError(
            f"{place.name}{which} is in use: another command is running this race; wait until it has ended{other}"
        ) from None
    except (OSError, NotImplementedError):
        pass  # files on some network disks cannot be locked; two races at once there only cost time
    return lock


class Hold:
    """A race in PostgreSQL that this process alone writes: by one connection, whose session holds a lock.

    If the connection is lost, so is the lock, and the next one asks for it again.
    """

    def __init__(self, engine: sa.Engine, name: str, race: str) -> None:
        self._engine, self._name, self._race = engine, name, race
        self._me = f"thalweg {socket.gethostname()[:24]} {os.getpid()} {uuid.uuid4().hex[:12]}"
        self._connection: sa.Connection | None = None

    @contextmanager
    def begin(self) -> Generator[sa.Connection]:
        """A transaction of the connection that holds the lock.

        Raises:
            StoreError: another command runs the race.
        """
        if self._connection is None:
            self._connection = self._locked()
        try:
            with self._connection.begin():
                yield self._connection
        except BaseException:
            if self._connection.invalidated or self._connection.closed:
                self.close()
            raise

    def acquire(self) -> None:
        """Get the lock now.

        Raises:
            StoreError: another command runs the race.
        """
        if self._connection is None:
            self._connection = self._locked()

    def close(self) -> None:
        """Give the lock back."""
        if self._connection is not None:
            self._connection.invalidate()  # not back to the pool, since the lock belongs to the session
            self._connection.close()
            self._connection = None

    def _locked(self) -> sa.Connection:
        connection = self._engine.connect()
        try:
            number = int.from_bytes(hashlib.sha256(self._race.encode()).digest()[:4], signed=True)
            table = connection.execute(
                sa.text("SELECT CAST('plan'::regclass AS oid)::bigint::bit(32)::int")
            ).scalar_one()
            connection.execute(sa.text("SELECT set_config('application_name', :me, false)"), {"me": self._me})
            for option, value in (("idle", 30), ("interval", 10), ("count", 3)):
                with suppress(exc.DBAPIError):
                    connection.exec_driver_sql(f"SET tcp_keepalives_{option} = {value}")
            end = time.monotonic() + _LINGERS
            while not connection.execute(sa.select(sa.func.pg_try_advisory_lock(table, number))).scalar_one():
                holder = self._holder(connection, table, number)
                if not holder.startswith(self._me) or time.monotonic() > end:
                    who = " ".join(holder.split()[1:3]) if holder.startswith("thalweg ") else ""
                    by = " as process ".join(who.split()) if who else "somewhere"
                    raise StoreError(
                        f"{self._name}/{self._race} is in use: another command is running this race, on {by}; wait "
                        "until it has ended"
                    )
                time.sleep(0.1)
            connection.commit()
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        return connection

    def _holder(self, connection: sa.Connection, table: int, number: int) -> str:
        """The name of the session that has the lock; one of this process that lingers is ended."""
        found = connection.execute(
            sa.text(
                "SELECT a.application_name, a.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE "
                "l.locktype = 'advisory' AND l.granted AND l.classid = CAST(:table AS bigint) AND l.objid = "
                "CAST(:number AS bigint) AND l.objsubid = 2"
            ),
            {"table": table % 2**32, "number": number % 2**32},
        ).first()
        if found is None:
            return self._me  # it has just been given back
        if found[0] == self._me:
            connection.execute(sa.select(sa.func.pg_terminate_backend(found[1])))
        return str(found[0])


def held(engine: sa.Engine, name: str, race: str) -> Hold:
    """A race in PostgreSQL, now held by this process.

    Raises:
        StoreError: another command runs it.
    """
    made = Hold(engine, name, race)
    patiently(made.acquire, name)
    return made
