"""Many races with many faults, and what there is left of them."""

import os
import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from random import Random

from processes import ended, prepare, tree, wait_for
from soak.places import Place, Postgres, Ray, Sqlite
from soak.race import Soaked

_PLACES: Mapping[str, type[Place]] = {"sqlite": Sqlite, "postgresql": Postgres, "ray": Ray}
_SHARES = {"sqlite": 2, "postgresql": 2, "ray": 1}
"""How many faults of each place, in proportion; on Ray they take longest."""
_PER_RACE = 4


def soak(
    folder: Path, places: Sequence[str], count: int, seed: int = 0, say: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Counter[str]], list[str]]:
    """Have `count` faults in races at these places, every kind that there is, in turn.

    Returns:
        How many of each kind there were, by place; and what went wrong: what was lost, counted twice or left behind,
        and verdicts that are not as undisturbed.
    """
    prepare()
    forkserver.ensure_running()  # from which commands are forked, and which stays
    found: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    whole = sum(_SHARES[name] for name in places)
    for name in places:
        before = tree(os.getpid())
        inside = folder / name
        inside.mkdir()
        place = _PLACES[name](inside)
        try:
            found[name] = _at(place, max(count * _SHARES[name] // whole, 1), Random(seed), say, wrong)
        finally:
            place.close()
        left = tree(os.getpid()) - before
        wait_for(lambda left=left: ended(left), patience=60)
    return found, wrong


def _at(place: Place, count: int, chance: Random, say: Callable[[str], None], wrong: list[str]) -> Counter[str]:
    kinds = [*reversed([*place.faults]), "two drivers"]  # what only this place has comes first
    script = [kinds[i % len(kinds)] for i in range(count)]
    chance.shuffle(script)
    faults, counts = deque(script), Counter[str]()
    place.renew()
    undisturbed = Soaked(place, "undisturbed", 0)
    undisturbed.disturbed(deque(), chance)
    wanted = undisturbed.verdict()
    for number in range(10 * count):
        if not faults:
            break
        place.renew()
        race = Soaked(place, f"race-{number}", 0)
        some = deque(faults.popleft() for _ in range(min(_PER_RACE, len(faults))))
        planned = [*some]
        try:
            race.disturbed(some, chance)
            assert race.verdict() == wanted, "the verdict is another"
        except AssertionError:
            wrong.append(f"{type(place).__name__}, race {number}, {planned}:\n{traceback.format_exc()}")
            say(wrong[-1])
        faults.extendleft(reversed(some))  # those that came too late
        counts += race.counts
        say(f"{type(place).__name__}: {counts.total()} of {count} faults after race {number}: {dict(race.counts)}")
    return counts
