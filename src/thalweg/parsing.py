"""Reads names with settings from text, such as ``adam(lr=0.1)``: literals and bare words; nothing is evaluated."""

import ast
import re
from typing import Any, NamedTuple

_CALL = re.compile(r"\s*([A-Za-z_][\w-]*)\s*(\(.*\))?\s*", re.DOTALL)


class Call(NamedTuple):
    """A name with what is in its brackets.

    Attributes:
        name: the name.
        inside: the calls without a keyword, such as the rules that a rule wraps.
        settings: the keywords; a value may be a call, too.
    """

    name: str
    inside: tuple["Call", ...]
    settings: dict[str, Any]


def parse_nested(text: str) -> Call:
    """``"cautious(adam(lr=0.1), least=0.01)"`` as a `Call`; a bare word as a value stays text.

    Raises:
        ValueError: the text is not a name, or not a name with calls and keyword arguments.
    """
    found = _CALL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} cannot be read; write a name, or a name with settings as in adam(lr=0.01)")
    name, arguments = found.groups()
    try:
        node = ast.parse(f"f{arguments or '()'}", mode="eval").body
        return _call(node)._replace(name=name)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(_unread(text)) from None


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """``"adam(lr=0.1, eps_at=inside)"`` → ``("adam", {…})``, of which no part is a call.

    Raises:
        ValueError: the text is not a name with keyword arguments.
    """
    name, inside, settings = parse_nested(text)
    if inside or any(isinstance(x, Call) for x in settings.values()):
        raise ValueError(_unread(text))
    return name, settings


def _unread(text: str) -> str:
    return f"the settings in {text!r} cannot be read; write name=value, separated by commas, as in adam(lr=0.01)"


def _call(node: ast.expr) -> Call:
    if isinstance(node, ast.Name):
        return Call(node.id, (), {})
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError
    settings = {_keyword(k): _value(k.value) for k in node.keywords}
    if len(settings) < len(node.keywords):  # a name given twice
        raise ValueError
    return Call(node.func.id, tuple(map(_call, node.args)), settings)


def _keyword(keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise ValueError
    return keyword.arg


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    return _call(node) if isinstance(node, ast.Call) else ast.literal_eval(node)
