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
from thalweg.problems.training import higher_is_better as by_name
from thalweg.race import steering
from thalweg.race.checkpoints import Checkpoint
from thalweg.race.entry import Entry
from thalweg.race.inspecting import Trial, Watch
from thalweg.race.loader import Loader
from thalweg.race.plan import Task, seed_for
from thalweg.race.recording import Ended, Measured, Recording, deciding, number
from thalweg.store import Plan

_UNKNOWN = 10**9
"""The number of steps where only seconds end a run; libraries can count so far."""


class OutOfBudget(Ended):
    """The training went on when the budget of its run was used up; the run ends as it is."""


class TrainingRun:
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
    ) -> None:
        self._plan, self._entry, self._task, self._trial = plan, entry, task, trial
        self._budget = steering.Budget(plan, entry, task)
        self._heard = heard or _ignore
        self.seed = seed_for(plan, task, "model") % 2**31
        self.generator = torch.Generator().manual_seed(seed_for(plan, task, "order"))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.phase = task.phase
        self.step = 0
        self.recording = Recording(plan.problem.metric, plan.problem.higher_is_better)
        self.clock = steering.Clock()
        self._checkpoint = Checkpoint(None if folder is None else folder / f"{task.key}.pt")
        self._optimizers: list[Optimizer] = []
        self._models: list[nn.Module] = []
        self._loaders: list[Loader] = []
        self._inside: list[str] = []  # the iterations of this run that are under way
        self._at = {"steps": 0, "epochs": 0, "loader": 0}  # how often their bodies have ended
        self._epoch = 0  # the batches of an epoch, where the training counts these
        self._best: list[dict[str, Any]] | None = None
        self._following: list[Optimizer] = []  # those that are switched with their model
        self._resumed: Any = None
        self._ended: Ended | None = None
        self.finished = False
        self.watch: Watch | None = None

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

    def steps(self, n: int) -> "Steps":
        """The steps of the loop: 0, 1, 2 … until the budget is used up, each with one step of the optimizer.

        Args:
            n: the number of steps of a run, unless the race says another, or gives seconds.  The ``len`` of what is
                returned is the number of steps of this run, for trainers that have a loop of their own; with seconds
                it is a billion, and `over` says when to stop.
        """
        if self._trial and not self._trial.steps:
            self._trial.steps = int(n)
        most = self._trial.length if self._trial else self._plan.steps or _UNKNOWN
        return Steps(most, lambda: self._counted("steps"))

    def epochs(self, n: int, loader: "DataLoader[Any]") -> Iterator[int]:
        """The epochs 0, 1, 2 … of a loader until the budget is used up: `n` of them, unless the race says otherwise."""
        self.steps(n * len(loader))
        self._epoch = len(loader)
        return self._counted("epochs")

    def batches(self, loader: Iterable[Any], n: int | None = None) -> Iterator[Any]:
        """The batches of a loader, epoch after epoch, until the budget is used up: `n` steps, by default an epoch."""
        endless = _endless(loader)
        for _ in self.steps(len(cast(Any, loader)) if n is None else n):
            yield next(endless)

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
            dataset, batch_size, seed=seed, over=self._is_over, iterating=lambda: self._iterating(name), **options
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
        if "steps" in self._inside or self._at["steps"]:
            return self._at["steps"]
        if self._epoch:
            return max(self._at["epochs"] * self._epoch, self._at["loader"])
        return self._at["loader"] or self.step

    def report(
        self, *, test: Callable[[], Any] | None = None, higher_is_better: bool | None = None, **metrics: Any
    ) -> None:
        """Adds a point to the curve of the run, measured on validation data.

        The first metric decides, unless its name begins with ``train``.  Less of it is better if its name says so, as
        ``validation_loss`` does.  ``train_loss`` and ``validation_loss`` are shown as curves beside it.

        Args:
            test: returns the same metric on test data.  It is called in final runs, if the point is the best so far.
            higher_is_better: which way the metric is better, in place of what its name says.
            **metrics: numbers, or functions that return them, which are called with the weights to evaluate.

        Raises:
            Ended: the run has diverged.  It is no ``Exception``: let it pass.
            ValueError: there is no metric, or one is not a number.
            RuntimeError: the rule evaluates at other weights than it trains at, and nothing has switched to these.
        """
        self.clock.stop()
        self._go_on()
        name = deciding(metrics, None if self._trial else self._plan.problem.metric)
        if self._trial and not self._trial.metric:
            self._trial.metric = self.recording.metric = name
            better = by_name(name) if higher_is_better is None else bool(higher_is_better)
            self._trial.higher_is_better = self.recording.higher = better
        self._check_weights(metrics[name])
        train = metrics.get("train_loss")

        def measure() -> Measured:
            with steering.evaluating(self._optimizers):
                metric = number(name, metrics[name])
                given = metric if "loss" in name else metrics.get("validation_loss")
                return None if given is None else number("validation_loss", given), metric

        with self._ending():
            if steering.infinite(self._optimizers):
                raise self.recording.diverged(self.step, "a parameter is not finite")
        self._point(
            None if train is None else number("train_loss", train), measure,
            None if test is None else lambda: (None, self._measured(test)),
        )  # fmt: skip
        if self.watch is not None:
            self.watch.reported(self.step, self.recording.last["validation_metric"])
        elif self._trial and (self._trial.most is None or not self._trial.steps):
            with self._ending():
                raise Ended("all is known")
        self.clock.start()

    def finish(self, *, test: Callable[[], Any] | float | None = None) -> None:
        """Ends the run.

        Args:
            test: returns the metric on test data.  It is called in final runs only: with the weights of the best point
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
                    self.recording.tested(self.step, (None, self._tested(test)))
        self.finished = True

    def save(self, **state: Any) -> None:
        """Saves a checkpoint from which the run goes on if it is killed, where the race has a folder.

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
        self._at, self._best = found["at"], found["best"]
        self.generator.set_state(found["generator"])
        self._resumed = found["chance"]
        chance.set_state(self._resumed)
        return found["state"]

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
        self._heard(self.step)

    def __reduce__(self) -> Any:
        return current_run, ()  # what libraries save of an optimizer's factory is the run that it is restored in

    def __deepcopy__(self, memo: Any) -> "TrainingRun":
        return self

    def _measured(self, test: Callable[[], Any]) -> float:
        with steering.evaluating(self._optimizers):
            return number("test", test)

    def _tested(self, test: Any) -> float:
        """The metric on test data, at the best point if the run has kept it."""
        if self._best is None or not callable(test):
            return self._measured(test)
        with steering.evaluating(self._optimizers), steering.holding(self._models, self._best):
            return number("test", test)

    def _check_weights(self, metric: Any) -> None:
        if callable(metric) or self.step == 0:
            return
        for made in self._optimizers:
            if made.training and not any(made is one for one in self._following) and steering.moves(made):
                raise RuntimeError(
                    f"{self._entry.name} evaluates at other weights than it trains at, and the run does not know the "
                    "model to switch it; write run.optimizer(model), or report(validation=lambda: …)"
                )

    def _before_step(self, rates: steering.Rates, counts: bool) -> None:
        self._go_on()
        if counts and not self._inside and self.over:
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

    def _is_over(self) -> bool:
        return self.over

    def _counted(self, what: str) -> Iterator[int]:
        """0, 1, 2 … of an iteration of this run, or what follows in a checkpoint, until the budget is used up."""
        with self._iterating(what) as around:
            while not self.over:
                yield self._at[what]
                around()

    @contextmanager
    def _iterating(self, what: str) -> Generator[Callable[[], None]]:
        """An iteration of this run; what it gives is to be called whenever a body has ended."""
        if self._resumed is not None:
            chance.set_state(self._resumed)  # what was made since `load` may have drawn numbers
            self._resumed = None
        self._inside.append(what)

        def around() -> None:
            self._at[what] = self._at.get(what, 0) + 1
            self._come_around(what)

        try:
            yield around
        finally:
            self._inside.remove(what)

    def _come_around(self, what: str) -> None:
        """Write a checkpoint that was asked for, unless a body around this one has not ended yet."""
        waits = ("steps" in self._inside and what != "steps") or (not what and bool(self._inside))
        if self._checkpoint.asked is None or waits:
            return
        self._checkpoint.write({
            "models": [model.state_dict() for model in self._models],
            "optimizers": [made.state_dict() for made in self._optimizers],
            "loaders": [loader.state_dict() for loader in self._loaders],
            "generator": self.generator.get_state(), "chance": chance.get_state(),
            "step": self.step, "seconds": self.clock.seconds, "at": self._at,
            "recording": self.recording, "best": self._best,
        })  # fmt: skip
        self._heard(self.step)


class Steps:
    """The steps of a run: to be iterated, or counted by ``len``."""

    def __init__(self, length: int, counted: Callable[[], Iterator[int]]) -> None:
        self._length, self._counted = length, counted

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return self._counted()


def _ignore(step: int) -> None:
    pass


def _endless(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


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
