"""What a training function reports to its race: points of its curve, and results on test data."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import nn

from thalweg.optimizer import Optimizer
from thalweg.problems.training import higher_is_better as by_name
from thalweg.race import halving, steering, streaming
from thalweg.race.entry import Entry
from thalweg.race.inspecting import Trial, Watch
from thalweg.race.plan import Task
from thalweg.race.recording import Ended, Measured, Recording, Report, number
from thalweg.store import Plan


class Halved(Ended):
    """The run was among the worse half of its entry's trials."""


Gate = Callable[[float, tuple[float, float]], bool]
"""Whether a trial goes on, from the share of the steps that it has taken and its best score up to there."""


class Reporting:
    """The part of a `thalweg.TrainingRun` that records what is measured.

    Attributes:
        phase: ``tune``, or ``final`` for a run whose test counts.
        step: the number of steps that the first optimizer of the run has taken.
        recording: the curve, and the results of its best point.
        clock: the seconds of training.
        finished: whether the function has said that it is.
        watch: what looks at the steps, in a trial that is looked at.
    """

    def __init__(
        self,
        plan: Plan,
        entry: Entry,
        task: Task,
        heard: Callable[[int], None] | None,
        trial: Trial | None,
        gate: Gate | None,
    ) -> None:
        self._plan, self._entry, self._task, self._trial = plan, entry, task, trial
        self._heard, self._gate = heard or _ignore, gate
        self._stream = streaming.of(task, entry)
        self._asked: set[float] = set()  # the shares of the steps after which the gate was asked
        self.phase = task.phase
        self.step = 0
        self.recording = Recording(plan.problem.metric, plan.problem.higher_is_better)
        self.clock = steering.Clock()
        self._optimizers: list[Optimizer] = []
        self._models: list[nn.Module] = []
        self._following: list[Optimizer] = []  # those that are switched with their model
        self._best: list[dict[str, Any]] | None = None
        self._ended: Ended | None = None
        self.finished = False
        self.watch: Watch | None = None

    @property
    def share(self) -> float:
        """How much of the budget is used up, from 0 to 1."""
        raise NotImplementedError

    def report(
        self, *, test: Callable[[], Any] | None = None, higher_is_better: bool | None = None, **metrics: Any
    ) -> None:
        """Adds a point to the curve of the run, measured on validation data.

        The first metric decides, unless its name begins with ``train``.  Less of it is better if its name says so, as
        ``validation_loss`` does.  ``train_loss`` and ``validation_loss`` are shown as curves beside it, and all others
        are recorded.

        Args:
            test: returns the same metric on test data, or a dictionary of metrics.  It is called in final runs, if the
                point is the best so far.
            higher_is_better: which way the metric is better, in place of what its name says.
            **metrics: numbers, or functions that return them, which are called with the weights to evaluate.

        Raises:
            Ended: the run has diverged, or was halved.  It is no ``Exception``: let it pass.
            ValueError: there is no metric, or one is not a number.
            RuntimeError: the rule evaluates at other weights than it trains at, and nothing has switched to these.
        """
        self.clock.stop()
        self._go_on()
        report = Report(metrics, None if self._trial else self._plan.problem.metric)
        name = report.name
        if self._trial and not self._trial.metric:
            self._trial.metric = self.recording.metric = name
            better = by_name(name) if higher_is_better is None else bool(higher_is_better)
            self._trial.higher_is_better = self.recording.higher = better
        self._check_weights(metrics[name])

        def measure() -> Measured:
            with steering.evaluating(self._optimizers):
                return report.measured()

        with self._ending():
            if steering.infinite(self._optimizers):
                raise self.recording.diverged(self.step, "a parameter is not finite")
        self._point(report.train_loss, measure, None if test is None else lambda: self._measured(test))
        if self.watch is not None:
            self.watch.reported(self.step, self.recording.last["validation_metric"])
        elif self._trial and (self._trial.most is None or not self._trial.steps):
            with self._ending():
                raise Ended("all is known")
        if self._gate is not None:
            self._halve(self._gate)
        self.clock.start()

    def finish(self, *, test: Callable[[], Any] | float | None = None) -> None:
        """Ends the run.

        Args:
            test: returns the metric on test data, or a dictionary of metrics.  It is called in final runs only: with
                the weights of the best point
                where the run knows the model, as in ``run.optimizer(model)``, and otherwise with those at the end,
                whose validation metric then counts, too.
        """
        self._go_on()
        self.clock.stop()
        tested = "test_metric" in self.recording.measured
        if test is not None and self.recording.measured and not tested:
            if not self._models or not callable(test):
                self.recording.measured = dict(self.recording.last)
            if self.phase == "final":
                with self._ending():
                    self.recording.tested(self.step, self._tested(test))
        self.finished = True

    def _point(self, train_loss: float | None, measure: Callable[[], Measured], test: Any) -> None:
        with self._ending():
            examples = self.step * self._plan.entry(self._entry.name).batch_size
            final = test if self.phase == "final" else None
            best = self.recording.point(self.step, examples, self.clock.spent, train_loss, measure, final)
            if best and self.phase == "final" and final is None and self._models:
                with steering.evaluating(self._optimizers):
                    self._best = steering.states(self._models)
            for made in self._optimizers if self.step else ():
                made.observe(self.recording.watched[1])
            self.recording.check_growth(self.step)
        self._stream(self.recording.columns)
        self._heard(self.step)

    def _halve(self, gate: Gate) -> None:
        """Ask whether to go on, once after each share of the steps after which trials are compared."""
        rungs = self.recording.rungs
        rungs |= {at: self.recording.best for at in halving.ROUNDS if at <= self.share < 1 and at not in rungs}
        self._ask(gate)

    def _ask(self, gate: Gate) -> None:
        """Ask about the scores that it has not asked about yet."""
        rungs = self.recording.rungs
        for at in sorted(rungs.keys() - self._asked):
            self._asked.add(at)
            if not gate(at, rungs[at]):
                with self._ending():
                    raise Halved(halving.said(self._plan, self._task, self.step))

    def _measured(self, test: Callable[[], Any]) -> Measured:
        with steering.evaluating(self._optimizers):
            found = test() if callable(cast(Any, test)) else test
            if not isinstance(found, Mapping):
                return Measured(None, number("test", found))
            named = cast("Mapping[str, Any]", found)
            others = {name: number(name, x) for name, x in named.items() if name != self.recording.metric}
            return Measured(None, number("test", named.get(self.recording.metric)), others)

    def _tested(self, test: Any) -> Measured:
        """The metric on test data, at the best point if the run has kept it."""
        if self._best is None or not callable(test):
            return self._measured(test)
        with steering.holding(self._models, self._best):
            return self._measured(test)

    def _check_weights(self, metric: Any) -> None:
        if callable(metric) or self.step == 0:
            return
        for made in self._optimizers:
            if made.training and not any(made is one for one in self._following) and steering.moves(made):
                raise RuntimeError(
                    f"{self._entry.name} evaluates at other weights than it trains at, and the run does not know the "
                    "model to switch it; write run.optimizer(model), or report(validation=lambda: …)"
                )

    def _go_on(self) -> None:
        """Raise what ended the run, if the training has handled it."""
        if self._ended is not None:
            raise self._ended

    @contextmanager
    def _ending(self) -> Generator[None]:
        try:
            yield
        except Ended as end:
            self._ended = end
            raise


def _ignore(step: int) -> None:
    pass
