"""``python -m soak --count 200``: see `soak`."""

import argparse
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from processes import adopting
from soak.many import soak


def main() -> None:
    """Run the soak, and print how many faults of each kind there were."""
    parser = argparse.ArgumentParser(description="Scripted faults in races.")
    parser.add_argument("--count", type=int, default=200, help="how many faults")
    parser.add_argument("--seed", type=int, default=0, help="where chance begins")
    parser.add_argument("--places", default="sqlite,postgresql,ray", help="where")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, adopting():
        counts, wrong = soak(Path(folder), given.places.split(","), given.count, given.seed, say=_say)
    total = sum(sum(count.values()) for count in counts.values())
    for place, count in counts.items():
        print(f"{place}: {', '.join(f'{n} × {name}' for name, n in sorted(count.items()))}")
    if wrong:
        sys.exit(f"{total} faults; {len(wrong)} races went wrong, as above")
    print(f"{total} faults; nothing lost, nothing twice, every verdict as undisturbed, no process left")


def _stop(number: int, frame: object) -> None:
    sys.exit(128 + number)  # so that what has been started and mounted is undone


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


if __name__ == "__main__":
    main()
