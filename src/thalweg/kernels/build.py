"""Printed source → running code, compiled once a machine: kept on disk between processes.

The source goes into a folder of the user's own, named by a hash of it and of what it imports, which Numba does not look
at, and Numba keeps the machine code beside it.  Where there is no such folder, or it could be somebody else's, kernels
are compiled anew in each process.
"""

import hashlib
import importlib.util
import os
import stat
import sys
import tempfile
import threading
import types
from functools import cache
from pathlib import Path

from thalweg.kernels import memory

_LOCK = threading.RLock()


def folder() -> Path | None:
    """Where kernels are kept: ``THALWEG_CACHE_DIR``, or the user's cache folder; None if it is not the user's alone."""
    base = os.environ.get("THALWEG_CACHE_DIR")
    chosen = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "thalweg"
    kernels = chosen / "kernels"
    try:
        kernels.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = kernels.stat()
    except OSError:
        return None
    # What lies there is run: nobody else may be able to write it.
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return None
    return kernels if os.access(kernels, os.W_OK) else None


@cache
def _load(text: str) -> types.ModuleType:
    imported = Path(memory.__file__).read_bytes()
    name = "thalweg_kernel_" + hashlib.sha256(text.encode() + imported).hexdigest()[:32]
    kept = folder()
    if kept is None:
        module = types.ModuleType(name)
        exec(compile(text.replace("CACHE", "False"), name, "exec"), module.__dict__)
        return module
    path = kept / f"{name}.py"
    text = text.replace("CACHE", "True")
    if not path.is_file() or path.read_text() != text:
        # Written whole or not at all: other processes may be here for the first time, too.
        with tempfile.NamedTemporaryFile("w", dir=kept, suffix=".tmp", delete=False) as file:
            file.write(text)
        os.replace(file.name, path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load(text: str) -> types.ModuleType:
    """The module that a source printed by `thalweg.printers.numba` says, compiled."""
    with _LOCK:  # Numba's compiler is not for several threads at once
        return _load(text)
