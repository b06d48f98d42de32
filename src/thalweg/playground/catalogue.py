"""Which rules a page has, with every form that their options choose, each printed to JavaScript.

A *family* is a rule with its settings and options; a *form* is one choice of the options, a formula of its own.  Rules
that need a matrix are left out, with the reason.
"""

import dataclasses
import inspect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, cast, get_origin

import torch

from thalweg import rules, trace
from thalweg.fields import leaves, number_fields
from thalweg.hyperparameters import choices, range_of
from thalweg.printers import javascript
from thalweg.printers.plain import rows, symbol
from thalweg.rule import Log, Range, Rule
from thalweg.symbols import TraceError
from thalweg.wrapping import Wrapper

NUMBER = "a number"
"""The choice of an option that is a number rather than None."""

_SHAPE = (javascript.ELEMENTS,)
_MOST = 64
"""The most forms of a family; of rules with more, those that differ in two options from the default or a variant."""

_PRECISIONS = {"float64", "float32", "bfloat16", "full"}

Choice = dict[str, Any]


def families(texts: Sequence[str] = (), own: Mapping[str, Rule] | None = None) -> dict[str, Any]:
    """Everything that a page knows of rules.

    Args:
        texts: rules that wrap others, such as ``cautious(adam)``, besides the examples of all wrappers.
        own: further rules by name.

    Returns:
        ``families`` by name, as plain data; ``forms``, the text of a JavaScript object each; ``presets``, the names of
        variants, each with its family and settings; ``left_out``, the reasons by name.
    """
    made = _Catalogue()
    for name, cls in rules.all().items():
        made.add(name.lower(), cls.example())
    for name, (cls, settings) in rules.names().items():
        if settings and issubclass(cls, Wrapper):
            made.add(name, rules.named(name))
        elif settings:
            made.preset(name, cls.__name__.lower(), settings)
    for text in texts:
        rule = rules.parse(text)
        if rule.bases:
            made.add(text, rule)
    for name, rule in (own or {}).items():
        made.add(name, rule)
    return {
        "families": made.families,
        "forms": made.forms,
        "presets": made.presets,
        "left_out": made.left_out,
    }


class Form(NamedTuple):
    """A choice of a family's options, as a rule for a point of two numbers and as the text of a JavaScript object."""

    rule: Rule
    text: str


def forms(rule: Rule, reasons: list[str] | None = None) -> dict[str, Form]:
    """The forms of a family that a page has, by key: the places of the chosen options.

    Args:
        rule: the rule with its default settings.
        reasons: receives why choices are missing: they do not go together, or the rule cannot step such a point.
    """
    options = _options(rule)
    found: dict[str, Form] = {}
    for chosen in _combinations(rule, options):
        try:
            fitted = _with(rule, chosen).fit(_SHAPE)
            found[_key(options, chosen)] = Form(fitted, _printed(fitted))
        except (ValueError, TraceError) as error:
            if reasons is not None:
                reasons.append(_sentence(error))
    return found


def chosen(rule: Rule, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a rule as the page's state has them: numbers as ``h``, the places of chosen options as ``o``."""
    options = _options(rule)
    numbers = {n: x for n, x in settings.items() if isinstance(x, float)}
    places = {n: _index(options[n], _choice(x)) for n, x in settings.items() if n in options}
    return {"h": numbers, "o": places}


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())


def _key(options: Mapping[str, list[Any]], chosen: Choice) -> str:
    return ",".join(str(_index(values, chosen[name])) for name, values in options.items())


