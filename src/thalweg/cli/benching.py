"""The command ``thalweg bench``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from thalweg.cli.exits import place, users_input

if TYPE_CHECKING:
    from thalweg.bench import Plan, Result

EXAMPLES = """[bold]Examples[/]

[dim]# in less than a minute[/]

thalweg bench --quick

[dim]# one rule on one model, with torch's compiled step[/]

thalweg bench --workloads resnet18 --rules adamw --compile

[dim]# everything, kept for machines and as a page[/]

thalweg bench --json bench.json --html bench.html

[dim]# the page again, without measuring[/]

thalweg bench --saved bench.json --html bench.html"""


def bench(
    workloads: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="mlp, tiny, small, 1m, resnet18, 33m, gpt2, by commas.", show_default="all"),
    ] = None,
    rules: Annotated[
        str, typer.Option(metavar="NAMES", help="adam, adamw, nadam, rmsprop, adagrad, momentum, sgd, by commas.")
    ] = "adam,rmsprop,nadam",
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="Threads for everyone.", min=1, max=1_000, show_default="torch's choice"),
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", help="Turns that each contender has.", min=1, max=1_000)] = 9,
    quick: Annotated[bool, typer.Option("--quick", help="Small workloads, three turns, no extras.")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile takes part; it needs a compiler.")] = False,
    saved: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=place, help="Show this result; measure nothing.", show_default=False),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=place, help="Keep the result for machines.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=place, help="Write it as a page.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=place, help="Put its tables between the marks of this file.", show_default=False
        ),
    ] = None,
) -> None:
    """Time the optimizer's step against torch's, and against memory bandwidth.

    All contenders step the same parameters in one run, in rotating order:
    this engine, torch's for-loop, foreach and fused, and a plain kernel
    that moves as many bytes.  Takes up to eight minutes; close other programs.
    """
    from thalweg.bench import WORKLOADS, Plan, Result, page, text
    from thalweg.bench.run import quick as quickened

    console = Console(highlight=False)
    if saved:
        with users_input():
            result = Result.from_json(saved.read_text(encoding="utf-8"))
    else:
        chosen = _names(workloads) if workloads else list(WORKLOADS)
        with users_input():
            plan = Plan(chosen, _names(rules), rounds=rounds, threads=threads, compiled=compiled)
        result = _measure(quickened(plan) if quick else plan, console)
    console.print(text.table(result.rows, console.width))
    for extra in result.extras:
        console.print(f"{extra.what}: [bold]{text.amount(extra)}[/]")
    console.print(f"[dim]Medians in µs.  {text.machine(result)}[/]")
    for warning in result.warnings:
        console.print(f"[yellow]Warning:[/] {warning}.")
    with users_input():
        if json:
            json.parent.mkdir(parents=True, exist_ok=True)
            json.write_text(result.to_json(), encoding="utf-8")
        if html:
            page.write(html, result)
        if markdown:
            text.rewrite(markdown, result)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _measure(plan: "Plan", console: Console) -> "Result":
    from thalweg.bench import run

    with console.status("") as status:
        return run(plan, lambda what: status.update(what))
