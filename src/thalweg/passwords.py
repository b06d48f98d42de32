"""Texts for people, without the passwords in them."""

import re

_QUERY = re.compile(r"([?&]password=)[^\s&]*")
_BEFORE_HOST = re.compile(r"(\w[\w+.-]*:/+[^\s/:@]*):\S*@")


def masked(text: str) -> str:
    """A text with ``***`` in place of the passwords in its URLs, before a host and in a query."""
    return _QUERY.sub(r"\1***", _BEFORE_HOST.sub(r"\1:***@", text))
