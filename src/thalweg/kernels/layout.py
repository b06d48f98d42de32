"""Where things stand in torch's tensors, found by looking at tensors whose every property is known.

Through Python a step asks each parameter for its gradient and each of these for its address, type and layout, which
took longer than the step of a thousand small ones.  Native code reads all of it from torch's own objects.  Nothing is
assumed of these objects: each offset is found by searching known tensors for known values, read by the operating system
so that a wrong guess cannot crash, and everything is then compared with what Python says of a dozen tensors of all
kinds.  Where anything is otherwise than expected, callers ask through Python.
"""

import contextlib
import ctypes
import os
import struct
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore

from thalweg.kernels.records import LAYOUT

TYPES = (Tensor, nn.Parameter, nn.Buffer) if hasattr(nn, "Buffer") else (Tensor, nn.Parameter)
"""What a tensor may be to be stepped natively: a subclass may mean something else by each of its operations."""

DTYPES = {torch.float16: 5, torch.float32: 6, torch.float64: 7, torch.bfloat16: 15}
"""What kernels can take, and the number by which torch's objects call it."""

_REACH = 256  # bytes of an object that are searched


class _Memory:
    """The memory of the process, read by the operating system: what is not there raises ``OSError``."""

    def __enter__(self) -> "_Memory":
        self._file = os.open("/proc/self/mem", os.O_RDONLY)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def words(self, address: int, count: int = _REACH // 8) -> tuple[int, ...]:
        return struct.unpack(f"{count}q", os.pread(self._file, 8 * count, address))

    def word(self, address: int) -> int:
        return self.words(address, 1)[0]

    def find(self, known: dict[int, tuple[int, ...]]) -> int:
        """The one offset at which each of these objects has these words."""
        held = {address: self.words(address) for address in known}
        found = [
            at
            for at in range(_REACH // 8 - 2)
            if all(held[address][at : at + len(words)] == words for address, words in known.items())
        ]
        if len(found) != 1:
            raise LookupError(f"{len(found)} places in torch's objects could be meant")
        return 8 * found[0]

    def inside(self, known: dict[int, int], mask: int) -> tuple[int, int]:
        """Which word of each object leads to another one that has its known word, and where that has it."""
        possible: set[tuple[int, int]] | None = None
        for address, wanted in known.items():
            found: set[tuple[int, int]] = set()
            for i, word in enumerate(self.words(address)):
                try:
                    held = self.words(word, 8) if word % 8 == 0 and word > 1 << 16 else ()
                except OSError:
                    continue
                found |= {(8 * i, 8 * k) for k, x in enumerate(held) if x & mask == wanted}
            possible = found if possible is None else possible & found
        if possible is None or len(possible) != 1:
            raise LookupError(f"{len(possible or ())} places in torch's objects could be meant")
        return possible.pop()


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def keys(x: Tensor) -> int:
    """What a tensor is to torch's dispatcher, as one number: a lazy conjugate or a sparse tensor has another."""
    return _signed(torch._C._dispatch_keys(x).raw_repr())  # pyright: ignore


def _found() -> NDArray[np.void]:
    layout = np.zeros(1, LAYOUT)
    o = layout[0]
    a = torch.zeros(1000)[11 : 11 + 3 * 5 * 7].view(3, 5, 7)
    b = torch.zeros(1000)[13 : 13 + 9 * 17].view(9, 17).t()
    deep = torch.zeros(2, 3, 1, 5, 1, 2, 2)
    leaf = nn.Parameter(torch.zeros(3, 4))
    tensors = {x: _cdata(x) for x in (a, b, leaf)}
    with _Memory() as memory:
        o["implementation"] = memory.find({id(x): (at,) for x, at in tensors.items()})
        o["storage"] = memory.find({at: (x.untyped_storage()._cdata,) for x, at in tensors.items()})  # pyright: ignore
        o["sizes"] = memory.find({tensors[a]: (3, 5, 7), tensors[b]: (17, 9), tensors[leaf]: (3, 4)})
        o["strides"] = memory.find({tensors[a]: (35, 7, 1), tensors[b]: (1, 17), tensors[leaf]: (4, 1)})
        o["ndim"] = o["sizes"] - 8
        o["offset"] = memory.find({tensors[a]: (11, 105), tensors[b]: (13, 153), tensors[leaf]: (0, 12)})
        o["numel"] = o["offset"] + 8
        o["plain"] = keys(a)
        o["keys"] = memory.find({at: (keys(x),) for x, at in tensors.items()})
        o["dtype"] = _dtype(memory)
        storages = {x.untyped_storage()._cdata: x.untyped_storage().data_ptr() for x in tensors}  # pyright: ignore
        held = [memory.words(at, 8) for at in storages]
        o["data"] = 8 * next(
            i for i in range(8) if all(w[i] == d for w, d in zip(held, storages.values(), strict=True))
        )
        o["deleter"] = o["data"] + 8
        o["owned"] = memory.word(next(iter(storages)) + int(o["deleter"]))
        o["autograd"], o["grad"] = _grad(memory)
        o["counter"], o["version"] = _counter(memory)
        other = nn.Parameter(torch.zeros(2, requires_grad=True) * 1)
        o["none"] = memory.word(memory.word(_cdata(other) + int(o["autograd"])) + int(o["grad"]))
        o["type"], o["list_size"] = 8, 16  # as CPython has all objects, and lists
        listed = [a, b]
        items = memory.word(id(listed) + 24)
        if memory.words(items, 2) != (id(a), id(b)) or memory.words(id(listed) + 8, 2) != (id(list), 2):
            raise LookupError("a list is not laid out as expected")
        o["list_items"] = 24
        o["dict_version"] = _dict_version(memory)
        if memory.words(memory.word(_cdata(deep) + int(o["sizes"])), 14) != (*deep.shape, *deep.stride()):
            raise LookupError("many dimensions do not lie where expected")
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    o["assign"] = ctypes.cast(ctypes.CDLL(str(library))["aoti_torch_assign_tensors"], ctypes.c_void_p).value or 0
    return layout


def _cdata(x: Any) -> int:
    return x._cdata


def _dtype(memory: _Memory) -> int:
    """Where the dtype is said, in two bytes."""
    alive = [torch.zeros(2, dtype=dtype) for dtype in DTYPES]
    known = [(memory.words(_cdata(x)), DTYPES[x.dtype]) for x in alive]
    at = [i for i in range(_REACH // 8) if all(words[i] & 0xFFFF == code for words, code in known)]
    if len(at) != 1:
        raise LookupError("a dtype is not said where expected")
    return 8 * at[0]


def _grad(memory: _Memory) -> tuple[int, int]:
    """Which word of a tensor leads to what autograd knows of it, and where its gradient is in there."""
    leaves = [nn.Parameter(torch.zeros(n)) for n in (2, 3, 4)]
    for leaf in leaves:
        leaf.grad = torch.zeros_like(leaf)
    return memory.inside({_cdata(leaf): _cdata(leaf.grad) for leaf in leaves}, -1)


def _counter(memory: _Memory) -> tuple[int, int]:
    """Which word of a tensor leads to the counter of its versions, and where in there it counts."""
    tensors: list[Tensor] = []
    for versions in (3, 12, 7):
        x = torch.zeros(2)
        for _ in range(versions):
            x.zero_()
        tensors.append(x)
    return memory.inside({_cdata(x): x._version for x in tensors}, 0xFFFFFFFF)


def _dict_version(memory: _Memory) -> int:
    """Where a dictionary's contents are numbered, anew whenever they change; 0 if nowhere, as since CPython 3.13."""
    possible = set(range(6))
    for _ in range(20):
        known: dict[str, object] = {"a": 1, "b": 2}
        before = memory.words(id(known), 6)
        known.get("a")
        known.setdefault("b", 3)
        possible -= {i for i, x in enumerate(memory.words(id(known), 6)) if x != before[i]}
        known["a"] = object()
        possible -= {i for i, x in enumerate(memory.words(id(known), 6)) if x == before[i]}
    return 8 * possible.pop() if len(possible) == 1 else 0


def _samples() -> Iterator[tuple[Tensor, bool]]:
    """Tensors of all kinds, and whether each is plain."""
    for dtype in DTYPES:
        yield torch.zeros(3, 4, dtype=dtype), True
    yield nn.Parameter(torch.zeros(())), True
    yield torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last), True
    yield torch.zeros(2, 1, 3, 1, 2, 2, 2), True
    yield torch.zeros(6)[2:], True
    yield torch.zeros(2, dtype=torch.complex64), True
    yield torch.zeros(2, dtype=torch.complex64).conj(), False
    yield torch.zeros(2, dtype=torch.complex64).conj().imag, False
    yield torch.zeros(2, 2).to_sparse(), False
    yield torch.zeros(2, device="meta"), False
    with torch.inference_mode():
        yield torch.zeros(2), False


def _agrees(layout: NDArray[np.void]) -> bool:
    """Whether what the offsets say is what Python says, of tensors of all kinds."""
    o = _offsets(layout)
    with _Memory() as memory:
        for x, plain in _samples():
            if (memory.word(_cdata(x) + o["keys"]) == o["plain"]) != plain or (keys(x) == o["plain"]) != plain:
                return False
            if plain and not _is_told(memory, o, x):
                return False
    return True


def _offsets(layout: NDArray[np.void]) -> dict[str, int]:
    return {name: int(layout[0][name]) for name in LAYOUT.names or ()}


def _is_told(memory: _Memory, o: dict[str, int], x: Tensor) -> bool:
    """Whether the offsets say of a tensor what Python says."""
    at = _cdata(x)
    sizes, strides = at + o["sizes"], at + o["strides"]
    if x.ndim > 5:
        sizes = memory.word(sizes)
        strides = sizes + 8 * x.ndim
    said = (memory.word(at + o["ndim"]), memory.word(at + o["numel"]), *memory.words(sizes, x.ndim))
    storage = memory.word(at + o["storage"])
    begin = memory.word(storage + o["data"]) + x.element_size() * memory.word(at + o["offset"])
    version = memory.word(memory.word(at + o["counter"]) + o["version"]) & 0xFFFFFFFF
    same = said == (x.ndim, x.numel(), *x.shape) and memory.words(strides, x.ndim) == x.stride()
    return same and begin == x.data_ptr() and version == x._version


@cache
def find() -> NDArray[np.void] | None:
    """The layout, one record of `thalweg.kernels.records.LAYOUT`; None where only Python can be asked."""
    try:
        with _ordinary():
            layout = _found()
            return layout if _agrees(layout) else None
    except _UNKNOWN:
        return None


_UNKNOWN = (LookupError, OSError, AttributeError, ValueError, StopIteration, RuntimeError, TypeError)


@cache
def on(device: torch.device) -> NDArray[np.void] | None:
    """The same for tensors in the memory of a device, which have other dispatch keys and another allocator."""
    found = find()
    if found is None or device.type == "cpu":
        return found
    try:
        with _ordinary(), _Memory() as memory:
            layout = found.copy()
            leaf = nn.Parameter(torch.zeros(2, 1, 3, 1, 2, 2, 2, device=device))
            leaf.grad = torch.ones_like(leaf)
            storage = leaf.untyped_storage()._cdata  # pyright: ignore
            layout[0]["plain"] = keys(leaf)
            layout[0]["owned"] = memory.word(storage + int(layout[0]["deleter"]))
            o = _offsets(layout)
            given = memory.word(memory.word(_cdata(leaf) + o["autograd"]) + o["grad"]) == _cdata(leaf.grad)
            tensors = (leaf, leaf.grad, torch.zeros(9, 6, dtype=torch.bfloat16, device=device)[3:, 1:].t())
            plain = all(memory.word(_cdata(x) + o["keys"]) == o["plain"] for x in tensors)
            return layout if given and plain and all(_is_told(memory, o, x) for x in tensors) else None
    except _UNKNOWN:
        return None


@contextlib.contextmanager
def _ordinary() -> Generator[None]:
    """Whatever mode the caller is in, have tensors made as ordinary ones, on the CPU unless said otherwise."""
    with _disable_current_modes(), torch.inference_mode(False), torch.device("cpu"), torch.no_grad(), _float32():
        yield


class _float32:
    """With float32 as torch's default dtype."""

    def __enter__(self) -> None:
        self._dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self._dtype)


def plain() -> int:
    """What `keys` says of an ordinary tensor on this machine."""
    found = find()
    return 0 if found is None else int(found[0]["plain"])


def code(dtype: torch.dtype) -> int:
    """The number that torch's objects have for a dtype that kernels can take."""
    return DTYPES[dtype]
