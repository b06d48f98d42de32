"""The page that follows races: it grows with them, only reads, answers only whom it should, and shows names as text."""

import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import postgres
from pages import opened
from processes import HAS_PROC, ended, tree, wait_for
from thalweg import problems
from thalweg.cli import main
from thalweg.race import Entry, Results, course
from thalweg.race import plan as planning
from thalweg.race.plan import Task
from thalweg.report import runs
from thalweg.store import Curve, Plan, Points, Reader, Run, Store, StoreError

pytest.importorskip("starlette", reason="starlette is not installed")

from thalweg.watch import Server, Stores, following
from thalweg.watch.feed import BYTES, CHANGES, Feed, message
from thalweg.watch.following import Follower
from thalweg.watch.progress import time_left
from thalweg.watch.server import hosts

HOSTILE = "</script><img src=x onerror=\"document.title='x'\">'\"\u2028\n\x1b[31m\u202edlrow`${1}%{x}<b>"
PATIENCE = 60.0


def ran(plan: Plan, task: Task, i: int) -> Run:
    """The record of a run, made up; those at a rate of a million have diverged."""
    steps = tuple(range(0, 41, 4))
    good = tuple(0.5 + 0.4 * s / (s + 10) - 0.003 * (i % 7) + 0.001 * (s % 3) for s in steps)
    loss = tuple(1 - x for x in good)
    entry = plan.entry(task.entry)
    curve = Curve(steps, tuple(64 * s for s in steps), tuple(s / 100 for s in steps), loss, loss, good)
    made = Run(
        task.key, task.entry, task.phase, task.trial, task.seed, dict(task.tuned) or {"lr": 1e6}, entry.rule,
        "finished", 40, seconds=0.4,
    )  # fmt: skip
    if "1e6" in task.entry:
        return replace(made, status="diverged", best_step=4, message="the loss is nan at step 4")
    if task.phase == "final":
        made = replace(made, test_metric=good[-1] - 0.01, test_loss=loss[-1])
    return replace(made, validation_metric=good[-1], validation_loss=loss[-1], curve=curve)


def planned() -> Plan:
    entries = [Entry(rule) for rule in ("sgd", "momentum", "sgd(lr=1e6)")]
    made = planning.make(problems.get("logistic"), entries, trials=3, seeds=2, finalists=3, steps=40, seed=0)
    return replace(made, growths=0)


def raced(plan: Plan) -> Results:
    """A race whose numbers are made up; trials come first, as in a race."""
    known: dict[str, Run] = {}
    while left := [task for task in course.tasks(plan, known) if task.key not in known]:
        known |= {task.key: ran(plan, task, i) for i, task in enumerate(left)}
    return Results(plan, tuple(sorted(known.values(), key=lambda run: run.phase != "tune")))


@pytest.fixture(scope="module")
def results() -> Results:
    return raced(planned())


def write(place: Path | str, results: Results, kept: int | None = None) -> Path | str:
    """Store the first so many runs of a race, as if it went on."""
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
    with Store.open(place, results.plan) as store:
        for run in results.runs[:kept]:
            store.add(run)
    return place


def renamed(name: str) -> Results:
    """A race whose problem, metric, first entry and last words are this."""
    plan = planned()
    problem = replace(plan.problem, name=name, source=name, metric=name[:200])
    first = replace(plan.entries[0], name=name)
    made = raced(replace(plan, entries=(first, *plan.entries[1:]), problem=problem))
    said = [replace(r, message=f"first\n{name}\nlast", status="failed") for r in made.runs[-1:]]
    return Results(made.plan, (*made.runs[:-1], *said))


