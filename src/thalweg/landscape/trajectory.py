"""Recording the weights of a training run, with one line in its loop.

A trajectory is a folder of three files: ``trajectory.json`` says which tensors a snapshot has, ``weights.bin`` has the
snapshots in slots of equal size, and ``index.bin`` says which snapshot each slot has.  A slot's entry in the index is
written last, so a process that is killed leaves every snapshot readable that it had finished.  Files are read and
written at an offset rather than mapped: the pages of a map count as memory of the process, and a full disk would kill
a process that writes into one.
"""

import itertools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from thalweg.landscape.recorded import ABOUT, EMPTY, FORMAT, INDEX, WEIGHTS, Recorded

KEEP = 1_000
_ALIGNED = 64  # bytes


class Trajectory:
    """Records the weights of a model in a folder::

        path = Trajectory(model, "run")
        for x, y in batches:
            ...
            optimizer.step()
            path.record()
        path.close()

    The first weights are recorded at once.  When `keep` snapshots are there, every second is dropped and from then on
    half as many are taken, so that they stay evenly spaced however long the run is.  Buffers, such as the statistics of
    batch normalisation, are recorded along with the parameters.

    Args:
        model: the model; its lazy parameters must have their shapes.
        folder: where to write; it is made.
        keep: the most snapshots to keep, besides the last, which `close` adds: 2 or more.
        dtype: the floating type in which parameters are stored; by default their own.  ``torch.bfloat16`` halves the
            space that float32 takes, and rounds to three digits.
        existing: what to do if the folder has a trajectory: ``"refuse"`` it, ``"replace"`` it, or ``"continue"`` it.
        about: what else to note, as plain values for JSON: ``label``, the run's name in pictures; ``problem``, the text
            of the problem for `thalweg.problems.read`; ``colour``.

    Attributes:
        folder: the folder.

    Raises:
        ValueError: an argument is out of range, the model has no parameters, or lazy ones; the folder has a trajectory,
            and, to be continued, of other tensors.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: str | Path,
        *,
        keep: int = KEEP,
        dtype: torch.dtype | None = None,
        existing: Literal["refuse", "replace", "continue"] = "refuse",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(cast(Any, keep), bool) or not isinstance(cast(Any, keep), int) or keep < 2:
            raise ValueError(f"the trajectory's keep is {keep!r}; allowed is a whole number >= 2")
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"the trajectory's dtype is {dtype}; allowed are floating types, such as torch.bfloat16")
        if existing not in ("refuse", "replace", "continue"):
            raise ValueError(f"existing is {existing!r}; allowed are 'refuse', 'replace' and 'continue'")
        if not hasattr(os, "pwrite"):
            raise OSError("trajectories are written at offsets, which this system cannot; Linux and macOS can")
        self.folder = Path(folder)
        self._model, self._dtype = model, dtype
        self._files: dict[str, int] = {}
        self._kept: dict[int, int] = {}  # the number of the call whose weights a slot has
        self._calls, self._stride = 0, 1
        self._last: tuple[int, int] | None = None  # the last call that was not kept
        self.keep = keep
        self._tensors, self._row = self._layout()
        document: dict[str, Any] = {
            "format": FORMAT, "keep": keep, "row": self._row, "tensors": self._tensors, "about": dict(about or {}),
        }  # fmt: skip
        there = (self.folder / ABOUT).exists()
        if there and existing == "refuse":
            raise ValueError(
                f"{self.folder} has a trajectory already; give another folder, or existing='replace' or 'continue'"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if there and existing == "continue":
            self._continue(document)
        else:
            self._begin(document)
        if self._calls == 0:
            self.record()

    def record(self, step: int | None = None) -> bool:
        """Record the weights as they are now, unless they are thinned out; returns whether they are recorded.

        Args:
            step: the number of the optimizer's step, for pictures; by default the number of calls so far.

        Raises:
            ValueError: the model's tensors are others than at first, or the trajectory is closed.
            OSError: the disk is full; what is recorded stays readable.
        """
        self._check_open()
        call = self._calls
        known = call if step is None else step
        if call % self._stride == 0 and len(self._kept) >= self.keep:
            self._thin()
        if call % self._stride:
            self._last = (call, known)
            self._calls += 1
            return False
        slot = next(slot for slot in range(self.keep) if slot not in self._kept)
        self._write(slot, call, known)
        self._kept[slot] = call
        self._last = None
        self._calls += 1
        return True

    def close(self) -> None:
        """Record the last weights, if they were thinned out, and close the files; more than once is fine."""
        if self._files and self._last is not None:
            self._write(self.keep, *self._last)
        for file in self._files.values():
            os.close(file)
        self._files = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._files:
            raise ValueError(f"the trajectory in {self.folder} is closed; make another one to record more")

    def _layout(self) -> tuple[list[dict[str, Any]], int]:
        """The tensors of a snapshot with their places in a slot, and the slot's size in bytes."""
        found: list[dict[str, Any]] = []
        at = 0
        for name, tensor, trained in tensors(self._model):
            if is_lazy(cast(Any, tensor)):
                raise ValueError(f"{name} has no shape yet; pass a batch through the model before recording it")
            kind = self._stored(tensor, trained)
            shape = list(real(tensor).shape)
            about = {"name": name, "shape": shape, "dtype": str(kind).removeprefix("torch."), "at": at}
            found.append({**about, "parameter": trained})
            size = math.prod(shape) * kind.itemsize
            at += -(-size // _ALIGNED) * _ALIGNED
        if not any(each["parameter"] for each in found):
            raise ValueError(f"{type(self._model).__name__} has no parameters, so there is no path to record")
        return found, at

    def _stored(self, tensor: Tensor, trained: bool) -> torch.dtype:
        return self._dtype if trained and self._dtype is not None else real(tensor).dtype

    def _begin(self, document: Mapping[str, Any]) -> None:
        self._open(os.O_TRUNC)
        index = np.full((document["keep"] + 1, 2), EMPTY, "<i8")
        os.pwrite(self._files[INDEX], index.tobytes(), 0)
        beside = self.folder / f".{ABOUT}.{os.getpid()}"
        beside.write_text(json.dumps(document), encoding="utf-8")
        beside.replace(self.folder / ABOUT)

    def _continue(self, document: Mapping[str, Any]) -> None:
        before = Recorded(self.folder)
        for name, wanted in (("tensors", "tensors"), ("keep", "number of snapshots to keep")):
            if before.document[name] != document[name]:
                raise ValueError(f"{self.folder} has a trajectory of another {wanted}; give another folder")
        self._open(0)
        self._kept = {slot: call for slot, call in before.slots.items() if slot < document["keep"]}
        calls = sorted(self._kept.values())
        self._calls = max(before.slots.values(), default=-1) + 1
        self._stride = min((b - a for a, b in itertools.pairwise(calls)), default=1)

    def _open(self, flag: int) -> None:
        for name in (INDEX, WEIGHTS):
            self._files[name] = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | flag, 0o666)

    def _thin(self) -> None:
        self._stride *= 2
        for slot, call in list(self._kept.items()):
            if call % self._stride:
                self._mark(slot, EMPTY, EMPTY)
                del self._kept[slot]

    def _write(self, slot: int, call: int, step: int) -> None:
        now = tensors(self._model)
        if [name for name, _, _ in now] != [about["name"] for about in self._tensors]:
            raise ValueError("the model has other parameters or buffers than when the recording began")
        self._mark(slot, EMPTY, EMPTY)
        for (name, tensor, trained), about in zip(now, self._tensors, strict=True):
            if list(real(tensor).shape) != about["shape"]:
                raise ValueError(
                    f"{name} has the shape {list(tensor.shape)}, and had {about['shape']} when the recording began"
                )
            data = real(tensor.detach()).to("cpu", self._stored(tensor, trained)).contiguous()
            if data.numel():
                raw = data.reshape(-1).view(torch.uint8).numpy()
                _put(self._files[WEIGHTS], cast(Any, raw).data, slot * self._row + about["at"])
        self._mark(slot, call, step)

    def _mark(self, slot: int, call: int, step: int) -> None:
        entry = np.array([call, step], "<i8")
        _put(self._files[INDEX], cast(Any, entry).data.cast("B"), slot * entry.nbytes)


def real(tensor: Tensor) -> Tensor:
    """A tensor of real numbers; complex ones get a last axis of two."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def tensors(model: nn.Module) -> list[tuple[str, Tensor, bool]]:
    """What a snapshot has of a model: names and tensors, and whether each is a parameter or a buffer."""
    parameters = [(name, tensor, True) for name, tensor in model.named_parameters()]
    return [*parameters, *((name, tensor, False) for name, tensor in model.named_buffers())]


def _put(file: int, data: memoryview, at: int) -> None:
    """Write all of `data` at an offset; a system call may write less."""
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written
