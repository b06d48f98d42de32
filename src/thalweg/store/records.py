"""The records of a race: its plan, and one record for every run that has ended."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

FORMAT = 2
"""The version of the tables; newer stores are refused."""

Phase = Literal["tune", "final"]
Status = Literal["finished", "diverged", "failed"]


@dataclass(frozen=True)
class Space:
    """The search space of a setting: from `low` to `high` on a ``log`` or ``linear`` scale; or, as a ``choice``, an
    index below `high` into a list of the entry's options.
    """

    scale: str
    low: float
    high: float


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
        steps: the number of steps that its share of examples allows.
        trials: the number of tuning runs; 1 if nothing is left to tune.
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
        trials: number of tuning runs for every entry with something to tune.
        seeds: number of reruns of every entry's best trial.
        steps: number of steps at the problem's batch size.
        examples: the budget of every run in examples: steps × batch size.
        seed: the seed from which all others are derived.
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
    versions: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def document(self) -> dict[str, Any]:
        """The plan as plain values for JSON."""
        whole: dict[str, Any] = {"format": FORMAT, **asdict(self), "entries": [asdict(e) for e in self.entries]}
        # Older plans do not have these, and keep their hash.
        for part, name in ((whole, "versions"), (whole["problem"], "parts"), *((e, "code") for e in whole["entries"])):
            if not part[name]:
                del part[name]
        return whole

    @property
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
        seconds: training time, without evaluations.
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
        key: identifies the run within all races: a hash of the plan's hash, the entry, phase, trial and seed.
        entry: the name of the entry.
        phase: ``tune``, scored on validation data, or ``final``, the best trial again on a fresh seed.
        trial: the number of the trial, from 0; of a final run the trial that it repeats.
        seed: the number of the seed, from 0; final runs of one seed share initial weights and order of data.
        settings: all numbers of the rule, the tuned ones (those in the entry's `search`) and the others.
        rule: the rule of the run, as text for ``rules.parse``, or for ``Switch.parse`` if it is a switch.
        status: ``finished``; ``diverged``, if the loss did; ``failed``, if the model, loss or metric raised an error.
        best_step: the step of the run's best point: by the validation metric, then its loss, then the earliest.
        validation_metric, validation_loss: at that point.
        test_metric, test_loss: at that point, of a final run.
        curve: the course of the run.
        seconds: training time.
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


@dataclass(frozen=True)
class Results:
    """A race's plan and its runs, by entry, phase, trial and seed."""

    plan: Plan
    runs: tuple[Run, ...]

    def of(self, entry: str, phase: Phase) -> tuple[Run, ...]:
        """The runs of an entry in a phase, in the order of trials and seeds."""
        return tuple(run for run in self.runs if run.entry == entry and run.phase == phase)

    @property
    def complete(self) -> bool:
        """Whether all runs of the plan have ended; an entry without a finished trial has no final runs."""
        for entry in self.plan.entries:
            trials = self.of(entry.name, "tune")
            if len(trials) < entry.trials:
                return False
            some = any(run.status == "finished" for run in trials)
            if some and len(self.of(entry.name, "final")) < self.plan.seeds:
                return False
        return True
