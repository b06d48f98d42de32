"""From a step to running code: backends that all compute the one formula of `thalweg.stages`."""

import os
from collections.abc import Callable

from thalweg.kernels import eager
from thalweg.kernels.work import Work
from thalweg.rule import nearest

__all__ = ["Work", "backend"]

Backend = Callable[[Work], None]

_BACKENDS: dict[str, Backend] = {"eager": eager.step}


def backend(name: str) -> Backend:
    """The backend of that name; ``"auto"`` is what ``THALWEG_BACKEND`` says, or else the fastest there is.

    Raises:
        ValueError: there is no such backend.
    """
    chosen = os.environ.get("THALWEG_BACKEND", "eager") if name == "auto" else name
    if chosen not in _BACKENDS:
        where = "THALWEG_BACKEND" if name == "auto" else "backend"
        raise ValueError(
            f"{where} is {chosen!r}; allowed is 'auto' or {' or '.join(map(repr, _BACKENDS))}"
            f"{nearest(chosen, ['auto', *_BACKENDS])}"
        )
    return _BACKENDS[chosen]
