"""Stores that many use at once: several races, claims, lost connections, points of runs under way, passwords."""

import os
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import URL

import postgres
from processes import HAS_PROC, command, wait_for
from test_store import PLAN, RUN, same
from thalweg.store import Curve, Points, Reader, Store, StoreError, locate, read

OTHER = replace(PLAN, seed=1)
CURVE = Curve((0, 10), (0, 640), (0.0, 0.5), (2.0, 1.0), (2.0, 1.0), (0.1, 0.5))
POINTS = Points("k", "adam", "tune", 0, 0, {"lr": 0.01}, 0, CURVE)
MORE = replace(POINTS, first=2, curve=Curve((20,), (1280,), (1.0,), (0.5,), (float("nan"),), (0.6,)))


def test_a_store_has_many_races_each_by_its_plan(url: str):
    with Store.open(url, PLAN, name="a <b>/'c'") as one, Store.open(url, OTHER) as other:
        one.add(RUN)
        other.add(replace(RUN, seconds=2.0))  # the same key in another race
        assert (one.race, other.race) == ("a-b-c", "digits")
    with Store.open(url, OTHER, name="ignored, since it is there") as other:
        assert other.race == "digits"
        assert [run.seconds for run in other.runs()] == [2.0]
    with Store.open(url, replace(PLAN, seed=2)) as third:
        assert third.race == "digits-2"
    with Reader(url) as reader:
        assert {held.name: (held.plan, held.ended) for held in reader.races()} == {
            "a-b-c": (PLAN, 1), "digits": (OTHER, 1), "digits-2": (replace(PLAN, seed=2), 0),
        }  # fmt: skip
        assert same(reader.results("a-b-c").runs[0], RUN)
        with pytest.raises(StoreError, match=r"holds 3 races: .*a-b-c.*; write .*/NAME"):
            reader.results()
        with pytest.raises(StoreError, match="holds no race nobody; there are"):
            reader.results("nobody")
    place, name = locate(
        f"{url}/digits" if url.startswith("sqlite") else url.replace("/postgres?", "/postgres/digits?")
    )
    assert name == "digits"
    assert read(place, name).plan == OTHER


def test_in_a_store_of_many_races_a_larger_one_is_not_begun_again_as_a_smaller_one(url: str):
    with Store.open(url, replace(PLAN, seeds=9)) as store:
        store.add(RUN)
    with pytest.raises(StoreError, match="holds another race as digits: its seeds is 9, this one's is only 5"):
        Store.open(url, PLAN)


def test_a_reader_reads_what_is_new_and_goes_on_when_a_race_has_grown(url: str):
    with Reader(url) if not url.startswith("sqlite") else _later(url) as reader, Store.open(url, PLAN) as store:
        for i in range(3):
            store.add(replace(RUN, key=f"{i}", trial=i))
            assert [run.trial for run in reader.results().runs] == list(range(i + 1))
        with Store.open(url, replace(PLAN, seeds=9)) as grown:
            grown.add(replace(RUN, key="more", trial=3))
            assert len(reader.results("digits").runs) == 4
            assert sorted(reader.stored("digits")) == ["0", "1", "2", "more"]
        with pytest.raises(StoreError, match="was deleted or has grown while it ran; give the same command again"):
            store.add(replace(RUN, key="late"))


def _later(url: str) -> Reader:
    Store.open(url, PLAN).close()
    return Reader(url)


def test_points_of_runs_are_there_until_they_end_and_never_count_as_runs(url: str):
    with Store.open(url, PLAN) as store, Reader(url) as reader:
        store.stream([POINTS])
        store.stream([POINTS, MORE])  # the first again, as after a lost connection
        store.stream([MORE])
        (found,) = reader.live()
        assert found.curve.step == (0, 10, 20)
        assert repr(found.curve.validation_loss) == "(2.0, 1.0, nan)"
        assert replace(found, curve=CURVE) == POINTS
        assert reader.results().runs == ()
        store.stream([replace(POINTS, curve=Curve((0,), (0,), (0.0,), (2.0,), (2.0,), (0.1,)))])  # it begins again
        assert [points.curve.step for points in reader.live()] == [(0,)]
        store.stream([replace(POINTS, key="other", entry="sgd, full")])
        store.add(RUN)
        assert [points.key for points in reader.live()] == ["other"]
    with Store.open(url, PLAN):
        assert len(read(url).runs) == 1
    with Store.open(url, PLAN, alone=True), Reader(url) as reader:
        assert reader.live() == ()


def test_one_driver_at_a_time_in_a_race_of_a_store(url: str):
    with Store.open(url, PLAN, alone=True) as store:
        for plan in (PLAN, replace(PLAN, seeds=9)):
            with pytest.raises(StoreError, match="digits is in use: another command is running this race"):
                Store.open(url, plan, alone=True)
        with Store.open(url, OTHER, alone=True) as other:
            other.add(RUN)
        store.add(RUN)
    with Store.open(url, PLAN, alone=True) as store:
        assert len(store.runs()) == 1


