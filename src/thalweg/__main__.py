"""The ``thalweg`` command, or one sentence on what to install for it."""

import os
import sys
import threading
import time
from contextlib import suppress

from thalweg import signals

_LAB = {"cloudpickle", "filelock", "jinja2", "plotly", "rich", "scipy", "sklearn", "sqlalchemy", "typer"}

_PATIENCE = 10.0
"""Seconds that a tracker's client is given at the end, also after Ctrl-C."""


def main() -> None:
    """Run the command line; without the ``lab`` extra say how to get it and exit with 2."""
    signals.end_quietly()
    try:
        from thalweg import cli

        cli.main()
    except SystemExit as end:
        if _held_up():
            _leave(end)
        raise
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _LAB:
            raise
        print(f"thalweg: this needs {name}; install it with: pip install 'thalweg[lab]'", file=sys.stderr)
        sys.exit(2)


def _held_up() -> bool:
    """Whether a thread that may wait for a server without end is still at work after some seconds."""
    last = time.monotonic() + _PATIENCE
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(signals.HELD_UP)]
    for thread in threads:
        thread.join(max(last - time.monotonic(), 0.0))
    return any(thread.is_alive() for thread in threads)


def _leave(end: SystemExit) -> None:
    """End now: a client that waits for its server in a thread also waits at Python's exit, some without end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # there is none, or it was closed by its reader or by us
            stream.flush()
    os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)


if __name__ == "__main__":
    main()
