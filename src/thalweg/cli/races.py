"""The commands about races and trainings: their options and their help texts."""

from pathlib import Path
from typing import Annotated

import typer

from thalweg.cli.options import SYNTAX, examples, option, option_place

LECTURE = "sgd,momentum,nesterov,adagrad,rmsprop,rmsprop_nesterov,adam"
"""The lectures' methods: the default entries of a race."""

RACE = examples(
    "The lectures' advice, a command each",
    {
        "all samples, 64 or one a step, on equal numbers of examples":
            'thalweg race digits --rules "sgd(batch_size=full),sgd,sgd(batch_size=1)" \\\n'
            "    --steps 500 --out races/batches",
        "momentum against none, and looking ahead":
            "thalweg race digits --rules sgd,momentum,nesterov --out races/momentum",
        "AdaGrad's rate dies out, RMSProp's does not":
            "thalweg race digits --rules adagrad,rmsprop --steps 2000 --out races/rates",
        "Adam with and without bias correction":
            'thalweg race digits --rules "adam,adam(bias_correction=False)" \\\n    --out races/correction',
        "a schedule for everyone, tuned with the rate":
            'thalweg race digits --rules sgd,adam --schedule "constant()" \\\n'
            '    --schedule "warmup(0.1).then(cosine(0.9))" --out races/schedules',
        "Adam first, then gradient descent: at half of the steps, or when Adam's own steps say so":
            'thalweg race digits --out races/switch \\\n'
            '    --rules "adam,sgd,switch(adam, sgd, at=0.5),switch(adam, sgd, at=auto)"',
        "spaces of your own to search, and a race that grows by a rule and five seeds":
            'thalweg race digits --rules "adam(lr=1e-4..1, eps=1e-10..1)" --out races/mine\n'
            'thalweg race digits --rules "adam(lr=1e-4..1, eps=1e-10..1),sgd" --seeds 10 \\\n    --out races/mine',
        "MNIST, from files that you have": "thalweg race mnist --data ~/mnist --rules sgd,momentum",
        "what a costly rule may cost: equal seconds of training, in place of equal steps":
            "thalweg race digits --rules sgd,adam,soap --seconds 0.5 --out races/seconds",
        "several problems, and a verdict over all": "thalweg race digits,logistic --rules sgd,adam",
        "your own: make() returns a thalweg.Problem": "thalweg race my_problem.py:make --rules sgd,adam",
        "your own training, whatever it is: train(run) is given a thalweg.TrainingRun":
            "thalweg race init loop\n"
            'thalweg race my_training.py:train --rules "adamw,muon,sgd(momentum=0.9)" \\\n    --seconds 60',
    },
)  # fmt: skip