def test_one_driver_at_a_time_in_a_file_given_as_path_as_url_and_as_link(tmp_path: Path):
    path, link = tmp_path / "race.db", tmp_path / "link.db"
    Store.open(path, PLAN).close()
    link.symlink_to(path)
    ways = [path, f"sqlite:///{path}", link, f"sqlite:///{link}"]
    for first in ways:
        with Store.open(first, PLAN, alone=True):
            for second in ways:
                with pytest.raises(StoreError, match="is in use: another command is running this race"):
                    Store.open(second, replace(PLAN, seeds=9), alone=True)
    with Store.open(path, PLAN, alone=True) as store:
        assert store.runs() == ()


def test_a_lost_connection_is_waited_for_and_its_claim_regained(postgresql: URL):
    url = postgres.fresh(postgresql)
    with Store.open(url, PLAN, alone=True) as store:
        for i in range(3):
            store.add(replace(RUN, key=f"{i}", trial=i))
            store.stream([replace(POINTS, key="under way")])
            with sa.create_engine(postgresql, poolclass=sa.NullPool).connect() as connection:
                ours = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
                connection.execute(ours).all()
            with pytest.warns(UserWarning, match="cannot be reached; the race waits for it"):
                store.add(replace(RUN, key=f"{i}", trial=i))
        with pytest.raises(StoreError, match=r"another command is running this race, on .* as process"):
            Store.open(url, PLAN, alone=True)
        assert [run.trial for run in store.runs()] == [0, 1, 2]


def test_a_driver_whose_race_another_has_taken_over_stops(postgresql: URL, monkeypatch: pytest.MonkeyPatch):
    url = postgres.fresh(postgresql)
    with Store.open(url, PLAN, alone=True) as store:
        with sa.create_engine(postgresql, poolclass=sa.NullPool).connect() as connection:
            ours = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE :ours")
            connection.execute(ours, {"ours": "thalweg %"}).all()
        with Store.open(url, PLAN, alone=True) as other:
            taken = pytest.raises(StoreError, match="another command is running this race")
            with pytest.warns(UserWarning, match="cannot be reached"), taken:
                store.add(RUN)
            other.add(RUN)
            assert len(other.runs()) == 1


def test_many_write_one_store_at_once(url: str):
    plans = [replace(PLAN, seed=seed) for seed in range(4)]
    failed: list[BaseException] = []

    def race(plan: Any) -> None:
        try:
            with Store.open(url, plan, alone=True) as store, Reader(url) as reader:
                for i in range(10):
                    store.stream([replace(POINTS, key=f"{i}")])
                    store.add(replace(RUN, key=f"{i}", trial=i))
                    assert len(reader.results(store.race).runs) == i + 1
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=race, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with Reader(url) as reader:
        assert [held.ended for held in reader.races()] == [10] * 4


def test_a_deleted_file_is_written_again_and_a_replaced_one_is_left_alone(tmp_path: Path):
    path = tmp_path / "races" / "race.db"
    with Store.open(path, PLAN) as store:
        store.add(RUN)
        for file in [*path.parent.iterdir()]:
            file.unlink()
        path.parent.rmdir()
        with pytest.warns(UserWarning, match="was deleted while the race ran; it was written again, with all that it"):
            store.add(replace(RUN, key="second", trial=1))
        assert [run.trial for run in read(path).runs] == [0, 1]
        path.unlink()
        path.write_bytes(b"something else")
        with pytest.raises(StoreError, match="was replaced by another file while the race ran; all that had"):
            store.add(replace(RUN, key="third", trial=2))
    assert path.read_bytes() == b"something else"
    assert [run.trial for run in read(path.with_name("race-rescued.db")).runs] == [0, 1]


def test_a_store_in_a_folder_that_cannot_be_written_can_be_read(tmp_path: Path):
    with Store.open(tmp_path / "race.db", PLAN) as store:
        store.add(RUN)
        held = (tmp_path / "race.db").read_bytes()
        log = (tmp_path / "race.db-wal").read_bytes()
    for left in (log, None):  # of a race that was killed; of one that has ended
        folder = tmp_path / f"copy {left is None}"
        folder.mkdir()
        (folder / "race.db").write_bytes(held)
        if left is not None:
            (folder / "race.db-wal").write_bytes(left)
        folder.chmod(0o555)  # root writes nevertheless
        try:
            assert len(read(folder / "race.db").runs) == 1
        finally:
            folder.chmod(0o755)


