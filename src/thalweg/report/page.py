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
    return put(path, _environment().get_template(template).render(data=_embed(data), version=__version__, **context))


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


def _superscript(x: int) -> str:
    return str(x).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("thalweg.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = number
    cast("dict[str, Any]", environment.globals)["plotly"] = Markup(get_plotlyjs())
    return environment


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
    return None if isinstance(x, float) and not math.isfinite(x) else x
