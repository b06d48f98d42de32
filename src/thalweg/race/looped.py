"""A problem as the training function that does what a race does with it, to be looked at step by step."""

from collections.abc import Iterator
from typing import Any

from thalweg.problems import Problem, Training
from thalweg.problems.splits import Batch, Rows
from thalweg.race.loop import endless
from thalweg.race.plan import EVALUATIONS
from thalweg.race.session import TrainingRun
from thalweg.race.training import stream


def training(problem: Problem | Training) -> Training:
    """The training of a problem; one that is a training already is returned as it is."""
    if isinstance(problem, Training):
        return problem

    def train(run: TrainingRun) -> None:
        model = problem.fresh()
        optimizer = run.optimizer(model)
        batches = _batches(problem, run)
        every = max(problem.steps // EVALUATIONS, 1)

        def report() -> None:
            loss, metrics = problem.measure(model, "validation")
            told: dict[str, Any] = {"validation_loss": loss, **metrics}
            told = {problem.metric_name: told.pop(problem.metric_name), **told}  # the first decides
            run.report(**told, higher_is_better=problem.higher_is_better)

        report()
        for step in run.steps(problem.steps):
            optimizer.zero_grad()
            problem.batch_loss(model, next(batches)).backward()  # pyright: ignore[reportUnknownMemberType]
            optimizer.step()
            if step % every == every - 1:
                report()

    return Training(train, problem.name, folder=problem.folder)


def _batches(problem: Problem, run: TrainingRun) -> Iterator[Batch]:
    data = problem.data("train")
    if not isinstance(data, Rows):
        return endless(_Epochs(problem))
    data = data.to(run.device) if problem.device != "cpu" else data
    at = stream(data.size, min(problem.batch_size, data.size), run.generator)
    return (data.data if rows is None else data.take(rows) for rows in at)


class _Epochs:
    """The batches of a problem's loader, an epoch at each iteration."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def __iter__(self) -> Iterator[Batch]:
        return self._problem.batches("train")
