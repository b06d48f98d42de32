"""Checkpoints in files, converted from one to another."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from thalweg.conventions.checkpoints import convert

_SAVED = {"state", "param_groups"}


def convert_file(old: Path, new: Path, source: str, to: str, steps: int | None = None) -> None:
    """Convert the one checkpoint of an optimizer that is in a file, alone or among other things, and keep the rest.

    Only tensors, numbers and text are read; nothing in the file is run.

    Args:
        old: the file that has it.
        new: the file to be written, another one.
        source: as for `convert`.
        to: as for `convert`.
        steps: as for `convert`.

    Raises:
        ValueError: the file has no such checkpoint, or more than one; or as `convert` raises it.
        OSError: a file cannot be read or written.
    """
    if old.resolve() == new.resolve():
        raise ValueError(f"the checkpoint would overwrite {old}; write the converted one to another file")
    whole = _read(old)
    if whole.keys() >= _SAVED:
        torch.save(convert(whole, source, to, steps), new)
        return
    places = [name for name, x in whole.items() if isinstance(x, Mapping) and cast(Any, x).keys() >= _SAVED]
    if len(places) != 1:
        raise ValueError(
            f"{old} has {len(places) or 'no'} optimizers' states among {', '.join(map(str, whole)) or 'nothing'}; save "
            "one optimizer.state_dict(), alone or in a dictionary"
        )
    torch.save({**whole, places[0]: convert(whole[places[0]], source, to, steps)}, new)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, UnicodeDecodeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no checkpoint of tensors, numbers and text: {said}") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} contains a {type(found).__name__}; save optimizer.state_dict()")
    return cast("Mapping[str, Any]", found)
