"""Stores: records come back as they were, and damaged, foreign or busy databases are refused in one sentence."""

import itertools
import json
import math
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

import postgres
import thalweg
from thalweg import verdict
from thalweg.store import (
    Curve,
    EntryPlan,
    Plan,
    ProblemPlan,
    Reader,
    Results,
    Run,
    Space,
    Store,
    StoreError,
    places,
    read,
    records,
)
from thalweg.store import rows as rows_of
from thalweg.store.records import hash_of

ADAM = EntryPlan("adam", "Adam(lr=0.001)", 64, 100, 16, {"lr": Space("log", 1e-5, 0.1)})
SGD = EntryPlan("sgd, full", "SGD(lr=0.01)", 1000, 6, 16, {"lr": Space("log", 1e-3, 10.0)}, {"clip_norm": 1.0})
PLAN = Plan(ProblemPlan("digits", "abc", "accuracy", True, 64, 1000, 300, 300, 0.9), (ADAM, SGD), 16, 5, 100, 6400, 0)
RUN = Run("k", "adam", "tune", 0, 0, {"lr": 0.01}, "Adam(lr=0.01)", "finished", 100, 0.9, 0.3)


New = Callable[[], Path | str]
"""The place of another store that is not there yet."""


@pytest.fixture(params=["sqlite", "postgresql"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> New:
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")
        return lambda: postgres.fresh(url)
    names = itertools.count()
    return lambda: tmp_path / "races" / f"{next(names)}.db"


def same(one: Run, other: Run) -> bool:
    """Equality in which nan equals nan."""
    return repr(asdict(one)) == repr(asdict(other))


def test_a_plan_comes_back_from_its_document_with_its_hash():
    assert Plan.from_document(PLAN.document) == PLAN
    # Pinned, since users' races are found by their plans' hashes.  If this must change, increase FORMAT.
    assert PLAN.hash == "76ae9e0854f6209e1f3335a8a34c885dd10207e2977ccaa061ea2964fcf59dbf"


numbers = st.floats().map(lambda x: x + 0.0)  # SQLite keeps -0.0 as 0.0
finite = st.floats(allow_nan=False, allow_infinity=False)
curves = st.integers(0, 3).flatmap(
    lambda n: st.builds(
        Curve,
        *[st.tuples(*[st.integers(0, 10**9)] * n)] * 2,
        st.tuples(*[finite] * n),
        *[st.tuples(*[numbers] * n)] * 3,
    )
)
runs = st.builds(
    Run,
    key=st.text("0123456789abcdef", min_size=1),
    entry=st.sampled_from(["adam", "sgd, full"]),
    phase=st.sampled_from(["tune", "final"]),
    trial=st.integers(0, 99),
    seed=st.integers(0, 99),
    settings=st.dictionaries(st.text(), finite),
    rule=st.text(),
    status=st.sampled_from(["finished", "diverged", "failed"]),
    best_step=st.integers(0, 10**9),
    validation_metric=numbers,
    validation_loss=numbers,
    test_metric=numbers,
    test_loss=numbers,
    curve=curves,
    seconds=st.floats(0, 1e9),
    message=st.text(),
    machine=st.dictionaries(st.text(), st.text()),
)


def known(x: float) -> float:
    return x if math.isfinite(x) else math.nan


@given(runs)
@settings(max_examples=50)
def test_a_run_comes_back_as_it_was_with_nan_for_infinities(run: Run):
    with Store.open("sqlite://", PLAN) as store:
        store.add(run)
        (back,) = store.runs()
    measured = {n: known(getattr(run, n)) for n in ("validation_metric", "validation_loss", "test_metric", "test_loss")}
    curve = replace(
        run.curve,
        train_loss=tuple(map(known, run.curve.train_loss)),
        validation_loss=tuple(map(known, run.curve.validation_loss)),
        validation_metric=tuple(map(known, run.curve.validation_metric)),
    )
    assert same(back, replace(run, **measured, curve=curve, message=run.message.replace("\0", "")))


def test_a_message_with_what_no_database_keeps_does_not_lose_the_run():
    with Store.open("sqlite://", PLAN) as store:
        store.add(replace(RUN, message="zero \0, half a pair \ud800, θ"))
        assert store.runs()[0].message == "zero , half a pair ?, θ"


def test_runs_outlive_the_store_in_the_order_of_the_plan(new: New):
    place = new()
    given_order = [
        ("sgd, full", "tune", 0, 0),
        ("adam", "final", 3, 1),
        ("adam", "final", 3, 0),
        ("adam", "tune", 1, 0),
    ]
    with Store.open(place, PLAN) as store:
        for i, (entry, phase, trial, seed) in enumerate(given_order):
            changed: dict[str, Any] = {"phase": phase, "trial": trial, "seed": seed}
            store.add(replace(RUN, key=f"k{i}", entry=entry, **changed))
    results = read(place)
    assert results.plan == PLAN
    assert [run.key for run in results.runs] == ["k3", "k2", "k1", "k0"]
    assert [run.key for run in results.of("adam", "final")] == ["k2", "k1"]
    assert not verdict.Course(results).complete
    with Store.open(place, PLAN) as store:
        assert len(store.runs()) == 4


def test_the_first_record_of_a_run_stays(new: New):
    place = new()
    with Store.open(place, PLAN) as one, Store.open(place, PLAN) as other:
        one.add(RUN)
        other.add(replace(RUN, seconds=9.0))
        assert other.runs() == one.runs()
        assert one.runs()[0].seconds == 0.0


def test_a_run_asks_for_as_much_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hashed: list[object] = []
    said: list[str] = []

    def hear(*given: Any) -> None:
        said.append(given[2])

    with Store.open(tmp_path / "race.db", PLAN) as store:
        store.add(replace(RUN, key="first"))
        monkeypatch.setattr(records, "hash_of", hashed.append)  # of a plan of many entries it takes milliseconds
        event.listen(sa.Engine, "before_cursor_execute", hear)
        try:
            asked: list[list[str]] = []
            for i in range(50):
                said.clear()
                store.add(replace(RUN, key=f"{i}"))
                asked.append([*said])
        finally:
            event.remove(sa.Engine, "before_cursor_execute", hear)
    assert asked[0] == asked[-1]
    assert len(asked[0]) < 6
    assert not hashed


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (replace(PLAN, trials=8), "its trials is 16, this one's is only 8 (a race can have more of them, not fewer)"),
        (replace(PLAN, seed=1), "its seed is 0, this one's is 1"),
        (replace(PLAN, problem=replace(PLAN.problem, name="mnist")), "its problem is digits, this one's is mnist"),
        (replace(PLAN, problem=replace(PLAN.problem, fingerprint="x")), "digits is not what it was (fingerprint)"),
        (replace(PLAN, entries=(ADAM,)), "it has sgd, full, this one does not (a race can have more entr"),
        (replace(PLAN, entries=(replace(ADAM, rule="Adam()"), SGD)), "its settings of adam are others"),
    ],
)
def test_a_store_of_another_race_is_refused_with_the_difference(tmp_path: Path, other: Plan, says: str):
    with Store.open(tmp_path / "race.db", PLAN) as store:
        store.add(RUN)
    with pytest.raises(StoreError) as caught:
        Store.open(tmp_path / "race.db", other)
    assert says in str(caught.value)
    assert "choose another folder with --out" in str(caught.value)
    assert len(read(tmp_path / "race.db").runs) == 1


