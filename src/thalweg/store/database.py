"""Writes the records of races to SQLite or PostgreSQL."""

import sqlite3
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from filelock import BaseFileLock
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite

from thalweg.store import places, tables
from thalweg.store.claim import Hold, held, locked
from thalweg.store.difference import difference, grows, other_versions
from thalweg.store.errors import StoreError, StoreWarning, as_written, one_sentence
from thalweg.store.places import Place, patiently
from thalweg.store.reading import Held, plans, rows, sorted_runs
from thalweg.store.records import FORMAT, Plan, Points, Results, Run
from thalweg.store.rows import row_of, row_of_points

_AT_ONCE = 500
"""How many keys there are in one statement."""
_TRIES = 20


class Store:
    """A race in an open store.  Created by `open`; closed by ``with`` or `close`.

    Attributes:
        plan: the plan of the race.
        race: its name in the store.
        place: where the store is.
    """

    def __init__(self, engine: sa.Engine, place: Place, plan: Plan) -> None:
        self._engine, self._place, self.plan = engine, place, plan
        self.race = ""
        self.place = place.name
        self._lock: BaseFileLock | None = None
        self._hold: Hold | None = None
        self._file: tuple[int, int] | None = None
        self._ahead = False

    @classmethod
    def open(
        cls,
        place: str | Path,
        plan: Plan,
        machine: Mapping[str, str] | None = None,
        *,
        mix_versions: bool = False,
        name: str | None = None,
        alone: bool = False,
    ) -> Self:
        """The race of `plan` in the store at a path (a SQLite file, created if missing) or a database URL.

        If the store holds a smaller race, the same with fewer trials, seeds or entries, that one grows: its runs are
        kept.  At a path there is one race, and another is refused; at a URL there are many.

        Args:
            place: the path or the URL.
            plan: the race.
            machine: a description of the machine, stored with the plan.
            mix_versions: whether the race may continue with other versions of its libraries.
            name: what a new race is called in the store, by default as its problem; another number is added to a name
                that is taken.
            alone: whether other commands are kept from running the same race until the store is closed.

        Raises:
            StoreError: the store contains a different race, or the same with other versions; another command runs it;
                the store cannot be read or written; or its format is newer.
        """
        where = Place.of(place)
        if where.file is not None:
            _make_folder(where.file.parent)
        engine = places.engine(where)
        made = cls(engine, where, plan)
        with one_sentence(engine, where.name):
            try:
                with engine.begin() as connection:
                    fresh = tables.prepare(connection, where.name)
                    made._find(connection, machine or {}, mix_versions, name, alone)
                if alone and engine.dialect.name == "postgresql":
                    made._hold = held(engine, where.name, made.race)
                if alone:
                    with made._writing() as connection:  # what a driver that was killed has left
                        connection.execute(tables.point.delete().where(tables.point.c.plan == plan.hash))
                if where.file is not None:
                    made._file = places.identity(where.file)
                    if fresh:
                        made._write_ahead()
            except BaseException:
                made._release()
                raise
        return made

    def _find(
        self, connection: sa.Connection, machine: Mapping[str, str], mix: bool, name: str | None, alone: bool
    ) -> None:
        """Find the race, let it grow, or begin it."""
        there, found = _found(connection, self._place, self.plan, mix)
        taken = {one.name for one in there}
        self.race = found.name if found else _free(tables.race_name(name or self.plan.problem.name), taken)
        if alone and self._place.file is not None:
            self._lock = locked(self._place, self.race)
        if found is None:
            row = {"name": self.race, "format": tables.VERSION, "hash": self.plan.hash, "since": time.time()}
            connection.execute(tables.plan.insert().values(**row, document=self.plan.document, machine=machine))
        elif found.plan.hash != self.plan.hash:
            if alone and connection.dialect.name == "postgresql":  # a race that is running does not grow
                held(self._engine, self._place.name, self.race).close()
            _grow(connection, found, self.plan)

    def add(self, run: Run) -> None:
        """Store a run, unless it is stored already, in place of the points that it has streamed.

        Raises:
            StoreError: the store can no longer be written.
        """
        row = {**row_of(run, self.plan.hash), "stored": time.time()}

        def insert(connection: sa.Connection) -> None:
            point = tables.point
            connection.execute(point.delete().where(point.c.plan == self.plan.hash, point.c.key == run.key))
            connection.execute(_unless_there(connection, tables.run).values(row))

        self._write(insert)

    def stream(self, points: Sequence[Points]) -> None:
        """Store points of runs that are under way; those of a run whose first is 0 replace what it has streamed before.

        Raises:
            StoreError: the store can no longer be written.
        """
        again = [some.key for some in points if some.first == 0]

        def insert(connection: sa.Connection) -> None:
            point = tables.point
            for keys in (again[i : i + _AT_ONCE] for i in range(0, len(again), _AT_ONCE)):
                connection.execute(point.delete().where(point.c.plan == self.plan.hash, point.c.key.in_(keys)))
            connection.execute(
                _unless_there(connection, point), [row_of_points(some, self.plan.hash) for some in points]
            )

        if points:
            self._write(insert)

    def runs(self) -> tuple[Run, ...]:
        """All stored runs, by entry, phase (tuning first), trial and seed.

        Raises:
            StoreError: the store cannot be read, or a record is damaged.
        """

        def found() -> tuple[Run, ...]:
            with self._engine.connect() as connection:
                return sorted_runs(self.plan, rows(connection, self._place.name, self.plan.hash).values())

        with one_sentence(None, self._place.name), as_written(self._place.name):
            return patiently(found, self._place.name)

    def results(self) -> Results:
        """The plan with all stored runs."""
        return Results(self.plan, self.runs())

    def close(self) -> None:
        """Close the database."""
        self._release()
        if self._ahead:
            # If this was the last to write, the file alone is the store; somebody may be reading it, which is quick.
            for _ in range(_TRIES):
                if places.write_ahead(self._engine, False):
                    break
                time.sleep(0.05)
        self._engine.dispose()

    def _release(self) -> None:
        if self._hold is not None:
            with suppress(exc.SQLAlchemyError):
                self._hold.close()
            self._hold = None
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, do: Callable[[sa.Connection], None]) -> None:
        self._write_ahead()

        def once() -> None:
            self._rescue()
            with self._writing() as connection:
                there = connection.execute(
                    sa.select(tables.plan.c.name).where(tables.plan.c.hash == self.plan.hash)
                ).scalar()
                if there is None:
                    raise StoreError(
                        f"{self._place.name}: the race {self.race} was deleted or has grown while it ran; give the "
                        "same command again"
                    )
                do(connection)
            if self._file is not None and self._file != places.identity(self._place.file):
                once()  # the file went while it was written; twice is right

        with one_sentence(None, self._place.name):
            patiently(once, self._place.name)

    def _write_ahead(self) -> None:
        if self._file is not None and not self._ahead:
            places.write_ahead(self._engine, True)
            self._ahead = True

    @contextmanager
    def _writing(self) -> Generator[sa.Connection]:
        with (self._engine if self._hold is None else self._hold).begin() as connection:
            yield connection

    def _rescue(self) -> None:
        """If the file was deleted, put what it had, which is open here, in its place; if replaced, beside it.

        Raises:
            StoreError: the file was replaced, or nothing can be put there.
        """
        path = self._place.file
        if path is None or self._file is None or (now := places.identity(path)) == self._file:
            return
        to = path if now is None else path.with_name(f"{path.stem}-rescued{path.suffix}")
        connection = self._engine.raw_connection()
        try:
            _make_folder(to.parent)
            for left in (f"{to.name}-wal", f"{to.name}-shm"):  # of the deleted file, to which they do not belong now
                to.with_name(left).unlink(missing_ok=True)
            copy = sqlite3.connect(to)
            try:
                connection.driver_connection.backup(copy)  # pyright: ignore[reportOptionalMemberAccess]
            finally:
                copy.close()
        except OSError as error:
            raise StoreError(f"{path} was deleted while the race ran, and cannot be written again ({error})") from None
        finally:
            connection.close()
        self._engine.dispose()
        self._ahead = False
        if now is not None:
            raise StoreError(
                f"{path} was replaced by another file while the race ran; all that had ended is in {to}; put that in "
                "its place, and the same command goes on from it"
            )
        self._file = places.identity(path)
        warnings.warn(
            f"{path} was deleted while the race ran; it was written again, with all that it had",
            StoreWarning,
            stacklevel=2,
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be made ({error.strerror}); choose another with --out") from None


def _unless_there(connection: sa.Connection, table: sa.Table) -> Any:
    """An insert that does nothing if there is such a row: the same plan gives the same numbers."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing(index_elements=[c.name for c in table.primary_key])


def _found(connection: sa.Connection, place: Place, plan: Plan, mix: bool) -> tuple[list[Held], Held | None]:
    """The races of a store, and the one that `plan` is, or that it continues; None if it is a new one.

    Raises:
        StoreError: it may not be written there.
    """
    there = plans(connection, place.name)
    found = next((one for one in there if one.plan.hash == plan.hash), None)
    if found is None:
        found = next((one for one in reversed(there) if one.format == FORMAT and grows(one.plan, plan)), None)
    if found is None and place.many:
        found = next((one for one in reversed(there) if one.format == FORMAT and grows(plan, one.plan)), None)
    if found is None and not place.many and there:
        found = there[0]
    if found is None:
        return there, None
    if found.format < FORMAT:
        raise StoreError(
            f"{place.name} was written by an older thalweg (format {found.format}, this one writes {FORMAT}): "
            "thalweg report can read it, but no race goes on with it; choose another folder with --out"
        )
    if found.plan.hash != plan.hash and not grows(found.plan, plan):
        advice = (
            "; give it another --seed to begin one of its own, or choose another --store"
            if place.many
            else "; choose another folder with --out, or delete this one to start again"
        )
        which = f" as {found.name}" if place.many else ""
        raise StoreError(f"{place.name} holds another race{which}: {difference(found.plan, plan)}{advice}")
    if not mix and (others := other_versions(found.plan, plan)):
        raise StoreError(
            f"{place.name} holds runs of {others}, whose numbers may differ; choose another "
            f"{'--store' if place.many else 'folder with --out'}, or go on nevertheless with --mix-versions"
        )
    return there, found


def _free(name: str, taken: set[str]) -> str:
    """A name that is not taken: this one, or this one with a number."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def _grow(connection: sa.Connection, held: Held, plan: Plan) -> None:
    """Put `plan` in the place of a smaller one; its runs are of `plan` from then on."""
    table = tables.plan
    [(machine, since)] = connection.execute(
        sa.select(table.c.machine, table.c.since).where(table.c.hash == held.plan.hash)
    ).all()
    document = {**plan.document, "versions": dict(held.plan.versions)}
    connection.execute(table.update().where(table.c.hash == held.plan.hash).values(name=f"{held.name} (before)"))
    row = {"name": held.name, "format": tables.VERSION, "hash": plan.hash, "document": document, "machine": machine}
    connection.execute(table.insert().values(**row, since=since))
    for of in (tables.run, tables.point):
        connection.execute(of.update().where(of.c.plan == held.plan.hash).values(plan=plan.hash))
    connection.execute(table.delete().where(table.c.hash == held.plan.hash))
