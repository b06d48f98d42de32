"""The commands, their options and their help texts.

The implementation of a command is imported when it runs, so that ``thalweg --help`` answers at once.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from thalweg import __version__
from thalweg.cli.benching import EXAMPLES, bench
from thalweg.cli.exits import ended, place

LECTURE = "sgd,momentum,nesterov,adagrad,rmsprop,rmsprop_nesterov,adam"
"""The lectures' methods: the default entries of a race."""

WALKERS = "sgd,momentum,adagrad,rmsprop,adam"
"""The methods of the lectures' animations."""

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


def _examples(title: str, commands: dict[str, str]) -> str:
    """Commands to copy, each below a description."""
    shown = "\n\n".join(f"[dim]# {what}[/]\n{command}" for what, command in commands.items())
    return f"[bold]{title}[/]\n\n{shown}"


def _option(metavar: str, help: str, default: str | None = None, min: int | None = None, max: int | None = None) -> Any:
    return typer.Option(metavar=metavar, help=help, show_default=default or False, min=min, max=max)


def _place(metavar: str, help: str, default: str | None = None) -> Any:
    return typer.Option(metavar=metavar, help=help, show_default=default or False, parser=place)


_SYNTAX = "separated by commas, with settings if wanted, as in [bold]sgd,'adam(beta2=0.99)'[/]"