class Heard:
    """A race as a page knows it, after some looks."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.version = 0
        self.hub: dict[str, Any] = {}
        self.race: dict[str, Any] = {}
        self.runs: dict[str, Any] = {}

    def look(self, feed: Feed) -> "Heard":
        self.follower.look()
        [content] = told(self.follower.hub.since(0)[1])
        self.hub = content["hub"]
        self.version, text = feed.since(self.version)
        for content in told(text):
            if content.get("whole"):
                self.race, self.runs = {}, {}
            self.race |= content["race"]
            for key in content["race"].get("gone", ()):
                self.runs.pop(key, None)
            self.runs |= {run["key"]: run for run in content["race"].get("runs", ())}
        return self


def told(text: bytes) -> list[Any]:
    """What the messages of a text say."""
    *messages, rest = text.split(b"\n\n")
    assert not rest
    assert all(each.startswith(b"data: ") and b"\n" not in each for each in messages)
    return [json.loads(each[6:]) for each in messages]


@pytest.fixture
def follow() -> Generator[Callable[[Path | str], Follower]]:
    made: list[Stores] = []

    def made_for(place: Path | str) -> Follower:
        made.append(Stores(str(place)))
        return Follower(made[-1], lambda: None)

    yield made_for
    for stores in made:
        stores.close()


@given(
    st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), min_size=1, max_size=300),
    st.integers(runs.FEWEST, 64),
    st.integers(0, 2**32 - 1),
)
def test_thinned_curves_keep_their_ends_and_extremes(y: list[float], points: int, seed: int) -> None:
    n = len(y)
    other = tuple(float(x) for x in np.random.default_rng(seed).normal(size=n))
    curve = Curve(tuple(range(n)), tuple(range(n)), other, tuple(y), other, tuple(y[::-1]))
    found = runs.thinned(curve, points)
    kept = [int(i) for i in found["step"]]
    assert len(kept) <= min(n, points)
    assert len(kept) > min(n, points) / 2
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1]) == (0, n - 1)
    for name in ("train_loss", "validation_loss", "validation_metric", "seconds"):
        column = getattr(curve, name)
        assert found[name] == pytest.approx([column[i] for i in kept], rel=5e-6, nan_ok=True)
        if name in runs.Y and np.isfinite(column).any():
            assert np.nanmax(found[name]) == pytest.approx(np.nanmax(column), rel=5e-6)
            assert np.nanmin(found[name]) == pytest.approx(np.nanmin(column), rel=5e-6)


@pytest.mark.parametrize(("count", "points"), [(1, 512), (200, 256), (800, 64), (3_000, 32), (3_800, 16), (100_000, 8)])
def test_a_page_has_a_bounded_number_of_points(count: int, points: int) -> None:
    assert runs.most(count) == points
    assert runs.most(count) * count <= max(runs.POINTS, runs.FEWEST * count)


def test_a_page_is_told_what_has_changed_or_all() -> None:
    feed = Feed()
    assert feed.since(0) == (0, b"")
    feed.put(lambda: {"n": 1}, None)
    assert feed.since(0) == (1, message({"n": 1}))
    feed.put(lambda: {"n": 2}, {"change": 2})
    assert feed.since(1) == (2, message({"change": 2}))
    assert feed.since(0) == (2, message({"n": 1}) + message({"change": 2}))  # nothing is encoded twice
    assert feed.since(2) == (2, b"")
    feed.put(lambda: {"n": 3}, {"change": 3})
    assert feed.since(1) == (3, message({"change": 2}) + message({"change": 3}))
    for n in range(4, 4 + CHANGES):
        feed.put(lambda n=n: {"n": n}, {"change": n})
    last = 3 + CHANGES
    assert feed.since(2) == (last, message({"n": last}))  # it has missed too many
    assert feed.since(3) == (last, b"".join(message({"change": n}) for n in range(4, last + 1)))
    feed.put(lambda: {"n": "new"}, None)
    assert feed.since(last) == (last + 1, message({"n": "new"}))


def test_long_changes_are_not_kept() -> None:
    feed = Feed()
    feed.put(lambda: {"n": 1}, None)
    for n in (2, 3):
        feed.put(lambda n=n: {"n": n}, {"change": n * "x" * (BYTES // 4)})
    assert feed.since(2) == (3, message({"change": 3 * "x" * (BYTES // 4)}))
    assert feed.since(1) == (3, message({"n": 3}))


def test_the_state_is_encoded_once_for_many_pages() -> None:
    feed, begun = Feed(), threading.Event()
    asked: list[int] = []

    def state() -> dict[str, Any]:
        asked.append(1)
        begun.set()
        time.sleep(0.2)
        return {"n": 1}

    feed.put(state, None)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(feed.since, 0)
        begun.wait()
        feed.put(state, {"change": 2})  # meanwhile
        others = [threads.submit(feed.since, 0) for _ in range(7)]
        assert first.result() == (1, message({"n": 1}))
        assert {other.result() for other in others} == {(2, message({"n": 1}) + message({"change": 2}))}
    assert len(asked) == 1


def test_a_race_that_begins_later_grows_and_is_deleted(results: Results, tmp_path: Path, follow: Any) -> None:
    folder = tmp_path / "race"
    folder.mkdir()
    follower = follow(folder)
    name = results.plan.problem.name
    with follower.page(name) as feed:
        page = Heard(follower).look(feed)
        assert (page.hub["races"], page.hub["problem"], page.race) == ([], None, {})
        place = folder / "race.db"
        write(place, results, 2)
        page.look(feed)
        assert [race["name"] for race in page.hub["races"]] == [name]
        assert page.runs.keys() == {run.key for run in results.runs[:2]}
        assert not page.race["progress"]["complete"]
        with Store.open(place, results.plan) as store:
            under = results.runs[2]
            begun = Points(under.key, under.entry, under.phase, under.trial, under.seed, under.settings)
            store.stream([replace(begun, curve=Curve((0,), (0,), (0.0,), (2.0,), (2.0,), (0.1,)))])
            page.look(feed)
            assert page.runs[under.key]["status"] == "running"
            store.stream([replace(begun, first=1, curve=Curve((5,), (9,), (0.5,), (1.0,), (1.0,), (0.2,)))])
            page.look(feed)
            assert page.runs[under.key]["curve"]["step"] == [0, 5]
            assert page.race["progress"]["under"] == 1
        for run in results.runs[2:]:
            write(place, Results(results.plan, (run,)))
        page.look(feed)
        assert page.runs[under.key]["status"] == under.status
        assert (page.race["progress"]["done"], page.race["progress"]["complete"]) == (len(results.runs), True)
        for file in folder.iterdir():
            file.unlink()
        page.look(feed)
        assert "no longer in" in page.hub["problem"] or "there is no store" in page.hub["problem"]
        assert len(page.runs) == len(results.runs)  # as last read
        write(place, results, 3)
        page.look(feed)
        assert page.hub["problem"] is None
        assert page.runs.keys() == {run.key for run in results.runs[:3]}


def test_all_races_of_a_folder_of_folders(results: Results, tmp_path: Path, follow: Any) -> None:
    follower = follow(tmp_path)
    write(tmp_path / "a" / "race.db", results, 1)
    write(tmp_path / "suite" / "b" / "race.db", results)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "race.db").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    with follower.page("suite/b") as feed:
        page = Heard(follower).look(feed)
        assert [race["name"] for race in page.hub["races"]] == ["a", "suite/b"]
        assert "broken" in page.hub["problem"]
        assert len(page.runs) == len(results.runs)
        assert page.race["progress"]["race"] == "suite/b"  # which the page selects in the list of races


def test_a_page_of_no_race_leaves_nothing(results: Results, tmp_path: Path, follow: Any) -> None:
    follower = follow(Path(write(tmp_path / "race.db", results, 1)).parent)
    with follower.page("made up"), follower.page("made up"):
        follower.look()
    assert not follower._followed


FAULTS = {"foreseen": StoreError("the server went away"), "unforeseen": KeyError("the server went away")}


@pytest.mark.parametrize("what", ["results", "live", "stored"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_look_tells_what_one_that_failed_would_have(
    results: Results, fault: str, what: str, tmp_path: Path, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: Reader, race: str) -> Any:
        raise FAULTS[fault]

    follower, count = follow(tmp_path), len(results.runs)
    with follower.page(results.plan.problem.name) as feed:
        page = Heard(follower)
        for first, end in ((0, 2), (2, count)):
            write(tmp_path / "race.db", Results(results.plan, results.runs[first:end]))
            with monkeypatch.context() as broken:
                broken.setattr(Reader, what, lost)
                assert "the server went away" in page.look(feed).hub["problem"]
            page.look(feed)
            assert page.hub["problem"] is None
            assert page.runs.keys() == {run.key for run in results.runs[:end]}
            assert (page.race["progress"]["done"], page.race["progress"]["complete"]) == (end, end == count)


def test_faults_end_no_thread(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "EVERY", 0.01)
    place = write(tmp_path / "race.db", results, 2)
    stores = Stores(str(tmp_path))
    follower = Follower(stores, lambda: None)

    def wait(condition: Callable[[str], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not (follower.hub.version and condition(told(follower.hub.since(0)[1])[0]["hub"]["problem"] or "")):
            assert time.monotonic() < end
            time.sleep(0.02)

    def fails(*given: Any) -> Any:
        raise FileNotFoundError("it is gone")

    with monkeypatch.context() as broken:
        broken.setattr(Stores, "races", fails)
        broken.setattr("thalweg.verdict.judge", fails)
        follower.start()
        with follower.page(results.plan.problem.name) as feed:
            wait(lambda said: "the races cannot be read at present (FileNotFoundError: it is gone)" in said)
            broken.undo()
            broken.setattr("thalweg.verdict.judge", fails)
            wait(lambda said: "cannot be worked out (FileNotFoundError: it is gone)" in said)
            broken.undo()
            write(place, Results(results.plan, results.runs[2:]))

            def judged(said: str) -> bool:
                heard = (content["race"] for content in told(feed.since(0)[1]))
                verdict = [race["parts"]["verdict"] for race in heard if "parts" in race][-1]
                return not said and "accuracy" in verdict and "Still missing" not in verdict

            wait(judged)
    follower.stop()
    stores.close()


def test_the_verdict_so_far_says_what_is_missing(results: Results, tmp_path: Path, follow: Any) -> None:
    follower = follow(Path(write(tmp_path / "race.db", results, 2)).parent)
    with follower.page(results.plan.problem.name) as feed:
        page = Heard(follower).look(feed)
        [followed] = follower._followed.values()
        assert followed.first
        followed.judge()
        page.look(feed)
        assert "Still missing: sgd 1 trial and 2 replicates" in page.race["parts"]["verdict"]
        assert not followed.unjudged


def test_reading_makes_no_file_and_holds_up_no_race(results: Results, tmp_path: Path, follow: Any) -> None:
    place = tmp_path / "race.db"
    write(place, results, 3)
    alone = sorted(file.name for file in tmp_path.iterdir())
    name = results.plan.problem.name
    follower = follow(tmp_path)
    with follower.page(name) as feed:
        page = Heard(follower).look(feed)
        assert sorted(file.name for file in tmp_path.iterdir()) == alone
        with Store.open(place, results.plan, alone=True) as store:
            store.add(results.runs[3])
            beside = sorted(file.name for file in tmp_path.iterdir())
            assert "race.db-wal" in beside
            writing = sqlite3.connect(place, isolation_level=None)
            writing.execute("BEGIN IMMEDIATE")  # somebody is writing while it is read
            page.look(feed)
            writing.execute("ROLLBACK")
            writing.close()
            assert len(page.runs) == 4
            follower.look()
            store.add(results.runs[4])
            assert sorted(file.name for file in tmp_path.iterdir()) == beside
        # It could go back to one file; its lock may stay.
        assert sorted(file.name for file in tmp_path.iterdir() if not file.name.endswith(".lock")) == alone
        left = sqlite3.connect(place)
        left.execute("PRAGMA journal_mode = WAL")
        left.close()
        before = (place.read_bytes(), sorted(file.name for file in tmp_path.iterdir()))
        page.look(feed)
        assert len(page.runs) == 5
        assert (place.read_bytes(), sorted(file.name for file in tmp_path.iterdir())) == before


def _run(seconds: float, entry: str, key: str) -> Run:
    return Run(key, entry, "tune", 0, 0, {"lr": 0.1}, "SGD()", "finished", 1, 0.5, 0.5, seconds=seconds)


@pytest.mark.parametrize(
    ("times", "left", "expected"),
    [
        ([10.0, 20.0, 30.0], {"a": 3}, 30.0),  # one after another
        ([10.0, 15.0, 20.0], {"a": 2}, 10.0),  # on two workers
        ([10.0, 20.0, 90_000.0, 90_010.0, 90_020.0], {"a": 3}, 30.0),  # of a race that was interrupted
        ([10.0, 20.0, 30.0], {"b": 3}, 30.0),  # of an entry of which nothing is known yet
        ([10.0], {"a": 3}, float("nan")),
        ([], {"a": 3}, float("nan")),
    ],
)
def test_the_time_left_is_that_of_the_latest_pace(
    results: Results, times: list[float], left: dict[str, int], expected: float
) -> None:
    ended = tuple(_run(10.0, "a", str(i)) for i in range(len(times)))
    found = time_left(Results(results.plan, ended), left, {str(i): at for i, at in enumerate(times)})
    assert found == pytest.approx(expected, nan_ok=True)


@contextmanager
def served(place: Path | str, host: str = "127.0.0.1") -> Generator[Server]:
    server = Server(Stores(str(place)), host)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def asked(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request, read as far as it goes; of events the first."""
    connection = http.client.HTTPConnection("127.0.0.1", int(re.findall(r":(\d+)/", server.url)[0]), timeout=PATIENCE)
    connection.putrequest(method, path, skip_host="host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read(20) if path.startswith("/events") else answer.read()
    connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, text


def test_what_is_answered_and_to_whom(results: Results, tmp_path: Path) -> None:
    write(tmp_path / "race.db", results)
    with served(tmp_path) as server:
        port = server.url.rstrip("/").rpartition(":")[2]
        status, headers, text = asked(server, "/")
        assert status == 200
        nonce = re.findall(r"script-src 'nonce-([\w-]+)'", headers["content-security-policy"])
        assert text.decode().count(f'nonce="{nonce[0]}"') == 2
        assert nonce != re.findall(r"nonce-([\w-]+)'", asked(server, "/")[1]["content-security-policy"])
        for name in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert name in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert not {name for name in headers if name.startswith("access-control")}
        assert asked(server, "/", "HEAD")[0] == 200
        assert asked(server, "/events")[1]["content-type"].startswith("text/event-stream")
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "MADE-UP"):
            assert asked(server, "/", method)[0] in (400, 405)
        for path in ("/race.db", "/../race.db", "/..%2frace.db", "//etc/passwd", "/plotly.js/../race.db", "/%00"):
            assert asked(server, path)[0] in (400, 404)
        assert asked(server, f"/events?race=../../race.db&race={'x' * 5_000}")[0] == 200
        for host in (
            "evil.example",
            f"evil.example:{port}",
            "127.0.0.1",
            "127.0.0.1:1",
            f"127.0.0.1:{port}.evil.example",
        ):
            assert asked(server, "/", host=host)[0] == 421
        for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
            assert asked(server, "/", host=host)[0] == 200
        other = {"sec-fetch-site": "cross-site"}
        assert [asked(server, path, **other)[0] for path in ("/", "/events", "/plotly.js")] == [403] * 3
        link = {**other, "sec-fetch-mode": "navigate"}
        assert [asked(server, path, **link)[0] for path in ("/", "/events")] == [200, 403]


