"""Does something in a forked process of its own, of which nothing is left behind.

The process may raise, exit, be killed, hang, change whatever is global, and leave threads and processes: its parent
goes on as it was.  It is forked rather than started anew, since to import torch again takes seconds.
"""

import ctypes
import faulthandler
import getpass
import os
import pickle
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, cast

import psutil
import torch

from thalweg.race.channel import Channel

_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h
_LINES = 6
_WAIT = 5.0  # seconds for a process to say where it hangs, and for killed ones to end

Heard = Callable[[int], None]


class Lost(Exception):
    """The process ended without a result, or had to be killed; the message says how, and where if that is known."""


def possible() -> bool:
    """Whether a process can be forked: on Linux, unless this one uses a GPU already."""
    return sys.platform == "linux" and not torch.cuda.is_initialized()


def do(work: Callable[[Heard], Any], *, patience: float | None = None) -> Any:
    """The result of `work`, called in a process of its own.

    Args:
        work: is given a function to call with the number of the step, whenever there is a sign of life.
        patience: the most seconds between two signs of life; None for any number.

    Raises:
        Lost: the process ended without a result, or there was no sign of life.
    """
    before = _descendants()
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of the process become children of this one
    folder = Path(tempfile.mkdtemp(prefix="thalweg-"))
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads, of which this has one
        pid = os.fork()
    if not pid:
        _child(work, writes, folder)
    os.close(writes)
    watch = _Watch(pid, reads, folder, patience)
    try:
        return watch.result()
    finally:
        watch.close()
        _end(pid, before)
        shutil.rmtree(folder, ignore_errors=True)


def _child(work: Callable[[Heard], Any], writes: int, folder: Path) -> NoReturn:
    try:
        user = getpass.getuser() if "USER" in os.environ else os.getuid()
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/torchinductor_{user}")
        os.environ["TMPDIR"] = tempfile.tempdir = os.fspath(folder)  # what the work leaves there goes with it
        output = os.open(_output(folder), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        faulthandler.register(_where(), file=_stack(folder).open("w"), all_threads=False)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")  # if memory is short, this process is the first to go
        channel = Channel(-1, writes)
        channel.send((work(channel.send),))
        os._exit(0)
    except BaseException as error:  # a fault of ours, since `work` deals with its own
        traceback.print_exception(error)
        os._exit(1)


class _Watch:
    """Listens to the process until it has a result, ends, or gives no sign of life."""

    def __init__(self, pid: int, reads: int, folder: Path, patience: float | None) -> None:
        self.pid, self.folder, self.patience = pid, folder, patience
        self.channel = Channel(reads, -1)
        self.ended = os.pidfd_open(pid)
        self.step = 0

    def result(self) -> Any:
        while True:
            # Processes that the work has started may hold the pipe, so that its end would not be seen.
            ready, _, _ = select.select([self.channel.reads, self.ended], [], [], self.patience)
            if not ready:
                raise Lost(self._hanging())
            if self.channel.reads not in ready:
                raise Lost(self._gone())
            heard: Any
            try:
                heard = self.channel.receive()
            except (EOFError, pickle.UnpicklingError):
                raise Lost(self._gone()) from None
            if isinstance(heard, tuple):
                return cast(Any, heard)[0]
            self.step = heard

    def close(self) -> None:
        os.close(self.channel.reads)
        os.close(self.ended)

    def _hanging(self) -> str:
        os.kill(self.pid, _where())
        end = time.monotonic() + _WAIT
        while not (lines := _stack(self.folder).read_text(errors="replace").splitlines()) and time.monotonic() < end:
            time.sleep(0.05)
        said = f"nothing was reported for {self.patience:g} seconds, which is this race's patience, after step "
        return "\n".join([f"{said}{self.step:,}", *lines[:_LINES]])

    def _gone(self) -> str:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        how = f"ended with exit code {code}" if code >= 0 else f"was killed by {_named(-code)}"
        lines = _output(self.folder).read_text(errors="replace").splitlines()
        return "\n".join([f"the process of the run {how} after step {self.step:,}", *lines[-_LINES:]])


def _named(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"{name} (out of memory?)" if number == signal.SIGKILL else name


def _end(pid: int, before: set[psutil.Process]) -> None:
    """Kill the process and whatever it has started."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for _ in range(3):  # what is killed may have started others
        left = _descendants() - before
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=_WAIT)


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _output(folder: Path) -> Path:
    return folder / "output"


def _stack(folder: Path) -> Path:
    return folder / "stack"


def _where() -> int:
    """The signal by which a process is asked where it is; programs do not use it themselves."""
    return signal.SIGRTMIN + 7
