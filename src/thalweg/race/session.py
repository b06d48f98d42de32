"""`TrainingRun`: what a training loop needs of a race, and what the race needs of the loop."""

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from thalweg.optimizer import Optimizer
from thalweg.problems import chance
from thalweg.race import steering
from thalweg.race.checkpoints import Checkpoint
from thalweg.race.entry import Entry
from thalweg.race.inspecting import Trial
from thalweg.race.loader import Loader
from thalweg.race.loop import Loop, Steps, endless
from thalweg.race.plan import Task, seed_for
from thalweg.race.recording import Ended
from thalweg.race.reporting import Gate, Reporting
from thalweg.store import Plan

_UNKNOWN = 10**9
"""The number of steps where only seconds end a run; libraries can count so far."""


class OutOfBudget(Ended):
    """The training went on when the budget of its run was used up; the run ends as it is."""


class TrainingRun(Reporting):
    """One run of a race, as a training function sees it.

    The function makes its model and its data, trains with the optimizer that the run gives it, reports a metric on
    validation data now and then, and ends with the budget::

        def train(run):
            model = make_model()                            # random numbers are seeded before train is called
            optimizer = run.optimizer(model)
            for step in run.steps(3_000):
                ...
                if step % 100 == 0:
                    run.report(validation=accuracy(model, validation))
            run.finish(test=lambda: accuracy(model, test))

    Attributes:
        seed: a seed below 2³¹ for libraries that want one, the same for all entries in one replicate.
        generator: a ``torch.Generator`` for the order of the data, seeded alike.
        device: ``cuda`` where there is one, otherwise ``cpu``.
        phase: ``tune``, or ``final`` for a run whose test counts.
        step: the number of steps that the first optimizer of the run has taken.
    """

    def __init__(
        self,
        plan: Plan,
        entry: Entry,
        task: Task,
        *,
        folder: Path | None = None,
        heard: Callable[[int], None] | None = None,
        trial: Trial | None = None,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(plan, entry, task, heard, trial, gate)
        self._budget = steering.Budget(plan, entry, task)
        self.seed = seed_for(plan, task, "model") % 2**31
        self.generator = torch.Generator().manual_seed(seed_for(plan, task, "order"))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._checkpoint = Checkpoint(None if folder is None else folder / f"{task.key}.pt")
        self._loaders: list[Loader] = []
        self._loop = Loop(self._is_over, self._entered, self._come_around)
        self._resumed: Any = None

    def optimizer(
        self,
        params: nn.Module | Iterable[Any],
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
        **replaced: Any,
    ) -> Optimizer:
        """The optimizer with this run's rule, settings and schedule.

        Given a model, it trains the parameters that require a gradient.  Rules for matrices get the hidden ones; all
        other parameters go to another rule (`thalweg.groups.hidden_matrices`).  A rule that evaluates at other weights
        than it trains at, such as Schedule-Free, is switched whenever the model is evaluated without gradients.

        Args:
            params: the model; or parameters, named parameters, or groups.  Of groups, the weight decay and the
                learning rates are used.
            lr: the learning rate that this training was written for.  Rates that it sets itself, by a schedule of its
                own or in its groups, are multiples of this rate, and are applied to the rate of the run.
            weight_decay: for entries that have none of their own, in the ``scaled`` form, known as decoupled.
            **replaced: the settings of the optimizer that this one replaces, such as ``betas``; the rule has its own,
                and they are not used.

        Raises:
            ValueError: `lr` is not positive, the rule cannot step one of the parameters, or groups have rates and
                there is no `lr`.
        """
        if lr is not None and not 0 < float(lr) < math.inf:
            raise ValueError(f"lr is {lr!r}; wanted is the positive rate that this training was written for")
        made = steering.optimizer(self._entry, self._task, params, self._budget, lr, weight_decay)
        self._checkpoint.restore("optimizers", made, len(self._optimizers))
        rates = steering.Rates(made, lr, routed=isinstance(params, nn.Module))
        counts = not self._optimizers

        def before(*_: Any) -> None:
            self._before_step(rates, counts)

        def after(*_: Any) -> None:
            self._after_step(rates, counts)

        made.register_step_pre_hook(before)
        made.register_step_post_hook(after)
        if counts and self._trial and self._trial.seen:
            self.watch = self._trial.seen.watch(made, params)
        self._optimizers.append(made)
        if isinstance(params, nn.Module):
            self._checkpoint.restore("models", params, len(self._models))
            self._models.append(params)
            self._following.append(made)
            steering.follow(params, made)
        self.clock.start()
        return made

    def steps(self, n: int) -> Steps:
        """The steps of the loop: 0, 1, 2 … until the budget is used up, each with one step of the optimizer.

        Args:
            n: the number of steps of a run, unless the race says another, or gives seconds.  The ``len`` of what is
                returned is the number of steps of this run, for trainers that have a loop of their own; with seconds
                it is a billion, and `over` says when to stop.
        """
        if self._trial and not self._trial.steps:
            self._trial.steps = int(n)
        most = self._trial.length if self._trial else self._plan.steps or _UNKNOWN
        return Steps(most, lambda: self._loop.counted("steps"))

    def epochs(self, n: int, loader: "DataLoader[Any]") -> Iterator[int]:
        """The epochs 0, 1, 2 … of a loader until the budget is used up: `n` of them, unless the race says otherwise."""
        self.steps(n * len(loader))
        self._loop.epoch = len(loader)
        return self._loop.counted("epochs")

    def batches(self, loader: Iterable[Any], n: int | None = None) -> Iterator[Any]:
        """The batches of a loader, epoch after epoch, until the budget is used up: `n` steps, by default an epoch."""
        batches = endless(loader)
        for _ in self.steps(len(cast(Any, loader)) if n is None else n):
            yield next(batches)

    def loader(self, dataset: "Dataset[Any]", batch_size: int | None = 1, **options: Any) -> "DataLoader[Any]":
        """A ``DataLoader`` for training, whose order and augmentation are the same for all entries in one replicate.

        It shuffles unless ``shuffle=False`` is given.  Each batch is read with random numbers of its own, so that
        augmentation depends neither on the number of workers nor on where a run was resumed.  After `load` it goes on
        with the next batch.  It ends with the budget of the run.

        Args:
            dataset, batch_size, **options: as for ``torch.utils.data.DataLoader``.
        """
        n = len(self._loaders)
        seed = seed_for(self._plan, self._task, f"order {n}" if n else "order")
        name = f"loader {n}" if n else "loader"  # the first one counts
        made = Loader(
            dataset, batch_size, seed=seed, over=self._is_over, iterating=lambda: self._loop.iterating(name), **options
        )
        if self._trial and not n:
            self._trial.batch_size = int(batch_size or 1)
        self._checkpoint.restore("loaders", made, n)
        self._loaders.append(made)
        return made

    @property
    def over(self) -> bool:
        """Whether the budget is used up, for loops of your own and for the callbacks of trainers."""
        if self.finished or self._ended is not None:
            return True
        if self._trial is not None:
            return self._trial.over(self.taken)
        return self.share >= 1.0

    @property
    def share(self) -> float:
        """How much of the budget is used up, from 0 to 1."""
        if self._plan.seconds:
            return min(self.clock.spent / self._plan.seconds, 1.0)
        return min(self.taken / self._plan.steps, 1.0)

    @property
    def taken(self) -> int:
        """How many of its steps the training has taken, as it counts them: bodies of its loop, batches, or steps of
        the optimizer if the run knows of no loop.
        """
        return self._loop.taken(self.step)

    def save(self, **state: Any) -> None:
        """Saves a checkpoint from which the run goes on if it is killed, where the race has a folder for
        checkpoints: beside its store in a file, or as the race was told.

        It contains the models and optimizers of `optimizer`, the loaders of `loader`, `generator`, the global random
        numbers of torch, NumPy and Python, and the curve.  In a loop over `steps`, `epochs`, `batches` or a loader, it
        is written when the loop's body has ended.

        Args:
            **state: whatever else the training needs, for `load` to return; of what has a ``state_dict``, that.
        """
        self._checkpoint.asked = state
        self._come_around("")

    def load(self) -> dict[str, Any] | None:
        """Goes on from this run's last checkpoint: returns what was given to `save`, or None if there is none.

        Call it before the loop.  Models, optimizers and loaders are restored, also those that are made after it.
        """
        found = self._checkpoint.load()
        if found is None:
            return None
        for kind, things in (("models", self._models), ("optimizers", self._optimizers), ("loaders", self._loaders)):
            for i, thing in enumerate(cast("list[Any]", things)):
                self._checkpoint.restore(kind, thing, i)
        self.step, self.clock.seconds, self.recording = found["step"], found["seconds"], found["recording"]
        self._loop.at, self._best = found["at"], found["best"]
        self.generator.set_state(found["generator"])
        self._resumed = found["chance"]
        chance.set_state(self._resumed)
        if self._gate is not None:
            self._ask(self._gate)  # the others wait for its scores, and it may report nothing any more
        return found["state"]

    def __reduce__(self) -> Any:
        return current_run, ()  # what libraries save of an optimizer's factory is the run that it is restored in

    def __deepcopy__(self, memo: Any) -> "TrainingRun":
        return self

    def _before_step(self, rates: steering.Rates, counts: bool) -> None:
        self._go_on()
        if counts and not self._loop.inside and self._used_up():
            with self._ending():
                raise OutOfBudget(f"the training went on after {self.step:,} steps")
        if counts:
            self._budget.used(self.share, self._optimizers)
        rates.before()
        if self.step == 0:
            self.clock.lap()

    def _after_step(self, rates: steering.Rates, counts: bool) -> None:
        rates.after()
        if counts:
            self.step += 1
        if self.step == 1:
            self.clock.start()  # kernels are compiled in the first step
        else:
            self.clock.lap()

    def _used_up(self) -> bool:
        """Whether the budget was used up after the last step; the step in which its seconds end still counts."""
        if self._plan.seconds and self._trial is None and not self.finished:
            return self.clock.seconds >= self._plan.seconds
        return self.over

    def _is_over(self) -> bool:
        return self.over

    def _entered(self) -> None:
        if self._resumed is not None:
            chance.set_state(self._resumed)  # what was made since `load` may have drawn numbers
            self._resumed = None

    def _come_around(self, what: str) -> None:
        """Write a checkpoint that was asked for, unless a body around one of `what` has not ended yet."""
        if self._checkpoint.asked is None or self._loop.goes_on(what):
            return
        self._checkpoint.write({
            "models": [model.state_dict() for model in self._models],
            "optimizers": [made.state_dict() for made in self._optimizers],
            "loaders": [loader.state_dict() for loader in self._loaders],
            "generator": self.generator.get_state(), "chance": chance.get_state(),
            "step": self.step, "seconds": self.clock.seconds, "at": self._loop.at,
            "recording": self.recording, "best": self._best,
        })  # fmt: skip
        self._heard(self.step)


_running: list[TrainingRun] = []


@contextmanager
def running(run: TrainingRun) -> Generator[None]:
    """Within this context `current_run` returns this run."""
    _running.append(run)
    try:
        yield
    finally:
        _running.remove(run)


def current_run() -> TrainingRun:
    """The run of the race that this code is a part of, for scripts that are raced as a whole.

    Raises:
        RuntimeError: the code runs outside of a race.
    """
    if not _running:
        raise RuntimeError("this code runs outside of a race; start it by thalweg race FILE.py --rules sgd,adam")
    return _running[-1]