def test_browsers_leave_out_the_port_of_http() -> None:
    assert {"localhost", "127.0.0.1", "localhost:80"} <= hosts("127.0.0.1", 80)
    assert "localhost" not in hosts("127.0.0.1", 8474)


def test_another_interface_asks_for_the_token(results: Results, tmp_path: Path) -> None:
    write(tmp_path / "race.db", results)
    with served(tmp_path, "0.0.0.0") as server:
        token = server.token
        assert token
        assert server.url.endswith(f"/?token={token}")
        for path in ("/", "/events", "/plotly.js"):
            assert asked(server, path)[0] == 401
            assert asked(server, f"{path}?token={token[:-1]}{'y' if token[-1] == 'x' else 'x'}")[0] == 401
            assert asked(server, f"{path}?token={token}")[0] == 200
            assert asked(server, path, authorization=f"Bearer {token}")[0] == 200
            assert asked(server, path, authorization="Bearer \xe9")[0] == 401
        text = asked(server, f"/?token={token}")[2].decode()
        assert f"token={token}" in re.findall(r'src="(plotly[^"]*)"', text)[0]


def newer(place: Path) -> None:
    connection = sqlite3.connect(place)
    connection.execute("UPDATE thalweg SET version = 99")
    connection.commit()
    connection.close()


