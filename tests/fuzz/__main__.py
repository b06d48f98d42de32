"""``python -m fuzz``: try many random programs, or one."""

import argparse
import collections
import os
import sys
import threading
import time

from fuzz import draw, shrink
from fuzz.children import Outcome, Server

CHUNK = 50


def campaign(seeds: range, workers: int) -> dict[int, Outcome]:
    """Run the programs of these seeds; returns the outcomes of those that failed, by seed."""
    chunks = iter([seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK)])
    failed: dict[int, Outcome] = {}
    lock, done, begun = threading.Lock(), 0, time.monotonic()

    def work() -> None:
        nonlocal done
        with Server() as server:
            while True:
                with lock:
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                outcomes = list(zip(chunk, server.run([draw.program(seed) for seed in chunk]), strict=True))
                with lock:
                    failed.update({seed: outcome for seed, outcome in outcomes if outcome.difference is not None})
                    done += len(chunk)
                    rate = done / (time.monotonic() - begun)
                    print(
                        f"\r{done} of {len(seeds)}, {rate:.0f} per second, {len(failed)} failed ",
                        end="",
                        file=sys.stderr,
                    )

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(file=sys.stderr)
    return failed


def report(failed: dict[int, Outcome]) -> None:
    """Print the kinds of failure, the most frequent first, with the first seeds of each."""
    kinds = collections.defaultdict[str, list[int]](list)
    for seed, outcome in sorted(failed.items()):
        assert outcome.difference is not None
        kinds[outcome.difference.kind].append(seed)
    for kind, seeds in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"{len(seeds):6}  {kind}: seeds {', '.join(map(str, seeds[:12]))}{' …' if len(seeds) > 12 else ''}")


def one(seed: int, small: bool) -> bool:
    """Print the program of a seed, shortened if it fails and `small`, with its outcome; returns whether it passed."""
    program = draw.program(seed)
    with Server() as server:
        (outcome,) = server.run([program])
        if outcome.difference is not None and small:
            outcome = shrink.shrink(outcome, server)
    print(f"# seed {seed}\n{outcome.program}")
    if outcome.difference is None:
        print("# passes")
        return True
    print(f"# line {outcome.difference.line + 1} {outcome.difference.kind}: {outcome.difference.text}")
    return False


def main() -> int:
    """Read the arguments and run; returns the exit status."""
    parser = argparse.ArgumentParser("python -m fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="number of programs")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="number of processes")
    parser.add_argument("--seed", type=int, help="run only this seed, and print its program")
    parser.add_argument("--whole", action="store_true", help="with --seed: do not shorten it")
    given = parser.parse_args()
    if given.seed is not None:
        return not one(given.seed, not given.whole)
    failed = campaign(range(given.first, given.first + given.count), given.workers)
    report(failed)
    print(f"{len(failed)} of {given.count} failed" + ("; see --seed" if failed else ""))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
