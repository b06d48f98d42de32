"""Schedules: any hyperparameter as a function of the number of updates already applied, starting at 0.

```python
from thalweg import schedules

schedule = schedules.warmup(500).then(schedules.cosine(9_500))
schedule(0), schedule(500)                      # 0.0, 1.0: factors of the base value
schedules.parse("warmup(500).then(cosine(9500))") == schedule
schedules.warmup(0.05).then(schedules.cosine(0.95)).resolve(10_000) == schedule
print(schedule.preview(10_000))
```
"""

from thalweg.schedules.base import Schedule
from thalweg.schedules.compose import cosine_restarts, warmup_stable_decay
from thalweg.schedules.cycles import cyclic, lambda_, one_cycle, piecewise
from thalweg.schedules.forms import (
    anneal,
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    linear,
    multistep,
    polynomial,
    step,
    tanh,
    warmup,
)
from thalweg.schedules.observed import plateau
from thalweg.schedules.show import plot
from thalweg.schedules.text import ScheduleError, from_json, parse

__all__ = [
    "Schedule",
    "ScheduleError",
    "anneal",
    "constant",
    "cosine",
    "cosine_restarts",
    "cyclic",
    "exponential",
    "from_json",
    "inverse_sqrt",
    "lambda_",
    "linear",
    "multistep",
    "one_cycle",
    "parse",
    "piecewise",
    "plateau",
    "plot",
    "polynomial",
    "step",
    "tanh",
    "warmup",
    "warmup_stable_decay",
]
