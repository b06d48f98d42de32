"""The playground as one HTML file: its modules joined into one script, and a policy that forbids everything else."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thalweg import __version__, problems
from thalweg.playground import printed
from thalweg.playground.tour import STOPS
from thalweg.printers import javascript
from thalweg.problems import Surface
from thalweg.report import palette
from thalweg.rule import Rule
from thalweg.schedules import Schedule

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=const|function|async function|class)", re.MULTILINE)
_EXPORTED = re.compile(r"^export (?:const|function|async function|class) (\w+)", re.MULTILINE)
_WEB = files("thalweg.playground") / "web"


def render(
    surfaces: Mapping[str, Surface],
    start: Mapping[str, Any],
    *,
    title: str = "Thalweg playground",
    rules: Sequence[str] = (),
    own: Mapping[str, Rule] | None = None,
    schedules: Sequence[Schedule] = (),
) -> str:
    """The page as text.

    Args:
        surfaces: further surfaces by name, besides those of `thalweg.problems.surfaces`.
        start: the state in which it opens, as in its address bar.
        title: its title.
        rules: rules in text that wrap others.
        own: rules of the user's own, by name.
        schedules: further schedules.

    Raises:
        TraceError: a surface branches on a value, or uses what `thalweg.maths` does not have.
        ValueError: a rule cannot be read, or a schedule cannot be laid out.
    """
    data = {
        "COLOURS": {
            "lectures": {rule: _named(colour) for rule, colour in palette.LECTURES.items()},
            "others": [_named(colour) for colour in palette.OTHERS],
        },
        "TOUR": STOPS,
        "START": start,
    }
    derived = printed.module({**problems.surfaces, **surfaces}, rules, own, schedules)
    derived += "".join(f"export const {name} = {javascript.literal(x)};\n" for name, x in data.items())
    script = joined(derived)
    libraries = f"/*\n{_text('vendor/LICENSES.txt')}*/\n{_text('vendor/libraries.min.js')}"
    style = palette.styles() + _text("play.css")
    allowed = [f"script-src {' '.join(map(_hash, (libraries, script)))}", f"style-src {_hash(style)}"]
    policy = "; ".join([
        "default-src 'none'", *allowed, "img-src data: blob:", "media-src blob:", "base-uri 'none'",
        "form-action 'none'",
    ])  # fmt: skip
    environment = Environment(loader=PackageLoader("thalweg.playground", "web"), autoescape=True,
                              undefined=StrictUndefined, keep_trailing_newline=True)  # fmt: skip
    return environment.get_template("play.html").render(
        title=title, policy=policy, version=__version__, style=Markup(style), libraries=Markup(libraries),
        script=Markup(script),
    )  # fmt: skip


def joined(derived: str) -> str:
    """All modules as one script, each in a scope of its own; what a module imports stands before it.

    Args:
        derived: the text of the module ``printed.js``.
    """
    done: dict[str, str] = {}

    def visit(name: str) -> None:
        if name in done:
            return
        text = derived if name == "printed" else _text(f"{name}.js")
        for _, other in _IMPORT.findall(text):
            visit(other)
        body = _EXPORT.sub("", _IMPORT.sub(r"const {\1} = $\2;\n", text))
        names = ", ".join(_EXPORTED.findall(text))
        done[name] = f"const ${name} = (() => {{\n{body}return {{ {names} }};\n}})();"

    visit("main")
    return '"use strict";\n' + "\n".join(done.values())


def _text(name: str) -> str:
    return (_WEB / name).read_text(encoding="utf-8")


def _named(colour: str) -> str:
    return colour.removeprefix("var(--").removesuffix(")")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
