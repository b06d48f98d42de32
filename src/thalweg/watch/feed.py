"""What pages are told: a state, and how it changes.  Encoded once, however many pages hear it."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from thalweg.report.page import as_json

CHANGES, BYTES = 64, 2**20
"""The latest changes that are kept for those who have not heard them, and how long they may be together; longer if the
whole state is.
"""


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
        self._changes: deque[bytes] = deque(maxlen=CHANGES)
        self._state: Callable[[], dict[str, Any]] = dict
        self._whole: tuple[int, bytes] = (0, b"")
        self._lock, self._encoding = threading.Lock(), threading.Lock()

    def put(self, state: Callable[[], dict[str, Any]], change: dict[str, Any] | None) -> None:
        """Change the state.

        Args:
            state: returns the whole state; called when somebody asks for it.
            change: what has changed since the version before; None to tell everybody the whole state.
        """
        encoded = None if change is None else message(change)
        with self._lock:
            self._state = state
            self.version += 1
            if encoded is None:
                self._changes.clear()
            else:
                self._changes.append(encoded)
                while sum(map(len, self._changes)) > max(BYTES, len(self._whole[1])):
                    self._changes.popleft()

    def since(self, version: int) -> tuple[int, bytes]:
        """The version that there is now, and what is to be told to somebody who knows one: the changes since, or all,
        and then the changes since that was encoded.
        """
        with self._lock:
            if (told := self._told(version)) is not None:
                return self.version, told
        with self._encoding:  # once, for all who ask meanwhile
            with self._lock:
                known, text = self._whole
                if (told := self._told(known)) is not None:
                    return self.version, text + told
                version, state = self.version, self._state
            # What changes meanwhile is told again as a change, which does no harm.
            text = message(state())
            with self._lock:
                self._whole = version, text
        return version, text

    def _told(self, version: int) -> bytes | None:
        """The changes since a version, or None if they are not known any more; the lock is held."""
        behind = self.version - version
        if (version and behind <= len(self._changes)) or not behind:
            return b"".join([*self._changes][len(self._changes) - behind :])
        return None

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