def race(
    problem: Annotated[
        str | None,
        typer.Argument(
            metavar="PROBLEM",
            show_default=False,
            help="[bold]digits[/], [bold]logistic[/], [bold]mnist[/] …, with settings if wanted, as in "
            "[bold]'digits(dropout=0.2)'[/]; or your own, [bold]FILE.py:FUNCTION[/]; several, separated by commas; or "
            "[bold]init[/], which writes a file to start from.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            show_default=False,
            help="After [bold]init[/]: tensors, loader, loop, lightning or transformers.",
        ),
    ] = None,
    rules: Annotated[
        str,
        option("RULES", f"What races: rules {SYNTAX}; batch_size is a number or full.", "the lectures' seven"),
    ] = LECTURE,
    suite: Annotated[str | None, option("NAME", "Race on several problems instead: [bold]small[/].")] = None,
    schedule: Annotated[
        list[str] | None,
        option("TEXT", "A schedule of the learning rate for all that have none; given again, the choice is tuned."),
    ] = None,
    data: Annotated[Path | None, option_place("DIR", "The folder with the problem's data files, or a file.")] = None,
    trials: Annotated[int | None, option("N", "Settings tried for each rule.", min=1, max=10_000)] = None,
    seeds: Annotated[
        int | None, option("N", "Replicates, each with a fresh seed; verdicts need 5.", min=1, max=10_000)
    ] = None,
    finalists: Annotated[
        int | None, option("N", "Best settings that every replicate runs, to keep one.", min=1, max=100)
    ] = None,
    splits: Annotated[
        bool, typer.Option("--splits", help="Every replicate draws training and validation data anew.")
    ] = False,
    halving: Annotated[
        bool,
        typer.Option("--halving", help="Stop the worse half of trials after a quarter of the steps, and again."),
    ] = False,
    until: Annotated[
        str | None, option("decided", "Add replicates, --seeds at most, until each pair is decided.")
    ] = None,
    margin: Annotated[float | None, option("X", "With --until: a difference that does not matter.")] = None,
    target: Annotated[
        float | None, option("X", "A value of the metric, for the time to reach it.", "the problem's")
    ] = None,
    steps: Annotated[int | None, option("N", "Steps of a run at the problem's batch size.", min=1, max=10**9)] = None,
    seconds: Annotated[
        float | None, option("X", "Seconds of training of a run, in place of steps; evaluations do not count.")
    ] = None,
    seed: Annotated[int, option("N", "Where all random numbers of the race come from.", "0", min=0, max=2**63 - 1)] = 0,
    out: Annotated[Path | None, option_place("DIR", "Where to write.", "races/PROBLEM")] = None,
    store: Annotated[
        str | None,
        option("STORE", "Keep the runs in a database of many races: postgresql://user@host/name, or a file.", "DIR"),
    ] = None,
    workers: Annotated[int | None, option("N", "Processes to use.", "one a core", min=1, max=1_000)] = None,
    populations: Annotated[
        str, option("WHEN", "Whether runs advance together: auto tries what is faster; always; never.", "auto")
    ] = "auto",
    patience: Annotated[
        float | None, option("X", "Seconds after which a training that reports nothing has failed.")
    ] = None,
    ray: Annotated[
        str | None, option("ADDRESS", "Do the runs on a Ray cluster: HOST:PORT, or auto.", "on this machine")
    ] = None,
    mirror: Annotated[
        list[str] | None,
        option("KIND:WHERE", "Curves also go to tensorboard:DIR, mlflow:URI or wandb:PROJECT; may repeat."),
    ] = None,
    trajectory: Annotated[
        bool,
        typer.Option("--trajectory", help="Record the path of a run of each entry, and draw the loss around them."),
    ] = False,
    mix_versions: Annotated[
        bool, typer.Option("--mix-versions", help="Go on though torch, Python or thalweg had another version then.")
    ] = False,
) -> None:
    """Race rules on a problem, and say which differences are shown.

    Every rule gets the same number of trials in its own search space,
    which grows while the best lies at its edge.  Its best settings then
    run on fresh seeds, the same first weights and order of data for all;
    of each seed the run that is best on validation data counts, as
    measured on test data.

    Writes report.html, leaderboard.csv and race.db.  Every finished
    run is kept: after an interruption the same command continues, and
    with more rules, trials or seeds it adds them.
    """
    if problem == "init":
        from thalweg.cli import starting

        starting.init(kind, out)
        return
    if kind is not None:
        raise typer.BadParameter(f"{kind} is one argument too many; several problems are separated by commas")
    from thalweg.cli import racing

    racing.race(
        problem, rules, suite=suite, data=data, trials=trials, seeds=seeds, finalists=finalists, steps=steps,
        seconds=seconds, seed=seed, out=out, workers=workers, schedules=schedule or (), splits=splits,
        halving=halving, until=until, margin=margin, target=target, populations=populations, patience=patience,
        mix_versions=mix_versions, trajectory=trajectory, store=store, ray=ray, mirrors=mirror or (),
    )  # fmt: skip


_RECORDED = Annotated[
    str,
    typer.Argument(
        metavar="RACE",
        show_default=False,
        help="The folder of a race, such as races/digits; or STORE/NAME, such as "
        "postgresql://me@host/lab/digits or lab.db/digits.",
    ),
]


def report(
    race: _RECORDED, out: Annotated[Path | None, option_place("DIR", "Where to write.", "there, or races/NAME")] = None
) -> None:
    """Rewrite a race's report from its records, and print its leaderboard and verdict."""
    from thalweg.cli import recorded

    recorded.report(race, out)


WATCH = examples(
    "Examples",
    {
        "a race, in another terminal than the one that runs it": "thalweg watch races/digits",
        "all races in a folder, also those that begin later": "thalweg watch races",
        "a database that a team shares": "thalweg watch postgresql://me@host/lab",
        "from another machine, with the address that it prints": "thalweg watch races --host 0.0.0.0",
    },
)


