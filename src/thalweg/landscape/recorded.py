"""Reading recorded trajectories, a few columns at a time."""

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor

ABOUT, INDEX, WEIGHTS = "trajectory.json", "index.bin", "weights.bin"
FORMAT = 1
EMPTY = -1
"""The number of a slot that has no snapshot, or one that is being written."""

BLOCK = 2**25
"""Bytes of float64 that a block of columns takes at most."""

_WANTED = {"keep": int, "row": int, "tensors": list, "about": dict}


class Recorded:
    """A trajectory on disk, opened for reading; also while it is still being written.

    Attributes:
        folder: its folder.
        document: what ``trajectory.json`` says.
        slots: the number of the call whose weights each slot has, by slot, in the order of calls.
        steps: the step of each snapshot, in this order.

    Raises:
        ValueError: there is no trajectory in the folder, or a damaged one; the message says which file.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.document = _document(self.folder)
        self.about: Mapping[str, Any] = self.document["about"]
        index = self._index()
        there = sorted((call, slot, step) for slot, (call, step) in enumerate(index.tolist()) if call != EMPTY)
        self.slots = {slot: call for call, slot, _ in there}
        self.steps = [step for _, _, step in there]
        try:
            self._file = os.open(self.folder / WEIGHTS, os.O_RDONLY)
        except FileNotFoundError:
            raise ValueError(f"{self.folder} is damaged: {WEIGHTS} is missing") from None
        size, wanted = os.fstat(self._file).st_size, max(self.slots, default=-1)
        last = self.document["tensors"][-1]
        if wanted >= 0 and size < wanted * self.document["row"] + last["at"] + _bytes(last):
            raise ValueError(
                f"{self.folder} is damaged: {WEIGHTS} has {size:,} bytes, fewer than its {len(self.slots):,} snapshots "
                "need"
            )

    def __len__(self) -> int:
        return len(self.slots)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the file of weights; more than once is fine."""
        file, self._file = getattr(self, "_file", -1), -1
        if file >= 0:
            os.close(file)

    @property
    def label(self) -> str:
        """The name of the run: its own, or that of the folder."""
        return str(self.about.get("label") or self.folder.resolve().name)

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The parameters of a snapshot: ``name``, ``shape``, ``dtype``, and ``at``, the offset in a slot."""
        return [each for each in self.document["tensors"] if each["parameter"]]

    def snapshot(self, k: int) -> dict[str, Tensor]:
        """All tensors of the k-th snapshot by name, parameters and buffers."""
        slot = list(self.slots)[k]
        return {
            each["name"]: self._read(each, [slot], 0, _count(each))[0].reshape(each["shape"])
            for each in self.document["tensors"]
        }

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        """Some elements of a parameter in every snapshot, as float64 of shape (snapshots, stop − start)."""
        about = next(each for each in self.parameters if each["name"] == name)
        return self._read(about, list(self.slots), start, stop).to(torch.float64)

    def _read(self, about: Mapping[str, Any], slots: Sequence[int], start: int, stop: int) -> Tensor:
        kind = _kind(about)
        raw = torch.empty(len(slots), (stop - start) * kind.itemsize, dtype=torch.uint8)
        for row, slot in zip(raw.numpy(), slots, strict=True):
            at = slot * self.document["row"] + about["at"] + start * kind.itemsize
            _get(self._file, memoryview(row), at, self.folder)
        return raw.view(kind) if raw.shape[1] else torch.empty(len(slots), 0, dtype=kind)

    def _index(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        try:
            data = (self.folder / INDEX).read_bytes()
        except FileNotFoundError:
            raise ValueError(f"{self.folder} is damaged: {INDEX} is missing") from None
        wanted = 16 * (self.document["keep"] + 1)
        if len(data) != wanted:
            raise ValueError(f"{self.folder} is damaged: {INDEX} has {len(data):,} bytes, and must have {wanted:,}")
        return np.frombuffer(data, "<i8").reshape(-1, 2).astype(np.int64)


class Paths:
    """Several trajectories of one architecture, whose snapshots are the rows of one matrix.

    Attributes:
        runs: the trajectories.

    Raises:
        ValueError: there is none, one has fewer than two snapshots, or their tensors differ.
    """

    def __init__(self, runs: Sequence[Recorded]) -> None:
        if not runs:
            raise ValueError("there is no trajectory to draw")
        for run in runs:
            if len(run) < 2:
                many = "one snapshot" if len(run) else "no snapshots"
                raise ValueError(f"{run.folder} has {many}; a path needs two at least, so call record() after steps")
            if said := differing(runs[0].parameters, run.parameters, str(runs[0].folder)):
                raise ValueError(f"{run.folder} is of another architecture: {said}")
        self.runs = list(runs)

    @classmethod
    def of(cls, folders: Sequence[str | Path]) -> Self:
        """The trajectories in these folders."""
        return cls([Recorded(folder) for folder in folders])

    @property
    def shapes(self) -> dict[str, list[int]]:
        """The shape of each parameter by name."""
        return {each["name"]: each["shape"] for each in self.runs[0].parameters}

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    def blocks(self) -> Iterator[tuple[str, slice, Tensor]]:
        """All snapshots, a block of columns at a time: the parameter's name, its elements, and the block."""
        width = max(1, BLOCK // (8 * len(self)))
        for name, shape in self.shapes.items():
            count = math.prod(shape)
            for start in range(0, count, width):
                part = slice(start, min(start + width, count))
                # One run after another is copied into the block, so that there are not two of it.
                block = torch.empty(len(self), part.stop - part.start, dtype=torch.float64)
                for run, rows in zip(self.runs, self.parts, strict=True):
                    block[rows] = run.columns(name, part.start, part.stop)
                yield name, part, block

    @property
    def parts(self) -> list[slice]:
        """Which rows each run has."""
        ends = list(itertools.accumulate(map(len, self.runs)))
        return [slice(end - len(run), end) for end, run in zip(ends, self.runs, strict=True)]


def differing(first: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], where: str) -> str:
    """The first difference of parameters' names and shapes in words, or nothing; `where`: what has the first ones."""
    ours, theirs = ({each["name"]: list(each["shape"]) for each in some} for some in (first, other))
    for name, shape in theirs.items():
        if name not in ours:
            return f"it has a parameter {name}, and {where} has none of that name"
        if ours[name] != shape:
            return f"its {name} has the shape {shape}, and in {where} it has {ours[name]}"
    missing = [name for name in ours if name not in theirs]
    return f"it has no parameter {missing[0]}, and {where} has one" if missing else ""


