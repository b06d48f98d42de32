"""Reads races from a store, once or again and again while they run."""

from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, cast

import sqlalchemy as sa

from thalweg.store import places, tables
from thalweg.store.errors import NoRace, StoreError, as_written, damaged, one_sentence
from thalweg.store.places import Place
from thalweg.store.records import Curve, Plan, Points, Results, Run, hash_of
from thalweg.store.rows import curve_of, run_of

_AT_ONCE = 500
"""How many runs are asked for in one statement."""


@dataclass(frozen=True)
class Held:
    """A race in a store.

    Attributes:
        name: its name in the store.
        plan: its plan.
        hash: the hash under which it is stored, which differs from that of `plan` in stores of older versions.
        format: the version of the plan's document.
        since: when it was begun, in seconds since 1970; None in stores of older versions.
        ended: the number of runs that are stored.
        last: when the last of them was stored, in seconds since 1970; None if that is not known.
    """

    name: str
    plan: Plan
    hash: str
    format: int
    since: float | None = None
    ended: int = 0
    last: float | None = None


class Reader:
    """Reads a store, without ever writing to it, and only what is new since the last time.

    A SQLite file is not kept open, so that it may be deleted or moved; a server's connection that was lost is made
    anew.  Closed by ``with`` or `close`.

    Args:
        place: the path or the URL.
    """

    def __init__(self, place: str | Path) -> None:
        self._place = Place.of(place)
        self._engine = places.reader(self._place)
        self._known: dict[str, dict[str, Run]] = {}
        self._parts: dict[str, dict[tuple[str, int], Points]] = {}
        self._examined = False
        self._file = places.identity(self._place.file)

    @property
    def place(self) -> str:
        """The name of the store for people, without a password."""
        return self._place.name

    def races(self) -> tuple[Held, ...]:
        """All races in the store, in the order in which they were begun.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._reading() as connection:
            return tuple(plans(connection, self.place, counted=True))

    def results(self, race: str | None = None) -> Results:
        """The race of a name, finished or not; without a name the only one.

        Raises:
            StoreError: there is no such race, or several and no name; or the store cannot be read.
        """
        with self._reading() as connection:
            held = self._held(connection, race)
            known = self._known.setdefault(held.hash, {})
            if known:
                there = set(
                    connection.execute(sa.select(tables.run.c.key).where(tables.run.c.plan == held.hash)).scalars()
                )
                for key in known.keys() - there:  # of a store that was written anew
                    del known[key]
                known |= rows(connection, self.place, held.hash, there - known.keys())
            else:
                known |= rows(connection, self.place, held.hash)
            return Results(held.plan, sorted_runs(held.plan, known.values()))

    def live(self, race: str | None = None) -> tuple[Points, ...]:
        """The runs under way with their whole curves so far, by entry, phase, trial and seed; those that a killed race
        has left, until it goes on.

        Raises:
            StoreError: as `results`.
        """
        table = tables.point
        with self._reading() as connection:
            held = self._held(connection, race)
            if not sa.inspect(connection).has_table(table.name):
                return ()
            of_race = table.c.plan == held.hash
            there = {
                (key, first) for key, first in connection.execute(sa.select(table.c.key, table.c.first).where(of_race))
            }
            before = self._parts.get(held.hash, {})
            # A run that was begun again has other parts; all of them are asked for.
            again = {key for key, first in before if (key, first) not in there}
            parts = {at: part for at, part in before.items() if at[0] not in again}
            new = sorted(there - parts.keys())
            for some in (new[i : i + _AT_ONCE] for i in range(0, len(new), _AT_ONCE)):
                asked = sa.select(table).where(of_race, sa.tuple_(table.c.key, table.c.first).in_(some))
                for row in connection.execute(asked).mappings():
                    about = {n: row[n] for n in ("key", "entry", "phase", "trial", "seed", "settings", "first")}
                    parts[row["key"], row["first"]] = Points(**cast(Any, about), curve=curve_of(row["curve"]))
            self._parts[held.hash] = parts
        order = {entry.name: i for i, entry in enumerate(held.plan.entries)}
        found, torn = _whole(parts)
        for at in [at for at in parts if at[0] in torn]:
            del parts[at]  # and asked for again
        return tuple(sorted(found, key=lambda p: (order[p.entry], p.phase != "tune", p.trial, p.seed)))

    def stored(self, race: str | None = None) -> Mapping[str, float]:
        """When each run was stored, in seconds since 1970, by its key; without those of stores of older versions.

        Raises:
            StoreError: as `results`.
        """
        table = tables.run
        with self._reading() as connection:
            held = self._held(connection, race)
            if "stored" not in _columns(connection, table):
                return {}
            of_race = sa.select(table.c.key, table.c.stored).where(table.c.plan == held.hash)
            return dict(tuple(row) for row in connection.execute(of_race.where(table.c.stored.is_not(None))))

    def _held(self, connection: sa.Connection, race: str | None) -> Held:
        there = plans(connection, self.place)
        names = ", ".join(one.name for one in there[-20:])
        if not there:
            raise NoRace(f"{self.place} holds no race; run one with: thalweg race")
        if race is None and len(there) > 1:
            raise StoreError(f"{self.place} holds {len(there):,} races: {names}; write {self.place}/NAME")
        for one in there:
            if race in (None, one.name):
                return one
        raise NoRace(f"{self.place} holds no race {race}; there are {names}")

    @contextmanager
    def _reading(self) -> Generator[sa.Connection]:
        if self._file != (now := places.identity(self._place.file)):  # what was known is of another file
            self._file, self._examined = now, False
            self._known.clear()
            self._parts.clear()
        if now is None and self._place.file is not None:
            raise StoreError(f"there is no store {self.place}; run a race first, or check the name")
        with one_sentence(None, self.place), as_written(self.place), self._engine.connect() as connection:
            if not self._examined:
                there = tables.examine(connection, self.place)
                tables.version_of(connection, self.place, there)
                if not {"plan", "run"} <= there:
                    raise NoRace(f"{self.place} holds no race; run one with: thalweg race")
                self._examined = True
            yield connection

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(place: str | Path, race: str | None = None) -> Results:
    """The finished or unfinished race in the store at a path or URL; with a name, where there are many.

    Raises:
        StoreError: there is no store, no such race, or it cannot be read.
    """
    with Reader(place) as reader:
        return reader.results(race)


def locate(place: str | Path) -> tuple[str | Path, str | None]:
    """The store and the name of the race in a text such as ``postgresql://host/name/RACE`` or ``lab.db/RACE``."""
    where, race = Place.of(place).race()
    return (where.url.render_as_string(hide_password=False) if where.many else cast(Path, where.file)), race


