"""Plan → runs → records: a fair comparison of entries on a problem.

from thalweg import Entry, Race

results = Race("digits", ["sgd", "momentum", Entry("adam", "my adam")], trials=16, seeds=5, steps=800).run()
"""

from thalweg.race.entry import Entry
from thalweg.race.job import WorkerError
from thalweg.race.progress import Progress
from thalweg.race.race import Race
from thalweg.race.results import Results
from thalweg.race.session import TrainingRun, current_run
from thalweg.race.training import RunError

__all__ = ["Entry", "Progress", "Race", "Results", "RunError", "TrainingRun", "WorkerError", "current_run"]
