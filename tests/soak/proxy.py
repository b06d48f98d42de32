"""A way to a server on loopback that can be cut."""

import socket
import threading
from contextlib import suppress


class Proxy:
    """Listens on a port of its own, `port`, and passes on what comes to another one, and back."""

    def __init__(self, to: int) -> None:
        self._to, self._open, self._lock = to, True, threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and take none until `mend`."""
        self._open = False
        with self._lock:
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._sockets.clear()

    def mend(self) -> None:
        """Take connections again."""
        self._open = True

    def close(self) -> None:
        """End everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to), 5) if self._open else None
                except OSError:
                    far = None
                if far is None:
                    near.close()
                    continue
                with self._lock:
                    self._sockets += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while some := one.recv(65536):
            other.sendall(some)
    with suppress(OSError):
        other.shutdown(socket.SHUT_RDWR)