def foreign(place: Path) -> None:
    place.unlink()
    connection = sqlite3.connect(place)
    connection.execute("CREATE TABLE songs (name TEXT)")
    connection.commit()
    connection.close()


WRONG: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "nothing there": ("nowhere", lambda place: None, "there is no folder and no store"),
    "a foreign database": ("race", foreign, "something else"),
    "a truncated one": ("race", lambda place: place.write_bytes(place.read_bytes()[:9_000]), "cannot be used"),
    "no database": ("race", lambda place: place.write_text("text" * 500), "it is no race's store"),
    "a newer one": ("race", newer, "newer thalweg"),
    "a folder in place of the file": ("race/race.db/x", lambda place: None, "holds no race x"),
    "another file": ("race/notes.txt", lambda place: place.with_name("notes.txt").write_text("x" * 99), "no race's"),
    "no server": ("postgresql://me:secret@127.0.0.1:1/lab", lambda place: None, "127.0.0.1"),
    "no such database system": ("mysql://me:secret@host/lab", lambda place: None, "cannot be used"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_followed_is_one_sentence(
    results: Results, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, spoil, said = WRONG[what]
    if "://" in text and text.startswith("postgresql"):
        pytest.importorskip("psycopg")
    write(tmp_path / "race" / "race.db", results, 1)
    spoil(tmp_path / "race" / "race.db")
    monkeypatch.chdir(tmp_path)
    if what == "a folder in place of the file":
        Stores(text).close()  # a race of a store that may begin later
        return
    with pytest.raises(SystemExit) as end:
        main(["watch", text, "--no-browser"])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert "secret" not in err


def test_a_port_in_use_is_one_sentence(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "race.db", results, 1)
    with served(tmp_path) as server:
        port = server.url.rstrip("/").rpartition(":")[2]
        with pytest.raises(SystemExit) as end:
            main(["watch", str(tmp_path), "--no-browser", "--port", port])
    assert end.value.code == 2
    assert "it is in use" in capsys.readouterr().err


SLOW = """
import atexit, os, time
from thalweg import __main__
from thalweg.watch import feed
message = feed.message
def slow(content):
    time.sleep(float(os.environ["SECONDS"]))
    return message(content)
feed.message = slow
atexit.register(time.sleep, 2 * float(os.environ["SECONDS"]))  # the end may take a while, too
__main__.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("seconds", [0, 3])
def test_ctrl_c_ends_it_while_somebody_listens(seconds: int, results: Results, tmp_path: Path) -> None:
    """Also while something is being encoded for them."""
    write(tmp_path / "race.db", results)
    command = [sys.executable, "-c", SLOW, "watch", str(tmp_path), "--no-browser", "--port", "0"]
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, env={**os.environ, "SECONDS": str(seconds)}, **piped) as child:
        assert child.stdout
        address = child.stdout.readline().rpartition(" ")[2].strip()
        connection = http.client.HTTPConnection(address.split("/")[2], timeout=PATIENCE)
        connection.request("GET", "/events")
        assert connection.getresponse().read(40).startswith(b"retry")
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=PATIENCE)
        connection.close()
    assert child.returncode == 130
    assert err.splitlines() == ["thalweg: interrupted"]


RACE = """
import sys, time, thalweg
from pathlib import Path

def wait(event):
    while event.run and not Path(sys.argv[2]).exists():
        time.sleep(0.05)

race = thalweg.Race("logistic", ["sgd", "momentum"], trials=2, seeds=1, steps=1500, workers=1, store=sys.argv[1])
race.run(wait)
"""


def until(page: Any, condition: str) -> None:
    """Wait until an expression is true; Playwright's own waiting is forbidden by the page's policy."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(f"() => Boolean({condition})"):
        assert time.monotonic() < end, f"it never was: {condition}"
        time.sleep(0.2)


def test_a_page_grows_with_its_race(tmp_path: Path) -> None:
    folder = tmp_path / "race"
    folder.mkdir()
    gate = tmp_path / "gate"  # the race waits for it when its first run has ended
    with served(folder) as server, opened(server.url, dark=True) as (page, errors):
        until(page, "$('done').textContent.startsWith('Waiting')")
        place = str(folder / "race.db")
        command = [sys.executable, "-c", RACE, place, str(gate)]
        with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as race:
            try:
                until(page, "data.runs.some((run) => run.status !== 'running' && run.curve.step.length)")
                first = page.evaluate("data.runs.filter((run) => run.status !== 'running').length")
            finally:
                gate.touch()
            until(page, "progress?.complete")
            assert race.wait(PATIENCE) == 0
        assert first == 1
        records = Results.read(place)
        until(page, f"data.runs.length === {len(records.runs)}")
        verdict = "$('verdict').textContent"
        until(page, f"{verdict}.includes('accuracy') && !{verdict}.includes('Still missing')")
        assert f"{len(records.runs)} of {len(records.runs)} runs" in page.text_content("#done")
        assert {run.key for run in records.runs} == set(page.evaluate("data.runs.map((run) => run.key)"))
        assert sorted(file.name for file in folder.iterdir() if "lock" not in file.name) == ["race.db"]
    assert not errors


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_the_filter_drives_every_figure_and_a_reload_keeps_it(
    results: Results, width: int, dark: bool, tmp_path: Path
) -> None:
    write(tmp_path / "race.db", results)
    with served(tmp_path) as server, opened(server.url, width=width, dark=dark) as (page, errors):
        until(page, "$('curves').data && $('verdict').textContent.includes('accuracy') && $('ranking').data")
        names = "(id) => [...new Set($(id).data.map((trace) => trace.name).filter(Boolean))].sort()"
        assert page.evaluate(names, "ranking") == ["momentum", "sgd"]
        page.fill("#filter", "momentum lr<0.05")
        page.select_option("#of", "all")
        page.select_option("#y", "train_loss")
        page.locator("#keys button", has_text="1e6").click()

        def check() -> None:
            wanted = [r for r in results.runs if r.entry == "momentum" and r.settings["lr"] < 0.05]
            shown = page.evaluate("[...$('rows').children].map((row) => row.lastChild.title)")
            assert sorted(shown) == sorted(run.key for run in wanted)
            assert page.evaluate(names, "curves") == (["momentum"] if wanted else [])
            dots = page.evaluate("$('ranking').data.filter((t) => t.marker.symbol !== 'diamond').flatMap((t) => t.x)")
            kept = [run for run in results.replicates("momentum") if run in wanted]
            assert sorted(dots) == sorted(run.test_metric for run in kept)
            rates = page.evaluate("$('sensitivity').data.flatMap((trace) => trace.x)")
            assert sorted(rates) == sorted(run.settings["lr"] for run in wanted if run.phase == "tune")
            assert page.evaluate("[...$('keys').querySelectorAll('[aria-pressed=false]')].length") == 1

        check()
        page.reload()
        until(page, "$('curves').data && $('ranking').data && $('rows').children.length")
        assert page.input_value("#filter") == "momentum lr<0.05"
        assert page.input_value("#y") == "train_loss"
        check()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
    assert not errors


@pytest.mark.parametrize("name", [HOSTILE, "</script>" * 1_100 + "x" * 100], ids=["hostile", "long"])
def test_names_are_only_text(name: str, tmp_path: Path) -> None:
    write(tmp_path / "race.db", renamed(name))
    with served(tmp_path) as server, opened(server.url, width=390) as (page, errors):
        until(page, "$('curves').data && $('ranking').data && $('lost').textContent.includes('last')")
        assert page.evaluate("document.images.length") == 0
        assert page.evaluate("document.scripts.length") == 3
        assert page.title() != "x"
        text = page.inner_text("body")
        assert not set("\u202e\x1b") & set(text)
        assert "</script>" in text
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
    assert not errors


def test_a_lost_server_is_said_and_forgotten_when_it_is_back(
    results: Results, tmp_path: Path, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = follow(Path(write(tmp_path / "race.db", results)).parent)
    with follower.page(results.plan.problem.name) as feed:
        page = Heard(follower).look(feed)

        def lost(self: Reader) -> Any:
            raise StoreError("the server went away")

        with monkeypatch.context() as broken:
            broken.setattr(Reader, "races", lost)
            assert page.look(feed).hub["problem"] == "the server went away"
        assert page.look(feed).hub["problem"] is None


@pytest.mark.skipif(not HAS_PROC, reason="reads /proc to find processes")
def test_a_database_server_that_is_killed_and_comes_back(results: Results, tmp_path: Path, follow: Any) -> None:
    server = postgres.Server(tmp_path)
    try:
        server.start()
        store = server.url.set(drivername="postgresql").render_as_string()
        with Store.open(store, results.plan, name="mine") as writing:
            for run in results.runs[:3]:
                writing.add(run)
        follower = follow(store)
        with follower.page("mine") as feed:
            page = Heard(follower).look(feed)
            assert len(page.runs) == 3
            left = tree(server.pid)
            server.stop(signal.SIGKILL)
            for _ in range(2):
                assert "127.0.0.1" in page.look(feed).hub["problem"]
                assert len(page.runs) == 3
            wait_for(lambda: ended(left))
            server.start()
            with Store.open(store, results.plan, name="mine") as writing:
                for run in results.runs[3:5]:
                    writing.add(run)
            assert page.look(feed).hub["problem"] is None
            assert len(page.runs) == 5
    finally:
        server.stop()


def working() -> set[threading.Thread]:
    """All threads but those of the event loop's pool, which grows with the machine."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio")}


def test_many_pages_are_told_by_one_look(results: Results, tmp_path: Path) -> None:
    write(tmp_path / "race.db", results, 2)
    with served(tmp_path) as server:
        before = working()
        connections = [http.client.HTTPConnection(server.url.split("/")[2], timeout=PATIENCE) for _ in range(20)]
        for connection in connections:
            connection.request("GET", "/events")
            assert connection.getresponse().read(40).startswith(b"retry")
        assert working() <= before
        for connection in connections:
            connection.close()