def not_a_database(path: Path) -> None:
    path.write_text("entry,test_metric\n" * 100)


def truncated(path: Path) -> None:
    with Store.open(path, PLAN) as store:
        for i in range(50):
            store.add(replace(RUN, key=str(i), message="x" * 500))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])


def newer(path: Path) -> None:
    Store.open(path, PLAN).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("update plan set format = 99, document = '[\"new\"]'")
    connection.close()


def of_something_else(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("create table plan (id integer)")
    connection.close()


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (not_a_database, "not a database"),
        (truncated, "malformed"),
        (newer, "was written by a newer thalweg (format 99, this one reads 4); update this one"),
        (of_something_else, "is the database of something else (its table plan is not a race's)"),
        (a_folder, "unable to open database file"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_sentence(tmp_path: Path, spoil: Callable[[Path], None], says: str):
    spoil(tmp_path / "race.db")
    uses = [lambda: Store.open(tmp_path / "race.db", PLAN).runs()]
    if spoil is not a_folder:
        uses.append(lambda: read(tmp_path / "race.db").runs)
    for use in uses:
        with pytest.raises(StoreError) as caught:
            use()
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_and_a_store_that_is_not_there(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Store.open(tmp_path / "file" / "race.db", PLAN)
    with pytest.raises(StoreError, match="there is no store"):
        read(tmp_path / "nowhere" / "race.db")
    assert not (tmp_path / "nowhere").exists()


def filled(path: Path, runs: int = 40) -> Path:
    with Store.open(path, PLAN, {"python": "3"}) as store:
        for i in range(runs):
            curve = Curve((0, 1), (0, 64), (0.0, 0.1), (1.0, 0.5), (1.0, math.nan), (0.1, 0.2))
            entry = ("adam", "sgd, full")[i % 2]
            changed: dict[str, Any] = {"settings": {"lr": 0.01 * i}, "message": "m" * (i % 5) * 40, "curve": curve}
            store.add(replace(RUN, key=f"{i:020x}", entry=entry, trial=i, **changed))
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return filled(tmp_path_factory.mktemp("good") / "race.db").read_bytes()


def _put(good: bytes, at: int, other: bytes) -> bytes:
    return (good[:at] + other + good[at + len(other) :])[: len(good)]


Damage = Callable[[bytes, random.Random], bytes]


def _flipped(good: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(good))
    return _put(good, at, bytes([good[at] ^ 1 << chance.randrange(8)]))


def _moved(good: bytes, chance: random.Random) -> bytes:
    here, there = (4096 * chance.randrange(len(good) // 4096) for _ in range(2))
    return _put(good, here, good[there : there + 4096])


DAMAGES: dict[str, Damage] = {
    "a bit flipped": _flipped,
    "an end missing": lambda good, chance: good[: chance.randrange(1, len(good))],
    "zeros": lambda good, chance: _put(good, chance.randrange(len(good)), bytes(chance.randrange(1, 5000))),
    "noise": lambda good, chance: _put(good, chance.randrange(len(good)), chance.randbytes(chance.randrange(1, 300))),
    "a page of another": _moved,
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_no_damage_loses_or_changes_a_run_in_silence(kind: str, good: bytes, tmp_path: Path):
    path, chance = tmp_path / "race.db", random.Random(0)
    path.write_bytes(good)
    whole = repr(read(path))

    def opened() -> Results:
        with Store.open(path, PLAN) as store:
            return store.results()

    refused = 0
    for _ in range(40):
        for use in (lambda: read(path), opened):
            path.write_bytes(DAMAGES[kind](good, chance))
            found = _said_or(use)
            refused += isinstance(found, str)
            assert isinstance(found, str) or repr(found) == whole
    assert refused >= 20


def _said_or(use: Callable[[], Results]) -> Results | str:
    """The results, or the sentence that refuses them."""
    try:
        return use()
    except StoreError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 -- all else that is raised is a failure
        return str(error)


JUNK = ["null", "''", "'x'", "-1", "1e300", "x'00ff'", "'[]'", "'{\"a\": 1}'", "'[[[[1'", "99999999999999999999"]


@pytest.mark.parametrize("table", ["plan", "run"])
def test_a_changed_value_is_noticed(table: str, good: bytes, tmp_path: Path):
    (tmp_path / "race.db").write_bytes(good)
    whole = read(tmp_path / "race.db")
    connection = sqlite3.connect(tmp_path / "race.db")
    columns = [row[1] for row in connection.execute(f"pragma table_info({table})")]
    connection.close()
    for column in columns:
        for junk in JUNK:
            (tmp_path / "race.db").write_bytes(good)
            connection = sqlite3.connect(tmp_path / "race.db")
            with connection:
                connection.execute("pragma ignore_check_constraints = 1")
                connection.execute(f"update or ignore {table} set {column} = {junk} where rowid = 1")
                changed = connection.execute("select changes()").fetchone()[0]
            connection.close()
            for use in (lambda: read(tmp_path / "race.db"), lambda: Store.open(tmp_path / "race.db", PLAN).results()):
                found = _said_or(use)
                harmless = isinstance(found, str) or not changed or column == "machine"
                assert harmless or repr(found) == repr(whole), (column, junk)


def _sql(*statements: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        connection = sqlite3.connect(path)
        with connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    return make


def _without(*statements: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        filled(path, 3)
        _sql(*statements)(path)

    return make


FOREIGN: dict[str, Callable[[Path], object]] = {
    "tables of somebody else's": _sql("create table moz_places (id integer)", "create table run2 (x)"),
    "a table run": _sql("create table run (id integer)"),
    "a table plan": _sql("create table plan (hash text, format integer)"),
    "ours beside another's": _without("create table moz_places (id integer)"),
    "a view of that name": _sql("create table x (hash, format, document)", "create view plan as select * from x"),
    "runs without a plan": _without("delete from plan"),
    "two plans": _without("insert into plan select 'other', 'second', format, document, machine, since from plan"),
    "a run of another plan": _without("update run set plan = 'other' where trial = 0"),
    "a run of no entry": _without("update run set entry = 'nobody' where trial = 0"),
    "no table of runs": _without("drop table run"),
    "a column less": _without("alter table run drop column seconds"),
    "a text file": lambda path: path.write_text("diary " * 99),
    "half a header": lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(20)),
    "only a header": lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(84)),
    "a web page": lambda path: path.write_text("<html>404"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_or_half_made_database_is_one_sentence_and_stays_as_it_is(name: str, tmp_path: Path):
    path = tmp_path / "race.db"
    FOREIGN[name](path)
    before = path.read_bytes()
    uses: list[Callable[[], object]] = [lambda: read(path), lambda: Store.open(path, PLAN).results()]
    for use in uses[: 1 if name == "no table of runs" else 2]:
        with pytest.raises(StoreError) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert "Error" not in str(caught.value) or "records cannot be read" in str(caught.value)
        assert path.read_bytes() == before


def older(path: Path, version: int) -> Results:
    """Write a store as releases of an older version did, and return what is in it."""
    whole = read(filled(path, 3))
    before = {1: ("finalists", "growths", "splits", "margin"), 2: ("finalists", "growths", "splits", "margin"), 3: ()}
    document = {n: x for n, x in PLAN.document.items() if n not in before[version]}
    document["format"] = version
    hash = hash_of(document)
    columns = "entry text, phase text, trial int, seed int, settings json, rule text, status text, best_step int, " + (
        "validation_metric float, validation_loss float, test_metric float, test_loss float, curve json, "
        "seconds float, message text, machine json"
    )
    names = ", ".join(column.split()[0] for column in columns.split(", "))
    with closing(sqlite3.connect(path)) as connection, connection:
        rows = {key: rest for key, *rest in connection.execute(f"select key, {names} from run")}
        checksums = dict(connection.execute("select key, checksum from run"))
        for table in ("run", "point", "plan", "thalweg"):
            connection.execute(f"drop table {table}")
        connection.execute("create table plan (hash varchar(64) primary key, format int, document json, machine json)")
        connection.execute(
            f"create table run (key varchar(64) primary key, plan varchar(64) references plan (hash), {columns}"
            + (", checksum varchar(64) not null)" if version > 1 else ")")
        )
        connection.execute("insert into plan values (?, ?, ?, '{}')", (hash, version, json.dumps(document)))
        for run in whole.runs:
            row = [run.key, hash, *rows[run.key]]
            if version == 2:  # whose checksums contain the plan
                row.append(rows_of.checksum(rows_of.row_of(run, hash), 2))
            elif version == 3:
                row.append(checksums[run.key])
            connection.execute(f"insert into run values ({', '.join('?' * len(row))})", row)
    return whole


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_a_format_of_old_can_be_read_but_not_gone_on_with(version: int, tmp_path: Path):
    whole = older(tmp_path / "race.db", version)
    before = (tmp_path / "race.db").read_bytes()
    assert repr(read(tmp_path / "race.db").runs) == repr(whole.runs)
    with pytest.raises(StoreError, match="was written by an older thalweg"):
        Store.open(tmp_path / "race.db", PLAN)
    assert (tmp_path / "race.db").read_bytes() == before


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_store_of_an_older_version_is_migrated_when_a_race_is_added(version: int, tmp_path: Path):
    whole = older(tmp_path / "lab.db", version)
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    other = replace(PLAN, seed=7)
    with Store.open(url, other, name="second") as store:
        store.add(RUN)  # with a key that the first race may have
        store.add(replace(RUN, key=whole.runs[0].key, entry=whole.runs[0].entry))
        assert store.race == "second"
    assert repr(read(url, "digits").runs) == repr(whole.runs)
    assert len(read(url, "second").runs) == 2
    with closing(sqlite3.connect(tmp_path / "lab.db")) as connection:
        assert connection.execute("select version from thalweg").fetchall() == [(4,)]
    if version == 3:
        with Store.open(url, PLAN) as store:  # which goes on
            assert store.race == "digits"
            assert len(store.runs()) == 3


def test_a_damaged_record_of_an_older_version_is_not_migrated(tmp_path: Path):
    older(tmp_path / "lab.db", 2)
    _sql("update run set seconds = 99 where trial = 1")(tmp_path / "lab.db")
    before = (tmp_path / "lab.db").read_bytes()
    with pytest.raises(StoreError, match="the record of sgd, full 1 is damaged"):
        Store.open(f"sqlite:///{tmp_path / 'lab.db'}", replace(PLAN, seed=7))
    assert (tmp_path / "lab.db").read_bytes() == before


LION = replace(ADAM, name="lion", rule="Lion(lr=0.001)")


@pytest.mark.parametrize(
    "larger",
    [
        replace(PLAN, seeds=9),
        replace(PLAN, trials=20, entries=(replace(ADAM, trials=20), replace(SGD, trials=20))),
        replace(PLAN, entries=(LION, SGD, ADAM), finalists=3),
    ],
)
def test_a_store_grows_with_its_race_and_keeps_its_runs(new: New, larger: Plan):
    place = new()
    with Store.open(place, PLAN, {"machine": "mine"}) as store:
        store.add(RUN)
    with Store.open(place, larger) as store:
        assert [same(run, RUN) for run in store.runs()] == [True]
        store.add(replace(RUN, key="another", trial=1))
    found = read(place)
    assert found.plan.hash == larger.hash
    assert len(found.runs) == 2
    with pytest.raises(StoreError, match="a race can have more"):
        Store.open(place, PLAN)
    assert len(read(place).runs) == 2


@pytest.mark.parametrize("half", [[], ["plan"], ["run"], ["plan", "run"]])
def test_a_half_made_store_is_completed(half: list[str], tmp_path: Path):
    Store.open(tmp_path / "whole.db", PLAN).close()
    _sql(*(_definition(tmp_path / "whole.db", table) for table in half))(tmp_path / "race.db")
    with pytest.raises(StoreError, match="holds no race"):
        read(tmp_path / "race.db")
    with Store.open(tmp_path / "race.db", PLAN) as store:
        store.add(RUN)
    assert len(read(tmp_path / "race.db").runs) == 1


def _definition(path: Path, table: str) -> str:
    connection = sqlite3.connect(path)
    [(sql,)] = connection.execute("select sql from sqlite_master where name = ?", (table,)).fetchall()
    connection.close()
    return sql


def test_a_fresh_store_is_opened_by_many_at_once(new: New):
    for _ in range(4):
        place = new()
        barrier = threading.Barrier(8)
        failed: list[BaseException] = []

        def opens(
            place: Path | str, barrier: threading.Barrier = barrier, failed: list[BaseException] = failed
        ) -> None:
            barrier.wait()
            try:
                with Store.open(place, PLAN) as store:
                    store.add(RUN)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=opens, args=(place,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert len(read(place).runs) == 1


def test_of_two_plans_at_once_a_path_refuses_one_and_a_url_takes_both(new: New):
    place = new()
    barrier, refused = threading.Barrier(2), list[StoreError]()

    def opens(plan: Plan) -> None:
        barrier.wait()
        try:
            Store.open(place, plan).close()
        except StoreError as error:
            refused.append(error)

    threads = [threading.Thread(target=opens, args=(replace(PLAN, seed=i),)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if isinstance(place, str):
        with Reader(place) as reader:
            assert sorted((race.name, race.plan.seed) for race in reader.races()) in (
                [("digits", 0), ("digits-2", 1)], [("digits", 1), ("digits-2", 0)],
            )  # fmt: skip
        assert not refused
    else:
        assert "holds another race" in str(*refused)


def test_a_writer_that_holds_the_file_is_waited_for_and_readers_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(places, "WAIT", 0.05)
    with Store.open(tmp_path / "race.db", PLAN) as store:
        reader = sqlite3.connect(tmp_path / "race.db")
        reader.execute("begin")
        reader.execute("select count(*) from run").fetchall()
        store.add(RUN)  # which does not wait for readers
        reader.close()
        writer = sqlite3.connect(tmp_path / "race.db", isolation_level=None, check_same_thread=False)
        writer.execute("begin immediate")
        release = threading.Timer(0.5, writer.rollback)
        release.start()
        with pytest.warns(UserWarning, match="is held by another program"):
            store.add(replace(RUN, key="second"))
        release.join()
        writer.close()
        assert len(store.runs()) == 2
        monkeypatch.setattr(places, "PATIENCE", 0.2)
        writer = sqlite3.connect(tmp_path / "race.db", isolation_level=None)
        writer.execute("begin immediate")
        with pytest.warns(UserWarning, match="is held"), pytest.raises(StoreError, match="another program holds it"):
            store.add(replace(RUN, key="other"))
        writer.close()


def test_one_race_at_a_time_on_a_file(tmp_path: Path):
    path = tmp_path / "race.db"
    race = thalweg.Race("digits", ["sgd(lr=0.1)"], seeds=1, steps=1, workers=1, store=path)
    with Store.open(path, race.plan):
        pass
    holds = "import sys, time; from thalweg.store import Store, read\nplan = read(sys.argv[1]).plan\n"
    holds += "with Store.open(sys.argv[1], plan, alone=True): print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", holds, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    used = "race.db is in use: another command is running this race; .* choose another with --out"
    with pytest.raises(StoreError, match=used):
        Store.open(path, race.plan, alone=True)
    process.kill()
    process.wait()
    process.stdout.close()
    other = Store.open("sqlite://", race.plan, alone=True)
    with Store.open(path, race.plan, alone=True), other, pytest.raises(StoreError, match=used):
        race.run()
    assert len(race.run().runs) == 2


@pytest.mark.parametrize(
    "url",
    ["postgresql+nothing://me:secret@host/x", "postgresql://me@host/x?password=secret", "a:secret@b://"],
)
def test_passwords_are_never_shown(url: str):
    with pytest.raises(StoreError) as caught:
        Store.open(url, PLAN)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgres//me:secret@host/x://", "nodatabase://me:secret@host/name"])
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str):
    with pytest.raises(StoreError) as caught:
        Store.open(url, PLAN)
    assert "secret" not in str(caught.value)
