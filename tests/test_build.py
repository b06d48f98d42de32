"""Compiled kernels on disk: they are found again, and compiled anew if they are damaged or not trustworthy."""

import ctypes
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.kernels import build

SOURCE = """
from numba import cfunc, njit

@njit
def square(x):
    return x * x

@cfunc("float64(float64)", nopython=True)
def worker(x):
    return square(x) + {n}

@cfunc("float64(float64, float64)", nopython=True)
def second(x, y):
    return square(x) * {n} + y
"""


def run(n: int = 1, source: str = SOURCE) -> None:
    """Load the source as a new process would, and check what it computes."""
    build._load.cache_clear()  # pyright: ignore[reportPrivateUsage]
    loaded = build.load(source.replace("{n}", str(n)))
    assert ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(loaded.worker.address)(3.0) == 9 + n
    if "second" in source:
        second = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double, ctypes.c_double)(loaded.second.address)
        assert second(3.0, 5.0) == 9 * n + 5


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THALWEG_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that are compiled rather than found."""
    texts: list[str] = []
    compiler = build._compile  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(build, "_compile", lambda text: (texts.append(text), compiler(text))[1])  # pyright: ignore
    return texts


def test_found_again(cache: Path, compiled: list[str]) -> None:
    run()
    run()
    assert len(compiled) == 1
    run(2)
    assert len(compiled) == 2
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("name", ["_numba", "_processor"])
def test_other_compilers_and_processors_compile_anew(
    name: str, cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    with monkeypatch.context() as patch:
        real = getattr(build, name)()
        patch.setattr(build, name, lambda: "0.1" if name == "_numba" else (real[0], real[1] + ","))
        build._surroundings.cache_clear()  # pyright: ignore[reportPrivateUsage]
        run()
    build._surroundings.cache_clear()  # pyright: ignore[reportPrivateUsage]
    assert len(compiled) == 2
    run()
    assert len(compiled) == 2


def _become(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def damage(entry: Path) -> None:
        entry.unlink()
        make(entry)

    return damage


def _another(entry: Path) -> None:
    """The intact entry of another kernel, under the name of this one."""
    run(5)
    [other] = [path for path in entry.parent.iterdir() if path != entry]
    other.replace(entry)


def _as_if(entry: Path) -> None:
    """An entry with the right checksum, but without valid machine code."""
    key, names = json.loads(entry.read_bytes().split(b"\n")[1][32:])
    entry.write_bytes(build._pack(key, names, b"\0" * 100))  # pyright: ignore[reportPrivateUsage]


def _flip(at: float) -> Callable[[Path], object]:
    def damage(entry: Path) -> None:
        data = bytearray(entry.read_bytes())
        data[int(at * (len(data) - 1))] ^= 1
        entry.write_bytes(data)

    return damage


def _cut(at: float) -> Callable[[Path], object]:
    return lambda entry: entry.write_bytes(entry.read_bytes()[: int(at * entry.stat().st_size)])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": _cut(0),
    **{f"cut at {at}": _cut(at) for at in (0.01, 0.3, 0.99)},
    **{f"a bit flipped at {at}": _flip(at) for at in (0, 0.01, 0.2, 0.5, 0.8, 1)},
    "longer": lambda entry: entry.write_bytes(entry.read_bytes() + b"\0"),
    "zeros": lambda entry: entry.write_bytes(b"\0" * entry.stat().st_size),
    "text": lambda entry: entry.write_text("<html>"),
    "another entry": _another,
    "no machine code": _as_if,
    "gone": Path.unlink,
    "a folder": _become(Path.mkdir),
    "a full folder": _become(lambda entry: (entry / "deeper").mkdir(parents=True)),
    "a link to nothing": _become(lambda entry: entry.symlink_to("nothing")),
    "a link to itself": _become(lambda entry: entry.symlink_to(entry.name)),
    "a pipe": _become(os.mkfifo) if hasattr(os, "mkfifo") else Path.unlink,
    "unreadable": lambda entry: entry.chmod(0),
    "read-only": lambda entry: entry.chmod(0o400),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_compiled_anew(damage: str, cache: Path, compiled: list[str]) -> None:
    run()
    [entry] = cache.iterdir()
    DAMAGES[damage](entry)
    compiled.clear()
    run()
    holds = damage == "read-only" or (damage == "unreadable" and os.geteuid() == 0)
    assert len(compiled) == (not holds)
    run()
    assert len(compiled) == (2 if "folder" in damage else not holds)  # a new entry is stored, unless a folder is there
    assert not list(cache.glob("*.tmp"))


KEY, PACKED = "a key", build._pack("a key", ["worker"], bytes(range(256)))  # pyright: ignore[reportPrivateUsage]


@given(st.integers(0, 8 * len(PACKED) - 1), st.integers(0, len(PACKED) - 1), st.binary(max_size=300))
def test_no_damage_is_read(bit: int, cut: int, noise: bytes) -> None:
    unpack = build._unpack  # pyright: ignore[reportPrivateUsage]
    assert unpack(PACKED, KEY) == (["worker"], bytes(range(256)))
    assert unpack(PACKED, KEY + " ") is None
    flipped = bytearray(PACKED)
    flipped[bit // 8] ^= 1 << bit % 8
    for data in (bytes(flipped), PACKED[:cut], noise, PACKED + noise + b"\0", PACKED[:cut] + noise):
        assert data == PACKED or unpack(data, KEY) is None


FOLDERS: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_text(""),
    "below a file": lambda path: path.parent.write_text(""),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a name that is too long": lambda path: None,
    "a name with a zero": lambda path: None,
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_no_folder_to_write_to(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "there" / "cache"
    if kind != "below a file":
        path.parent.mkdir()
    FOLDERS[kind](path)
    if kind == "a name with a zero":  # a real environment cannot contain one
        monkeypatch.setattr(build.os, "environ", {"THALWEG_CACHE_DIR": "a\0b"})
    else:
        monkeypatch.setenv("THALWEG_CACHE_DIR", str(path) * (100 if "long" in kind else 1))
    assert build.folder() is None
    run()


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a name, as in containers, has no home even in the password database."""
    for name in ("THALWEG_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert build.folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says to ignore
    assert build.folder() is None
    run()


def test_a_full_disk(cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    cache.parent.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # less than an entry
    try:
        run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(cache.iterdir()) == []
    run()
    run()
    assert len(compiled) == 2


RAISES = """
from numba import cfunc

@cfunc("float64(float64)", nopython=True)
def worker(x):
    if x > 10:
        raise ValueError("too much")
    return x * x + {n}
"""


def test_code_that_may_raise_is_not_stored(cache: Path, compiled: list[str]) -> None:
    """Its machine code calls Python through Numba, which would have to be loaded."""
    run(source=RAISES)
    run(source=RAISES)
    assert len(compiled) == 2
    assert list(cache.iterdir()) == []


def test_numba_is_not_needed_for_stored_kernels(cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch, thalweg\n"
        "p = torch.zeros(10, requires_grad=True); p.grad = torch.ones(10)\n"
        "thalweg.Optimizer([p], thalweg.rules.Adam(), backend='numba').step()\n"
        "print(p[0].item(), 'numba' in sys.modules)\n"
    )
    said = [subprocess.run([sys.executable, script], capture_output=True, text=True, check=True) for _ in range(2)]
    first, second = (out.stdout.split() for out in said)
    assert first == [second[0], "True"]
    assert second[1] == "False"
    assert all(not out.stderr for out in said)


def test_entries_are_named_by_what_they_hold(cache: Path) -> None:
    """The name is a hash of the key; the key is JSON rather than a pickle, which could run code when read."""
    run()
    [entry] = cache.iterdir()
    body = entry.read_bytes().removeprefix(b"thalweg kernel 1\n")[32:]
    key, names = json.loads(body.split(b"\n")[0])
    assert names == ["worker", "second"]
    assert entry.stem == hashlib.sha256(key.encode()).hexdigest()[:32]
    assert SOURCE.replace("{n}", "1") in json.loads(key)