def watch(
    what: Annotated[
        str,
        typer.Argument(
            metavar="DIR|STORE",
            help="The folder of a race, or one of many such folders; or a store, [bold]STORE/NAME[/] for one of its "
            "races.",
        ),
    ] = "races",
    port: Annotated[int | None, option("N", "The port.", "8474, or any", min=0, max=65535)] = None,
    host: Annotated[
        str, option("ADDRESS", "The interface; others than this machine need the token that is printed.", "127.0.0.1")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Follow races in the browser while they run.

    The page is the report, growing: progress, curves, one table that
    filters all figures, the verdict so far, what failed, and the load
    of this machine.  It only reads: opening and closing it never
    touches a race.
    """
    from thalweg.cli import watching

    watching.watch(what, host=host, port=port, browser=browser)


def export(
    race: _RECORDED,
    parquet: Annotated[bool, typer.Option("--parquet", help="Apache Parquet, with types.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
    json: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
    mirror: Annotated[
        list[str] | None,
        option("KIND:WHERE", "Write curves to tensorboard:DIR, mlflow:URI or wandb:PROJECT; may repeat."),
    ] = None,
    out: Annotated[Path | None, option_place("DIR", "Where to write.", "there, or races/NAME")] = None,
) -> None:
    """Write the runs of a race, and the points of their curves, as tables for other programs."""
    from thalweg.cli import exporting

    wanted = {"parquet": parquet, "csv": csv, "json": json}
    exporting.export(race, [kind for kind, asked in wanted.items() if asked], out, mirror or ())


def list_(
    store: Annotated[
        str, typer.Argument(metavar="STORE", show_default=False, help="postgresql://user@host/name, or a file.")
    ],
) -> None:
    """List the races in a store."""
    from thalweg.cli import recorded

    recorded.list_(store)


TRY = examples(
    "Examples",
    {
        "three short runs with the default rule": "thalweg try my_training.py:train",
        "with another, and longer": "thalweg try my_training.py:train --rule muon --steps 200",
    },
)

_FUNCTION = Annotated[
    str,
    typer.Argument(
        metavar="FILE.py:FUNCTION", help="A function that trains, or a problem, as for a race.", show_default=False
    ),
]
_PATIENCE = Annotated[float | None, option("X", "Seconds after which one that reports nothing has failed.")]


def try_(
    function: _FUNCTION,
    rule: Annotated[str, option("RULE", "The rule, with settings if wanted.", "adam")] = "adam",
    steps: Annotated[
        int, option("N", "Steps of a run; more if there are no two reports by then.", "30", min=3, max=10**6)
    ] = 30,
    patience: _PATIENCE = None,
) -> None:
    """Look at your training before you race it, in three short runs.

    Shows what a step takes and what of it the optimizer, what a race
    would take, whether runs of one seed are equal bit for bit and seeds
    differ, whether the metric moves, and which gradients are missing or
    not finite.
    """
    from thalweg.cli import looking

    looking.try_(function, rule, steps=steps, patience=patience)


RANGE = examples(
    "Examples",
    {
        "from a tenth of Adam's search space to ten times as far": "thalweg range my_training.py:train",
        "between rates of yours": "thalweg range my_training.py:train --rule sgd --low 1e-3 --high 10 --steps 300",
    },
)


def range_(
    function: _FUNCTION,
    rule: Annotated[str, option("RULE", "The rule, with settings if wanted.", "adam")] = "adam",
    steps: Annotated[int, option("N", "Steps of a run.", "100", min=10, max=10**6)] = 100,
    low: Annotated[float | None, option("X", "The first learning rate.", "a tenth of the rule's lowest")] = None,
    high: Annotated[float | None, option("X", "The last learning rate.", "ten times the rule's highest")] = None,
    runs: Annotated[int, option("N", "Runs, each with another seed.", "3", min=1, max=100)] = 3,
    patience: _PATIENCE = None,
) -> None:
    """Show losses against learning rates, and a space to race on.

    The rate rises from step to step by the same factor.  The loss is
    what your function calls backward on.
    """
    from thalweg.cli import looking

    looking.range_(function, rule, steps=steps, low=low, high=high, runs=runs, patience=patience)


CALIBRATE = examples(
    "Examples",
    {"in seconds": "thalweg calibrate", "the table in the documentation": "thalweg calibrate --races 20000 --training"},
)


def calibrate(
    races: Annotated[int, option("N", "Simulated races for each noise and size.", "500", min=100, max=1_000_000)] = 500,
    seed: Annotated[int, option("N", "Where the noise comes from.", "0", min=0, max=2**63 - 1)] = 0,
    training: Annotated[
        bool, typer.Option("--training", help="Also train: one rule, tuned twice, against itself; some minutes.")
    ] = False,
) -> None:
    """Measure how often verdicts are wrong, in simulated races whose truth is known."""
    from thalweg.cli import calibrating

    calibrating.calibrate(races, seed, training=training)
