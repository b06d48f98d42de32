"""Sends objects through a pair of pipes, without buffers or locks that a forked child could inherit in a bad state."""

import os
import pickle
import struct
from typing import Any

_LENGTH = struct.Struct(">Q")


class Channel:
    """Reads from one descriptor and writes to another; objects are pickled and preceded by their length.

    One thread may receive while another sends.
    """

    def __init__(self, reads: int, writes: int) -> None:
        self.reads, self.writes = reads, writes

    def send(self, thing: Any) -> None:
        """Send an object; ``OSError`` if the other end was closed."""
        self.send_bytes(pickle.dumps(thing))

    def send_bytes(self, packed: bytes) -> None:
        """Send an object that is already pickled."""
        left = memoryview(_LENGTH.pack(len(packed)) + packed)
        while left:
            left = left[os.write(self.writes, left) :]

    def receive(self) -> Any:
        """The next object; ``EOFError`` if the other end was closed."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        return pickle.loads(self._exactly(length))

    def _exactly(self, n: int) -> bytearray:
        found = bytearray(n)
        view = memoryview(found)
        while view:
            count = os.readv(self.reads, [view])
            if not count:
                raise EOFError("the other end is closed")
            view = view[count:]
        return found
