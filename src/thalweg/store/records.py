"""The records of a race: its plan, and one record for every run that has ended."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, Self

FORMAT = 3
"""The version of a plan's document, of which the hash is made."""

Phase = Literal["tune", "final"]
Status = Literal["finished", "stopped", "diverged", "failed"]


@dataclass(frozen=True)
class Space:
    """The search space of a setting: from `low` to `high` on a ``log`` or ``linear`` scale; or, as a ``choice``, an
    index below `high` into a list of the entry's options.

    Attributes:
        least, most: the ends of the setting's allowed range, beyond which the space does not grow; None for none.
    """

    scale: str
    low: float
    high: float
    least: float | None = None
    most: float | None = None

    def fraction(self, x: float) -> float:
        """How far a setting is on the way from `low` to `high`: 0 to 1 within, −inf for 0 on a ``log`` scale."""
        if self.scale == "log":
            return math.log(x / self.low) / math.log(self.high / self.low) if x > 0 else -math.inf
        return (x - self.low) / (self.high - self.low)

    @property
    def bounds(self) -> tuple[float, float]:
        """The fractions of the way at `least` and `most`; infinite where there is none."""
        least = -math.inf if self.least is None else self.fraction(self.least)
        return least, math.inf if self.most is None else self.fraction(self.most)


@dataclass(frozen=True)
class ProblemPlan:
    """The problem of a race.

    Attributes:
        name: the user's name for it.
        fingerprint: a hash of its data and settings.
        metric: the name of the metric that decides the race.
        higher_is_better: which way the metric is better.
        batch_size: examples in a mini-batch, for entries that have no size of their own.
        train, validation, test: the number of examples in each part.
        target: the value of the metric that `time to target` asks for, or None.
        source: one line on the data.
        parts: a hash of each part of the fingerprint, by name; see `thalweg.Problem.parts`.
    """

    name: str
    fingerprint: str
    metric: str
    higher_is_better: bool
    batch_size: int
    train: int
    validation: int
    test: int
    target: float | None = None
    source: str = ""
    parts: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class EntryPlan:
    """One contender.

    Attributes:
        name: its unique name in the race.
        rule: the rule with all its settings, as ``repr`` writes it.
        batch_size: examples in a batch; the whole training set for gradient descent.
        steps: the number of steps that its share of examples allows; 0 under a budget in seconds.
        trials: the number of tuning runs at first, before any space grows; 1 if nothing is left to tune.
        search: the space of each tuned hyperparameter.
        options: the optimizer's arguments besides the rule that differ from the defaults: ``weight_decay`` …
        code: a hash of the rule's formula.
    """

    name: str
    rule: str
    batch_size: int
    steps: int
    trials: int
    search: Mapping[str, Space] = field(default_factory=dict[str, Space])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    code: str = ""

    def chosen(self, settings: Mapping[str, float]) -> dict[str, Any]:
        """The options of a run with these settings, with the choices that it made."""
        choices = {name for name, space in self.search.items() if space.scale == "choice"}
        return {n: x[int(settings[n])] if n in choices else x for n, x in self.options.items()}


