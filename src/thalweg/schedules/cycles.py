"""Forms that rise and fall, and forms given by points or by a function."""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NoReturn

from thalweg.schedules.base import Schedule
from thalweg.schedules.forms import RISES
from thalweg.schedules.settings import Nonnegative, Number, Numbers, Period, Share, Times, real


class one_cycle(Schedule):
    """From `start` to `peak` over the share `rise` of the steps, and down to `end`.  Smith & Topin 2018.

    torch's ``OneCycleLR``, with its defaults, where the base value is its ``max_lr``.  With three `phases` it falls
    as fast as it rose, to `start`, and only then to `end`.  As in torch, the peak comes at t = rise·steps − 1 and the
    end at t = steps − 1.  For a momentum that goes the other way: ``one_cycle(n, start=1, peak=0.85 / 0.95, end=1)``.
    """

    steps: Period
    rise: Share = 0.3
    start: Number = 1 / 25
    peak: Number = 1.0
    end: Number = 1 / 25e4
    shape: Literal["cosine", "linear"] = "cosine"
    phases: Literal["two", "three"] = "two"
    _phases: ClassVar[tuple[tuple[float, float, float, float], ...]]

    def prepare(self) -> None:
        """The phases, each with its first and last step and factor."""
        if self.phases == "three" and self.rise > 0.5:
            raise ValueError(
                f"one_cycle's rise is {self.rise}; with three phases allowed is <= 0.5, as it falls as long"
            )
        top = self.rise * self.steps - 1
        bottom = 2 * self.rise * self.steps - 2
        last = self.steps - 1
        rise = (0, top, self.start, self.peak)
        if self.phases == "two":
            self._keep("_phases", (rise, (top, last, self.peak, self.end)))
        else:
            fall = (top, bottom, self.peak, self.start)
            self._keep("_phases", (rise, fall, (bottom, last, self.start, self.end)))

    def evaluate(self, t: float) -> float:
        """The value of the active phase at `t`."""
        for begin, end, low, high in self._phases:
            if t <= end:
                return high if end <= begin else low + (high - low) * RISES[self.shape]((t - begin) / (end - begin))
        return self.end


class cyclic(Schedule):
    """From `low` to `high` in `up` steps and back in `down`, again and again.  Smith 2017; torch's ``CyclicLR``.

    Args:
        down: by default as many as `up`.
        mode: ``triangular``; ``triangular2``, halved in each cycle; ``exp_range``, multiplied by gammaᵗ.
        gamma: for ``exp_range``.
    """

    up: Period
    down: Period | None = None
    low: Number = 0.0
    high: Number = 1.0
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: Nonnegative = 1.0
    _period: ClassVar[float]

    def prepare(self) -> None:
        """The length of a cycle."""
        self._keep("_period", self.up + (self.down or self.up))

    def evaluate(self, t: float) -> float:
        """Low + (high − low)·triangle·scale."""
        cycle, into = divmod(t, self._period)
        triangle = into / self.up if into <= self.up else (self._period - into) / (self._period - self.up)
        if self.mode == "triangular2":
            triangle *= 0.5**cycle
        elif self.mode == "exp_range":
            triangle *= self.gamma**t
        return self.low + (self.high - self.low) * triangle


class piecewise(Schedule):
    """Through `values` at `times`: ``piecewise((0, 100, 1000), (0, 1, 0.1))``.

    Before the first time it has the first value, after the last time the last one; in between it interpolates by
    `shape`.  With ``constant`` it keeps each value until the next time.
    """

    times: Times
    values: Numbers
    shape: Literal["linear", "cosine", "constant"] = "linear"

    def prepare(self) -> None:
        """Raise ``ValueError`` unless there is one value per time and the times are in order."""
        if len(self.times) != len(self.values):
            raise ValueError(f"piecewise has {len(self.times)} times and {len(self.values)} values; give one a time")
        if self.resolved and any(b <= a for a, b in zip(self.times, self.times[1:], strict=False)):
            raise ValueError(f"piecewise's times are {self.times}; each must be later than the one before")

    def evaluate(self, t: float) -> float:
        """Interpolated between the two points around `t`."""
        after = bisect_right(self.times, t)
        if after == 0 or after == len(self.times):
            return self.values[max(after - 1, 0)]
        low, high = self.values[after - 1], self.values[after]
        if self.shape == "constant":
            return low
        begin, end = self.times[after - 1], self.times[after]
        return low + (high - low) * RISES[self.shape]((t - begin) / (end - begin))

    def span(self, total: float) -> float | None:
        """The last time."""
        return max(real(time, total) for time in self.times)


class lambda_(Schedule):
    """Any function of t, as a factor.  torch's ``LambdaLR``.  It cannot be saved, copied to a process, or written."""

    function: Callable[[int], float]

    def evaluate(self, t: float) -> float:
        """The function at `t`."""
        return float(self.function(t))  # pyright: ignore[reportArgumentType]

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        return f"lambda_({name} at {id(self.function):#x})"

    def __str__(self) -> str:
        self._refuse()

    def to_json(self) -> dict[str, Any]:
        """Raise ``ValueError``; see `__reduce__`."""
        self._refuse()

    def __reduce__(self) -> NoReturn:
        """Raise an error: there is no format for a function that every process and version would read the same."""
        self._refuse()

    def __deepcopy__(self, memo: Any) -> "lambda_":
        return self

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"{self!r} holds a function, which cannot be saved; "
            "write it with the other forms, as exponential(0.65) for 0.65 ** t, or as piecewise(times, values)"
        )
