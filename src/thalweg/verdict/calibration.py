"""How often verdicts are wrong: simulated races whose truth is known, judged by the code that judges races.

In every simulated race no entry is typically better than another: the median of each paired difference is 0.  Most
kinds of noise are the same for all entries; where they are not, entries are moved until that holds.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from thalweg.verdict import statistics
from thalweg.verdict.looks import looks
from thalweg.verdict.statistics import Array

REPLICATES, ENTRIES = (5, 10, 20), (2, 3, 7)
MOST = 40
"""The replicates of races that are looked at several times."""
IMAGES = 100
"""The test images of the discrete noise: accuracies are whole hundredths."""
_FAILURE = 50.0
_CHUNK = 2_000

Noise = Callable[[Generator, tuple[int, int, int]], Array]


def _normal(rng: Generator, shape: tuple[int, int, int]) -> Array:
    return rng.standard_normal(shape)


def _skewed(rng: Generator, shape: tuple[int, int, int]) -> Array:
    return np.exp(rng.standard_normal(shape))


def _heavy(rng: Generator, shape: tuple[int, int, int]) -> Array:
    return rng.standard_t(3, shape)


def _discrete(rng: Generator, shape: tuple[int, int, int]) -> Array:
    return rng.binomial(IMAGES, 0.9, shape) / IMAGES


def _unequal(rng: Generator, shape: tuple[int, int, int]) -> Array:
    x = rng.standard_normal(shape)
    x[..., 0] *= 5
    return x


def _tail(rng: Generator, shape: tuple[int, int, int]) -> Array:
    x, half = rng.standard_normal(shape), max(shape[-1] // 2, 1)
    x[..., :half] = -np.exp(x[..., :half])
    return x


def _failing(rng: Generator, shape: tuple[int, int, int]) -> Array:
    return rng.standard_normal(shape) - _FAILURE * (rng.uniform(size=shape) < 0.1)


def _one_failing(rng: Generator, shape: tuple[int, int, int]) -> Array:
    x = rng.standard_normal(shape)
    x[..., 0] -= _FAILURE * (rng.uniform(size=shape[:-1]) < 0.1)
    return x


def _lost(rng: Generator, shape: tuple[int, int, int]) -> Array:
    return np.where(rng.uniform(size=shape) < 0.1, -np.inf, rng.standard_normal(shape))


NOISES: Mapping[str, Noise] = {
    "normal": _normal,
    "skewed (lognormal)": _skewed,
    "heavy tails (t with 3 degrees of freedom)": _heavy,
    f"discrete ({IMAGES} test images)": _discrete,
    "unequal spread (one entry's is 5 times the others')": _unequal,
    "long lower tail (half of the entries: lognormal)": _tail,
    "one run in ten fails badly": _failing,
    "one run in ten fails badly, of one entry only": _one_failing,
    "one run in ten is lost": _lost,
}
"""The kinds of noise by name; the intervals' coverage is measured for the first four."""
COVERED = tuple(NOISES)[:4]


@dataclass(frozen=True)
class Measured:
    """A share measured in simulated races.

    Attributes:
        what: what was counted.
        noise: the kind of noise.
        replicates, entries: the size of the races.
        share: the share, in [0, 1].
        races: the number of races.
        low, high: the share that is allowed.
    """

    what: str
    noise: str
    replicates: int
    entries: int
    share: float
    races: int
    low: float
    high: float

    @property
    def error(self) -> float:
        """The standard error of the share at the nearest allowed value, from simulating so few races."""
        at = min(max(self.share, self.low), self.high)
        return math.sqrt(max(at * (1 - at), 1e-4) / self.races)

    @property
    def holds(self) -> bool:
        """Whether the share is as allowed, to within 3 standard errors."""
        return self.low - 3 * self.error <= self.share <= self.high + 3 * self.error


def sizes() -> list[tuple[int, int]]:
    """The sizes of races that are measured: replicates and entries."""
    return [(n, entries) for n in REPLICATES for entries in ENTRIES]


