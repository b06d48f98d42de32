"""Runs that advance together: one pass computes the gradients of all, one launch steps all.

Each run is what it is alone, to the last bit: it has its own weights, rule, schedule, count of steps, norm, clipping.
Runs of one seed start from the same weights and see the same batches; runs of several seeds can advance together if the
model is a chain (`thalweg.race.chain`).  What diverges leaves, and the others go on without it.
"""

# pyright: reportPrivateUsage=false
# A population does to many sessions what each does to itself.

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn

from thalweg.optimizer.together import Together
from thalweg.problems.blame import told
from thalweg.problems.chance import reproducible
from thalweg.problems.problem import CHUNK, Problem, Split
from thalweg.race import halving, stopwatch
from thalweg.race.chain import Fed
from thalweg.race.entry import Entry
from thalweg.race.plan import Task, marks, seed_for
from thalweg.race.recording import Diverged
from thalweg.race.stacked import Stack
from thalweg.race.training import _Session, drawn
from thalweg.store import Plan, Run


class Refused(Exception):
    """The runs cannot advance together; the message says why."""


def train(
    problem: Problem,
    plan: Plan,
    entries: Mapping[str, Entry],
    tasks: Sequence[Task],
    apart: bool,
    costs: Mapping[str, float],
) -> list[Run]:
    """Do runs of one batch size and number of steps together; their records, in the order in which they ended.

    Args:
        problem: the problem.
        plan: the plan of the race.
        entries: the entries by name.
        tasks: the runs.
        apart: whether the loss of each run is computed by itself.
        costs: what a step of each entry takes alone: of the time that all take, each run is charged in proportion.

    Raises:
        Refused: the model, the loss or a rule cannot do it, or an error came up that a run alone has to tell.
        MemoryError: there is not enough memory for so many.
    """
    tasks = by_seed(tasks)
    try:
        with reproducible(seed_for(plan, tasks[0], "model")):
            return Population(problem, plan, entries, tasks, apart, costs).run()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also what the user's code raises to stop the process
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise Refused(told(error)) from error


def by_seed(tasks: Sequence[Task]) -> list[Task]:
    """Tasks in the order of their seeds, which a population needs."""
    return sorted(tasks, key=lambda task: task.seed)


def relative(costs: Mapping[str, float], entry: str) -> float:
    """What a step of an entry costs, as a multiple of the mean over entries; 1 if it is not known."""
    return costs[entry] * len(costs) / sum(costs.values()) if entry in costs else 1.0


class Population:
    """Runs that advance together.

    Args:
        problem, plan, entries: those of the race.
        tasks: the runs, in the order of their seeds; random numbers are seeded for the first one's model.
        apart, costs: as in `train`.

    Attributes:
        sessions: the runs that have not ended.
        stack: their models.
    """

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        entries: Mapping[str, Entry],
        tasks: Sequence[Task],
        apart: bool,
        costs: Mapping[str, float],
    ) -> None:
        self._problem = problem = drawn(problem, plan, tasks[0])
        self._plan, self._costs = plan, costs
        self.sessions = [_Session(problem, plan, entries[task.entry], task) for task in tasks]
        models = self._models()
        self.stack = Stack([models[task.seed] for task in tasks], apart)
        self._together = Together(
            [session._optimizer(own) for session, own in zip(self.sessions, self.stack.models, strict=True)]
        )
        self._batches = {session.task.seed: session._batches() for session in self.sessions}
        self._ended: list[Run] = []

    def _models(self) -> dict[int, nn.Module]:
        """The model that the runs of each seed start with."""
        models: dict[int, nn.Module] = {}
        for session in self.sessions:
            seed = session.task.seed
            if seed not in models:
                # What a model draws in training follows what the first one draws here.
                anew = reproducible(seed_for(self._plan, session.task, "model")) if models else nullcontext()
                with anew:
                    models[seed] = self._problem.fresh()
                models[seed].train()
        return models

    def run(self) -> list[Run]:
        """Do all steps; the records of the runs."""
        session = self.sessions[0]
        planned = self._plan.entry(session.entry.name)
        self._mark([None] * len(self.sessions))
        for start, end in pairwise(marks(planned.steps, session.size, self._plan.examples)):
            if not self.sessions:
                break
            self._mark([total / (end - start) for total in self.train(end - start)])
            ends = halving.stops(self._plan, self.sessions, start, end)
            self._ended += [halving.stopped(self.sessions[i]) for i in ends]
            self._keep([i for i in range(len(self.sessions)) if i not in ends])
        return self._ended + [session.ended("finished") for session in self.sessions]

    def train(self, steps: int) -> list[float]:
        """Take so many steps; the sum of the losses of each run."""
        seeds = Counter(session.task.seed for session in self.sessions)
        totals = torch.zeros(len(self.sessions), dtype=torch.float64)
        began = stopwatch.seconds()
        for _ in range(steps):
            fed = [Fed(count, *self._batch(seed)) for seed, count in seeds.items()]
            losses = self.stack.losses(self._problem.loss, fed)
            self._together.step()
            totals += losses
            for session, loss in zip(self.sessions, losses, strict=True) if self.sessions[0].step == 0 else ():
                session.recording.columns["train_loss"][:1] = [float(loss)]
            for session in self.sessions:
                session.step += 1
        parts = [relative(self._costs, session.entry.name) for session in self.sessions]
        share = (stopwatch.seconds() - began) / sum(parts)
        for session, part in zip(self.sessions, parts, strict=True):
            session.seconds += share * part
        return [float(total) for total in totals]

    def _batch(self, seed: int) -> tuple[Tensor, Tensor]:
        """The next batch that runs of a seed see."""
        x, y = self._problem.tensors("train")
        at = next(self._batches[seed])
        return (x, y) if at is None else (x.index_select(0, at), y.index_select(0, at))

    def _mark(self, train_losses: Sequence[float | None]) -> None:
        """Evaluate all runs; those that have diverged leave."""
        predictions = self.predict("validation")
        left: list[int] = []
        everyone = zip(self.sessions, self.stack.models, self._together.optimizers, train_losses, strict=True)
        for i, (session, model, optimizer, loss) in enumerate(everyone):
            session.measure = _Evaluation(self._problem, predictions[i])
            try:
                session._mark(model, optimizer, loss)
            except Diverged as divergence:
                self._ended.append(session.ended("diverged", str(divergence)))
            else:
                left.append(i)
        self._keep(left)

    def _keep(self, left: Sequence[int]) -> None:
        """Go on with some of the runs."""
        if len(left) < len(self.sessions):
            self.sessions = [self.sessions[i] for i in left]
            if left:
                self.stack.keep(left)
                self._together.keep(left)

    def predict(self, split: Split) -> Tensor:
        """The predictions of all runs for a split, at the points to evaluate."""
        for optimizer in self._together.optimizers:
            optimizer.eval()
        predictions = self.stack.predict(self._problem.tensors(split)[0], CHUNK)
        for optimizer in self._together.optimizers:
            optimizer.train()
        return predictions


class _Evaluation:
    """Evaluates a model, whose predictions for the validation set are known."""

    def __init__(self, problem: Problem, prediction: Tensor) -> None:
        self._problem, self._prediction = problem, prediction

    def __call__(self, model: nn.Module, split: Split) -> tuple[float, dict[str, float]]:
        """See `thalweg.Problem.measure`."""
        if split == "validation":
            return self._problem.judge(self._prediction, split)
        return self._problem.measure(model, split)
