"""The command ``thalweg bench``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from thalweg.cli.exits import Mistake, place, users_input

if TYPE_CHECKING:
    from thalweg.bench import Plan, Result

EXAMPLES = """[bold]Examples[/]

[dim]# in less than a minute[/]

thalweg bench --quick

[dim]# one rule on one model, with torch's compiled step[/]

thalweg bench --workloads resnet18 --rules adamw --compile

[dim]# everything, kept for machines and as a page[/]

thalweg bench --json bench.json --html bench.html

[dim]# on a GPU, in less than eight minutes[/]

thalweg bench --device cuda

[dim]# runs per minute of a race, and of the loops that people write[/]

thalweg bench race

[dim]# the page again, without measuring[/]

thalweg bench --saved bench.json --html bench.html"""


def bench(
    what: Annotated[
        str, typer.Argument(metavar="[race]", help="What to time: steps, or [bold]race[/] for whole races.")
    ] = "steps",
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where to step: cpu, or a GPU: cuda, or cuda:1 where there are several.")
    ] = "cpu",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=place, help="For race: a folder of MNIST's files.", show_default="random images"
        ),
    ] = None,
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
    that moves as many bytes.  Takes up to fifteen minutes; close other programs.
    """
    if what == "race":
        _race(data, json, quick)
        return
    if what != "steps" or data:
        raise Mistake("thalweg bench times steps, and thalweg bench race times races; only the latter takes --data")
    if device != "cpu":
        _device(device, _names(rules), rounds, quick, json)
        return
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


def _device(name: str, rules: list[str], rounds: int, quick: bool, json: Path | None) -> None:
    """Time whole steps on a GPU, and print the table last."""
    from thalweg.bench import device, proofs

    console = Console(highlight=False)
    work = device.WORK[:2] if quick else device.WORK
    with users_input():
        chosen = device.chosen(name)
        with console.status("") as status:
            made = device.measure(chosen, work, rules, 3 if quick else rounds, say=lambda what: status.update(what))
            made = device.proven(chosen, made, steps=100 if quick else 1_000, say=lambda what: status.update(what))
        if json:
            json.parent.mkdir(parents=True, exist_ok=True)
            json.write_text(made.to_json(), encoding="utf-8")
    for what in made.left_out:
        console.print(f"[yellow]Warning:[/] {what}.")
    console.print(f"[dim]{made.sentence}[/]")
    console.print(device.table(made))
    console.print(proofs.table(made.figures))


def _race(data: Path | None, json: Path | None, quick: bool) -> None:
    """Time whole races, print runs per minute, and keep the result."""
    from thalweg.bench import machine, racing

    console = Console(highlight=False)
    warnings = machine.busy()
    steps, trials = (100, 8) if quick else (1_000, 64)
    with users_input(), console.status("") as status:
        found = racing.measure(data, steps, trials, lambda what: status.update(what))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("hidden layers", "way"):
        table.add_column(heading)
    for heading in ("runs", "runs per minute", "× the race", "CPU s per run"):
        table.add_column(heading, justify="right")
    for one in found:
        best = next(other for other in found if other.way == racing.RACE and other.hidden == one.hidden)
        table.add_row(
            "-".join(map(str, one.hidden)), one.way, f"{one.runs}", f"{one.per_minute:.1f}",
            f"{best.per_minute / one.per_minute:.2f}", f"{one.cpu / one.runs:.2f}",
        )  # fmt: skip
    console.print(table)
    console.print(f"[dim]Runs of {steps:,} steps of Adam on batches of 64.[/]")
    for warning in warnings:
        console.print(f"[yellow]Warning:[/] {warning}.")
    if json:
        with users_input():
            json.parent.mkdir(parents=True, exist_ok=True)
            json.write_text(racing.to_json(found, warnings), encoding="utf-8")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _measure(plan: "Plan", console: Console) -> "Result":
    from thalweg.bench import run

    with console.status("") as status:
        return run(plan, lambda what: status.update(what))
