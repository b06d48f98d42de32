"""The studentized range: of k normal numbers, the largest less the smallest, in estimated standard deviations.

`scipy.stats.studentized_range` integrates each value adaptively, in 20 ms.  The tests of a race of ten entries need 45,
each time that somebody looks at its verdict.  The integrands are smooth and vanish at both ends, where the trapezoidal
rule converges faster than any power of its step: here it takes 0.5 ms, and differs from SciPy by less than 1e-9.
"""

import math
from functools import cache
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
_LAST = -40.0
"""The logarithm of a density, relative to its largest value, from which it is 0."""
_NUMBERS, _DEVIATIONS = np.linspace(-9.0, 9.0, 145), 161
"""The largest of the normal numbers, and how many standard deviations there are."""


def sf(q: ArrayLike, k: int, freedom: float) -> Array:
    """The probability that the range of k numbers is above q.

    Args:
        q: in standard deviations, estimated with `freedom` degrees of freedom.
        k: how many numbers, two at least.
        freedom: 4 at least, where the error stays below 1e-9.
    """
    deviations, weights = _estimated(freedom)
    density = np.exp(-(_NUMBERS**2) / 2)
    density *= k / density.sum()
    below = scipy.special.ndtr(_NUMBERS)
    given: Any = np.asarray(q, dtype=float)

    def one(q: float) -> float:
        between = below - scipy.special.ndtr(_NUMBERS - q * deviations[:, None])  # all others are, if one is largest
        return 1.0 - float(weights @ between ** (k - 1) @ density)

    return np.array([one(x) for x in given.ravel()]).reshape(given.shape).clip(0.0, 1.0)


@cache
def isf(alpha: float, k: int, freedom: float) -> float:
    """The range that is exceeded with probability `alpha`."""
    high = 4.0
    while sf(high, k, freedom) > alpha:
        high *= 2

    def above(q: float) -> float:
        return float(sf(q, k, freedom)) - alpha

    return float(scipy.optimize.brentq(above, 0.0, high, xtol=1e-12, rtol=1e-14))


@cache
def _estimated(freedom: float) -> tuple[Array, Array]:
    """Estimates of a standard deviation of 1, evenly spaced in their logarithms, and how probable each is."""

    def log_density(x: Any) -> Any:  # of the logarithm; that of χ with a substitution, and 0 at its largest value
        return freedom * (x - np.expm1(2 * x) / 2)

    def beyond(x: float) -> float:
        return float(log_density(x)) - _LAST

    def end(far: float) -> float:
        return float(scipy.optimize.brentq(beyond, 0.0, far))

    at = np.linspace(end(_LAST / freedom - 1), end(math.log(1 - 2 * _LAST / freedom) + 1), _DEVIATIONS)
    weights = np.exp(log_density(at))
    return np.exp(at), weights / weights.sum()
