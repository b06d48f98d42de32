"""Follows races in a thread: one look at the store about once a second, for all pages together.

A look costs the machine that races something.  So nothing is looked at while no page is open, and the time between two
looks grows with what a look takes, as does that between two verdicts.  (The threads do not give way by a priority: if
one that holds the interpreter's lock has to wait for a processor, nobody answers.)
"""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import psutil

from thalweg import verdict
from thalweg.race import course
from thalweg.report import race as report
from thalweg.report import runs
from thalweg.store import Held, Points, Results, Run, StoreError
from thalweg.watch.feed import Feed
from thalweg.watch.progress import progress
from thalweg.watch.stores import Stores

EVERY = 1.0
"""Seconds between two looks, at least."""
_SHARE = 1 / 30
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
            self._pages[race] = self._pages.get(race, 0) + 1
            followed = self._followed.setdefault(race, Followed())
        self._wanted.set()
        try:
            yield followed.feed
        finally:
            with self._lock:
                self._pages[race] -= 1
                if not self._pages[race]:
                    del self._pages[race]

    def latest(self) -> str | None:
        """The race to show where none is asked for: the one that the user named, or the last to have stored a run."""
        if self._stores.first is not None:
            return self._stores.first
        held = dict(self._held)
        return max(held, key=lambda name: held[name].last or held[name].since or 0.0, default=None)

    def look(self) -> None:
        """Look once, and tell what is new."""
        self._held = self._stores.races()
        with self._lock:
            open_ = [(name, self._followed[name]) for name in self._pages]
        problem = self._stores.problem
        for name, followed in open_:
            if name in self._held:
                try:
                    reader, own = self._stores.where(name)
                    followed.look(self._held[name], reader.results, reader.live, reader.stored, own)
                except StoreError as error:  # what was told before is still shown
                    problem = problem or str(error)
            elif followed.feed.version and not problem:
                problem = f"the race {name} is no longer in {self._stores.name}; it is shown as it was last read"
        if any(followed.unjudged for _, followed in open_):
            self._to_judge.set()
        hub = {"hub": {
            "store": self._stores.name, "problem": problem, "now": time.time(), "machine": machine(),
            "races": [{"name": name, "problem": held.plan.problem.name} for name, held in self._held.items()],
        }}  # fmt: skip
        self.hub.put(lambda: hub, hub)
        self._told()

    def _looking(self) -> None:
        took = 0.0
        while not self._over:
            if not self._pages and self.hub.version:
                self._wanted.wait()
            self._wanted.clear()
            began = time.thread_time()
            self.look()
            before, took = took, time.thread_time() - began
            pause = max(EVERY, min(before, took) / _SHARE)  # the first look of a race takes longer than others
            end = time.monotonic() + pause
            while (left := end - time.monotonic()) > 0 and not self._over:
                if self._wanted.wait(left):  # a new page: at once if it is of another race
                    self._wanted.clear()
                    if any(not self._followed[name].feed.version for name in list(self._pages)):
                        break

    def _judging(self) -> None:
        while not self._over:
            self._to_judge.wait()
            self._to_judge.clear()
            with self._lock:
                open_ = [self._followed[name] for name in self._pages]
            for followed in open_:
                if followed.unjudged and not self._over:
                    began = time.thread_time()
                    followed.judge()
                    self._told()
                    self._rest((time.thread_time() - began) / _SHARE, followed)

    def _rest(self, seconds: float, judged: "Followed") -> None:
        """Wait before the next verdict, unless the race has come to its end meanwhile."""
        end = time.monotonic() + max(seconds, EVERY)
        while time.monotonic() < end and not self._over and not (judged.complete and judged.unjudged):
            with self._lock:
                if any(self._followed[name].first for name in self._pages):
                    return
            time.sleep(0.2)


