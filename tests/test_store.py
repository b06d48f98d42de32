import math
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.store import Curve, EntryPlan, Plan, ProblemPlan, Run, Space, Store, StoreError, read

ADAM = EntryPlan("adam", "Adam(lr=0.001)", 64, 100, 16, {"lr": Space("log", 1e-5, 0.1)})
SGD = EntryPlan("sgd, full", "SGD(lr=0.01)", 1000, 6, 16, {"lr": Space("log", 1e-3, 10.0)}, {"clip_norm": 1.0})
PLAN = Plan(ProblemPlan("digits", "abc", "accuracy", True, 64, 1000, 300, 300, 0.9), (ADAM, SGD), 16, 5, 100, 6400, 0)
RUN = Run("k", "adam", "tune", 0, 0, {"lr": 0.01}, "Adam(lr=0.01)", "finished", 100, 0.9, 0.3)


def same(one: Run, other: Run) -> bool:
    """Equal, nan as well."""
    return repr(asdict(one)) == repr(asdict(other))


def test_a_plan_comes_back_from_its_document_with_its_hash():
    assert Plan.from_document(PLAN.document) == PLAN
    # Pinned: plans that users have must be found again.  Where this changes, raise FORMAT.
    assert PLAN.hash == "85d227c4530a6b0481428c6303d2b216bcb8534617527bfaceb23695128a5211"


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
@settings(max_examples=50, deadline=None)
def test_a_run_comes_back_as_it_was_with_nan_for_what_is_not_finite(run: Run):
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


def test_runs_outlive_the_store_in_the_order_of_the_plan(tmp_path: Path):
    path = tmp_path / "races" / "race.db"
    given_order = [
        ("sgd, full", "tune", 0, 0),
        ("adam", "final", 3, 1),
        ("adam", "final", 3, 0),
        ("adam", "tune", 1, 0),
    ]
    with Store.open(path, PLAN) as store:
        for i, (entry, phase, trial, seed) in enumerate(given_order):
            changed: dict[str, Any] = {"phase": phase, "trial": trial, "seed": seed}
            store.add(replace(RUN, key=f"k{i}", entry=entry, **changed))
    results = read(path)
    assert results.plan == PLAN
    assert [run.key for run in results.runs] == ["k3", "k2", "k1", "k0"]
    assert [run.key for run in results.of("adam", "final")] == ["k2", "k1"]
    assert not results.complete
    with Store.open(path, PLAN) as store:
        assert len(store.runs()) == 4


def test_the_first_record_of_a_run_stays(tmp_path: Path):
    with Store.open(tmp_path / "race.db", PLAN) as one, Store.open(tmp_path / "race.db", PLAN) as other:
        one.add(RUN)
        other.add(replace(RUN, seconds=9.0))
        assert other.runs() == one.runs()
        assert one.runs()[0].seconds == 0.0


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (replace(PLAN, trials=8), "its trials is 16, this one's is 8"),
        (replace(PLAN, seed=1), "its seed is 0, this one's is 1"),
        (replace(PLAN, problem=replace(PLAN.problem, name="mnist")), "its problem is digits, this one's is mnist"),
        (replace(PLAN, problem=replace(PLAN.problem, fingerprint="x")), "digits is not what it was (fingerprint)"),
        (replace(PLAN, entries=(ADAM,)), "its entries are adam, sgd, full, this one's are adam"),
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
        (newer, "was written by a newer thalweg (format 99, this one reads 1); update it"),
        (of_something_else, "cannot be used as a store"),
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


@pytest.mark.parametrize("url", ["postgres//me:secret@host/x://", "nodatabase://me:secret@host/name"])
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str):
    with pytest.raises(StoreError) as caught:
        Store.open(url, PLAN)
    assert "secret" not in str(caught.value)
