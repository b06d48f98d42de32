"""What an optimizer remembers of a parameter group beside its hyperparameters: ``group["course"]``, one typed thing.

Hyperparameters stay in the group under their own names, where torch's schedulers and users look for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thalweg.rule import Rule
from thalweg.schedules import Schedule
from thalweg.switch import Switch

KEY = "course"
"""Where a group has it."""


@dataclass
class Transition:
    """How far a group is with its switch from one rule to another.

    Attributes:
        switch: the two rules, and when.
        schedules: of the hyperparameters of both.
        switched: whether the second rule is the one that steps.
        average: λ of SWATS, the average of the rates that the first rule's steps amount to.
        rate: Λ of SWATS, once it is found.
    """

    switch: Switch
    schedules: Mapping[str, Schedule] = field(default_factory=dict[str, Schedule])
    switched: bool = False
    average: float = 0.0
    rate: float | None = None

    @property
    def phase(self) -> Rule:
        """The rule in force, as it was given."""
        return self.switch.then if self.switched else self.switch.first

    def followed(self) -> dict[str, Schedule]:
        """The schedules of what the rule in force has."""
        return {name: s for name, s in self.schedules.items() if name in (*self.phase.numbers, "weight_decay")}

    def saved(self) -> dict[str, Any]:
        """As texts and numbers."""
        return {"rule": str(self.switch), "switched": self.switched, "average": self.average, "rate": self.rate}


@dataclass
class Course:
    """Where a group is on its way.

    Attributes:
        steps: how many updates were applied, where a schedule or a switch counts them.
        schedules: what each hyperparameter follows, by name.
        initial: the value of each of these that its schedule multiplies.
        given: the values that the schedules last gave, which are those in the group.
        base_lr: η₀, the rate that `independent` decay measures the current rate against; None with another form.
        ahead: the numbers that the lookahead points in the parameters were made with; None where there is none yet.
        transition: the switch that the group makes, or None.
    """

    steps: int = 0
    schedules: dict[str, Schedule] = field(default_factory=dict[str, Schedule])
    initial: dict[str, float] = field(default_factory=dict[str, float])
    given: dict[str, float] = field(default_factory=dict[str, float])
    base_lr: float | None = None
    ahead: dict[str, float] | None = None
    transition: Transition | None = None

    def saved(self) -> dict[str, Any]:
        """As texts and numbers."""
        return {
            "steps": self.steps,
            "schedules": {name: schedule.state_dict() for name, schedule in self.schedules.items()},
            "initial": dict(self.initial),
            "base_lr": self.base_lr,
            "ahead": self.ahead,
            "transition": None if self.transition is None else self.transition.saved(),
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any], transition: Transition | None) -> "Course":
        """From what `saved` gave; the schedules are still to be followed."""
        numbers = {name: saved[name] for name in ("steps", "base_lr", "ahead")}
        return cls(**numbers, initial=dict(saved["initial"]), transition=transition)


def of(group: Mapping[str, Any]) -> Course:
    """The course of a group; one that does nothing for groups that have none, as the drop-ins', or are being loaded."""
    course = group.get(KEY)
    return course if isinstance(course, Course) else Course()
