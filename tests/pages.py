"""Inspects our pages: what they show, load and embed, and their errors in a browser."""

import json
import shutil
import subprocess
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