class _Catalogue:
    def __init__(self) -> None:
        self.families: dict[str, Any] = {}
        self.forms: list[str] = []
        self.presets: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}
        self._known: dict[str, int] = {}

    def add(self, name: str, rule: Rule) -> None:
        """Add a family, or the reason why it cannot walk on a surface."""
        options = _options(rule)
        found: dict[str, int] = {}
        reasons: list[str] = []
        for key, form in forms(rule, reasons).items():
            found[key] = self._known.setdefault(form.text, len(self.forms))
            if found[key] == len(self.forms):
                self.forms.append(form.text)
        if _key(options, {n: _choice(getattr(rule, n)) for n in options}) not in found:
            self.left_out[name] = reasons[0]
            return
        doc = (inspect.getdoc(type(rule)) or "").split("\n\n")[0].replace("\n", " ")
        what, _, source = doc.partition("  ")
        self.families[name] = {
            "text": str(rule) if rule.bases else name,
            "doc": what,
            "source": source,
            "settings": {n: _setting(rule, n) for n in _numbers(rule)},
            "options": {
                n: {"values": [_label(x) for x in values], "chosen": _index(values, _choice(getattr(rule, n)))}
                for n, values in options.items()
            },
            "forms": found,
        }

    def preset(self, name: str, family: str, settings: Mapping[str, Any]) -> None:
        """Add a variant of a family under its own name."""
        if family not in self.families:
            return
        known = self.families[family]
        numbers = {n: float(x) for n, x in settings.items() if isinstance(x, float) and n in known["settings"]}
        options = {
            n: known["options"][n]["values"].index(_label(_choice(x)))
            for n, x in settings.items()
            if n in known["options"]
        }
        self.presets[name] = {"family": family, "settings": numbers, "options": options}


def _options(rule: Rule) -> dict[str, list[Any]]:
    """The choices of each option that matters on a surface; a setting that may be None is one, too."""
    found: dict[str, list[Any]] = {}
    for field in dataclasses.fields(cast(Any, rule)):
        values: list[Any] = []
        for choice in choices(rule.annotation(field.name)):
            if choice is bool:
                values += [False, True]
            elif choice is type(None) or choice is None:
                values.append(None)
            elif get_origin(choice) is Annotated:
                values += [NUMBER] if isinstance(choice.__metadata__[0], Range) else []
            elif isinstance(choice, str | bool | int):
                values.append(choice)
        if len(values) > 1 and not set(map(str, values)) <= _PRECISIONS:
            found[field.name] = values
    return found


def _numbers(rule: Rule) -> list[str]:
    """The settings that are numbers in some form."""
    ranged = [n for n, values in _options(rule).items() if NUMBER in values]
    return list(dict.fromkeys([*rule.numbers, *ranged]))


def _choice(x: Any) -> Any:
    return NUMBER if isinstance(x, float) else x


def _index(values: Sequence[Any], x: Any) -> int:
    return next(k for k, value in enumerate(values) if value is x or (type(value) is type(x) and value == x))


def _label(x: Any) -> str:
    return "none" if x is None else {True: "yes", False: "no"}[x] if isinstance(x, bool) else str(x)


def _combinations(rule: Rule, options: Mapping[str, list[Any]]) -> Iterator[Choice]:
    """The choices that a page has: all of them, or those near the default and the variants."""
    if math.prod(map(len, options.values())) <= _MOST:
        yield from (dict(zip(options, chosen, strict=True)) for chosen in itertools.product(*options.values()))
        return
    seen: set[tuple[Any, ...]] = set()
    variants: list[Mapping[str, Any]] = [{}, *type(rule).variants.values()]
    for settings in variants:
        base = {n: _choice(settings.get(n, getattr(rule, n))) for n in options}
        for pair in itertools.combinations_with_replacement(options, 2):
            for values in itertools.product(*(options[n] for n in pair)):
                chosen = base | dict(zip(pair, values, strict=True))
                if tuple(map(repr, chosen.values())) not in seen:
                    seen.add(tuple(map(repr, chosen.values())))
                    yield chosen


def _with(rule: Rule, chosen: Choice) -> Rule:
    return rule.replace(**{n: _default(rule, n) if x is NUMBER else x for n, x in chosen.items()})


