"""Source → running code: compiled once per machine, and stored as machine code that needs no Numba to load.

A source is the text of a module with functions under Numba's ``cfunc``.  What is stored is one object file for all of
them, in a folder of the user's own, with a checksum over all that is in it.  An entry that does not hold for any reason
is compiled anew, and one that cannot be written is not: a step never depends on the folder, or on there being one.
"""

import contextlib
import gc
import hashlib
import importlib.metadata
import itertools
import json
import os
import pkgutil
import stat
import sys
import tempfile
import threading
import types
from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

_LOCK = threading.RLock()  # LLVM and Numba's compiler are not for several threads at once
_MAGIC = b"thalweg kernel 1\n"
_PREFIX = "thalweg."
_VERSIONS = range(14, 23)  # of LLVM, whose option for wider vectors is known
_libraries = itertools.count()


@dataclass(frozen=True)
class Function:
    """A compiled C function.

    Attributes:
        address: where its machine code is, for as long as the process lives.
    """

    address: int


def load(text: str) -> Any:
    """Compile the C functions of a module's source, or find them compiled.

    Args:
        text: a module that may import what it likes of Numba and of `thalweg.kernels`.  Its functions under Numba's
            ``cfunc`` must be able to do without Python: what may raise is compiled in each process.

    Returns:
        A namespace with a `Function` under the name of each.
    """
    with _LOCK:
        return _load(text)


@cache
def native(name: str) -> Any:
    """The functions of ``native.py``, ``rows.py``, ``watch.py``, ``counting.py`` or ``loops.py``, compiled."""
    return load(_source(f"{name}.py"))


