"""Follows races in a thread: one look at the store about once a second, for all pages together.

A look costs the machine that races something.  So nothing is looked at while no page is open, and the time between two
looks grows with what a look takes, as does that between two verdicts.  (The threads do not give way by a priority: if
one that holds the interpreter's lock has to wait for a processor, nobody answers.)
"""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import psutil

from thalweg import verdict
from thalweg.race import course
from thalweg.report import race as report
from thalweg.report import runs
from thalweg.store import Held, Points, Reader, Results, Run, StoreError
from thalweg.watch.feed import Feed
from thalweg.watch.progress import progress
from thalweg.watch.stores import Stores

EVERY = 1.0
"""Seconds between two looks, at least."""
_SHARE = 1 / 60
"""The share of a processor that looks may take, and that verdicts may take, which have another thread."""


class Follower:
    """Follows the races of some stores.

    Args:
        stores: the stores.
        told: called when there is something new, in any thread.

    Attributes:
        hub: what every page is told: the races, what is wrong, and how busy the machine is.
    """

    def __init__(self, stores: Stores, told: Callable[[], None]) -> None:
        self.hub = Feed()
        self._stores, self._told = stores, told
        self._pages: dict[str, int] = {}
        self._followed: dict[str, Followed] = {}
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()
        self._wanted, self._over = threading.Event(), False
        self._threads = [threading.Thread(target=do, daemon=True) for do in (self._looking, self._judging)]
        self._to_judge = threading.Event()

    def start(self) -> None:
        """Begin to look."""
        psutil.cpu_percent()  # the next one tells of the time since this one
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over = True
        self._wanted.set()
        self._to_judge.set()

    @contextmanager
    def page(self, race: str) -> Generator[Feed]:
        """While a page of this race is open, it is followed; gives what the page is told.  "" is for no race yet."""
        with self._lock:
            followed = self._followed.setdefault(race, Followed())
            self._pages[race] = self._pages.get(race, 0) + 1
        self._wanted.set()
        try:
            yield followed.feed
        finally:
            with self._lock:
                self._pages[race] -= 1
                if not self._pages[race]:
                    del self._pages[race]
                    if not followed.feed.version:  # there never was such a race
                        del self._followed[race]

    def latest(self) -> str | None:
        """The race to show where none is asked for: the one that the user named, or the last to have stored a run."""
        if self._stores.first is not None:
            return self._stores.first
        held = dict(self._held)
        return max(held, key=lambda name: held[name].last or held[name].since or 0.0, default=None)

    def look(self) -> None:
        """Look once, and tell what is new."""
        self._held = self._stores.races()
        open_ = self._open()
        problem = self._stores.problem
        for name, followed in open_:
            if name in self._held:
                try:
                    reader, own = self._stores.where(name)
                    followed.look(name, self._held[name], reader, own)
                except StoreError as error:  # what was told before is still shown
                    problem = problem or str(error)
                except Exception as error:  # such as of a race that gets another entry between two reads
                    problem = problem or _said(f"the race {name} cannot be read at present", error)
            elif followed.feed.version and not problem:
                problem = f"the race {name} is no longer in {self._stores.name}; it is shown as it was last read"
            problem = problem or followed.fault
        if any(followed.unjudged for _, followed in open_):
            self._to_judge.set()
        self._tell(problem)

    def _open(self) -> "list[tuple[str, Followed]]":
        """The races of which pages are open."""
        with self._lock:
            return [(name, self._followed[name]) for name in self._pages]

    def _tell(self, problem: str | None) -> None:
        """Tell all pages of the races that there are, and what is wrong."""
        hub = {"hub": {
            "store": self._stores.name, "problem": problem, "now": time.time(), "machine": machine(),
            "races": [{"name": name, "problem": held.plan.problem.name} for name, held in self._held.items()],
        }}  # fmt: skip
        self.hub.put(lambda: hub, None)
        self._told()

    def _looking(self) -> None:
        took = 0.0
        while not self._over:
            if not self._pages and self.hub.version:
                self._wanted.wait()
            self._wanted.clear()
            began = time.thread_time()
            try:
                self.look()
            except Exception as error:  # such as of a folder that is deleted while it is searched
                self._tell(_said("the races cannot be read at present", error))
            before, took = took, time.thread_time() - began
            pause = max(EVERY, min(before, took) / _SHARE)  # the first look of a race takes longer than others
            end = time.monotonic() + pause
            while (left := end - time.monotonic()) > 0 and not self._over:
                if self._wanted.wait(left):  # a new page: at once if it is of another race
                    self._wanted.clear()
                    if any(not followed.feed.version for _, followed in self._open()):
                        break

    def _judging(self) -> None:
        while not self._over:
            self._to_judge.wait()
            self._to_judge.clear()
            for name, followed in self._open():
                if followed.unjudged and not self._over:
                    began = time.thread_time()
                    try:
                        followed.judge()
                        self._told()
                    except Exception as error:  # told by the next look
                        followed.fault = _said(
                            f"the verdict so far on {name} cannot be worked out", error, " when more runs have ended"
                        )
                    self._rest((time.thread_time() - began) / _SHARE, followed)

    def _rest(self, seconds: float, judged: "Followed") -> None:
        """Wait before the next verdict, unless the race has come to its end meanwhile."""
        end = time.monotonic() + max(seconds, EVERY)
        while time.monotonic() < end and not self._over and not (judged.complete and judged.unjudged):
            if any(followed.first for _, followed in self._open()):
                return
            time.sleep(0.2)


