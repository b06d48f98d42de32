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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn, cast

import psutil
import torch

from thalweg.race.channel import Channel

_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h
_LINES = 6
_WAIT = 5.0  # seconds for a process to say where it hangs, and for killed ones to end


Hand = Callable[[Any], None]


class Lost(Exception):
    """The process ended without a result, or had to be killed; the message says how, and where if that is known."""


def possible() -> bool:
    """Whether a process can be forked: on Linux, unless this one uses a GPU already."""
    return sys.platform == "linux" and not torch.cuda.is_initialized()


class Parent:
    """The process that waits for this one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def tell(self, step: int) -> None:
        """Give a sign of life, after so many steps."""
        self._channel.send(step)

    def pass_on(self, thing: Any) -> None:
        """Hand something to what the process that waits was given for that."""
        self._channel.send(Passed(thing))

    def ask(self, question: Any) -> Any:
        """The answer to a question; until it comes this process stands still."""
        self._channel.send(Question(question))
        return self._channel.receive()


@dataclass(frozen=True)
class Question:
    """What a process asks the one that waits for it."""

    asked: Any


@dataclass(frozen=True)
class Passed:
    """What a process hands on while it works."""

    thing: Any


class Process:
    """Calls `work` in a process of its own.

    Args:
        work: is given the process that waits for its result.
        patience: the most seconds between two signs of life; None for any number.
        hand: is called in this process with whatever `work` passes on.
    """

    _alive: ClassVar[list["Process"]] = []

    def __init__(self, work: Callable[[Parent], Any], patience: float | None = None, hand: Hand | None = None) -> None:
        self._before = self._alive[0]._before if self._alive else _descendants()
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of the process become children of this one
        self._folder = Path(tempfile.mkdtemp(prefix="thalweg-"))
        (reads, told), (answers, self._writes) = os.pipe(), os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads, of which this has one
            self._pid = os.fork()
        if not self._pid:
            os.close(self._writes)
            _child(work, Channel(answers, told), self._folder)
        os.close(told)
        os.close(answers)
        self._watch = _Watch(self._pid, reads, self._writes, self._folder, patience, hand)
        self._alive.append(self)

    def go_on(self, answer: Any = None) -> Any:
        """The result of `work`, or the next `Question`; `answer` is that to the one before.

        Raises:
            Lost: the process ended without a result, or there was no sign of life.
        """
        return self._watch.result(answer)

    def close(self) -> None:
        """End the process and whatever it has started.

        Of processes that no longer belong to one, since their parent has ended, nobody knows whose they are; they end
        with the last that is alive.
        """
        if self not in self._alive:
            return
        self._alive.remove(self)
        self._watch.close()
        os.close(self._writes)
        _end(self._pid, None if self._alive else self._before)
        shutil.rmtree(self._folder, ignore_errors=True)


def _child(work: Callable[[Parent], Any], channel: Channel, folder: Path) -> NoReturn:
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
        channel.send((work(Parent(channel)),))
        os._exit(0)
    except BaseException as error:  # a fault of ours, since `work` deals with its own
        traceback.print_exception(error)
        os._exit(1)


class _Watch:
    """Listens to the process until it has a result, ends, or gives no sign of life."""

    def __init__(
        self, pid: int, reads: int, writes: int, folder: Path, patience: float | None, hand: Hand | None
    ) -> None:
        self.pid, self.folder, self.patience, self.hand = pid, folder, patience, hand
        self.channel = Channel(reads, writes)
        self.asked = False
        self.ended = os.pidfd_open(pid)
        self.step = 0

    def result(self, answer: Any) -> Any:
        if self.asked:
            self.asked = False
            with suppress(BrokenPipeError):  # it has ended, which is seen below
                self.channel.send(answer)
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
            if isinstance(heard, Question):
                self.asked = True
                return heard
            if isinstance(heard, Passed):
                if self.hand is not None:
                    self.hand(heard.thing)
                continue
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


def _end(pid: int, before: set[psutil.Process] | None) -> None:
    """Kill the process and whatever it has started; with `before`, all that there were not before."""
    own: set[psutil.Process] = set()
    with suppress(psutil.NoSuchProcess):
        own = {*psutil.Process(pid).children(recursive=True)}
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for _ in range(3):  # what is killed may have started others
        left = own if before is None else _descendants() - before
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