def plans(connection: sa.Connection, name: str, *, counted: bool = False) -> list[Held]:
    """The races of a store, in the order in which they were begun; `counted` with their numbers of runs.

    Raises:
        StoreError: a plan is damaged.
    """
    table, run = tables.plan, tables.run
    columns = _columns(connection, table)
    counts: dict[str, Any] = {}
    if counted:
        last = sa.func.max(run.c.stored) if "stored" in _columns(connection, run) else sa.null()
        asked = sa.select(run.c.plan, sa.func.count(), last).group_by(run.c.plan)
        counts = {plan: (ended, at) for plan, ended, at in connection.execute(asked)}
    found: list[Held] = []
    with as_written(name):
        for row in connection.execute(sa.select(*(c for c in table.c if c.name in columns))).mappings():
            document = row["document"]
            if hash_of(document) != row["hash"]:
                raise damaged(name, "its plan is not as it was written")
            plan = Plan.from_document(document)
            called = row.get("name") or tables.race_name(plan.problem.name)
            found.append(
                Held(
                    called, plan, row["hash"], document["format"], row.get("since"), *counts.get(row["hash"], (0, None))
                )
            )
        if len(found) > 1 and "name" not in columns:
            raise damaged(name, "it has several plans")
    return sorted(found, key=lambda held: (held.since or 0.0, held.name))


def rows(connection: sa.Connection, name: str, plan: str, keys: Collection[str] | None = None) -> dict[str, Run]:
    """The stored runs of a plan, by their keys: all, or those of `keys`.

    Raises:
        StoreError: a record is damaged.
    """
    table = tables.run
    columns = [c for c in table.c if c.name in _columns(connection, table)]
    version = connection.execute(sa.select(tables.plan.c.format).where(tables.plan.c.hash == plan)).scalar_one()
    asked = sa.select(*columns).where(table.c.plan == plan)
    if keys is None:
        _check_owners(connection, name)
        found = connection.execute(asked).mappings().all()
    else:
        wanted = sorted(keys)
        parts = (wanted[i : i + _AT_ONCE] for i in range(0, len(wanted), _AT_ONCE))
        found = [row for part in parts for row in connection.execute(asked.where(table.c.key.in_(part))).mappings()]
    return {row["key"]: run_of(cast("Mapping[str, Any]", row), name, version) for row in found}


def _whole(parts: Mapping[tuple[str, int], Points]) -> tuple[list[Points], set[str]]:
    """The curves that parts are of, and the keys of those whose parts do not follow each other, as far as they do."""
    found: dict[str, Points] = {}
    torn: set[str] = set()
    for (key, first), part in sorted(parts.items(), key=lambda item: item[0]):
        before = found.get(key)
        if first == 0:
            found[key] = part
        elif before and len(before.curve.step) == first:
            found[key] = replace(before, curve=_joined(before.curve, part.curve))
        else:
            torn.add(key)
    return list(found.values()), torn


def _check_owners(connection: sa.Connection, name: str) -> None:
    run = tables.run
    owners = sa.select(tables.plan.c.hash)
    lost = sa.select(sa.func.count()).select_from(run).where(run.c.plan.not_in(owners))
    if count := connection.execute(lost).scalar_one():
        raise damaged(name, f"{count} of its runs are of no plan in it")


def sorted_runs(plan: Plan, runs: Iterable[Run]) -> tuple[Run, ...]:
    """Runs by entry, phase (tuning first), trial and seed."""
    order = {entry.name: i for i, entry in enumerate(plan.entries)}
    return tuple(sorted(runs, key=lambda r: (order[r.entry], r.phase != "tune", r.trial, r.seed)))


def _columns(connection: sa.Connection, table: sa.Table) -> set[str]:
    return {column["name"] for column in sa.inspect(connection).get_columns(table.name)}


def _joined(one: Curve, other: Curve) -> Curve:
    return Curve(**{f.name: getattr(one, f.name) + getattr(other, f.name) for f in fields(Curve)})
