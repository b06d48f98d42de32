"""The tables of a store, how they are recognised, and how those of older versions become today's."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Column
from sqlalchemy.types import TypeEngine

from thalweg.store.errors import StoreError, as_written, damaged
from thalweg.store.rows import checksum

VERSION = 4
"""The version of the tables; newer stores are refused, older ones are migrated when a race writes to them."""

_TEXT, _JSON, _INTEGER, _FLOAT = sa.Text(), sa.JSON(), sa.Integer(), sa.Float(53)
_OPENING = int.from_bytes(b"thalweg")
"""The number of the PostgreSQL lock that is held while a store is opened."""


def _columns(**types: TypeEngine[Any]) -> list[Column[Any]]:
    return [Column(name, kind, nullable=kind is _FLOAT) for name, kind in types.items()]


tables = sa.MetaData()
version = sa.Table("thalweg", tables, Column("version", _INTEGER, primary_key=True))
plan = sa.Table(
    "plan",
    tables,
    Column("hash", sa.String(64), primary_key=True),
    Column("name", _TEXT, nullable=False, unique=True),
    # `format` repeats the version of the tables, since older releases look for it there.
    *_columns(format=_INTEGER, document=_JSON, machine=_JSON, since=_FLOAT),
)
run = sa.Table(
    "run",
    tables,
    Column("plan", sa.String(64), sa.ForeignKey("plan.hash"), primary_key=True),
    Column("key", sa.String(64), primary_key=True),
    *_columns(entry=_TEXT, phase=_TEXT, trial=_INTEGER, seed=_INTEGER, settings=_JSON, rule=_TEXT, status=_TEXT),
    *_columns(best_step=_INTEGER),
    *_columns(validation_metric=_FLOAT, validation_loss=_FLOAT, test_metric=_FLOAT, test_loss=_FLOAT),
    *_columns(curve=_JSON, seconds=_FLOAT, message=_TEXT, machine=_JSON),
    Column("checksum", sa.String(64), nullable=False),
    *_columns(stored=_FLOAT),  # when, in seconds since 1970
)
point = sa.Table(
    "point",
    tables,
    Column("plan", sa.String(64), sa.ForeignKey("plan.hash"), primary_key=True),
    Column("key", sa.String(64), primary_key=True),
    Column("first", _INTEGER, primary_key=True),
    *_columns(entry=_TEXT, phase=_TEXT, trial=_INTEGER, seed=_INTEGER, settings=_JSON, curve=_JSON),
)
_LATER = {"checksum", "name", "since", "stored"}
"""Columns that tables of older versions lack."""


def examine(connection: sa.Connection, name: str) -> set[str]:
    """The tables of a store that exist.

    Raises:
        StoreError: the database belongs to something else, or the file is damaged.
    """
    inspected = sa.inspect(connection)
    there = set(inspected.get_table_names())
    sqlite = connection.dialect.name == "sqlite"
    if sqlite and there:
        (found, *_) = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalars()
        if found != "ok":
            raise damaged(name, f"the file is damaged ({' '.join(str(found).split())})")
    ours = there & tables.tables.keys()
    for table in ours:
        lacking = {c.name for c in tables.tables[table].c} - {c["name"] for c in inspected.get_columns(table)}
        if lacking - _LATER:
            raise StoreError(
                f"{name} is the database of something else (its table {table} is not a race's); "
                "choose another with --out or --store"
            )
    if sqlite and there - ours:
        raise StoreError(
            f"{name} is the database of something else (it has a table {min(there - ours)!r}); choose another "
            "with --out or --store"
        )
    return ours


def version_of(connection: sa.Connection, name: str, there: set[str]) -> int | None:
    """The version of a store's tables; None if nothing is in them yet.

    Raises:
        StoreError: it is newer than what this release knows.
    """
    # Up to 3 the version stood with the plan alone.
    columns: dict[sa.Table, Column[Any]] = {version: version.c.version, plan: plan.c.format}
    with as_written(name):
        stored = {
            table: connection.execute(sa.select(sa.func.max(column))).scalar()
            for table, column in columns.items()
            if table.name in there
        }
        found = max((number for number in stored.values() if number is not None), default=None)
        if stored.get(plan) is None and run.name in there and connection.execute(_count(run)).scalar():
            raise damaged(name, "it has runs, and no plan that they are of")
    if not isinstance(found, int | None) or (found is not None and found < 1):
        raise damaged(name, "its version is no number")
    if found is not None and found > VERSION:
        raise StoreError(
            f"{name} was written by a newer thalweg (format {found}, this one reads {VERSION}); update this one, or "
            "choose another store"
        )
    return found


def prepare(connection: sa.Connection, name: str) -> bool:
    """Create missing tables, and migrate those of older versions; within the transaction of `connection`.

    Returns whether there were none.

    Nobody else opens the store until this transaction ends: PostgreSQL has a lock, and in SQLite the transaction waits
    when it begins.

    Raises:
        StoreError: the store is not one, is newer, or has a damaged record.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_OPENING)))
    there = examine(connection, name)
    found = version_of(connection, name, there)
    if found == VERSION:
        if there != tables.tables.keys():
            raise damaged(name, f"it has no table {min(tables.tables.keys() - there)!r}")
        return False
    if found is None:
        for table in (point, run, plan):  # which may be there, and empty
            table.drop(connection, checkfirst=True)
        tables.create_all(connection)
    else:
        if run.name not in there:
            raise damaged(name, "it has no table 'run'")
        for step in range(found, VERSION):
            _STEPS[step](connection, name)
    connection.execute(version.insert().values(version=VERSION))
    return found is None