class Followed:
    """A race that is followed.

    Attributes:
        feed: what its pages are told.
        complete: whether it has come to its end.
        fault: why there is no verdict on the latest results, or None.
    """

    def __init__(self) -> None:
        self.feed = Feed()
        self.complete = False
        self.fault: str | None = None
        self._lock = threading.Lock()
        self._known: tuple[Any, ...] | None = None
        self._hash = ""
        self._state: dict[str, Any] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        self._running: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._results: Results | None = None
        self._stored: Mapping[str, float] = {}
        self._judged: Results | None = None
        self._points = 0

    @property
    def unjudged(self) -> bool:
        """Whether there are results that the verdict does not know of."""
        return self._results is not None and self._judged is not self._results

    @property
    def first(self) -> bool:
        """Whether there are results, and no verdict yet."""
        return self._judged is None and self.unjudged

    def look(self, label: str, held: Held, reader: Reader, name: str) -> None:
        """Note what is new in the store, and tell it; where anything cannot be read, all stays as it was.

        Args:
            label: the name of the race for pages.
            held: the race, as it is in the store now.
            reader: reads the store.
            name: the name of the race in the store.
        """
        told: dict[str, Any] = {}
        now = (held.hash, held.ended, held.last)
        fresh = whole = self._hash != held.hash
        found, stored, points, ended = self._results, self._stored, self._points, self._ended
        under = reader.live(name)  # first: a run that ends meanwhile is among the results
        if found is None or now != self._known:
            read, stored = reader.results(name), dict(reader.stored(name))
            found = Results(read.plan, course.ended(read.plan, read.runs))
            left = course.ahead(read.plan, {run.key: run for run in found.runs})
            told["progress"] = progress(found, left, stored)
            told["kept"] = runs.kept(found)
            points = runs.most(len(found.runs))
            if whole or points != self._points:
                ended, whole = {}, True
        changed, gone, ended, running = _drawn(found, under, points, ended, self._running)
        with self._lock:
            before = self._state
            state = before | told
            if fresh:
                state |= {"about": runs.about(held.plan, ()), "title": report.title(held.plan)}
                state["parts"] = report.parts(found, None)
            shown = state["progress"] | {"race": label, "under": len(under)}
            if changed or gone or "news" not in shown:
                shown["news"] = time.time() if before else held.last or held.since or time.time()
            state["progress"] = shown
            change = {k: x for k, x in state.items() if x is not before.get(k) and x != before.get(k)}
            change |= {k: x for k, x in (("runs", changed), ("gone", gone)) if x}
            # All at once: a look that fails before has done nothing, and the next one tells what it would have told.
            self._known, self._hash, self.complete = now, held.hash, shown["complete"]
            self._results, self._stored, self._points = found, stored, points
            self._ended, self._running, self._state = ended, running, state
            self._tell(change, whole)

    def judge(self) -> None:
        """Judge the results that there are, and tell it."""
        with self._lock:
            results, stored = self._results, self._stored
        assert results is not None
        try:
            found = verdict.judge(results)
            lost = [run for run in results.runs if run.status in ("diverged", "failed")]
            lost.sort(key=lambda run: stored.get(run.key, 0.0))
            parts = report.parts(results, found, lost)
            about = runs.about(results.plan, found.rows)
        except Exception:
            self._judged = results  # and not tried again until there are others
            raise
        with self._lock:
            self._judged, self.fault = results, None
            if results.plan.hash != self._plan_hash():
                return
            before = self._state.get("parts", {})
            change: dict[str, Any] = {"parts": {n: x for n, x in parts.items() if x != before.get(n)}}
            if about != self._state.get("about"):
                change["about"] = about
            self._state = self._state | {"parts": parts, "about": about}
            self._tell(change, False)

    def _plan_hash(self) -> str:
        return "" if self._results is None else self._results.plan.hash

    def _tell(self, change: dict[str, Any], whole: bool) -> None:
        """Tell a change, unless there is none; the lock is held."""
        if not change and not whole:
            return

        def state() -> dict[str, Any]:
            with self._lock:
                every = [*self._ended.values(), *(run for _, run in self._running.values())]
                return {"whole": True, "race": self._state | {"runs": every}}

        self.feed.put(state, None if whole else {"race": change})


