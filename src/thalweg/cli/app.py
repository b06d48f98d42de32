"""The command line: all commands, and how it ends.

The implementation of a command is imported when it runs, so that ``thalweg --help`` answers at once.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from typer.main import get_command

from thalweg import __version__
from thalweg.cli import benching, methods, races
from thalweg.cli.exits import ended

app = typer.Typer(
    name="thalweg",
    help="Race optimizers on your problem, honestly; see what each rule does; read its formula.",
    epilog="[bold]Start with[/]  thalweg race digits",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (`arguments`, or this process's) and exit with 0, 2 (user's mistake), 1 (our fault) or 130
    (Ctrl-C).
    """
    command = get_command(app)
    given = None if arguments is None else list(arguments)
    sys.exit(ended(lambda: command.main(given, prog_name="thalweg", standalone_mode=False)))


@app.callback(invoke_without_command=True)
def _start(  # pyright: ignore[reportUnusedFunction] -- typer calls it
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(f"thalweg {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.get_help()  # prints it, as typer has it
        raise typer.Exit


_COMMANDS: tuple[tuple[str, Callable[..., None], str | None], ...] = (
    ("race", races.race, races.RACE),
    ("report", races.report, None),
    ("watch", races.watch, races.WATCH),
    ("export", races.export, None),
    ("list", races.list_, None),
    ("try", races.try_, races.TRY),
    ("range", races.range_, races.RANGE),
    ("calibrate", races.calibrate, races.CALIBRATE),
    ("rules", methods.rules, methods.RULES),
    ("convert", methods.convert, methods.CONVERT),
    ("schedule", methods.schedule, methods.SCHEDULE),
    ("play", methods.play, methods.PLAY),
    ("landscape", methods.landscape, methods.LANDSCAPE),
    ("bench", benching.bench, benching.EXAMPLES),
)
"""The commands in the order of ``thalweg --help``, and the examples below each one's help."""

for _name, _do, _epilog in _COMMANDS:
    app.command(_name, epilog=_epilog)(_do)