_RACE = _examples(
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


@app.command(epilog=_RACE)
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
        _option("RULES", f"What races: rules {_SYNTAX}; batch_size is a number or full.", "the lectures' seven"),
    ] = LECTURE,
    suite: Annotated[str | None, _option("NAME", "Race on several problems instead: [bold]small[/].")] = None,
    schedule: Annotated[
        list[str] | None,
        _option("TEXT", "A schedule of the learning rate for all that have none; given again, the choice is tuned."),
    ] = None,
    data: Annotated[Path | None, _place("DIR", "The folder with the problem's data files, or a file.")] = None,
    trials: Annotated[int | None, _option("N", "Settings tried for each rule.", min=1, max=10_000)] = None,
    seeds: Annotated[
        int | None, _option("N", "Replicates, each with a fresh seed; verdicts need 5.", min=1, max=10_000)
    ] = None,
    finalists: Annotated[
        int | None, _option("N", "Best settings that every replicate runs, to keep one.", min=1, max=100)
    ] = None,
    splits: Annotated[
        bool, typer.Option("--splits", help="Every replicate draws training and validation data anew.")
    ] = False,
    halving: Annotated[
        bool,
        typer.Option("--halving", help="Stop the worse half of trials after a quarter of the steps, and again."),
    ] = False,
    until: Annotated[
        str | None, _option("decided", "Add replicates, --seeds at most, until each pair is decided.")
    ] = None,
    margin: Annotated[float | None, _option("X", "With --until: a difference that does not matter.")] = None,
    target: Annotated[
        float | None, _option("X", "A value of the metric, for the time to reach it.", "the problem's")
    ] = None,
    steps: Annotated[int | None, _option("N", "Steps of a run at the problem's batch size.", min=1, max=10**9)] = None,
    seconds: Annotated[
        float | None, _option("X", "Seconds of training of a run, in place of steps; evaluations do not count.")
    ] = None,
    seed: Annotated[
        int, _option("N", "Where all random numbers of the race come from.", "0", min=0, max=2**63 - 1)
    ] = 0,
    out: Annotated[Path | None, _place("DIR", "Where to write.", "races/PROBLEM")] = None,
    store: Annotated[
        str | None,
        _option("STORE", "Keep the runs in a database of many races: postgresql://user@host/name, or a file.", "DIR"),
    ] = None,
    workers: Annotated[int | None, _option("N", "Processes to use.", "one a core", min=1, max=1_000)] = None,
    populations: Annotated[
        str, _option("WHEN", "Whether runs advance together: auto tries what is faster; always; never.", "auto")
    ] = "auto",
    patience: Annotated[
        float | None, _option("X", "Seconds after which a training that reports nothing has failed.")
    ] = None,
    ray: Annotated[
        str | None, _option("ADDRESS", "Do the runs on a Ray cluster: HOST:PORT, or auto.", "on this machine")
    ] = None,
    mirror: Annotated[
        list[str] | None,
        _option("KIND:WHERE", "Curves also go to tensorboard:DIR, mlflow:URI or wandb:PROJECT; may repeat."),
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


@app.command()
def report(
    race: _RECORDED, out: Annotated[Path | None, _place("DIR", "Where to write.", "there, or races/NAME")] = None
) -> None:
    """Rewrite a race's report from its records, and print its leaderboard and verdict."""
    from thalweg.cli import recorded

    recorded.report(race, out)


_WATCH = _examples(
    "Examples",
    {
        "a race, in another terminal than the one that runs it": "thalweg watch races/digits",
        "all races in a folder, also those that begin later": "thalweg watch races",
        "a database that a team shares": "thalweg watch postgresql://me@host/lab",
        "from another machine, with the address that it prints": "thalweg watch races --host 0.0.0.0",
    },
)


@app.command(epilog=_WATCH)
def watch(
    what: Annotated[
        str,
        typer.Argument(
            metavar="DIR|STORE",
            help="The folder of a race, or one of many such folders; or a store, [bold]STORE/NAME[/] for one of its "
            "races.",
        ),
    ] = "races",
    port: Annotated[int | None, _option("N", "The port.", "8474, or any", min=0, max=65535)] = None,
    host: Annotated[
        str, _option("ADDRESS", "The interface; others than this machine need the token that is printed.", "127.0.0.1")
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


@app.command()
def export(
    race: _RECORDED,
    parquet: Annotated[bool, typer.Option("--parquet", help="Apache Parquet, with types.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
    json: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
    mirror: Annotated[
        list[str] | None,
        _option("KIND:WHERE", "Write curves to tensorboard:DIR, mlflow:URI or wandb:PROJECT; may repeat."),
    ] = None,
    out: Annotated[Path | None, _place("DIR", "Where to write.", "there, or races/NAME")] = None,
) -> None:
    """Write the runs of a race, and the points of their curves, as tables for other programs."""
    from thalweg.cli import exporting

    wanted = {"parquet": parquet, "csv": csv, "json": json}
    exporting.export(race, [kind for kind, asked in wanted.items() if asked], out, mirror or ())


@app.command(name="list")
def list_(
    store: Annotated[
        str, typer.Argument(metavar="STORE", show_default=False, help="postgresql://user@host/name, or a file.")
    ],
) -> None:
    """List the races in a store."""
    from thalweg.cli import recorded

    recorded.list_(store)


_TRY = _examples(
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
_PATIENCE = Annotated[float | None, _option("X", "Seconds after which one that reports nothing has failed.")]


@app.command(name="try", epilog=_TRY)
def try_(
    function: _FUNCTION,
    rule: Annotated[str, _option("RULE", "The rule, with settings if wanted.", "adam")] = "adam",
    steps: Annotated[
        int, _option("N", "Steps of a run; more if there are no two reports by then.", "30", min=3, max=10**6)
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


_RANGE = _examples(
    "Examples",
    {
        "from a tenth of Adam's search space to ten times as far": "thalweg range my_training.py:train",
        "between rates of yours": "thalweg range my_training.py:train --rule sgd --low 1e-3 --high 10 --steps 300",
    },
)


@app.command(name="range", epilog=_RANGE)
def range_(
    function: _FUNCTION,
    rule: Annotated[str, _option("RULE", "The rule, with settings if wanted.", "adam")] = "adam",
    steps: Annotated[int, _option("N", "Steps of a run.", "100", min=10, max=10**6)] = 100,
    low: Annotated[float | None, _option("X", "The first learning rate.", "a tenth of the rule's lowest")] = None,
    high: Annotated[float | None, _option("X", "The last learning rate.", "ten times the rule's highest")] = None,
    runs: Annotated[int, _option("N", "Runs, each with another seed.", "3", min=1, max=100)] = 3,
    patience: _PATIENCE = None,
) -> None:
    """Show losses against learning rates, and a space to race on.

    The rate rises from step to step by the same factor.  The loss is
    what your function calls backward on.
    """
    from thalweg.cli import looking

    looking.range_(function, rule, steps=steps, low=low, high=high, runs=runs, patience=patience)


_CALIBRATE = _examples(
    "Examples",
    {"in seconds": "thalweg calibrate", "the table in the documentation": "thalweg calibrate --races 20000 --training"},
)


@app.command(epilog=_CALIBRATE)
def calibrate(
    races: Annotated[
        int, _option("N", "Simulated races for each noise and size.", "500", min=100, max=1_000_000)
    ] = 500,
    seed: Annotated[int, _option("N", "Where the noise comes from.", "0", min=0, max=2**63 - 1)] = 0,
    training: Annotated[
        bool, typer.Option("--training", help="Also train: one rule, tuned twice, against itself; some minutes.")
    ] = False,
) -> None:
    """Measure how often verdicts are wrong, in simulated races whose truth is known."""
    from thalweg.cli import calibrating

    calibrating.calibrate(races, seed, training=training)


_RULES = _examples(
    "Examples",
    {
        "every rule": "thalweg rules",
        "one, with its settings": "thalweg rules adam",
        "an option changes the formula": 'thalweg rules "adam(bias_correction=False, eps_at=inside)"',
    },
)


@app.command(epilog=_RULES)
def rules(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One rule, with settings if wanted.", show_default=False)
    ] = None,
) -> None:
    """Show the rules: formula, source, settings, and the bytes that a step moves."""
    from thalweg.cli import listing

    listing.rules(name)


_CONVERT = _examples(
    "Examples",
    {
        "the same while the rate is constant":
            'thalweg convert "keras.optimizers.SGD(learning_rate=0.1, momentum=0.9)" --to torch',
        "not expressible: the nearest, and how far it strays":
            'thalweg convert "keras.optimizers.Adam()" --to torch',
        "a checkpoint: the same buffer's name means another thing":
            "thalweg convert torch.optim.Muon --to dion.Muon --state old.pt --out new.pt",
    },
)  # fmt: skip


@app.command(epilog=_CONVERT)
def convert(
    call: Annotated[str, typer.Argument(metavar="CALL", help="What a framework or book writes, as literals.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FRAMEWORK", help="torch, keras, optax, pytorch_optimizer, textbook …; for a checkpoint, of a name."
        ),
    ] = "torch",
    state: Annotated[Path | None, _place("FILE", "A checkpoint of CALL, to be converted instead.")] = None,
    out: Annotated[Path | None, _place("FILE", "The converted checkpoint.")] = None,
    steps: Annotated[int | None, _option("N", "Steps that it has taken, if it has no count.", min=1)] = None,
) -> None:
    """Translate an optimizer call into another framework's, and say whether the two are equivalent; or a checkpoint."""
    from thalweg.cli import converting

    converting.convert(call, to, state=state, out=out, steps=steps)


_SCHEDULE = _examples(
    "Examples",
    {
        "warm up, then fall along a cosine": 'thalweg schedule "warmup(500).then(cosine(9500))" --total 10000',
        "lengths as fractions, three to compare, as a page":
            'thalweg schedule "cosine(1.0)" "linear(1.0)" "warmup(0.1).then(inverse_sqrt(0.1))" \\\n'
            "    --total 10000 --out schedules.html",
        "momentum from 0.5 to 0.9": 'thalweg schedule "anneal(0.5, 0.9, 2000)" --total 10000',
    },
)  # fmt: skip


@app.command(epilog=_SCHEDULE)
def schedule(
    texts: Annotated[
        list[str],
        typer.Argument(metavar="SCHEDULE", help="A schedule as text; several to compare.", show_default=False),
    ],
    total: Annotated[int, _option("N", "Steps of the training.", min=1, max=1_000_000)],
    base: Annotated[float | None, _option("X", "The base value, such as the learning rate.", "factors of it")] = None,
    out: Annotated[Path | None, _place("FILE", "Write them as a page, too.")] = None,
) -> None:
    """Show a schedule before training with it: its curve, and its first, peak and last value."""
    from thalweg.cli import scheduling

    scheduling.schedule(texts, total=total, base=base, out=out)


_PLAY = _examples(
    "Examples",
    {
        "momentum swings, and is the first along the ravine": "thalweg play",
        "plain descent zigzags where its rate is near the limit":
            'thalweg play ravine --rules "sgd(lr=0.97),momentum"',
        "plain descent is stuck at the saddle … until there is noise": "thalweg play saddle --noise 0.1 --seed 1",
        "a page to send to somebody, with a schedule of yours to choose":
            'thalweg play rosenbrock --schedule "warmup(50).then(cosine(450))" --export play.html',
        "your own surface f(x, y), or your own rule": "thalweg play my_surface.py:f\nthalweg play my_rule.py:MyRule",
    },
)  # fmt: skip


@app.command(epilog=_PLAY)
def play(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            show_default=False,
            help="A surface, such as [bold]ravine[/], or your own surface or rule, [bold]FILE.py:NAME[/].",
        ),
    ] = "ravine",
    rules: Annotated[str | None, _option("RULES", f"What walks: rules {_SYNTAX}.", WALKERS)] = None,
    start: Annotated[str | None, _option("X,Y", "Where all begin.", "the surface's own")] = None,
    noise: Annotated[float | None, _option("σ", "Standard deviation of the noise on a gradient.", min=0)] = None,
    seed: Annotated[int, _option("N", "Where the noise comes from.", "0", min=0, max=2**31)] = 0,
    schedule: Annotated[list[str] | None, _option("TEXT", "A schedule to offer, over 500 steps; may repeat.")] = None,
    export: Annotated[Path | None, _place("FILE", "Write the page here instead of opening it.")] = None,
) -> None:
    """Watch rules walk down a surface, in the browser: change, click, compare.

    The page is one file that needs no network: rules and surfaces run
    in it, printed from the same formulas as the kernels.
    """
    from thalweg.cli import playing

    playing.play(what, rules, start=start, noise=noise, seed=seed, schedules=schedule or (), export=export)


_LANDSCAPE = _examples(
    "Examples",
    {
        "the paths of a race's entries, from one start, on one plane":
            "thalweg race digits --rules sgd,momentum,adam --trajectory\n"
            "thalweg landscape races/digits --side 65",
        "your own run, recorded by thalweg.Trajectory, on a problem of your own":
            "thalweg landscape runs/first --problem my_problem.py:make",
        "two runs on one plane, on all test data":
            "thalweg landscape runs/first runs/second --problem my_problem.py:make \\\n    --split test --samples 0",
        "random directions around the last weights": "thalweg landscape races/digits --directions random",
    },
)  # fmt: skip


@app.command(epilog=_LANDSCAPE)
def landscape(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN…",
            show_default=False,
            parser=place,
            help="The folder of a trajectory, or of a race that was run with --trajectory; several for one plane.",
        ),
    ],
    problem: Annotated[
        str | None,
        _option("PROBLEM", "The model and its data, as for a race: a name, or FILE.py:FUNCTION.", "the run's own"),
    ] = None,
    data: Annotated[Path | None, _place("DIR", "The folder with the problem's data files, or a file.")] = None,
    directions: Annotated[
        str, _option("KIND", "principal: the path's principal components; random: filter-normalised.", "principal")
    ] = "principal",
    side: Annotated[int, _option("N", "Points on a side of the grid: 5, 9, 17, 33, 65 or 129.", "33", min=5)] = 33,
    samples: Annotated[int, _option("N", "Samples to compute the loss on; 0 for all.", "2048", min=0)] = 2_048,
    split: Annotated[str, _option("SPLIT", "Of which data: train, validation or test.", "train")] = "train",
    statistics: Annotated[
        str,
        _option("HOW", "Statistics of batch normalisation at each place: recomputed or frozen.", "recomputed"),
    ] = "recomputed",
    seed: Annotated[int, _option("N", "Where samples and random directions come from.", "0", min=0)] = 0,
    out: Annotated[Path | None, _place("FILE", "The page.", "RUN/landscape.html")] = None,
) -> None:
    """Draw the loss of a network around the path that its weights took.

    The page has contours and the surface in 3-D, on the plane of the
    path's first two principal components, and tells what such pictures
    hide: how much of the path lies in the plane, how far it is from it,
    and its true losses.  A coarse grid comes first, then finer ones.
    """
    from thalweg.cli import surveying

    surveying.landscape(
        runs, problem=problem, data=data, directions=directions, side=side, samples=samples, split=split,
        statistics=statistics, seed=seed, out=out,
    )  # fmt: skip


app.command(epilog=EXAMPLES)(bench)
