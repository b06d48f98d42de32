"""What watching costs a race: docs/watching.md.

    python benchmarks/watching.py viewers --viewers 50 --rounds 12
    python benchmarks/watching.py points --points 100000 --runs 20

A race keeps two processors busy; the runs that it does in a minute with and without open pages are compared in turns,
which come in pairs, either first.  Pages are read by another process, which does nothing but read.  What the command
that watches takes of a processor is measured, too, since that is less noisy.
"""

import argparse
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scipy import stats

from thalweg import problems
from thalweg.race import Entry, course
from thalweg.race import plan as planning
from thalweg.store import Curve, Plan, Run, Store
from thalweg.watch import Follower, Server, Stores

_RACER = """
import sys, time, thalweg
if __name__ == "__main__":
    race = thalweg.Race("digits", ["sgd", "adam"], trials=8192, seeds=5, steps=300, workers=2, populations="never",
                        store=sys.argv[1])
    race.run(lambda event: print(time.time(), flush=True) if event.run else None)
"""
_VIEWER = """
import selectors, socket, sys
host, race, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
name, _, port = host.partition(":")
chosen = selectors.DefaultSelector()
for _ in range(count):
    opened = socket.create_connection((name, int(port)))
    opened.sendall(f"GET /events?race={race} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
    chosen.register(opened, selectors.EVENT_READ)
print("open", flush=True)
while True:
    for key, _ in chosen.select():
        key.fileobj.recv(1 << 16)
"""


def viewers(count: int, rounds: int, seconds: float) -> None:
    """Print the runs per minute of a race without pages and with so many."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "racer.py"
        file.write_text(_RACER, encoding="utf-8")
        command = [sys.executable, str(file), str(Path(folder) / "race.db")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as racer:
            assert racer.stdout
            for _ in range(50):  # until all is loaded
                racer.stdout.readline()
            server = Server(Stores(folder))
            server.start()
            rates: dict[int, list[float]] = {0: [], count: []}
            took: dict[int, list[float]] = {0: [], count: []}
            for turn in range(2 * rounds):
                pages = count if turn % 4 in (1, 2) else 0
                began, cpu = time.perf_counter(), time.process_time()
                reading = _reading(server, pages) if pages else None  # which are told all when they open
                rates[pages].append(_pace(racer, seconds))
                took[pages].append((time.process_time() - cpu) / (time.perf_counter() - began))
                if reading is not None:
                    reading.kill()
                    reading.wait()
            racer.kill()
            racer.stdout.close()
            server.stop()
    for pages, found in rates.items():
        said = f"{statistics.median(found):.0f} runs per minute in the median, {min(found):.0f} to {max(found):.0f}"
        of_own = statistics.fmean(took[pages])
        print(f"{pages:3} pages: {said}; watching takes {of_own:.2%} of a processor in the mean", flush=True)
    logs = [math.log(b / a) for a, b in zip(rates[0], rates[count], strict=True)]
    mean = statistics.fmean(logs)
    reach = stats.t.ppf(0.975, rounds - 1) * statistics.stdev(logs) / math.sqrt(rounds)
    print(
        f"with to without: {math.exp(mean):.4f} in the mean of {rounds} pairs of turns, 95 % interval "
        f"{math.exp(mean - reach):.4f} to {math.exp(mean + reach):.4f}"
    )


def _reading(server: Server, count: int) -> "subprocess.Popen[str]":
    """A process that reads so many pages."""
    command = [sys.executable, "-c", _VIEWER, server.url.split("/")[2], "digits", str(count)]
    reading = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert reading.stdout
    reading.stdout.readline()
    return reading


def _pace(racer: "subprocess.Popen[str]", seconds: float) -> float:
    """The runs per minute of the next seconds."""
    assert racer.stdout
    begun = time.time()
    first, last, runs = 0.0, 0.0, 0
    while last < begun + seconds:
        last = float(racer.stdout.readline())
        if last >= begun:
            runs, first = (runs + 1, first) if first else (0, last)
    return 60 * runs / (last - first)


def _race(points: int, runs: int) -> tuple[Plan, list[Run]]:
    """So many points in the curves of so many runs."""
    entries = [Entry("sgd"), Entry("adam")]
    plan = planning.make(
        problems.get("logistic"), entries, trials=runs // 2, seeds=1, steps=points, seed=0, finalists=3
    )
    tasks, each = course.tasks(plan, {}), points // runs
    steps = tuple(range(each))
    noise = tuple(1 / (1 + s / 500) + 0.05 * ((7919 * s) % 101) / 101 for s in steps)
    curve = Curve(steps, steps, tuple(map(float, steps)), noise, noise, tuple(1 - x for x in noise))
    return plan, [
        Run(
            t.key, t.entry, t.phase, t.trial, t.seed, dict(t.tuned), "SGD()", "finished", each - 1, 0.9, 0.1,
            curve=curve, seconds=1.0,
        )
        for t in tasks
    ]  # fmt: skip


def points(count: int, runs_in_all: int) -> None:
    """Print what a race of so many points takes to look at, and what a page is sent."""
    with tempfile.TemporaryDirectory() as folder:
        plan, runs = _race(count, runs_in_all)
        with Store.open(Path(folder) / "race.db", plan) as store:
            for run in runs:
                store.add(run)
        stores = Stores(folder)
        follower = Follower(stores, lambda: None)
        with follower.page(plan.problem.name) as feed:
            for what in ("first look", "second look"):
                began = time.thread_time()
                follower.look()
                print(f"{what}: {1000 * (time.thread_time() - began):.0f} ms")
            began = time.thread_time()
            text = feed.since(0)[1]
            print(f"a page is sent {len(text) / 1e6:.2f} MB, encoded in {1000 * (time.thread_time() - began):.0f} ms")
        stores.close()
        if chromium := _drawn(folder):
            print(chromium)


def _drawn(folder: str) -> str:
    """What the browser takes to draw it again, where there is one."""
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium")
    if browser is None:
        return ""
    server = Server(Stores(folder))
    server.start()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page()
        page.goto(server.url)
        while not page.evaluate("() => Boolean(begun && data.runs.length)"):
            time.sleep(0.1)
        shown = page.evaluate("data.runs.reduce((n, run) => n + run.curve.step.length, 0)")
        took = page.evaluate(
            """async () => {
                chosen.as = "lines";
                const all = [];
                for (let i = 0; i < 7; i++) {
                    const at = performance.now();
                    known.clear(); // as if all had changed
                    redraw();
                    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
                    all.push(performance.now() - at);
                }
                return all.sort((a, b) => a - b)[3];
            }"""
        )
        opened.close()
    server.stop()
    return f"{shown:,} points in the page, 200 runs as lines at most: drawn anew in {took:.0f} ms"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["viewers", "points"])
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=20)
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("a spread needs two rounds at least")
    if given.what == "viewers":
        viewers(given.viewers, given.rounds, given.seconds)
    else:
        points(given.points, given.runs)
