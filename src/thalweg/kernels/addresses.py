"""Where many parameters and their gradients lie in memory, asked of torch's C++ side in one native call.

Through Python that takes four calls a parameter: for a thousand small ones it was most of a step.  What is called are
torch's C interface and ``TensorImpl::grad``, in the libraries that torch has loaded; where these cannot be found, or
answer other than Python does, callers ask through Python.
"""

import ctypes
import operator
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.kernels import build

SAME, MOVED, CHANGED = 0, 1, 2

_ASKED = ("get_data_ptr", "get_layout", "get_strides", "get_dim")


class Column(NamedTuple):
    """A column of int64 for addresses of gradients: row i is of gradient ``which[i]``, ``offset[i]`` bytes into it."""

    column: NDArray[np.int64]
    which: NDArray[np.int64]
    offset: NDArray[np.int64]


class Addresses:
    """The addresses of parameters and of their gradients, looked up anew by `look`.

    Attributes:
        params: int64, where each parameter's elements begin.
        grads: int64, where each gradient's do; 0 where there is none.
    """

    def __init__(self, params: Sequence[Tensor], columns: Sequence[Column]) -> None:
        torches = _torches()
        if torches is None:
            raise LookupError("torch's C++ side is not as expected")
        n = len(params)
        self.params, self.grads = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._objects = np.fromiter(map(id, params), np.int64, n) + torches.offset
        self._there = np.zeros(n, np.int64)
        arrays = [self._objects, self.params, self.grads, self._there]
        self._columns = columns
        lines = [[len(c), c.ctypes.data, c.strides[0], w.ctypes.data, at.ctypes.data] for c, w, at in columns]
        self._told = np.array(lines, np.int64)
        told = [len(columns), self._told.ctypes.data]
        words = [n, *(a.ctypes.data for a in arrays), *torches.functions, 0, *told, torches.assign]
        self._job = np.array(words, np.int64)
        self._torches, self._at = torches, self._job.ctypes.data

    def look(self) -> int:
        """Look again, and fill in the columns: `SAME` if at most gradients are elsewhere, `MOVED` if parameters are.

        `CHANGED`, with the columns left as they were, if there are other gradients than before, or one is laid out
        otherwise than its parameter.
        """
        return self._torches.look(self._at)

    def drop(self) -> None:
        """Set all gradients to None."""
        self._torches.drop(self._at)

    @classmethod
    def of(cls, params: Sequence[Tensor], columns: Sequence[Column]) -> "Addresses | None":
        """Those of tensors that are kept alive elsewhere; None where only Python can be asked."""
        try:
            found = cls(params, columns)
        except LookupError:
            return None
        found.look()
        grads = [0 if g is None else g.data_ptr() for g in map(operator.attrgetter("grad"), params)]
        same = found.params.tolist() == list(map(Tensor.data_ptr, params)) and found.grads.tolist() == grads
        return found if same else None


class _Torches:
    """What is found in torch's libraries.

    Attributes:
        offset: of the pointer to the ``TensorImpl`` in a tensor's Python object.
        functions: the addresses of ``TensorImpl::grad``, of the tensor that is none, and of four of the C interface.
        assign: the address of another, which assigns a tensor.
        look, drop: the native functions, compiled.
    """

    def __init__(self) -> None:
        libraries = [ctypes.CDLL(str(_library(name))) for name in ("c10", "torch_cpu")]
        grad = libraries[0]["_ZNK3c1010TensorImpl4gradEv"]
        none = ctypes.c_char.in_dll(libraries[0], "_ZN3c1019UndefinedTensorImpl10_singletonE")
        asked = [libraries[1][f"aoti_torch_{what}"] for what in (*_ASKED, "assign_tensors")]
        pointers = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in (grad, *asked)]
        self.functions = [pointers[0], ctypes.addressof(none), *pointers[1:-1]]
        self.assign = pointers[-1]
        self.offset = _offset()
        # With Python's lock held: nobody else sets a gradient meanwhile.
        native = build.native()
        self.look = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(native.look.address)
        self.drop = ctypes.PYFUNCTYPE(None, ctypes.c_int64)(native.drop.address)


def _library(name: str) -> Path:
    found = sorted((Path(torch.__file__).parent / "lib").glob(f"lib{name}.so"))
    if not found:
        raise LookupError(f"torch has no lib{name}.so")
    return found[0]


def _offset() -> int:
    """Where in the Python object of a tensor the address of its ``TensorImpl`` stands, the same for all."""
    words = set(range(0, Tensor.__basicsize__, 8))
    for tensor in (torch.zeros(2), torch.nn.Parameter(torch.zeros(3, 1)), torch.zeros((), requires_grad=True)):
        implementation: int = cast(Any, tensor)._cdata
        words &= {at for at in words if ctypes.c_int64.from_address(id(tensor) + at).value == implementation}
    if len(words) != 1:
        raise LookupError("a tensor's object does not hold the address of its TensorImpl once")
    return words.pop()


@cache
def _torches() -> _Torches | None:
    try:
        return _Torches()
    except (LookupError, OSError, AttributeError, ValueError):
        return None
