"""The loss of a network anywhere in its space of weights, on data that are said."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] -- torch has no public name

from thalweg.landscape.plane import Plane
from thalweg.landscape.recorded import Paths, Recorded, differing
from thalweg.landscape.trajectory import real, tensors
from thalweg.problems import Problem
from thalweg.problems.chance import reproducible
from thalweg.problems.problem import CHUNK
from thalweg.problems.splits import Batch, count
from thalweg.problems.trial import SPLITS, Split

Statistics = Literal["recomputed", "frozen"]


class Measure:
    """The loss of a model on some data.

    Args:
        model: the model, whose weights are changed.
        loss: the loss of the model as it is now, as a number.
        data: the data in words, for pictures: what, how many, of how many.
        forward: passes the data through the model, to recompute the statistics of batch normalisation; without it they
            cannot be recomputed.
        statistics: whether the statistics of batch normalisation are recomputed at each place, from the same data, or
            frozen: those of the snapshot, and on the plane those of the first path's last snapshot.

    Attributes:
        said: what is measured, in sentences.

    Raises:
        ValueError: the statistics are to be recomputed, and there is no `forward`; or they are neither.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[], float | Tensor],
        *,
        data: str = "",
        forward: Callable[[], object] | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        if statistics not in (None, *get_args(Statistics)):
            raise ValueError(f"statistics is {statistics!r}; allowed are 'recomputed' and 'frozen'")
        self.model, self._loss, self._forward = model, loss, forward
        self._norms = [
            module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
        ]
        if statistics is None:
            statistics = "recomputed" if forward else "frozen"
        if statistics == "recomputed" and self._norms and forward is None:
            raise ValueError("statistics of batch normalisation can be recomputed only with forward; or freeze them")
        self.statistics: Statistics = statistics
        self.said = [f"The loss is computed {data}."] if data else []
        if self._norms:
            self.said.append(
                "The statistics of batch normalisation are recomputed at each place, from the same data."
                if statistics == "recomputed"
                else "The statistics of batch normalisation are frozen: on the plane they are those of the last "
                "snapshot of the first path, and on paths the recorded ones."
            )

    @classmethod
    def of(
        cls,
        problem: Problem,
        *,
        samples: int | None = 2_048,
        split: Split = "train",
        seed: int = 0,
        statistics: Statistics = "recomputed",
    ) -> "Measure":
        """The loss of a problem's model on a part of its data.

        Args:
            problem: the problem.
            samples: how many samples, drawn at random without replacement; None for all.
            split: of which data.
            seed: of the samples.
            statistics: as above.

        Raises:
            ValueError: samples is below 1, or there is no such split.
        """
        if samples is not None and samples < 1:
            raise ValueError(f"samples is {samples!r}; allowed is a whole number >= 1, or None for all")
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; allowed are {', '.join(map(repr, SPLITS))}")
        if not problem.fast:
            return cls._of_batches(problem, samples, split, seed, statistics)
        x, y = problem.tensors(split)
        words = {"train": "training", "validation": "validation", "test": "test"}[split]
        data = f"on all {len(x):,} {words} samples"
        if samples is not None and samples < len(x):
            data = f"on {samples:,} of {len(x):,} {words} samples, drawn once at random (seed {seed})"
            chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:samples].sort().values
            x, y = x[chosen], y[chosen]
        with reproducible(seed):
            model = problem.fresh()

        def forward() -> Tensor:
            return torch.cat([model(x[i : i + CHUNK]) for i in range(0, len(x), CHUNK)])

        return cls(model, lambda: problem.loss(forward(), y), data=data, forward=forward, statistics=statistics)

    @classmethod
    def _of_batches(
        cls, problem: Problem, samples: int | None, split: Split, seed: int, statistics: Statistics
    ) -> "Measure":
        """The mean loss of batches, the first ones of a loader or of tensors in any structure."""
        with reproducible(seed):
            model = problem.fresh()
            batches: list[tuple[int, Batch]] = []
            for batch in problem.batches(split):
                batches.append((count(batch), batch))
                if samples is not None and sum(n for n, _ in batches) >= samples:
                    break
        whole = sum(n for n, _ in batches)

        def loss() -> Tensor:
            return torch.stack([n / whole * problem.batch_loss(model, batch) for n, batch in batches]).sum()

        words = {"train": "training", "validation": "validation", "test": "test"}[split]
        data = f"on the first {whole:,} {words} samples"
        return cls(model, loss, data=data, forward=loss, statistics=statistics)

    def check(self, paths: Paths) -> None:
        """Raise ``ValueError`` unless the model has the parameters that were recorded."""
        ours = [{"name": name, "shape": list(real(x).shape)} for name, x, trained in tensors(self.model) if trained]
        for run in paths.runs:
            if said := differing(run.parameters, ours, str(run.folder)):
                raise ValueError(f"the model, {type(self.model).__name__}, is of another architecture: {said}")

    @contextmanager
    def borrowed(self) -> Generator[None]:
        """Within this context the model is in evaluation mode; then it is what and how it was before."""
        before = {name: x.detach().clone() for name, x, _ in tensors(self.model)}
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for name, x, _ in tensors(self.model):
                    x.copy_(before[name])

    def on(self, plane: Plane, x: float, y: float) -> float:
        """The loss at a point of a plane; inf or nan where it is not finite."""
        with torch.no_grad():
            for name, tensor, trained in tensors(self.model):
                if trained:
                    flat = real(tensor.detach())
                    flat.copy_(plane.weights(name, x, y).reshape(flat.shape))
        return self.now()

    def at(self, recorded: Recorded, k: int) -> float:
        """The loss at the k-th snapshot itself."""
        self.put(recorded.snapshot(k))
        return self.now()

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Give the model the tensors of a snapshot; what the snapshot does not have stays."""
        with torch.no_grad():
            for name, tensor, _ in tensors(self.model):
                if name in values:
                    real(tensor.detach()).copy_(values[name])

    def now(self) -> float:
        """The loss of the model as it is."""
        with torch.no_grad():
            if self._norms and self.statistics == "recomputed":
                self._recompute()
            return float(self._loss())

    def _recompute(self) -> None:
        """Take means and variances anew, over all the data."""
        momenta = [module.momentum for module in self._norms]
        for module in self._norms:
            module.reset_running_stats()
            module.momentum = None  # the average over all chunks
            module.train()
        try:
            cast(Any, self._forward)()
        finally:
            for module, momentum in zip(self._norms, momenta, strict=True):
                module.momentum = momentum
                module.eval()
