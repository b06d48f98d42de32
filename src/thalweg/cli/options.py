"""What options and help texts of the commands are made of."""

from typing import Any

import typer

from thalweg.cli.exits import place

SYNTAX = "separated by commas, with settings if wanted, as in [bold]sgd,'adam(beta2=0.99)'[/]"
"""How several rules are written, for help texts."""


def examples(title: str, commands: dict[str, str]) -> str:
    """Commands to copy, each below a description."""
    shown = "\n\n".join(f"[dim]# {what}[/]\n{command}" for what, command in commands.items())
    return f"[bold]{title}[/]\n\n{shown}"


def option(metavar: str, help: str, default: str | None = None, min: int | None = None, max: int | None = None) -> Any:
    """An option with a value; `default` is what its help says of it."""
    return typer.Option(metavar=metavar, help=help, show_default=default or False, min=min, max=max)


def option_place(metavar: str, help: str, default: str | None = None) -> Any:
    """An option that is a file or a folder."""
    return typer.Option(metavar=metavar, help=help, show_default=default or False, parser=place)