def measure(races: int, n: int, entries: int, seed: int = 0) -> list[Measured]:
    """False differences, coverage and power, in so many simulated races of one size for each kind of noise."""
    found: list[Measured] = []

    def keep(what: str, noise: str, share: float, low: float, high: float) -> None:
        found.append(Measured(what, noise, n, entries, share, races, low, high))

    for number, (noise, draw) in enumerate(NOISES.items()):
        rng = np.random.default_rng([seed, n, entries, number])
        shown, rows = _races(draw, noise, rng, races, n, entries)
        keep("a difference is shown", noise, shown, 0.0, statistics.ALPHA)
        if noise in COVERED:
            # An interval for all pairs together fails where any of them leaves 0 out: where a difference is shown.
            keep("all pairs' intervals hold", noise, 1 - shown, 0.93, 1.0)
            keep("an entry's interval holds", noise, rows, 0.93, 0.98)
    power = _power(np.random.default_rng([seed, n, entries, len(NOISES)]), races, n, entries)
    keep("the difference computed for 80 % is shown", "normal", power, 0.78, 0.82)
    return found


def looking(races: int, entries: int, seed: int = 0) -> list[Measured]:
    """False differences at any look at races that go on until they are decided, with `MOST` replicates at most."""
    found: list[Measured] = []
    for number, (noise, draw) in enumerate(NOISES.items()):
        rng, centre = np.random.default_rng([seed, MOST, entries, number]), _centre(draw, entries)
        step = 1 / IMAGES if draw is _discrete else 0.0
        shown = 0
        for start in range(0, races, _CHUNK):
            x = draw(rng, (min(_CHUNK, races - start), MOST, entries)) - centre
            wrong = np.zeros(len(x), dtype=bool)
            for n, alpha in looks(MOST):  # no entry rests, which can only show more
                at = statistics.compare(x[:, :n], resolution=step, alpha=alpha)
                wrong |= ((at.low > 0) | (at.high < 0)).any(-1)
            shown += int(wrong.sum())
        what = "a difference is shown at any look"
        found.append(Measured(what, noise, MOST, entries, shown / races, races, 0.0, statistics.ALPHA))
    return found


def _races(draw: Noise, noise: str, rng: Generator, races: int, n: int, entries: int) -> tuple[float, float]:
    """The share of races with a false difference, and of rows' intervals that hold."""
    centre = _centre(draw, entries)
    typical = np.median(draw(np.random.default_rng(1), (200_001, 1, 1)))
    step = 1 / IMAGES if draw is _discrete else 0.0
    shown, rows = 0, 0.0
    for start in range(0, races, _CHUNK):
        x = draw(rng, (min(_CHUNK, races - start), n, entries))
        found = statistics.compare(x - centre, resolution=step)
        shown += int(((found.low > 0) | (found.high < 0)).any(-1).sum())
        if noise in COVERED:
            ends = statistics.ordered(x, 1 - statistics.ALPHA)
            rows += float(((ends.low <= typical) & (typical <= ends.high)).mean(-1).sum())
    return shown / races, rows / races


def _centre(draw: Noise, entries: int) -> Array:
    """What to subtract from each entry so that the medians of all paired differences are 0."""
    x = draw(np.random.default_rng(0), (200_001, 1, entries))[:, 0]
    if draw in (_tail, _one_failing):
        return np.median(x - x[:, -1:], axis=0)
    return np.zeros(entries)


def _power(rng: Generator, races: int, n: int, entries: int) -> float:
    """The share of races in which the difference is shown that should be in 80 %."""
    ahead = statistics.detectable(n, entries) * math.sqrt(2)
    shown = 0
    for start in range(0, races, _CHUNK):
        x = rng.standard_normal((min(_CHUNK, races - start), n, entries))
        x[..., 0] += ahead
        shown += int((statistics.compare(x).low[:, 0] > 0).sum())
    return shown / races
