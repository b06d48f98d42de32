"""Runs the user's Python files so that the recorded hash is that of the code that runs.

Python may run a text that differs from the file: a cached one, if the file was changed within a second of being
compiled, or an older one, if the module had been imported before.  Files in the folder of a problem are
therefore compiled from their text each time, and the hash of that text is kept.
"""

import hashlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

_folders: set[str] = set()
_LIBRARIES = tuple(
    {os.path.realpath(sysconfig.get_path(kind)) + os.sep for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {os.fspath(Path(__file__).resolve().parents[1]) + os.sep}
)


def is_library(file: str) -> bool:
    """Whether a file belongs to a library: Python's, an installed one, or this one."""
    path = os.path.realpath(file)
    return path.startswith(_LIBRARIES) or f"{os.sep}site-packages{os.sep}" in path


class _Loader(SourceFileLoader):
    """Compiles a file from its text, ignoring caches, and records the hash of the text."""

    hash: str = ""

    def get_code(self, fullname: str) -> CodeType:
        text = self.get_data(self.path)
        self.hash = hashlib.sha256(text).hexdigest()
        return self.source_to_code(text, self.path)


def _find(path: str) -> Any:
    """A finder for a folder of the user's or a folder in it; ``ImportError``, as Python requires, for any other."""
    inside = any(path == folder or path.startswith(folder + os.sep) for folder in _folders)
    if not inside or f"{os.sep}site-packages" in path or not os.path.isdir(path):
        raise ImportError(f"{path} is no folder of a problem", path=path)
    return FileFinder(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (_Loader, SOURCE_SUFFIXES))


def run(name: str, path: Path) -> ModuleType:
    """Run a file as a module called `name`; its neighbours can be imported, as when Python runs the file itself.

    Neighbours that an earlier call imported are forgotten, so that they are read again, and those of another folder
    that have the same name.
    """
    folder = os.fspath(path.parent)
    if _find not in sys.path_hooks:
        sys.path_hooks.insert(0, _find)
    _folders.add(folder)
    for known in [*sys.path_importer_cache]:
        if known == folder or known.startswith(folder + os.sep):
            del sys.path_importer_cache[known]
    for module in [*_read_from("")]:
        top = os.path.join(folder, module.__name__.partition(".")[0])  # may be longer than a path can be
        if str(module.__file__).startswith(folder + os.sep) or os.path.isdir(top) or os.path.isfile(f"{top}.py"):
            sys.modules.pop(module.__name__, None)
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, os.fspath(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look up a class's module by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def read(module: ModuleType) -> str | None:
    """The hash of the text that a module was run from, if it was read by `run` or for a file that `run` reads."""
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return loader.hash if isinstance(loader, _Loader) else None


def files(folder: Path) -> dict[str, str]:
    """The hash of every file in `folder` that has been imported, by its path relative to the folder."""
    found = {os.path.relpath(str(module.__file__), folder): read(module) for module in _read_from(os.fspath(folder))}
    return {name.replace(os.sep, "/"): hash for name, hash in sorted(found.items()) if hash}


def load(folder: Path, name: str) -> None:
    """Import the neighbour in a file of `folder` if it is not imported yet, as a new process will."""
    parts = name.removesuffix(".py").removesuffix("/__init__").split("/")
    if not any(os.path.relpath(str(module.__file__), folder) == name for module in _read_from(os.fspath(folder))):
        with suppress(Exception):  # if it is missing or broken now, it is not among `files`
            importlib.import_module(".".join(parts))


def _read_from(folder: str) -> Iterator[ModuleType]:
    for module in [*sys.modules.values()]:
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith(folder + os.sep) and read(module) is not None:
            yield module