def hash_of(document: Mapping[str, Any]) -> str:
    """The hash of the plan in a document, without the versions."""
    document = {name: value for name, value in document.items() if name != "versions"}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """Everything that determines a race's numbers on one machine.

    Attributes:
        problem: the problem.
        entries: the contenders, in the user's order.
        trials: number of tuning runs for every entry with something to tune, before any space grows.
        seeds: number of replicates.
        steps: number of steps at the problem's batch size; 0 under a budget in seconds.
        examples: the budget of every run in examples: steps × batch size.
        seed: the seed from which all others are derived.
        finalists: number of an entry's best trials that every replicate runs, to keep the best of them; 0 in plans of
            older formats, whose replicates ran the best trial alone.
        growths: how many times search spaces may grow.
        splits: whether every replicate draws training and validation data anew.
        seconds: the budget of every run in seconds of training, in place of steps and examples, which are then 0; 0 if
            there is none.
        halving: whether the worse half of an entry's trials stops after a quarter of the steps, and again after a half.
        margin: if it is positive, entries have replicates, `seeds` at most, until each pair is shown to differ or to
            be equal to within it.
        versions: of the libraries that the numbers depend on; not part of the hash, since a race may be continued with
            other versions.
    """

    problem: ProblemPlan
    entries: tuple[EntryPlan, ...]
    trials: int
    seeds: int
    steps: int
    examples: int
    seed: int
    finalists: int = 0
    growths: int = 0
    splits: bool = False
    margin: float = 0.0
    seconds: float = 0.0
    halving: bool = False
    versions: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def document(self) -> dict[str, Any]:
        """The plan as plain values for JSON."""
        whole: dict[str, Any] = {"format": FORMAT, **asdict(self), "entries": [asdict(e) for e in self.entries]}
        # Older plans do not have these, and keep their hash.
        parts = [(whole["problem"], "parts"), *((entry, "code") for entry in whole["entries"])]
        for part, name in ((whole, "versions"), (whole, "seconds"), (whole, "halving"), *parts):
            if not part[name]:
                del part[name]
        return whole

    @cached_property  # since every write asks for it, and it takes milliseconds
    def hash(self) -> str:
        """SHA-256 of the plan's canonical JSON, without versions: the same plan has the same hash everywhere."""
        return hash_of(self.document)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The plan that `document` came from."""
        entries = tuple(
            dataclasses.replace(
                EntryPlan(**entry), search={name: Space(**space) for name, space in entry["search"].items()}
            )
            for entry in document["entries"]
        )
        rest = {f.name: document[f.name] for f in fields(cls) if f.name in document}
        rest = {name: value for name, value in rest.items() if name not in ("problem", "entries")}
        return cls(problem=ProblemPlan(**document["problem"]), entries=entries, **rest)

    @cached_property  # since each run's key has one in it, and there are thousands of runs of an entry
    def identities(self) -> dict[str, str]:
        """What determines the numbers of each entry's runs besides their settings and seeds, as JSON, by its name."""
        return {entry.name: json.dumps(self._identity(entry), sort_keys=True) for entry in self.entries}

    def _identity(self, of: EntryPlan) -> dict[str, Any]:
        entry, problem = asdict(of), self.problem
        about = {"problem": problem.fingerprint, "metric": problem.metric, "higher": problem.higher_is_better}
        budget = ("seconds",) if self.seconds else ("steps", "examples")
        shared = {n: getattr(self, n) for n in (*budget, "seed", "splits")}
        shared |= {"halving": True} if self.halving else {}
        return {**about, **shared, **{n: x for n, x in entry.items() if n not in ("trials", "search")}}

    def entry(self, name: str) -> EntryPlan:
        """The entry of that name; ``KeyError`` if there is none."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)


@dataclass(frozen=True)
class Curve:
    """The course of a run: columns of equal length, with one value per evaluation.

    Attributes:
        step: number of steps taken, from 0.
        examples: number of examples seen.
        seconds: training time, without evaluations and, on Linux, without waiting for a processor that others use.
        train_loss: mean over the batches since the previous evaluation; at step 0 the loss of the first batch.
        validation_loss: the loss on the validation set; nan if it was not finite.
        validation_metric: the metric on the validation set; nan if it was not finite.
    """

    step: tuple[int, ...] = ()
    examples: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    train_loss: tuple[float, ...] = ()
    validation_loss: tuple[float, ...] = ()
    validation_metric: tuple[float, ...] = ()


@dataclass(frozen=True)
class Run:
    """The record of one run.  Losses and metrics are nan if they are unknown or not finite.

    Attributes:
        key: identifies the run within all races: a hash of everything that determines its numbers.
        entry: the name of the entry.
        phase: ``tune``, scored on validation data, or ``final``, one of the best trials again in a replicate.
        trial: the number of the trial, from 0; of a final run the trial that it repeats.
        seed: the number of the replicate, from 0, whose runs share initial weights and order of data.
        settings: all numbers of the rule, the tuned ones (those in the entry's `search`) and the others.
        rule: the rule of the run, as text for ``rules.parse``, or for ``Switch.parse`` if it is a switch.
        status: ``finished``; ``stopped``, if it was among the worse half of its entry's trials; ``diverged``, if the
            loss did; ``failed``, if the model, loss or metric raised an error.
        best_step: the step of the run's best point: by the validation metric, then its loss, then the earliest.
        validation_metric, validation_loss: at that point.
        test_metric, test_loss: at that point, of a final run.
        curve: the course of the run.
        seconds: training time.
        others: the metrics that do not decide, by name: a column of the curve each, on validation data; nan where one
            was not measured or not finite.
        test_others: the same at the best point, on test data, as far as they are known.
        message: why it diverged or failed.
        machine: the machine and the software versions.
    """

    key: str
    entry: str
    phase: Phase
    trial: int
    seed: int
    settings: Mapping[str, float]
    rule: str
    status: Status
    best_step: int = 0
    validation_metric: float = math.nan
    validation_loss: float = math.nan
    test_metric: float = math.nan
    test_loss: float = math.nan
    curve: Curve = field(default_factory=Curve)
    seconds: float = 0.0
    message: str = ""
    machine: Mapping[str, str] = field(default_factory=dict[str, str])
    others: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    test_others: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def validation_others(self) -> dict[str, float]:
        """The metrics that do not decide, on validation data at the best point."""
        points = zip(self.curve.step, self.curve.validation_metric, strict=True)
        best = (self.best_step, self.validation_metric)
        at = next((i for i, point in enumerate(points) if point == best), None)
        return {} if at is None else {name: column[at] for name, column in self.others.items()}


@dataclass(frozen=True)
class Points:
    """Points of a run that is under way: a part of its curve, or all of it so far.

    Attributes:
        key, entry, phase, trial, seed, settings: as in `Run`.
        first: the number of points of the run before these.
        curve: the points.
    """

    key: str
    entry: str
    phase: Phase
    trial: int
    seed: int
    settings: Mapping[str, float] = field(default_factory=dict[str, float])
    first: int = 0
    curve: Curve = field(default_factory=Curve)


@dataclass(frozen=True)
class Results:
    """A race's plan and its runs, by entry, phase, trial and seed."""

    plan: Plan
    runs: tuple[Run, ...]

    def of(self, entry: str, phase: Phase) -> tuple[Run, ...]:
        """The runs of an entry in a phase, in the order of trials and seeds."""
        return self._parts.get((entry, phase), ())

    @cached_property
    def _parts(self) -> Mapping[tuple[str, str], tuple[Run, ...]]:
        """The runs of each entry and phase."""
        found: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs:
            found.setdefault((run.entry, run.phase), []).append(run)
        return {part: tuple(runs) for part, runs in found.items()}

    def best(self, entry: str) -> Run | None:
        """The best of an entry's trials by validation metric, then loss, then order; None if none finished."""
        return next(iter(self.finalists(entry)), None)

    def finalists(self, entry: str) -> tuple[Run, ...]:
        """The trials of an entry that its replicates run: the best, best first; fewer if not enough finished."""
        trials = [run for run in self.of(entry, "tune") if run.status == "finished"]
        return tuple(sorted(trials, key=self._order)[: max(self.plan.finalists, 1)])

    def replicates(self, entry: str) -> tuple[Run, ...]:
        """Of each replicate of an entry whose runs have all ended, the run that it keeps: the best on validation data.

        If all of its runs were lost, so is the replicate.
        """
        of_seed: dict[int, list[Run]] = {}
        for run in self.of(entry, "final"):
            of_seed.setdefault(run.seed, []).append(run)
        needed = len(self.finalists(entry)) or 1
        return tuple(
            min(runs, key=self._order) for _, runs in sorted(of_seed.items()) if len(runs) >= needed
        )  # fmt: skip

    def _order(self, run: Run) -> tuple[bool, float, float, int]:
        """Sorts runs by how good they are on validation data, lost ones last."""
        if run.status != "finished":
            return True, 0.0, 0.0, run.trial
        sign = -1.0 if self.plan.problem.higher_is_better else 1.0
        return False, sign * run.validation_metric, run.validation_loss, run.trial

    def edges(self, entry: str) -> dict[str, str]:
        """The tuned settings whose best value lies at an edge of what was tried, as ``{"lr": "highest"}``.

        Fewer than three values do not count, nor an edge that is as near to the end of the allowed range as trials are
        to each other.
        """
        best, planned, found = self.best(entry), self.plan.entry(entry), dict[str, str]()
        if best is None:
            return found
        for name, space in planned.search.items():
            tried = sorted({run.settings[name] for run in self.of(entry, "tune")})
            if space.scale == "choice" or len(tried) < 3 or best.settings[name] not in (tried[0], tried[-1]):
                continue
            lowest, at, (least, most) = (
                best.settings[name] == tried[0],
                space.fraction(best.settings[name]),
                space.bounds,
            )
            if (at - least if lowest else most - at) > 1 / planned.trials:
                found[name] = "lowest" if lowest else "highest"
        return found
