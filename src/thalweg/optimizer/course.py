"""The state of a parameter group besides its hyperparameters: ``group["course"]``, a typed object.

Hyperparameters stay in the group under their own names, where torch's schedulers and users look for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thalweg.rule import Rule
from thalweg.schedules import Schedule
from thalweg.switch import Switch

KEY = "course"
"""The key of the `Course` in a parameter group."""


@dataclass
class Transition:
    """The progress of a group's switch from one rule to another.

    Attributes:
        switch: the two rules and the time of the switch.
        schedules: those of the hyperparameters of both rules.
        switched: whether the second rule is active.
        average: λ of SWATS, the average of the rates equivalent to the first rule's steps.
        rate: Λ of SWATS, once it is found.
    """

    switch: Switch
    schedules: Mapping[str, Schedule] = field(default_factory=dict[str, Schedule])
    switched: bool = False
    average: float = 0.0
    rate: float | None = None

    @property
    def phase(self) -> Rule:
        """The active rule, as it was given."""
        return self.switch.then if self.switched else self.switch.first

    def followed(self) -> dict[str, Schedule]:
        """The schedules of the active rule's hyperparameters."""
        return {name: s for name, s in self.schedules.items() if name in (*self.phase.numbers, "weight_decay")}

    def saved(self) -> dict[str, Any]:
        """The progress as text and numbers, for a checkpoint."""
        return {"rule": str(self.switch), "switched": self.switched, "average": self.average, "rate": self.rate}


@dataclass
class Course:
    """The progress of a group.

    Attributes:
        steps: the number of updates applied, if a schedule or a switch counts them.
        schedules: the schedule of each hyperparameter that has one, by name.
        initial: the base values that these schedules multiply.
        given: the latest values of the schedules, which are those in the group.
        base_lr: η₀; `independent` decay is proportional to the current rate divided by it; None with other forms.
        ahead: the numbers from which the lookahead points in the parameters were computed; None if there are none.
        transition: the group's switch, or None.
    """

    steps: int = 0
    schedules: dict[str, Schedule] = field(default_factory=dict[str, Schedule])
    initial: dict[str, float] = field(default_factory=dict[str, float])
    given: dict[str, float] = field(default_factory=dict[str, float])
    base_lr: float | None = None
    ahead: dict[str, float] | None = None
    transition: Transition | None = None

    def saved(self) -> dict[str, Any]:
        """The progress as text and numbers, for a checkpoint."""
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
        """The course that `saved` describes; the schedules are attached later."""
        numbers = {name: saved[name] for name in ("steps", "base_lr", "ahead")}
        return cls(**numbers, initial=dict(saved["initial"]), transition=transition)


_NONE = Course()


def of(group: Mapping[str, Any]) -> Course:
    """The course of a group; an empty one for groups without, such as the drop-ins', or while they are being loaded.

    It is for reading: all groups without have the same.
    """
    course = group.get(KEY)
    return course if isinstance(course, Course) else _NONE
