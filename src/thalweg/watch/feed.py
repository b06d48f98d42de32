"""What pages are told: a state, and how it changes.  Encoded once, however many pages hear it."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from thalweg.report.page import as_json


def message(content: dict[str, Any]) -> bytes:
    """A server-sent event.  JSON is on one line, so that nothing in it can end the event."""
    return b"data: " + as_json(content).encode() + b"\n\n"


class Feed:
    """A state that one thread changes, and others are told of.

    Attributes:
        version: how many times it has changed.
    """

    def __init__(self) -> None:
        self.version = 0
        self._change: bytes = b""
        self._state: Callable[[], dict[str, Any]] = dict
        self._whole: tuple[int, bytes] = (0, b"")
        self._lock = threading.Lock()

    def put(self, state: Callable[[], dict[str, Any]], change: dict[str, Any] | None) -> None:
        """Change the state.

        Args:
            state: returns the whole state; called when somebody asks for it.
            change: what has changed since the version before; None to tell everybody the whole state.
        """
        encoded = b"" if change is None else message(change)
        with self._lock:
            self._state, self._change = state, encoded
            self.version += 1

    def since(self, version: int) -> tuple[int, bytes]:
        """The version that there is now, and what is to be told to somebody who knows one: nothing, the change since
        the one before, or all.
        """
        with self._lock:
            if version == self.version:
                return version, b""
            if version and version == self.version - 1 and self._change:
                return self.version, self._change
            if self._whole[0] == self.version:
                return self._whole
            version, state = self.version, self._state
        # What changes meanwhile is told again as a change, which does no harm.
        whole = version, message(state())
        with self._lock:
            self._whole = max(self._whole, whole, key=lambda known: known[0])
        return whole

    async def later(self, version: int) -> tuple[int, bytes]:
        """As `since`; what must be encoded first is encoded in another thread."""
        return (version, b"") if version == self.version else await asyncio.to_thread(self.since, version)


class Pulse:
    """Wakes everybody in an event loop, from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()

    def begin(self) -> None:
        """Say that this is the loop in which others wait."""
        self._loop = asyncio.get_running_loop()

    def beat(self) -> None:
        """Wake everybody who waits."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Wait for the next beat; returns whether it came in time."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        return True
