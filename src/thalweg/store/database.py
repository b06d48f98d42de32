"""Stores records in SQLite or PostgreSQL."""

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import Column, event, exc
from sqlalchemy.types import TypeEngine

from thalweg.store.difference import difference, grows, other_versions
from thalweg.store.errors import StoreError, as_written, damaged, one_sentence
from thalweg.store.records import FORMAT, Curve, Plan, Results, Run, hash_of

_TEXT, _JSON, _INTEGER, _FLOAT = sa.Text(), sa.JSON(), sa.Integer(), sa.Float(53)


def _columns(**types: TypeEngine[Any]) -> list[Column[Any]]:
    return [Column(name, kind, nullable=kind is _FLOAT) for name, kind in types.items()]


_tables = sa.MetaData()
_plan = sa.Table(
    "plan",
    _tables,
    Column("hash", sa.String(64), primary_key=True),
    *_columns(format=_INTEGER, document=_JSON, machine=_JSON),
)
_run = sa.Table(
    "run",
    _tables,
    Column("key", sa.String(64), primary_key=True),
    Column("plan", sa.String(64), sa.ForeignKey("plan.hash"), nullable=False),
    *_columns(entry=_TEXT, phase=_TEXT, trial=_INTEGER, seed=_INTEGER, settings=_JSON, rule=_TEXT, status=_TEXT),
    *_columns(best_step=_INTEGER),
    *_columns(validation_metric=_FLOAT, validation_loss=_FLOAT, test_metric=_FLOAT, test_loss=_FLOAT),
    *_columns(curve=_JSON, seconds=_FLOAT, message=_TEXT, machine=_JSON),
    Column("checksum", sa.String(64), nullable=False),  # from format 2 on
)
_MEASURED = ("validation_metric", "validation_loss", "test_metric", "test_loss")
_OTHERS = "others"
"""Where the metrics that do not decide are, in the column of the curve."""
_WAIT = 30.0
"""Seconds before reporting that another program has locked the store."""
_PATIENCE = 600.0
"""Seconds before giving up on that lock."""
_OPENING = int.from_bytes(b"thalweg")
"""The number of the PostgreSQL lock that is held while a store is opened."""

T = TypeVar("T")


