"""The result of a bench, as plain data that can be saved as JSON."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

FORMAT = 1

Kind = Literal["step", "whole", "ema"]
KINDS: dict[Kind, str] = {
    "step": "step alone",
    "whole": "clip + step + zero",
    "ema": "clip + step + zero + average",
}
"""What is timed: the update; the same with clipping by global norm and zeroing; and with an average of the weights."""

OURS, ZEROING = "thalweg", "thalweg, zeroing"
DEFAULT = "default"


@dataclass(frozen=True)
class Timing:
    """The times of one contender in seconds: the median, the lower and upper quartile, and the number of samples."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """The timing of at least one sample."""
        low, median, high = statistics.quantiles([*seconds, *seconds], n=4, method="inclusive")
        return cls(median, low, high, len(seconds))


@dataclass(frozen=True)
class Row:
    """One rule on one workload, for one kind of step.

    Attributes:
        workload: its title.
        rule: the rule's name.
        kind: what is timed.
        dtype: of parameters and gradients.
        tensors: how many there are.
        parameters: how many elements these have together.
        bytes: the minimum number of bytes to move per element if the gradient is dropped rather than zeroed.
        zeroing: further bytes per element for zeroing the gradient.
        bandwidth: of the plain kernel in the same run, with arrays of the same size or its largest, in bytes/s.
        times: by contender: `OURS`, `ZEROING` if the step zeroes the gradient, and torch's implementations by name.
    """

    workload: str
    rule: str
    kind: Kind
    dtype: str
    tensors: int
    parameters: int
    bytes: int
    zeroing: int
    bandwidth: float
    times: dict[str, Timing]

    @property
    def title(self) -> str:
        """The workload, with its dtype unless that is float32."""
        return self.workload if self.dtype == "float32" else f"{self.workload}, {self.dtype}"

    @property
    def best(self) -> str:
        """The fastest of torch's implementations that need no compiler."""
        return min(self.eager, key=lambda name: self.times[name].median)

    @property
    def eager(self) -> list[str]:
        """Torch's implementations that need no compiler."""
        return [name for name in self.times if name not in (OURS, ZEROING, "compiled")]

    @property
    def slow(self) -> bool:
        """Whether torch's best is faster than this engine in every form."""
        return min(self.faster(name) for name in (OURS, ZEROING) if name in self.times) < 1

    def faster(self, name: str, than: str | None = None) -> float:
        """The speed of a contender relative to another, by default torch's best."""
        return self.times[than or self.best].median / self.times[name].median

    def moved(self, name: str = OURS) -> int:
        """The minimum total bytes that a contender must move."""
        return self.parameters * (self.bytes + self.zeroing * (name == ZEROING))

    def floor(self, name: str = OURS) -> float:
        """The seconds that these bytes take at the bandwidth of the same run."""
        return self.moved(name) / self.bandwidth

    def above_floor(self, name: str = OURS) -> float:
        """A contender's time over its floor."""
        return self.times[name].median / self.floor(name)


@dataclass(frozen=True)
class Extra:
    """A further measurement: one number."""

    what: str
    value: float
    unit: str


@dataclass(frozen=True)
class Result:
    """A whole run.

    Attributes:
        machine: descriptions of the machine and the software, by property.
        settings: what was asked for.
        warnings: reasons why times may be longer than this machine allows, and rows that were left out.
        rows: the table.
        extras: further measurements.
    """

    machine: dict[str, str]
    settings: dict[str, str]
    warnings: list[str]
    rows: list[Row]
    extras: list[Extra]

    def to_json(self) -> str:
        """As JSON that `from_json` reads back."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Result":
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is not a saved result, or has another format.
        """
        try:
            data = cast("dict[str, Any]", json.loads(text))
            found = data.pop("format")
            if found != FORMAT:
                raise ValueError(f"the saved bench has format {found!r}, this version reads {FORMAT}; measure again")
            rows = [_row(row) for row in data.pop("rows")]
            return cls(rows=rows, extras=[Extra(**extra) for extra in data.pop("extras")], **data)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError("this is no saved bench; write one with: thalweg bench --json FILE") from error


def _row(data: Mapping[str, Any]) -> Row:
    times: dict[str, Any] = {name: Timing(**timing) for name, timing in data["times"].items()}
    if data["kind"] not in KINDS or OURS not in times or not set(times) - {OURS, ZEROING, "compiled"}:
        raise KeyError(data["kind"])
    return Row(**cast("dict[str, Any]", {**data, "times": times}))