def _drawn(
    results: Results,
    under: Iterable[Points],
    points: int,
    ended: dict[str, dict[str, Any]],
    running: dict[str, tuple[Any, dict[str, Any]]],
) -> tuple[list[dict[str, Any]], list[str], dict[str, dict[str, Any]], dict[str, tuple[Any, dict[str, Any]]]]:
    """The runs that are new or have grown, the keys of those that are gone, and what `ended` and `running` are now.

    Args:
        results: the runs that have ended.
        under: those that are under way.
        points: how many points a curve may have.
        ended: the runs that had ended, as they are drawn, by their keys.
        running: those that were under way, each after what tells whether it has grown.
    """
    plan = results.plan
    new: list[Run] = [run for run in results.runs if run.key not in ended]
    changed = {run["key"]: run for run in runs.ended(plan, new, points)}
    there = {run.key for run in results.runs}
    left = [some for some in under if some.key not in there]
    most = min(points, runs.most(8 * len(left)))
    now: dict[str, tuple[Any, dict[str, Any]]] = {}
    for some in left:
        grown = (len(some.curve.step), some.curve.step[-1:], most)
        if some.key in running and running[some.key][0] == grown:
            now[some.key] = running[some.key]
        else:
            [run] = runs.running(plan, [some], most)
            now[some.key] = grown, run
            changed[some.key] = run
    gone = [key for key in running if key not in now and key not in there]
    gone += [key for key in ended if key not in there]
    ended = {key: run for key, run in (ended | changed).items() if key in there}
    return list(changed.values()), gone, ended, now


def _said(what: str, error: Exception, again: str = "") -> str:
    """A sentence about a fault that nobody has foreseen."""
    why = " ".join(str(error).split())[:300]
    return f"{what} ({type(error).__name__}{f': {why}' if why else ''}); it is tried again{again}"


def machine() -> dict[str, Any]:
    """How busy this machine is: processors in percent, memory in bytes, and how many processes want to run."""
    memory = psutil.virtual_memory()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processors": psutil.cpu_percent(), "used": memory.total - memory.available, "memory": memory.total,
        "load": load, "cores": psutil.cpu_count() or 1,
    }  # fmt: skip
