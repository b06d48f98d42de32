"""Inspects our pages: what they show, load and embed, and their errors in a browser."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import json
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest


def browsed(page: Path, dark: bool = False) -> tuple[str, list[str]]:
    """The page's elements once Chromium has run it, and the errors on its console; skips the test without Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    told = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--enable-logging=stderr")
    profile = f"--user-data-dir={page.parent / 'profile'}"
    scheme = f"--blink-settings=preferredColorScheme={int(not dark)}"
    command = [chromium, *told, profile, scheme, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line and "rror" in line]


# WebGL by SwiftShader, everything else by the processor itself: SwiftShader is slow at painting pages.
WEBGL = (
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-gpu-rasterization",
    "--disable-gpu-compositing", "--disable-accelerated-2d-canvas",
)  # fmt: skip


@contextmanager
def opened(
    address: str, *, width: int = 1280, dark: bool = False, flags: Sequence[str] = ()
) -> Generator[tuple[Any, list[str]]]:
    """A page in Chromium by Playwright, and what it complains of: errors, and requests of another origin.

    The test is skipped without either.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    complaints: list[str] = []
    origin = "/".join(address.split("/")[:3])
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *flags])
        scheme, size = "dark" if dark else "light", {"width": width, "height": 844}
        page: Any = browser.new_page(viewport=size, color_scheme=scheme)
        page.set_default_timeout(60_000)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        own = (origin, "data:", "blob:")
        page.on("request", lambda sent: None if sent.url.startswith(own) else complaints.append(sent.url))
        try:
            page.goto(address)
            yield page, complaints
        finally:
            browser.close()


class Page(HTMLParser):
    """What a page shows, loads and embeds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.inside: list[str] = []
        """The targets of links within the page."""
        self.words = ""
        self.styles = ""
        self.data: Any = None
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if tag in ("script", "style"):
            self._inside.append(str(given.get("id") or tag))
        self.ids += filter(None, [given.get("id")])
        self.inside += [href[1:] for href in [given.get("href") or ""] if href.startswith("#")]
        found = given.get("src") or (given.get("href") if tag == "link" else None)
        if found:
            self.loads.append(found)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style") and self._inside:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words += data
        elif self._inside[-1] == "style":
            self.styles += data
        elif self._inside[-1] == "data":
            self.data = json.loads(data)
