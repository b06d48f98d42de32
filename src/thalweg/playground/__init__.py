"""The playground: rules walking down surfaces, in any browser, computed there from the same formulas.

``thalweg.playground.show()`` in a notebook; ``thalweg.playground.write("play.html")`` as a file for anybody.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg import problems
from thalweg.hyperparameters import nearest
from thalweg.parsing import parse_nested
from thalweg.playground import catalogue, page
from thalweg.problems import Surface
from thalweg.report.page import put
from thalweg.rule import Rule
from thalweg.rules import built, given
from thalweg.schedules import parse

__all__ = ["Playground", "page", "render", "show", "write"]

LECTURES = ("sgd", "momentum", "adagrad", "rmsprop", "adam")
"""The methods of the lectures' animations, with which a page opens."""

Height = Callable[[Any, Any], Any]


def render(
    surface: str | Surface | Height = "ravine",
    rules: Sequence[str | Rule] = LECTURES,
    *,
    start: tuple[float, float] | None = None,
    noise: float | None = None,
    seed: int = 0,
    schedules: Sequence[str] = (),
    title: str = "Thalweg playground",
    offer: Mapping[str, Rule] | None = None,
) -> str:
    """The playground as the text of one HTML page.

    Args:
        surface: on which it opens: one of `thalweg.problems.surfaces` by name, a `thalweg.problems.Surface`, or a
            function of x and y in the words of `thalweg.maths`.
        rules: the runners: rules or their text.  A text without ``lr`` gets one that suits the surface.
        start: where all begin; the surface's own start if None.
        noise: the standard deviation of the Gaussian noise in each component of the gradients; the surface's own if
            None.
        seed: of the noise.
        schedules: schedules in text to offer besides the usual ones, laid out over 500 steps.
        title: the page's title.
        offer: rules to offer by name without a runner, such as your own.

    Raises:
        ValueError: an unknown surface; a rule or schedule that cannot be read; a rule that cannot walk on a surface.
        TraceError: a surface of yours branches on a value, or uses what `thalweg.maths` does not have.
    """
    offered = [parse(text) for text in schedules]
    own: dict[str, Rule] = dict(offer or {})
    extra: dict[str, Surface] = {}
    if isinstance(surface, str):
        if surface not in problems.surfaces:
            known = problems.surfaces
            raise ValueError(f"there is no surface {surface!r}{nearest(surface, known)}; there are {', '.join(known)}")
        name = surface
    else:
        made = surface if isinstance(surface, Surface) else problems.surface_of(surface)
        name = made.name
        extra[name] = made
    wrapped: list[str] = []
    runners = [_runner(rule, own, wrapped) for rule in rules]
    state: dict[str, Any] = {"s": name, "r": runners, "d": seed}
    if noise is not None:
        if not 0 <= noise < float("inf"):
            raise ValueError(f"noise is {noise!r}; allowed is a finite number >= 0")
        state["n"] = noise
    if start is not None:
        if len(start) != 2 or not all(abs(x) < float("inf") for x in start):
            raise ValueError(f"start is {start!r}; allowed are two finite numbers")
        for runner in runners:
            runner["b"] = list(start)
    return page.render(extra, state, title=title, rules=wrapped, own=own, schedules=offered)


def write(path: Path | str, *arguments: Any, **settings: Any) -> Path:
    """Write the page of `render` to a file, and return its path; raises as `render` does, and ``OSError``."""
    return put(path, render(*arguments, **settings))


@dataclass(frozen=True)
class Playground:
    """A page, which notebooks show in a frame.

    Attributes:
        text: the page.
        height: the height of the frame in pixels.
    """

    text: str
    height: int = 900

    def _repr_html_(self) -> str:
        inside = html.escape(self.text, quote=True)
        return (
            f'<iframe title="Thalweg playground" srcdoc="{inside}" sandbox="allow-scripts allow-downloads" '
            f'style="width: 100%; height: {self.height}px; border: 0"></iframe>'
        )


def show(*arguments: Any, height: int = 900, **settings: Any) -> Playground:
    """The page of `render` for a notebook, whose last line it is; `height`: of its frame in pixels."""
    return Playground(render(*arguments, **settings), height)


def _runner(rule: str | Rule, own: dict[str, Rule], wrapped: list[str]) -> dict[str, Any]:
    """A runner as the page's state has it; families that the page would not have are added to `own` or `wrapped`."""
    if isinstance(rule, str):
        call = parse_nested(rule)
        made = built(call)
        if not made.bases:
            return {"r": call.name.lower(), **_said(made, given(call, made))}
        text = str(made)
        wrapped.append(text)
        return {"r": text, "l": rule, **({"h": {"lr": made.lr}} if "lr" in given(call, made) else {})}
    name = type(rule).__name__.lower() if type(rule).__module__.startswith("thalweg.") else type(rule).__name__
    if not type(rule).__module__.startswith("thalweg.") or rule.bases:
        name = str(rule)
        own[name] = rule
        return {"r": name, "h": {"lr": rule.lr}}
    return {"r": name, **_said(rule, {**rule.numbers, **rule.options})}


def _said(rule: Rule, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a runner that are given, numbers and options."""
    return catalogue.chosen(rule, {name: getattr(rule, name) for name in settings})