class Store:
    """An open store.  Created by `open` for a race; closed by ``with`` or `close`.  `read` returns all its records."""

    def __init__(self, engine: sa.Engine, place: str, plan: Plan) -> None:
        self._engine, self._place, self.plan = engine, place, plan

    @classmethod
    def open(
        cls,
        place: str | Path,
        plan: Plan,
        machine: Mapping[str, str] | None = None,
        *,
        mix_versions: bool = False,
    ) -> Self:
        """The store of `plan` at a path (a SQLite file, created if missing) or a database URL.

        If it holds a smaller race, the same with fewer trials, seeds or entries, that one grows: its runs are kept.

        Args:
            place: the path or the URL.
            plan: the race.
            machine: a description of the machine, stored with the plan.
            mix_versions: whether the race may continue with other versions of its libraries.

        Raises:
            StoreError: the store contains a different race, or the same with other versions; it cannot be read or
                written; or its format is newer.
        """
        engine, name = _connect(place, create=True)
        with one_sentence(engine, name):
            with engine.begin() as connection:
                _alone(connection)
                _make(connection, name)
                held = _held(connection, name)
                if held is None:
                    row = {"format": FORMAT, "hash": plan.hash, "document": plan.document, "machine": machine or {}}
                    connection.execute(_plan.insert().values(row))
                elif (version := connection.execute(sa.select(_plan.c.format)).scalar_one()) < FORMAT:
                    raise StoreError(
                        f"{name} was written by an older thalweg (format {version}, this one writes {FORMAT}): "
                        "thalweg report can read it, but no race goes on with it; choose another folder with --out"
                    )
                elif held.hash != plan.hash and not grows(held, plan):
                    raise StoreError(
                        f"{name} holds another race: {difference(held, plan)}; choose another folder with --out, "
                        "or delete this one to start again"
                    )
                elif not mix_versions and (others := other_versions(held, plan)):
                    raise StoreError(
                        f"{name} holds runs of {others}, whose numbers may differ; choose another folder with --out, "
                        "or go on nevertheless with --mix-versions"
                    )
                elif held.hash != plan.hash:
                    _grow(connection, held, plan)
            return cls(engine, name, plan)

    def add(self, run: Run) -> None:
        """Store a run, unless it is stored already.

        Raises:
            StoreError: the store can no longer be written.
        """
        row = _row(run, self.plan.hash)

        def insert() -> None:
            with self._engine.begin() as connection:
                connection.execute(_run.insert().values(row))

        # Another process may have run the same race: the same plan gives the same numbers.
        with one_sentence(None, self._place), suppress(exc.IntegrityError):
            _patiently(insert, self._place)

    def runs(self) -> tuple[Run, ...]:
        """All stored runs, by entry, phase (tuning first), trial and seed.

        Raises:
            StoreError: the store cannot be read, or a record is damaged.
        """
        order = {entry.name: i for i, entry in enumerate(self.plan.entries)}
        with one_sentence(None, self._place), as_written(self._place), self._engine.connect() as connection:
            known = {column["name"] for column in sa.inspect(connection).get_columns("run")}
            there = sa.select(*(column for column in _run.c if column.name in known))
            rows = [cast("Mapping[str, Any]", row) for row in connection.execute(there).mappings()]
            # The stored hash, since that of a plan of an older format differs from today's.
            plan, version = connection.execute(sa.select(_plan.c.hash, _plan.c.format)).one()
            runs = [_read_run(row, self._place, version) for row in rows if row["plan"] == plan]
            if len(runs) < len(rows):
                raise damaged(self._place, f"{len(rows) - len(runs)} of its {len(rows)} runs are of no plan in it")
            return tuple(sorted(runs, key=lambda r: (order[r.entry], r.phase != "tune", r.trial, r.seed)))

    def results(self) -> Results:
        """The plan with all stored runs."""
        return Results(self.plan, self.runs())

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(place: str | Path) -> Results:
    """The finished or unfinished race in the store at a path or URL.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    engine, name = _connect(place, create=False)
    with one_sentence(engine, name), engine.connect() as connection:
        held = _held(connection, name) if len(_tables_of(connection, name)) == len(_tables.tables) else None
        if held is None:
            raise StoreError(f"{name} holds no race; run one with: thalweg race")
    with Store(engine, name, held) as store:
        return store.results()


def _connect(place: str | Path, *, create: bool) -> tuple[sa.Engine, str]:
    """An engine, and the name of the place for messages, never with a password."""
    if isinstance(place, str) and "://" in place:
        try:
            url = sa.make_url(place)
            return _engine(url, write=create), url.set(query={}).render_as_string()
        except (exc.ArgumentError, ValueError, ModuleNotFoundError) as error:
            why = f": {error}" if isinstance(error, ModuleNotFoundError) else ""  # others repeat what they were given
            raise StoreError(
                f"the database URL cannot be used{why}; write postgresql://user@host/name, and install its driver"
            ) from None
    path = Path(place)
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the folder {path.parent} cannot be made ({error.strerror}); choose another with --out"
            ) from None
    elif not path.is_file():
        raise StoreError(f"there is no store {path}; run a race first, or check the folder's name")
    return _engine(sa.URL.create("sqlite", database=str(path)), write=create), str(path)


def _engine(url: sa.URL, *, write: bool) -> sa.Engine:
    if not url.drivername.startswith("sqlite"):
        return sa.create_engine(url)
    engine = sa.create_engine(url, connect_args={"timeout": _WAIT})

    # Left alone, Python's driver begins a transaction only to write, so two processes could both create the tables.
    @event.listens_for(engine, "connect")
    def _(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _patiently(do: Callable[[], T], name: str) -> T:
    """Do it as soon as no other program has locked the store."""
    began, told = time.monotonic(), False
    while True:
        try:
            return do()
        except exc.OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() - began > _PATIENCE:
                raise
            if not told:
                warnings.warn(f"{name} is held by another program; the race waits for it", stacklevel=2)
                told = True


def _tables_of(connection: sa.Connection, name: str) -> set[str]:
    """The tables of a race that exist.

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
    ours = there & _tables.tables.keys()
    for table in ours:
        # A table that older formats lack may be missing.
        lacking = {c.name for c in _tables.tables[table].c} - {c["name"] for c in inspected.get_columns(table)}
        if lacking - {"checksum"}:
            raise StoreError(
                f"{name} is the database of something else (its table {table} is not a race's); "
                "choose another folder with --out"
            )
    if sqlite and there - ours:
        raise StoreError(
            f"{name} is the database of something else (it has a table {min(there - ours)!r}); choose another folder "
            "with --out"
        )
    return ours


