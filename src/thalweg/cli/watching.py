"""``thalweg watch``."""

import errno
import importlib.util
import webbrowser
from typing import TYPE_CHECKING

from rich.console import Console

from thalweg.cli.exits import Mistake, stoppable, users_input

if TYPE_CHECKING:
    from thalweg.watch import Server, Stores

PORT = 8474
_NEEDS = ("starlette", "uvicorn")


def watch(what: str, *, host: str, port: int | None, browser: bool) -> None:
    """Serve the page until Ctrl-C."""
    for name in _NEEDS:
        if importlib.util.find_spec(name) is None:
            raise Mistake(f"watch needs {name}, which is not installed; pip install 'thalweg[watch]'")
    from thalweg.watch import Stores

    with stoppable():
        with users_input():
            stores = Stores(what)
        server = _serving(stores, host, port)
        try:
            server.start()
            console = Console(highlight=False)
            console.print(f"Watching {stores.name}: {server.url}", soft_wrap=True, markup=False)
            if server.token:
                console.print("Whoever has this address can read the page; it is not encrypted.", style="dim")
            console.print("Ctrl-C ends the page, and no race.", style="dim")
            if browser:
                webbrowser.open(server.url)
            server.wait()
        finally:
            server.stop()


def _serving(stores: "Stores", host: str, port: int | None) -> "Server":
    """The server at a port; if none is asked for, at the usual one or, where that is in use, any that is free."""
    from thalweg.watch import Server

    try:
        return Server(stores, host, PORT if port is None else port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and port is None:
            return Server(stores, host, 0)
        why = "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
        raise Mistake(
            f"the page cannot be served at {host}:{PORT if port is None else port} ({why}); choose another --port, "
            "or --port 0 for any that is free"
        ) from None
