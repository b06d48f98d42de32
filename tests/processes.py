"""Starts the command in a process of its own, and finds what processes a race starts and leaves behind, in /proc."""

import ctypes
import multiprocessing
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from thalweg import cli

HAS_PROC = Path("/proc/self/task").is_dir()
_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h


def living() -> Iterator[tuple[int, int]]:
    """Every living process and its parent."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            yield int(stat.parent.name), int(parent)


def children(pid: int) -> set[int]:
    """The living children of `pid`."""
    return {child for child, parent in living() if parent == pid}


def tree(pid: int) -> set[int]:
    """The living descendants of `pid`."""
    parents = dict(living())
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def ended(pids: set[int]) -> bool:
    """Whether none of these processes is alive."""
    return not pids & dict(living()).keys()


def wait_for(what: Callable[[], Any], patience: float = 600) -> None:
    """Wait until `what()` is true; fail after `patience` seconds, by default far more than a busy machine needs."""
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def adopting() -> Generator[None]:
    """Within this context, orphaned descendants become children of this process, so that none is missed."""
    libc: Any = ctypes.CDLL(None)
    libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def command(line: Sequence[str]) -> ForkServerProcess:
    """Start the command ``thalweg`` with these arguments, forked from a process that has imported it already."""
    process = prepare().Process(target=cli.main, args=(line,))
    process.start()
    return process


def prepare() -> ForkServerContext:
    """The context of `command`, whose server is told what to import before it is started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["thalweg.cli.racing"])
    return context