def _default(rule: Rule, name: str) -> float:
    """A value for a number, also for one that is None by default."""
    x = getattr(rule, name) if name in {f.name for f in dataclasses.fields(cast(Any, rule))} else rule.numbers[name]
    if isinstance(x, float):
        return x
    known = [v[name] for v in type(rule).variants.values() if isinstance(v.get(name), float)]
    span = range_of(rule.annotation(name))
    if known:
        return known[0]
    if span.high == 1:
        return 0.9
    if "eps" in name:
        return 1e-8
    return 1.5 * span.low if span.low > 0 else 1.0 if span.low_open else 0.01


def _setting(rule: Rule, name: str) -> dict[str, Any]:
    span = range_of(rule.annotation(name))
    search = rule.search.get(name)
    return {
        "symbol": symbol(name),
        "value": _default(rule, name),
        "low": None if math.isinf(span.low) else span.low,
        "high": None if math.isinf(span.high) else span.high,
        "lowOpen": span.low_open,
        "highOpen": span.high_open,
        "search": None if search is None else [search.low, search.high],
        "log": isinstance(search, Log),
    }


def _printed(rule: Rule) -> str:
    """A form, from `forms`, as the text of a JavaScript object.

    Raises:
        TraceError: it cannot be traced or printed.
    """
    axes = ((0,),) if rule.fits else None
    traced = trace.rule(rule, 1)
    numbers = list(rule.numbers)
    bound = rule.bind({n: trace.number(f"h.{n}") for n in numbers})
    first = leaves(bound.init(trace.value("p", axes)))
    single = number_fields(rule.State)
    widths = {n: 1 if n in single else javascript.ELEMENTS for n in first}
    nodes, lines = rows(rule, 1)
    shown = [n for n in nodes if n is not None]
    ahead = trace.point(rule, 1)
    begin = javascript.step(trace.graph({f"s.{n}": x for n, x in first.items()}), widths, numbers)
    parts = {
        "init": begin,
        "step": javascript.step(traced, widths, numbers, shown),
        "ahead": "null" if ahead is None else javascript.step(ahead, widths, numbers),
        "numbers": javascript.literal(numbers),
        "widths": javascript.literal(widths),
        "roles": javascript.literal(_roles(rule)),
        "lines": javascript.literal([list(line) for line in lines]),
        "fields": javascript.literal(_fields(nodes, traced)),
    }
    return "{" + ", ".join(f"{name}: {text}" for name, text in parts.items()) + "}"


def _fields(nodes: Sequence[Any], traced: trace.Graph) -> list[str]:
    """What each line of the formula computes: ``g``, ``p``, a field of the state as ``s.exp_avg``, or none of these."""
    lines = {f"row.{k}": node for k, node in enumerate(nodes) if node is not None}
    both = trace.graph({**traced.outputs, **lines}).outputs  # equal expressions are one node
    named = {both[name]: name for name in traced.outputs}
    return ["g" if node is None else named.get(both[f"row.{k}"], "") for k, node in enumerate(nodes)]


def _roles(rule: Rule) -> dict[str, str]:
    """What each field of the state looks like: ``momentum``, odd in the gradient; ``squares``, even; or ``other``.

    Squares that grow with the square of the gradient are ``squares``, those that grow with its size ``sizes``.
    """
    p = torch.full(_SHAPE, 1.3, dtype=torch.float64)
    first = rule.init(p)

    def after(size: float) -> dict[str, Any]:
        _, state = rule.update(p, torch.full_like(p, size), first, 1)
        began = leaves(first)
        return {
            n: float((torch.as_tensor(x) - torch.as_tensor(began[n])).flatten()[0]) for n, x in leaves(state).items()
        }

    once, twice, back = after(0.5), after(1.0), after(-0.5)
    single = number_fields(rule.State)
    found: dict[str, str] = {}
    for name, x in once.items():
        found[name] = "other"
        if x == 0 or name in single:
            continue
        if math.isclose(back[name], -x, rel_tol=1e-6):
            found[name] = "momentum"
        elif math.isclose(back[name], x, rel_tol=1e-6) and x > 0:
            found[name] = "squares" if math.isclose(twice[name], 4 * x, rel_tol=1e-3) else "sizes"
    return found
