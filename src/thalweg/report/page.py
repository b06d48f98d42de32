"""One self-contained HTML file: a template, the data of its figures, and Plotly, embedded once.

Figures are plain dictionaries as Plotly has them, ``{"data": [...], "layout": {...}}``.  Their colours are names of
CSS variables; ``page.js`` resolves them, and again when the reader switches between light and dark.
"""

import json
import math
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from thalweg import __version__

Figure = dict[str, Any]


def write(path: Path | str, template: str, data: Mapping[str, Any], **context: Any) -> Path:
    """Render `template` and write it to `path`, atomically; parent folders are created.

    Args:
        data: the data for the page's script, such as figures and paths; numbers that are not finite become null.
        context: the variables of the template; all text is escaped.

    Raises:
        OSError: the file cannot be written.
    """
    return put(path, render(template, data, **context))


def render(template: str, data: Mapping[str, Any], **context: Any) -> str:
    """The page of `template`, as `write` writes it."""
    return _environment().get_template(template).render(data=_embed(data), version=__version__, **context)


def part(template: str, context: Mapping[str, Any]) -> Markup:
    """A part of a page, from a template of its own; all text in it is escaped."""
    return Markup(_environment().get_template(template).render(context))


def put(path: Path | str, content: str | bytes) -> Path:
    """Write a file, all at once or not at all; what was there is replaced, and folders on the way are made.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.encode(errors="replace") if isinstance(content, str) else content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def number(x: float) -> str:
    """A number for people: four digits, a proper minus sign, and – for nan or infinity."""
    if not math.isfinite(x):
        return "–"
    if x and not 1e-3 <= abs(x) < 1e5:
        mantissa, _, exponent = f"{x:.2e}".partition("e")
        return f"{mantissa}·10{_superscript(int(exponent))}".replace("-", "−")
    return (f"{x:,.0f}" if abs(x) >= 1e3 else f"{x:.4g}").replace("-", "−")


def html(text: str) -> str:
    """Text for a hover label, where Plotly reads some tags and its own ``%{…}``."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")


def short(text: str) -> str:
    """A name with at most 80 letters, without its middle."""
    return text if len(text) <= 80 else f"{text[:50]} … {text[-25:]}"


def legible(text: str) -> str:
    """A text in which control characters, and those that turn the direction of what follows, are shown as �."""
    return text.translate(_UNSEEN)


_UNSEEN = dict.fromkeys(
    [*(c for c in range(0x20) if c not in (0x09, 0x0A)), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F,
     *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF, *range(0xD800, 0xE000)],
    "\N{REPLACEMENT CHARACTER}",
)  # fmt: skip


def _superscript(x: int) -> str:
    return str(x).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _shown(x: object) -> object:
    return legible(x) if type(x) is str else x


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("thalweg.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    environment.filters |= {"number": number, "short": short}
    cast("dict[str, Any]", environment.globals)["plotly"] = Markup(get_plotlyjs())
    return environment


def as_json(data: Mapping[str, Any]) -> str:
    """Data as JSON, on one line; numbers that are not finite become null."""
    return json.dumps(_plain(data), allow_nan=False, separators=(",", ":"))


def _embed(data: Mapping[str, Any]) -> Markup:
    """Data as JSON, escaped so that it cannot end the script element that contains it."""
    return htmlsafe_json_dumps(_plain(data), dumps=json.dumps, allow_nan=False, separators=(",", ":"))


def _plain(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return _plain(cast("Any", x).tolist())
    if isinstance(x, Mapping):
        return {str(k): _plain(v) for k, v in cast("Mapping[Any, Any]", x).items()}
    if isinstance(x, (list, tuple)):
        return [_plain(v) for v in cast("list[Any]", x)]
    if isinstance(x, str):
        return legible(x)
    return None if isinstance(x, float) and not math.isfinite(x) else x