class Followed:
    """A race that is followed.

    Attributes:
        feed: what its pages are told.
        complete: whether it has come to its end.
    """

    def __init__(self) -> None:
        self.feed = Feed()
        self.complete = False
        self._lock = threading.Lock()
        self._known: tuple[Any, ...] | None = None
        self._hash = ""
        self._state: dict[str, Any] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        self._running: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._results: Results | None = None
        self._stored: dict[str, float] = {}
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

    def look(
        self,
        held: Held,
        results: Callable[[str], Results],
        live: Callable[[str], tuple[Points, ...]],
        stored: Callable[[str], Any],
        name: str,
    ) -> None:
        """Note what is new in the store, and tell it."""
        told: dict[str, Any] = {}
        fresh = whole = self._hash != held.hash
        if (held.hash, held.ended, held.last) != self._known:
            found, self._stored = results(name), dict(stored(name))
            plan = found.plan
            found = Results(plan, course.ended(plan, found.runs))
            left = course.ahead(plan, {run.key: run for run in found.runs})
            told["progress"] = progress(found, left, self._stored)
            told["kept"] = runs.kept(found)
            points = runs.most(len(found.runs))
            if whole or points != self._points:
                self._ended, whole = {}, True
            self._points = points
            self.complete = told["progress"]["complete"]
            self._results = found
            self._known, self._hash = (held.hash, held.ended, held.last), held.hash
        assert self._results is not None
        under = live(name)
        told |= self._runs(self._results, under)
        with self._lock:
            before = self._state
            state = before | {name: x for name, x in told.items() if name not in ("runs", "gone")}
            if fresh:
                state |= {"about": runs.about(held.plan, ()), "title": report.title(held.plan)}
                state["parts"] = report.parts(self._results, None)
            shown = state["progress"] | {"race": name, "under": len(under)}
            if told.get("runs") or told.get("gone") or "news" not in shown:
                shown["news"] = time.time() if before else held.last or held.since or time.time()
            state["progress"] = shown
            change = {k: x for k, x in state.items() if x is not before.get(k) and x != before.get(k)}
            change |= {k: x for k in ("runs", "gone") if (x := told.get(k))}
            self._state = state
            self._tell(change, whole)

    def _runs(self, results: Results, live: Iterable[Points]) -> dict[str, Any]:
        """The runs that are new or have grown, and the keys of those that are gone."""
        plan = results.plan
        new: list[Run] = [run for run in results.runs if run.key not in self._ended]
        changed = {run["key"]: run for run in runs.ended(plan, new, self._points)}
        there = {run.key for run in results.runs}
        under = [points for points in live if points.key not in there]
        most = min(self._points, runs.most(8 * len(under)))
        for points in under:
            grown = (len(points.curve.step), points.curve.step[-1:], most)
            if self._running.get(points.key, (None,))[0] != grown:
                [run] = runs.running(plan, [points], most)
                self._running[points.key] = grown, run
                changed[points.key] = run
        keys = {points.key for points in under}
        gone = [key for key in self._running if key not in keys | there] + [k for k in self._ended if k not in there]
        for key in [key for key in self._running if key not in keys]:
            del self._running[key]
        self._ended = {k: run for k, run in (self._ended | changed).items() if k in there}
        return {"runs": list(changed.values()), "gone": gone}

    def judge(self) -> None:
        """Judge the results that there are, and tell it."""
        results = self._results
        assert results is not None
        found = verdict.judge(results)
        lost = [run for run in results.runs if run.status in ("diverged", "failed")]
        lost.sort(key=lambda run: self._stored.get(run.key, 0.0))
        parts = report.parts(results, found, lost)
        about = runs.about(results.plan, found.rows)
        with self._lock:
            self._judged = results
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


def machine() -> dict[str, Any]:
    """How busy this machine is: processors in percent, memory in bytes, and how many processes want to run."""
    memory = psutil.virtual_memory()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processors": psutil.cpu_percent(), "used": memory.total - memory.available, "memory": memory.total,
        "load": load, "cores": psutil.cpu_count() or 1,
    }  # fmt: skip