def folder() -> Path | None:
    """Where kernels are stored: ``THALWEG_CACHE_DIR`` or the user's cache; None if it is not the user's alone."""
    chosen = os.environ.get("THALWEG_CACHE_DIR")
    if not chosen:
        base = os.environ.get("XDG_CACHE_HOME", "")
        base = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
        if not os.path.isabs(base):  # a user without a home
            return None
        chosen = os.path.join(base, "thalweg")
    kernels = Path(chosen) / "kernels"
    try:
        kernels.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = kernels.stat()
    except (OSError, ValueError):
        return None
    # What lies there is run: nobody else may be able to write it, but the superuser, who can anyway.
    if hasattr(os, "getuid") and (
        found.st_uid not in (0, os.getuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        return None
    return kernels


@cache
def _load(text: str) -> types.SimpleNamespace:
    key = _key(text)
    kept = folder()
    path = kept / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.kernel" if kept else None
    found = _link(*stored) if path and (stored := _read(path, key)) else None
    if found is None:
        compiled = _compile(text)
        machine = _machine_code(compiled)
        found = _link(list(compiled), machine) if machine else None
        if found is None:
            _kept.append(compiled)
            found = {name: Function(f.address) for name, f in compiled.items()}
        elif path:
            assert machine is not None
            _write(path, key, list(compiled), machine)
    return types.SimpleNamespace(**found)


def _key(text: str) -> str:
    """All that the machine code of a source depends on."""
    return json.dumps([text, *_surroundings(), sorted(x for x in os.environ.items() if x[0].startswith("NUMBA_"))])


@cache
def _surroundings() -> list[Any]:
    """What all sources depend on: what they import from here, the compilers, and the processor."""
    here = hashlib.sha256(
        "".join(
            _source(name) for name in ("build.py", "memory.py", "records.py", "roots.py", "rounding.py", "tensors.py")
        ).encode()
    ).hexdigest()
    compilers = [sys.implementation.cache_tag, _numba(), llvmlite.__version__]
    return [here, *compilers, llvm.get_process_triple(), *_processor()]


def _source(name: str) -> str:
    data = pkgutil.get_data(__package__ or "", name)
    assert data is not None
    return data.decode()


def _numba() -> str:
    """The version of Numba, which is not imported if its code is found compiled: that takes a third of a second."""
    try:
        return importlib.metadata.version("numba")
    except importlib.metadata.PackageNotFoundError:
        import numba

        return numba.__version__


def _processor() -> tuple[str, str]:
    """The name of the processor and its features, as Numba has them."""
    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        try:
            features = llvm.get_host_cpu_features().flatten()
        except RuntimeError:  # LLVM does not know for every platform
            features = ""
    return name or llvm.get_host_cpu_name(), features


def _compile(text: str) -> dict[str, Any]:
    """The functions of Numba's ``cfunc`` in a module, by their names."""
    from numba.core.ccallback import CFunc

    module = types.ModuleType("thalweg_kernel")
    with _uncollected(), _wide_vectors():
        exec(compile(text, module.__name__, "exec"), module.__dict__)
    return {name: f for name, f in vars(module).items() if isinstance(f, CFunc)}


@contextlib.contextmanager
def _uncollected() -> Generator[None]:
    """Without looking for garbage, which takes a seventh of the time in which Numba makes many small objects."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


@contextlib.contextmanager
def _wide_vectors() -> Generator[None]:
    """Have LLVM choose vectors by the narrowest type of a loop, while a module is compiled.

    By the widest, which is its way, float32 that is summed up in float64 takes half of a vector, and roots and
    quotients twice as long.  An option that LLVM does not know would end the process, hence the versions.
    """
    known = llvm.llvm_version_info[0] in _VERSIONS and llvm.get_process_triple().startswith("x86")
    if known:
        llvm.set_option("thalweg", "-vectorizer-maximize-bandwidth=true")
    try:
        yield
    finally:
        if known:
            llvm.set_option("thalweg", "-vectorizer-maximize-bandwidth=false")


def _machine_code(compiled: dict[str, Any]) -> bytes | None:
    """One object file of functions that Numba compiled, named with `_PREFIX`; None if there is no way to make one."""
    from llvmlite.binding import newpassmanagers as passes

    try:
        whole: Any = None
        for name, f in compiled.items():
            module = llvm.parse_assembly(f.inspect_llvm())
            for part in (*module.functions, *module.global_variables):
                if not part.is_declaration:
                    part.linkage = "internal"
            entry = module.get_function(f.native_name)
            entry.linkage, entry.name = "external", _PREFIX + name
            if whole is None:
                whole = module
            else:
                whole.link_in(module)
        # Numba's wrapper has a branch for errors, which calls Python.  Where no error can be, that is seen once all
        # functions but the wrappers are known to be called from nowhere else.
        machine = _machine()
        manager = passes.create_new_module_pass_manager()
        manager.add_ipsccp_pass()
        manager.add_simplify_cfg_pass()
        manager.add_global_dead_code_eliminate_pass()
        manager.run(whole, passes.create_pass_builder(machine, passes.create_pipeline_tuning_options()))
        return machine.emit_object(whole)
    except (AttributeError, RuntimeError, TypeError, NameError):  # an LLVM older or newer than we know
        return None


def _machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    cpu, features = _processor()
    reloc = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(
        cpu=cpu, features=features, opt=3, reloc=reloc, codemodel="jitdefault", jit=True
    )


@cache
def _linker() -> Any:
    return llvm.create_lljit_compiler(_machine(), suppress_errors=True)


_kept: list[Any] = []  # machine code lives as long as these


def _link(names: list[str], machine: bytes) -> dict[str, Function] | None:
    """Load an object file; None if it needs anything that this process does not have."""
    builder = llvm.JITLibraryBuilder().add_object_img(machine).add_current_process()
    for name in names:
        builder.export_symbol(_PREFIX + name)
    try:
        library: Any = builder.link(_linker(), f"thalweg {next(_libraries)}")
    except RuntimeError:
        return None
    _kept.append(library)
    return {name: Function(library[_PREFIX + name]) for name in names}


def _read(path: Path, key: str) -> tuple[list[str], bytes] | None:
    """The names of the functions of an entry and their object file; None unless all of it is as it was written."""
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError:
        return None
    return _unpack(data, key)


def _pack(key: str, names: list[str], machine: bytes) -> bytes:
    body = json.dumps([key, names]).encode() + b"\n" + machine
    return _MAGIC + hashlib.sha256(body).digest() + body


def _unpack(data: bytes, key: str) -> tuple[list[str], bytes] | None:
    start = len(_MAGIC) + hashlib.sha256().digest_size
    body = data[start:]
    if data[:start] != _MAGIC + hashlib.sha256(body).digest():
        return None
    head, _, machine = body.partition(b"\n")
    stored, names = json.loads(head)
    return (names, machine) if stored == key else None


def _write(path: Path, key: str, names: list[str], machine: bytes) -> None:
    """Store an entry, whole or not at all."""
    # A disk that is full, a folder that is read-only or gone: the next process compiles again.
    with contextlib.suppress(OSError):
        # Under a name of its own first: other processes may be here for the first time, too.
        file, name = tempfile.mkstemp(".tmp", dir=path.parent)
        try:
            with open(file, "wb") as written:
                written.write(_pack(key, names, machine))
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