def _count(table: sa.Table) -> sa.Select[int]:
    return sa.select(sa.func.count()).select_from(table)


def _with_checksums(connection: sa.Connection, name: str) -> None:
    connection.exec_driver_sql("ALTER TABLE run ADD COLUMN checksum VARCHAR(64) DEFAULT '' NOT NULL")
    _renew(connection, name, None, 2)


def _without_plan(connection: sa.Connection, name: str) -> None:
    _renew(connection, name, 2, 3)


def _renew(connection: sa.Connection, name: str, before: int | None, after: int) -> None:
    """Replace the checksums of a version by those of the next."""
    columns = [c for c in run.c if c.name != "stored"]
    for row in connection.execute(sa.select(*columns)).mappings().all():
        values = cast("Mapping[str, Any]", row)
        if before is not None and values["checksum"] != checksum(values, before):
            raise damaged(name, f"the record of {values['entry']} {values['trial']} is damaged")
        connection.execute(run.update().where(run.c.key == values["key"]).values(checksum=checksum(values, after)))


def _many_races(connection: sa.Connection, name: str) -> None:
    """The key of a run was unique in the store; now it is unique in its race, of which there may be many."""
    del name
    for table in (plan, run):
        connection.exec_driver_sql(f"ALTER TABLE {table.name} RENAME TO {table.name}_3")
    tables.create_all(connection)
    old = sa.table("plan_3", *(sa.column(c.name, c.type) for c in plan.c))
    for row in connection.execute(sa.select(old.c.hash, old.c.document, old.c.machine)).mappings().all():
        connection.execute(plan.insert().values(**row, name=race_name(row["document"]["problem"]["name"]), format=4))
    kept = ", ".join(f'"{c.name}"' for c in run.c if c.name != "stored")
    connection.exec_driver_sql(f"INSERT INTO run ({kept}) SELECT {kept} FROM run_3")
    for table in (run, plan):
        connection.exec_driver_sql(f"DROP TABLE {table.name}_3")


_STEPS: dict[int, Callable[[sa.Connection, str], None]] = {1: _with_checksums, 2: _without_plan, 3: _many_races}
"""What leads from each version to the next."""


def race_name(text: str) -> str:
    """A name for a race, from any text: at most 60 letters, digits, dots and dashes."""
    words = "".join(letter if letter.isalnum() or letter in "._-" else " " for letter in text).split()
    return "-".join(words).strip("-.")[:60] or "race"
