"""Printed Triton modules as kernels, and what of them a device can run."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false

import hashlib
import importlib.util
import linecache
import os
from functools import cache
from types import ModuleType
from typing import Any, cast

import torch

from thalweg.printers.triton import Source

LONG = 16_384
"""Elements of a chunk, which one program steps: several blocks, so that looking up where they are costs little."""

_LEAST = (8, 0)
"""The least compute capability that Triton's compiler for NVIDIA supports."""


def interpreted() -> bool:
    """Whether Triton interprets kernels, on the CPU, rather than compiling them."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def installed() -> bool:
    """Whether there is a Triton to import."""
    return importlib.util.find_spec("triton") is not None


def lacking(device: torch.device) -> str | None:
    """What keeps Triton's kernels from stepping parameters on a device, or None if nothing does."""
    if not installed():
        return "Triton is not installed"
    if device.type == "cpu":
        return None if interpreted() else "Triton has no kernels for the CPU (backend='numba' has)"
    if device.type != "cuda":
        return f"Triton has no kernels for {device.type}"
    index = cast("int | None", device.index)
    return _lacking(torch.cuda.current_device() if index is None else index)


@cache
def _lacking(index: int) -> str | None:
    found = torch.cuda.get_device_capability(index)
    if torch.version.hip is None and found < _LEAST:
        name = torch.cuda.get_device_name(index)
        return f"{name} has compute capability {found[0]}.{found[1]}, and Triton needs {_LEAST[0]}.{_LEAST[1]}"
    return None


def words() -> Any:
    """The kernels that are the same for every rule."""
    from thalweg.kernels import words

    return words


def capturing(device: torch.device) -> bool:
    """Whether what is launched is recorded in a CUDA graph instead of being run."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def launch(kernel: Any, programs: int, *arguments: Any, **named: Any) -> None:
    """Launch a kernel on the current stream of the current device; a product and a sum may be one operation."""
    kernel[programs,](*arguments, **{"enable_fp_fusion": True, **named})


@cache
def load(text: str) -> Any:
    """A printed module; Triton compiles its kernels when they are first launched, and stores them on disk."""
    name = f"thalweg_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    file = f"<{name}>"
    module = ModuleType(name)
    module.__file__ = file
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # where Triton reads it
    exec(compile(text, file, "exec"), module.__dict__)
    return module


def block(source: Source) -> tuple[int, int]:
    """How many elements a program has at a time, and on how many warps."""
    if interpreted():
        return 32, 1  # a block is computed whole, however few of its elements there are
    return (1024, 4) if source.exact or len(source.touched) > 6 else (2048, 8)


def rows_block(rows: int) -> int:
    """How many parameters a program that computes their numbers has."""
    return 8 if interpreted() else min(128, max(16, 1 << (rows - 1).bit_length()))
