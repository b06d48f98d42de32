"""Serves the page, and tells it what is new, by HTTP.

The page is for one's own eyes: it answers on this machine alone, or to whoever has its token.  It has three addresses,
of which none is the name of a file, and nothing can be sent to it.
"""

import hmac
import logging
import secrets
import socket
import threading
from collections.abc import AsyncGenerator, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from plotly.offline import get_plotlyjs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thalweg.report import page, runs
from thalweg.report.race import PARTS
from thalweg.watch.feed import Pulse
from thalweg.watch.following import Follower
from thalweg.watch.stores import Stores

_LOGGER = logging.getLogger("uvicorn.error")
_ALIVE = 15.0
"""Seconds after which a page is told that there is nothing to tell, so that closed ones are noticed."""
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Server:
    """The page of some stores.

    Args:
        stores: what it follows.
        host: the interface.
        port: the port; 0 for any that is free.

    Attributes:
        url: the address to open, with the token if there is one.
        token: what must be given by those who ask; None on loopback, where only this machine can ask.

    Raises:
        OSError: the port is in use, or there is no such interface.
    """

    def __init__(self, stores: Stores, host: str = "127.0.0.1", port: int = 0) -> None:
        self._socket = _bound(host, port)
        port = self._socket.getsockname()[1]
        local = is_loopback(host)
        self.token = None if local else secrets.token_urlsafe(24)
        shown = f"[{host}]" if ":" in host else host
        if host in ("0.0.0.0", "::"):
            shown = socket.gethostname()
        self.url = f"http://{shown}:{port}/{f'?token={self.token}' if self.token else ''}"
        self._pulse = Pulse()
        self.follower = Follower(stores, self._pulse.beat)
        self._stores, self._over = stores, False
        routes = [
            Route("/", self._page, methods=["GET"]),
            Route("/plotly.js", self._library, methods=["GET"]),
            Route("/events", self._events, methods=["GET"]),
        ]
        app = Guard(Starlette(routes=routes), self.token, hosts(shown, port))
        told = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(told)
        # Not in the main thread, so that signals are the command's.
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        _LOGGER.disabled = False
        self.follower.start()
        self._thread.start()

    def wait(self) -> None:
        """Wait until it has ended."""
        while self._thread.is_alive():
            self._thread.join(1.0)

    def stop(self) -> None:
        """Answer no more, also to those who are listening."""
        self._over = _LOGGER.disabled = True  # what is cut off is no error
        self.follower.stop()
        self._server.should_exit = self._server.force_exit = True
        self._pulse.beat()
        if self._thread.is_alive():
            self._thread.join(2.0)
        self._socket.close()
        self._stores.close()

    def _serve(self) -> None:
        try:
            self._server.run([self._socket])
        except Exception:
            if not self._over:  # at the end of the process nothing can be begun any more, and it may be asked to
                raise

    async def _page(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        token = f"&token={self.token}" if self.token else ""
        axes = {"x": runs.X, "y": {name: text.format(metric="metric") for name, text in runs.Y.items()}}
        data: Mapping[str, Any] = {"runs": [], "kept": [], "entries": [], "ranked": [], "axes": axes}
        text = page.render(
            "watch.html", data, title="thalweg watch", nonce=nonce, parts=dict.fromkeys(PARTS, ""),
            library=f"plotly.js?version={version('plotly')}{token}",
        )  # fmt: skip
        headers = {"content-security-policy": _POLICY.format(nonce=nonce), "cache-control": "no-store"}
        return Response(text, media_type="text/html", headers=headers)

    async def _library(self, request: Request) -> Response:
        return Response(
            get_plotlyjs(), media_type="text/javascript", headers={"cache-control": "private, max-age=86400"}
        )

    async def _events(self, request: Request) -> Response:
        told = self._told(request.query_params.get("race"))
        return StreamingResponse(
            told, media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
        )

    async def _told(self, race: str | None) -> AsyncGenerator[bytes]:
        """What a page of a race is told, as long as it listens; of the latest race if it asks for none."""
        self._pulse.begin()
        yield b"retry: 2000\n\n"
        race = race or self.follower.latest()
        while race is None and not self._over:
            with self.follower.page(""):
                seen = 0
                while (race := self.follower.latest()) is None and not self._over:
                    seen, text = await self.follower.hub.later(seen)
                    yield text or b":\n\n"
                    await self._pulse.wait(_ALIVE)
        with self.follower.page(race or "") as feed:
            known = [0, 0]
            while not self._over:
                quiet = True
                for i, each in enumerate((feed, self.follower.hub)):
                    known[i], text = await each.later(known[i])
                    if text:
                        quiet = False
                        yield text
                if not await self._pulse.wait(_ALIVE) and quiet:
                    yield b":\n\n"


class Guard:
    """Lets through who may read: to read is all that anybody may.

    Args:
        app: what answers.
        token: what must be given, in the address or as a bearer; None for nothing.
        names: the names of this server.  Without a token a request must be for one of them: the page of another site,
            whose name has come to mean this machine (DNS rebinding), asks for its own.
    """

    def __init__(self, app: ASGIApp, token: str | None, names: set[str]) -> None:
        self._app, self._token, self._names = app, token, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        refused = self._refused(scope)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *given]}
            await send(message)

        await (refused or self._app)(scope, receive, sent)

    def _refused(self, scope: Scope) -> Response | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("this page can only be read\n", 405, {"allow": "GET, HEAD"})
        # Another site may link to the page, and nothing else.
        if headers.get("sec-fetch-site") == "cross-site" and (
            headers.get("sec-fetch-mode") != "navigate" or scope["path"] != "/"
        ):
            return PlainTextResponse("this page answers no other site\n", 403)
        if self._token is None:
            if headers.get("host", "").lower() not in self._names:
                return PlainTextResponse("this page is only for the machine that it is on\n", 421)
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = bearer if scheme.lower() == "bearer" else query.get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return PlainTextResponse("open the address that thalweg watch has printed, with its token\n", 401)
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the interface."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def hosts(shown: str, port: int) -> set[str]:
    """How a request may name this server; browsers leave out the port if it is HTTP's own."""
    names = {"localhost", "127.0.0.1", "[::1]", shown}
    return {f"{name}:{port}" for name in names} | (names if port == 80 else set())


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=256)
