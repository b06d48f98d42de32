"""From a step to running code: backends that all compute the one formula of `thalweg.stages`."""

import importlib.util
import os
from functools import cache

from thalweg.kernels.reference import Eager
from thalweg.kernels.work import Backend, States, Work
from thalweg.rule import nearest

__all__ = ["Backend", "States", "Work", "backend"]


def backend(name: str) -> Backend:
    """A new backend of that name; ``"auto"`` is what ``THALWEG_BACKEND`` says, or else the fastest there is.

    Raises:
        ValueError: there is no such backend.
    """
    chosen = os.environ.get("THALWEG_BACKEND", "auto") if name == "auto" else name
    if chosen == "auto":
        chosen = "numba" if _has_numba() else "eager"
    if chosen == "eager":
        return Eager()
    if chosen == "numba":
        from thalweg.kernels import layout

        # Without knowing torch's objects no memory can be proven to be what it was.
        if layout.find() is None:
            return Eager()
        from thalweg.kernels.fused import Fused

        return Fused()
    said = "THALWEG_BACKEND" if name == "auto" else "backend"
    known = ("auto", "eager", "numba")
    raise ValueError(f"{said} is {chosen!r}; allowed is {' or '.join(map(repr, known))}{nearest(chosen, known)}")


@cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None