def _alone(connection: sa.Connection) -> None:
    """Keep others from opening a store until this transaction ends, since both could create the tables.

    In SQLite the transaction waits when it begins.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_OPENING)))


def _make(connection: sa.Connection, name: str) -> None:
    """Create missing tables."""
    if _tables_of(connection, name) != _tables.tables.keys():
        for table in _tables.sorted_tables:
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))


def _held(connection: sa.Connection, name: str) -> Plan | None:
    """The plan in a store, or None if it is empty."""
    with as_written(name):
        version = connection.execute(sa.select(_plan.c.format)).scalar()
        if version is None:
            if connection.execute(sa.select(sa.func.count()).select_from(_run)).scalar():
                raise damaged(name, "it has runs, and no plan that they are of")
            return None
        if version > FORMAT:
            raise StoreError(
                f"{name} was written by a newer thalweg (format {version}, this one reads {FORMAT}); update it"
            )
        [(hash, document)] = connection.execute(sa.select(_plan.c.hash, _plan.c.document)).all()
        if hash_of(document) != hash:
            raise damaged(name, "its plan is not as it was written")
        return Plan.from_document(document)


def _grow(connection: sa.Connection, held: Plan, plan: Plan) -> None:
    """Put `plan` in the place of a smaller one; its runs are of `plan` from then on."""
    [(machine, versions)] = connection.execute(sa.select(_plan.c.machine, _plan.c.document)).all()
    document = {**plan.document, "versions": versions.get("versions", {})}
    row = {"format": FORMAT, "hash": plan.hash, "document": document, "machine": machine}
    connection.execute(_plan.insert().values(row))
    connection.execute(_run.update().where(_run.c.plan == held.hash).values(plan=plan.hash))
    connection.execute(_plan.delete().where(_plan.c.hash == held.hash))


def _or_none(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _or_nan(x: float | None) -> float:
    return math.nan if x is None else x


def _row(run: Run, plan: str) -> dict[str, Any]:
    """The row of a run in the table."""
    row: dict[str, Any] = {f.name: getattr(run, f.name) for f in fields(run)} | {"plan": plan}
    row.update({name: _or_none(row[name]) for name in _MEASURED})
    row["message"] = run.message.replace("\0", "").encode(errors="replace").decode()  # PostgreSQL does not accept \0
    curve: dict[str, Any] = {name: [_or_none(x) for x in column] for name, column in vars(run.curve).items()}
    row["curve"] = curve
    others, tested = row.pop("others"), row.pop("test_others")
    if others or tested:  # beside the curve, as in stores that were made before there were any
        curve[_OTHERS] = {
            "validation": {name: [_or_none(x) for x in column] for name, column in others.items()},
            "test": {name: _or_none(x) for name, x in tested.items()},
        }
    return {**row, "checksum": _checksum(row)}


def _checksum(row: Mapping[str, Any], version: int = FORMAT) -> str:
    """A hash of a row's contents, the same before writing and after reading, and after its race has grown."""
    without = ("checksum", "plan") if version >= 3 else ("checksum",)
    # SQLite stores -0.0 as 0.0.
    floats = {c.name for c in _run.c if c.type is _FLOAT}
    values = {n: float(x) + 0.0 if n in floats and x is not None else x for n, x in row.items() if n not in without}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=dict).encode()).hexdigest()


def _read_run(row: Mapping[str, Any], name: str, version: int) -> Run:
    if "checksum" in row and row["checksum"] != _checksum(row, version):
        raise damaged(
            name, f"the record of {row['entry']} ({row['phase']} {row['trial']}, seed {row['seed']}) is damaged"
        )
    values = {f.name: row[f.name] for f in fields(Run) if f.name in row}
    values.update({name: _or_nan(values[name]) for name in _MEASURED})
    columns = dict(values["curve"])
    others = columns.pop(_OTHERS, {"validation": {}, "test": {}})
    values["curve"] = Curve(**cast(Any, {name: _column(column) for name, column in columns.items()}))
    values["others"] = {name: _column(column) for name, column in others["validation"].items()}
    values["test_others"] = {name: _or_nan(x) for name, x in others["test"].items()}
    return Run(**values)


def _column(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(map(_or_nan, values))
