"""From a step to running code: backends that all compute the one formula of `thalweg.stages`."""

import importlib.util
import os
from functools import cache

from thalweg.hyperparameters import nearest
from thalweg.kernels.reference import Eager
from thalweg.kernels.work import Backend, Guard, StateMemoryError, States, Work

__all__ = ["Backend", "Guard", "StateMemoryError", "States", "Work", "backend", "elsewhere"]


def backend(name: str) -> Backend:
    """A new backend of that name; ``"auto"`` is what ``THALWEG_BACKEND`` says, or else the fastest for the CPU.

    Raises:
        ValueError: there is no such backend.
    """
    chosen = _chosen(name)
    if chosen == "auto":
        chosen = "numba" if _has_numba() else "eager"
    if chosen == "eager":
        return Eager()
    if chosen == "foreach":
        from thalweg.kernels.foreach import Foreach

        return Foreach()
    if chosen == "triton":
        from thalweg.kernels.devices import Devices

        return Devices(Eager(), everywhere=True)
    if chosen == "numba":
        from thalweg.kernels import layout

        # Without knowing torch's objects no memory can be proven to be what it was.
        if layout.find() is None:
            return Eager()
        from thalweg.kernels.fused import Fused

        return Fused()
    said = "THALWEG_BACKEND" if name == "auto" else "backend"
    known = ("auto", "eager", "foreach", "numba", "triton")
    raise ValueError(f"{said} is {chosen!r}; allowed is {' or '.join(map(repr, known))}{nearest(chosen, known)}")


def elsewhere(name: str) -> Backend:
    """The same for groups of which some are not on the CPU: ``"auto"`` decides for each by its device.

    Raises:
        ValueError: there is no such backend.
    """
    if _chosen(name) != "auto":
        return backend(name)
    if not _has_numba():  # what finds out where tensors are is compiled by it
        return backend("foreach")
    from thalweg.kernels.devices import Devices

    return Devices(backend(name))


def _chosen(name: str) -> str:
    return os.environ.get("THALWEG_BACKEND", "auto") if name == "auto" else name


@cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None
