"""Checkpoints in the middle of a run, from which it goes on after its process was killed."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from thalweg.store import Place


def beside(store: str | Path | None) -> Path | None:
    """The folder of checkpoints beside a store in a file; None for other stores, and for none."""
    file = None if store is None else Place.of(store).file
    return None if file is None else file.resolve().parent / "checkpoints"


def forget(folder: Path, key: str) -> None:
    """Remove the checkpoint of a run that is recorded, and the folder with the last one."""
    for file in folder.glob(f"{key}.*"):  # one may be left of a process that was killed as it wrote it
        file.unlink(missing_ok=True)
    with suppress(OSError):  # there are others, or there is no folder
        folder.rmdir()


class Checkpoint:
    """The checkpoint of one run, in a file of its own; without a file nothing is saved.

    Attributes:
        asked: what the training function wants to be saved beside what the run knows, until it is saved.
        found: what was loaded; None if there was nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.asked: dict[str, Any] | None = None
        self.found: dict[str, Any] | None = None

    def load(self) -> dict[str, Any] | None:
        """Read the file; None if there is none."""
        if self.path is not None and self.path.is_file():
            # Written by this race in its own folder; it contains whatever the user's function gave to `save`.
            self.found = torch.load(self.path, map_location="cpu", weights_only=False)
        return self.found

    def restore(self, kind: str, thing: Any, index: int) -> None:
        """Set a model, an optimizer or a loader back, by its number, if something was loaded."""
        saved: list[Any] = [] if self.found is None else self.found[kind]
        if index < len(saved):
            thing.load_state_dict(saved[index])

    def write(self, known: dict[str, Any]) -> None:
        """Write what was asked for and what the run knows, all at once or not at all."""
        state, self.asked = self.asked, None
        if self.path is None:
            return
        beside = self.path.with_suffix(f".{os.getpid()}")
        try:
            with _opened(beside) as file:
                torch.save({**known, "state": {name: _plain(x) for name, x in (state or {}).items()}}, file)
            os.replace(beside, self.path)
        finally:
            beside.unlink(missing_ok=True)


def _opened(path: Path) -> BinaryIO:
    """A new file, whose folder another process may remove at any time, since it was empty."""
    for _ in range(100):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return path.open("wb")
    return path.open("wb")


def _plain(thing: Any) -> Any:
    return thing.state_dict() if hasattr(thing, "state_dict") else thing
