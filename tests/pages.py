"""What a page of ours shows, loads and embeds: read as a browser would, by the standard library's parser."""

import json
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """What a page shows, loads and embeds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.data: Any = None
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if tag in ("script", "style"):
            self._inside.append(str(given.get("id") or tag))
        found = given.get("src") or (given.get("href") if tag == "link" else None)
        if found:
            self.loads.append(found)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style") and self._inside:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words += data
        elif self._inside[-1] == "data":
            self.data = json.loads(data)