def test_a_database_that_is_emptied_while_a_race_runs_is_one_sentence(postgresql: URL):
    url = postgres.fresh(postgresql)
    with Store.open(url, PLAN, alone=True) as store:
        store.add(RUN)
        schema = str(sa.make_url(url).query["options"]).rpartition("=")[2]
        with sa.create_engine(postgresql, poolclass=sa.NullPool).begin() as connection:
            connection.execute(sa.schema.DropSchema(schema, cascade=True))
        with pytest.raises(StoreError) as caught:
            store.add(replace(RUN, key="second"))
    assert 'cannot be used as a store (relation "plan" does not exist' in str(caught.value)
    assert "\n" not in str(caught.value)


SECRET = "hunter2&x"


@pytest.fixture
def guarded(postgresql: URL, tmp_path_factory: pytest.TempPathFactory) -> URL:
    """The server's URL for a user who has to give a password."""
    with sa.create_engine(postgresql, poolclass=sa.NullPool).begin() as connection:
        file = Path(connection.execute(sa.text("SHOW hba_file")).scalar_one())
        rule = "host all guarded 127.0.0.1/32 scram-sha-256\n"
        if rule not in file.read_text():
            file.write_text(rule + file.read_text())
            connection.execute(sa.text(f"CREATE USER guarded PASSWORD '{SECRET}'"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
    return postgresql.set(username="guarded")


REFUSALS: dict[str, Callable[[URL], URL]] = {
    "password authentication failed": lambda url: url.set(password="wrong-secret"),
    'database "nowhere" does not exist': lambda url: url.set(password=SECRET, database="nowhere"),
    "refused": lambda url: url.set(password=SECRET, port=1),
    "SSL": lambda url: url.set(password=SECRET, query={"sslmode": "require"}),
}


@pytest.mark.parametrize("says", REFUSALS)
def test_a_server_that_refuses_is_one_sentence_without_the_password(says: str, guarded: URL):
    url = REFUSALS[says](guarded).set(drivername="postgresql").render_as_string(hide_password=False)
    uses: list[Callable[[], object]] = [lambda: Store.open(url, PLAN), lambda: read(url)]
    for use in uses:
        with pytest.raises(StoreError) as caught:
            use()
        said = str(caught.value)
        assert says in said
        assert "\n" not in said
        with_traceback = "".join(traceback.format_exception(caught.value))
        assert "wrong-secret" not in with_traceback
        assert SECRET not in with_traceback


PROBLEM = """
import os, time
from pathlib import Path
import torch
from torch import nn
import thalweg
from thalweg.race import streaming

streaming.EVERY = 0.0
HERE = Path(__file__).parent

def held(n):
    '''Wait in the n-th evaluation of a run as long as there is no file "go".'''
    while n == 12 and not (HERE / "go").exists():
        time.sleep(0.01)

class Counted:
    n = 0

def error(prediction, target):
    Counted.n += 1
    held(Counted.n)
    return float(((prediction - target) ** 2).double().mean())

def problem():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    pair = x, x.sum(1, keepdim=True)
    return thalweg.Problem("streaming", lambda: nn.Linear(3, 1), nn.functional.mse_loss, pair, pair, pair, error,
                           metric_name="error", higher_is_better=False, batch_size=8)

def train(run):
    model = nn.Linear(3, 1)
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    optimizer = run.optimizer(model)
    for step in run.steps(30):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
        loss.backward()
        optimizer.step()
        held(step if run._plan.trials > 1 else 0)
        run.report(validation_loss=float(loss.detach()))
"""


@pytest.mark.skipif(not HAS_PROC, reason="reads /proc to find processes")
@pytest.mark.parametrize(("function", "workers"), [("problem", 1), ("train", 1)])
def test_what_was_streamed_before_a_kill_stays_and_counts_as_nothing(function: str, workers: int, tmp_path: Path):
    (tmp_path / "mine.py").write_text(PROBLEM, encoding="utf-8")
    store = tmp_path / "lab.db"
    line = ["race", f"{tmp_path / 'mine.py'}:{function}", "--rules", "sgd", "--trials", "2", "--seeds", "1"]
    line += ["--finalists", "1", "--populations", "never", "--workers", str(workers), "--store", str(store)]
    line += ["--out", str(tmp_path / "out")] + (["--steps", "30"] if function == "problem" else [])
    process = command(line)

    def live() -> tuple[Points, ...]:
        with Reader(store) as reader:
            return reader.live()

    wait_for(lambda: store.exists() and _quietly(live))
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    left = live()
    assert left
    assert all(1 <= len(points.curve.step) <= 12 for points in left)
    assert read(store).runs == ()
    (tmp_path / "go").touch()
    process = command(line)
    process.join()
    assert process.exitcode == 0
    assert live() == ()
    runs = {run.key: run for run in read(store).runs}
    assert len(runs) == 3
    for points in left:  # the run that was begun again is the same from its beginning
        again = runs[points.key].curve
        n = len(points.curve.step)
        assert again.validation_metric[:n] == points.curve.validation_metric


def _quietly(use: Callable[[], Any]) -> Any:
    try:
        return use()
    except StoreError:
        return None
