"""Many races with many faults, and what there is left of them."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from random import Random

from processes import ended, tree, wait_for
from soak.places import Place, Postgres, Ray, Sqlite
from soak.race import Soaked

_PLACES: Mapping[str, type[Place]] = {"sqlite": Sqlite, "postgresql": Postgres, "ray": Ray}
_SHARES = {"sqlite": 5, "postgresql": 5, "ray": 1}
"""How many faults of each place, in proportion; on Ray they take longest."""
_PER_RACE = 4


def soak(
    folder: Path, places: Sequence[str], count: int, seed: int = 0, say: Callable[[str], None] = lambda _: None
) -> dict[str, Counter[str]]:
    """Have about `count` faults in races at these places, every kind that there is, in turn.

    Returns:
        How many of each kind there were, by place.

    Raises:
        AssertionError: something was lost, counted twice or left behind, or a verdict is another.
    """
    forkserver.ensure_running()  # from which commands are forked, and which stays
    found: dict[str, Counter[str]] = {}
    whole = sum(_SHARES[name] for name in places)
    for name in places:
        before = tree(os.getpid())
        inside = folder / name
        inside.mkdir()
        place = _PLACES[name](inside)
        try:
            found[name] = _at(place, max(count * _SHARES[name] // whole, 1), Random(seed), say)
        finally:
            place.close()
        left = tree(os.getpid()) - before
        wait_for(lambda left=left: ended(left), patience=60)
    return found


def _at(place: Place, count: int, chance: Random, say: Callable[[str], None]) -> Counter[str]:
    kinds = [*place.faults, "two drivers"]
    script = [kinds[i % len(kinds)] for i in range(count)]
    chance.shuffle(script)
    counts: Counter[str] = Counter()
    place.renew()
    undisturbed = Soaked(place, "undisturbed", 0)
    undisturbed.disturbed([], chance)
    wanted = undisturbed.verdict()
    for number, first in enumerate(range(0, count, _PER_RACE)):
        place.renew()
        faults = script[first : first + _PER_RACE]
        race = Soaked(place, f"race-{number}", 0)
        say(f"{type(place).__name__} {first + len(faults)} of {count}: {', '.join(faults)}")
        race.disturbed(faults, chance)
        assert race.verdict() == wanted
        counts += race.counts
    return counts