def _document(folder: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{folder} has no trajectory; record one with thalweg.Trajectory(model, {str(folder)!r})"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f"{folder} is damaged: {ABOUT} cannot be read") from None
    document = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if isinstance(document.get("format"), int) and document["format"] > FORMAT:
        raise ValueError(f"{folder} was written by a newer thalweg (format {document['format']}); update this one")
    kinds = all(isinstance(document.get(name), kind) for name, kind in _WANTED.items())
    if not kinds or not document["tensors"] or not all(map(_is_tensor, document["tensors"])):
        raise ValueError(f"{folder} is damaged: {ABOUT} does not describe a trajectory")
    return document


def _is_tensor(each: Any) -> bool:
    return (
        isinstance(each, dict)
        and {"name", "shape", "dtype", "at", "parameter"} <= cast("dict[str, Any]", each).keys()
        and isinstance(getattr(torch, str(cast("dict[str, Any]", each)["dtype"]), None), torch.dtype)
    )


def _kind(about: Mapping[str, Any]) -> torch.dtype:
    return cast(torch.dtype, getattr(torch, about["dtype"]))


def _count(about: Mapping[str, Any]) -> int:
    return math.prod(about["shape"])


def _bytes(about: Mapping[str, Any]) -> int:
    return _count(about) * _kind(about).itemsize


def _get(file: int, into: memoryview, at: int, folder: Path) -> None:
    """Fill `into` from an offset; a system call may read less."""
    while into:
        read = os.preadv(file, [into], at)
        if not read:
            raise ValueError(f"{folder} is damaged: {WEIGHTS} ends within a snapshot")
        into, at = into[read:], at + read
