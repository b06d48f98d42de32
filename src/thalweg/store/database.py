"""Keeping records: SQLite, or any PostgreSQL."""

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Self, cast

import sqlalchemy as sa
from sqlalchemy import Column, exc
from sqlalchemy.types import TypeEngine

from thalweg.store.records import FORMAT, Curve, Plan, ProblemPlan, Results, Run

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
)
_MEASURED = ("validation_metric", "validation_loss", "test_metric", "test_loss")


class StoreError(ValueError):
    """A store that cannot be used; one sentence says why and what to do."""


class Store:
    """An open store.  Made by `open` for a race, or read as a whole by `read`; closed by ``with`` or `close`."""

    def __init__(self, engine: sa.Engine, place: str, plan: Plan) -> None:
        self._engine, self._place, self.plan = engine, place, plan

    @classmethod
    def open(cls, place: str | Path, plan: Plan, machine: Mapping[str, str] | None = None) -> Self:
        """The store of `plan` at a path (a SQLite file, made where there is none) or a database's URL.

        Raises:
            StoreError: the store holds another race, cannot be read or written, or is of a newer version.
        """
        engine, name = _connect(place, create=True)
        with _one_sentence(engine, name):
            with engine.begin() as connection:
                _tables.create_all(connection)
                held = _held(connection, name)
                if held is None:
                    row = {"format": FORMAT, "hash": plan.hash, "document": plan.document, "machine": machine or {}}
                    connection.execute(_plan.insert().values(row))
                elif held.hash != plan.hash:
                    raise StoreError(
                        f"{name} holds another race: {_difference(held, plan)}; choose another folder with --out, "
                        "or delete this one to start again"
                    )
            return cls(engine, name, plan)

    def add(self, run: Run) -> None:
        """Keep a run; if it is there already, the first stays.

        Raises:
            StoreError: the store cannot be written any more.
        """
        row = {f.name: getattr(run, f.name) for f in fields(run)}
        row.update({name: _or_none(row[name]) for name in _MEASURED})
        row["message"] = run.message.replace("\0", "").encode(errors="replace").decode()  # PostgreSQL takes no \0
        row["curve"] = {name: [_or_none(x) for x in column] for name, column in vars(run.curve).items()}
        with _one_sentence(None, self._place):
            try:
                with self._engine.begin() as connection:
                    connection.execute(_run.insert().values(plan=self.plan.hash, **row))
            except exc.IntegrityError:
                pass  # another process runs the same race: the same plan gives the same numbers

    def runs(self) -> tuple[Run, ...]:
        """All runs that there are, by entry, phase (tuning first), trial and seed."""
        with _one_sentence(None, self._place), self._engine.connect() as connection:
            rows = connection.execute(_run.select().where(_run.c.plan == self.plan.hash)).mappings().all()
        order = {entry.name: i for i, entry in enumerate(self.plan.entries)}
        runs = [_read_run(cast("Mapping[str, Any]", row)) for row in rows]
        return tuple(sorted(runs, key=lambda r: (order[r.entry], r.phase != "tune", r.trial, r.seed)))

    def results(self) -> Results:
        """The plan with all runs that there are."""
        return Results(self.plan, self.runs())

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(place: str | Path) -> Results:
    """The race in the store at a path or a URL, as far as it has come.

    Raises:
        StoreError: there is no store, or none that can be read.
    """
    engine, name = _connect(place, create=False)
    with _one_sentence(engine, name), engine.connect() as connection:
        held = _held(connection, name) if sa.inspect(connection).has_table("plan") else None
        if held is None:
            raise StoreError(f"{name} holds no race; run one with: thalweg race")
    with Store(engine, name, held) as store:
        return store.results()


def _connect(place: str | Path, *, create: bool) -> tuple[sa.Engine, str]:
    """An engine, and how to speak of the place: never with a password."""
    if isinstance(place, str) and "://" in place:
        try:
            url = sa.make_url(place)
            return sa.create_engine(url), url.render_as_string()
        except (exc.ArgumentError, ModuleNotFoundError) as error:
            raise StoreError(
                f"the database URL cannot be used: {error}; write postgresql://user@host/name, and install its driver"
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
    return sa.create_engine(sa.URL.create("sqlite", database=str(path)), connect_args={"timeout": 30}), str(path)


@contextmanager
def _one_sentence(engine: sa.Engine | None, name: str) -> Generator[None]:
    """Errors of the database as one `StoreError`; `engine` is disposed of when anything is raised."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        cause = " ".join(str(error.orig if isinstance(error, exc.DBAPIError) else error).split())
        hint = {
            "not a database": "it is no race's store; choose another folder with --out",
            "malformed": "the file is damaged; choose another folder with --out",
            "readonly": "make it writable or choose another folder with --out",
            "unable to open": "make the folder writable or choose another with --out",
        }
        advice = next((words for part, words in hint.items() if part in cause), "check the store and try again")
        if engine is not None:
            engine.dispose()
        raise StoreError(f"{name} cannot be used as a store ({cause}); {advice}") from None
    except BaseException:
        if engine is not None:
            engine.dispose()
        raise


def _held(connection: sa.Connection, name: str) -> Plan | None:
    """The plan in a store, or None in an empty one."""
    version = connection.execute(sa.select(_plan.c.format)).scalar()
    if version is None:
        return None
    if version > FORMAT:
        raise StoreError(
            f"{name} was written by a newer thalweg (format {version}, this one reads {FORMAT}); update it"
        )
    return Plan.from_document(cast("dict[str, Any]", connection.execute(sa.select(_plan.c.document)).scalar_one()))


def _difference(held: Plan, wanted: Plan) -> str:
    """In words, the first thing in which two plans differ."""
    if held.problem != wanted.problem:
        if held.problem.name != wanted.problem.name:
            return f"its problem is {held.problem.name}, this one's is {wanted.problem.name}"
        changed = [
            f.name for f in fields(ProblemPlan) if getattr(held.problem, f.name) != getattr(wanted.problem, f.name)
        ]
        return f"its problem {held.problem.name} is not what it was ({', '.join(changed)})"
    for name in ("trials", "seeds", "steps", "examples", "seed"):
        if getattr(held, name) != getattr(wanted, name):
            return f"its {name} is {getattr(held, name):,}, this one's is {getattr(wanted, name):,}"
    ours, theirs = [e.name for e in wanted.entries], [e.name for e in held.entries]
    if ours != theirs:
        return f"its entries are {', '.join(theirs)}, this one's are {', '.join(ours)}"
    changed = [e.name for e, other in zip(wanted.entries, held.entries, strict=True) if e != other]
    return f"its settings of {', '.join(changed)} are others" if changed else "its format is another"


def _or_none(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _or_nan(x: float | None) -> float:
    return math.nan if x is None else x


def _read_run(row: Mapping[str, Any]) -> Run:
    values = {f.name: row[f.name] for f in fields(Run)}
    values.update({name: _or_nan(values[name]) for name in _MEASURED})
    curve = {name: tuple(_or_nan(x) for x in column) for name, column in values["curve"].items()}
    values["curve"] = Curve(**cast(Any, curve))
    return Run(**values)
