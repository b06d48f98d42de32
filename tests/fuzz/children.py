"""Runs programs in processes that may die: a server that has imported torch forks a child and reports how it ended.

A child runs one program after another until one kills it; the next child continues after that program.
"""

import contextlib
import faulthandler
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from fuzz import world
from fuzz.world import Difference, Program

LONGEST = 180
"""Seconds after which a program counts as hanging; long, since the first program to need a kernel compiles it."""

# Freed memory is overwritten, and blocks larger than a page return to the system, so that later writes to them crash.
_TUNABLES = "glibc.malloc.perturb=165:glibc.malloc.mmap_threshold=4096:glibc.malloc.mmap_max=20000"
_POSITION = struct.Struct("3q")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a program; `difference` is None if it passed."""

    program: Program
    difference: Difference | None


class Server:
    """A process that runs programs in children of its own.

    Use it as a context manager, or call `close`.
    """

    def __init__(self) -> None:
        folder = Path(__file__).resolve().parents[1]
        environment = {**os.environ, "GLIBC_TUNABLES": _TUNABLES, "PYTHONPATH": _path(folder)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.children"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def run(self, programs: Sequence[Program]) -> Iterator[Outcome]:
        """Run programs, and yield their outcomes in order, as they arrive."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(program) for program in programs]) + "\n")
        self._process.stdin.flush()
        for program in programs:
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError("the server of the fuzzer has died")
            said = json.loads(line)
            yield Outcome(program, None if said is None else Difference(**said))


def _path(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def serve(requests: Iterable[str], answers: IO[str], errors: IO[bytes]) -> None:
    """Run the requested programs until there are no more requests."""
    position = mmap.mmap(-1, _POSITION.size)
    for request in requests:
        said: list[dict[str, Any]] = json.loads(request)
        programs = [_program(**one) for one in said]
        begin = 0
        while begin < len(programs):
            position[:] = _POSITION.pack(begin, 0, 0)
            errors.truncate(0)
            child = os.fork()
            if child == 0:
                _child(programs, begin, answers, position)
            _, status = os.waitpid(child, 0)
            if status == 0:
                break
            at: tuple[int, int, int] = _POSITION.unpack(position[:])
            begin, line, which = at
            died = _death(programs[begin], line, which, status, errors)
            # Torch's own operations die of a gradient that another thread drops while they use it.
            torchs = which == 0 and "concurrently" in programs[begin].lines[line]
            _answer(answers, None if torchs else died)
            begin += 1


def _program(lines: list[str], worlds: tuple[str, str], **further: bool) -> Program:
    return Program(tuple(lines), (worlds[0], worlds[1]), **further)


def _child(programs: Sequence[Program], begin: int, answers: IO[str], position: mmap.mmap) -> None:
    status = 1
    try:
        for n in range(begin, len(programs)):
            signal.alarm(LONGEST)

            def at(line: int, which: int, n: int = n) -> None:
                position[:] = _POSITION.pack(n, line, which)

            at(0, 0)
            _answer(answers, world.run(programs[n], at))
        status = 0
    except BaseException:  # usually because a program has overwritten memory
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _answer(answers: IO[str], difference: Difference | None) -> None:
    answers.write(json.dumps(difference and asdict(difference)) + "\n")
    answers.flush()


def _death(program: Program, line: int, which: int, status: int, errors: IO[bytes]) -> Difference:
    number = os.waitstatus_to_exitcode(status)
    name = signal.Signals(-number).name if number < 0 else f"exit {number}"
    kind = "hangs" if number == -signal.SIGALRM else f"dies of {name}"
    errors.seek(0)
    trace = errors.read().decode(errors="replace")
    return Difference(
        f"{kind}{'' if which else ' in the first world'}",
        line,
        trace if len(trace) < 2500 else f"{trace[:500]} … {trace[-2000:]}",
    )


def main() -> None:
    """Serve the process that started this one."""
    answers = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile() as errors:
        os.dup2(errors.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        faulthandler.enable()
        faulthandler.register(signal.SIGALRM, chain=True)
        with contextlib.suppress(BrokenPipeError):
            serve(sys.stdin, answers, errors)


def _warm() -> Any:
    """Load once what all children need, compilers and libraries, without starting threads, which a fork would lose."""
    import torch

    torch.set_num_threads(1)  # on a busy machine, square roots of small tensors took a hundred times as long with two
    lines = ("ps.append(param((3,)))", "o = optim.Adam(ps)", "give(ps, 0)", "o.step()")
    world.run(Program(lines))


if __name__ == "__main__":
    _warm()
    main()
