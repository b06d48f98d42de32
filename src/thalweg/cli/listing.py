"""The command ``thalweg rules``: descriptions of rules, from their classes."""

import dataclasses
import inspect
from typing import Any, cast

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

import thalweg.rules
from thalweg import plan
from thalweg.cli.exits import users_input
from thalweg.hyperparameters import allowed
from thalweg.printers.plain import plain, symbol
from thalweg.rule import Log, Rule, annotations


def rules(text: str | None) -> None:
    """Print all rules in short, or the one named by `text` in full."""
    console = Console(highlight=False)
    if text is None:
        for cls in thalweg.rules.all().values():
            _short(console, cls.example())
        console.print("[dim]One with its settings: thalweg rules NAME; an option of it: thalweg rules 'NAME(…)'.[/]")
        return
    with users_input():
        known, name = thalweg.rules.wrappers(), text.strip().lower()
        rule = known[name][0].example() if name in known else thalweg.rules.parse(text)
    _short(console, rule)
    _full(console, rule)


def _short(console: Console, rule: Rule) -> None:
    paragraph = (inspect.getdoc(type(rule)) or "").split("\n\n")[0].replace("\n", " ")
    what, _, source = paragraph.partition("  ")  # two spaces end the sentence that describes it
    also = f" [dim]and[/] {', '.join(type(rule).variants)}" if type(rule).variants else ""
    console.print(f"[bold]{type(rule).__name__.lower()}[/]{also}  {escape(what)}")
    for line in plain(rule):
        console.print(Padding(f"[cyan]{escape(line)}[/]", (0, 4)))
    console.print(Padding(f"[dim]{escape(source)}[/]", (0, 4)))
    console.print()


def _full(console: Console, rule: Rule) -> None:
    _, _, rest = (inspect.getdoc(type(rule)) or "").partition("\n\n")
    if rest:
        console.print(Padding(escape(rest.replace("``", "").replace("\n", " ")), (0, 4, 1, 4)))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("setting", "", "value", "allowed"):
        table.add_column(column, header_style="dim", no_wrap=column != "allowed")
    for field in dataclasses.fields(cast(Any, type(rule))):
        value = getattr(rule, field.name)
        letter = symbol(field.name) if field.name in rule.numbers else ""
        shown = _value(value)
        if value != field.default and field.default is not dataclasses.MISSING:
            shown = f"[bold]{shown}[/], not {_value(field.default)}"
        accepted = " or ".join(allowed(annotations(type(rule))[field.name]))
        table.add_row(field.name, f"[cyan]{letter}[/]", shown, escape(accepted))
    console.print(Padding(table, (0, 4, 1, 4)))
    for name, space in rule.search.items():
        scale = ", on a logarithmic scale" if isinstance(space, Log) else ""
        console.print(f"    A race tries {name} from {space.low:g} to {space.high:g}{scale}.")
    console.print(f"    A step moves at least {plan.bytes_per_parameter(rule)} bytes per parameter in float32.")
    rows, columns = rule.shown_for
    each = plan.operations(rule) / (rows * columns)
    console.print(f"    It takes {each:,.0f} operations per parameter of a {rows:,} × {columns:,} matrix.")
    for variant, settings in type(rule).variants.items():
        said = ", ".join(f"{name}={_value(value)}" for name, value in settings.items())
        console.print(f"    {variant} is {type(rule).__name__.lower()}({escape(said)}).")


def _value(x: Any) -> str:
    return f"{x:g}" if isinstance(x, float) else str(x)
