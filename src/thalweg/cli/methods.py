"""The commands about rules, schedules and surfaces: their options and their help texts."""

from pathlib import Path
from typing import Annotated

import typer

from thalweg.cli.exits import place
from thalweg.cli.options import SYNTAX, examples, option, option_place

WALKERS = "sgd,momentum,adagrad,rmsprop,adam"
"""The methods of the lectures' animations."""

RULES = examples(
    "Examples",
    {
        "every rule": "thalweg rules",
        "one, with its settings": "thalweg rules adam",
        "an option changes the formula": 'thalweg rules "adam(bias_correction=False, eps_at=inside)"',
    },
)


def rules(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One rule, with settings if wanted.", show_default=False)
    ] = None,
) -> None:
    """Show the rules: formula, source, settings, and the bytes that a step moves."""
    from thalweg.cli import listing

    listing.rules(name)


CONVERT = examples(
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


def convert(
    call: Annotated[str, typer.Argument(metavar="CALL", help="What a framework or book writes, as literals.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FRAMEWORK", help="torch, keras, optax, pytorch_optimizer, textbook …; for a checkpoint, of a name."
        ),
    ] = "torch",
    state: Annotated[Path | None, option_place("FILE", "A checkpoint of CALL, to be converted instead.")] = None,
    out: Annotated[Path | None, option_place("FILE", "The converted checkpoint.")] = None,
    steps: Annotated[int | None, option("N", "Steps that it has taken, if it has no count.", min=1)] = None,
) -> None:
    """Translate an optimizer call into another framework's, and say whether the two are equivalent; or a checkpoint."""
    from thalweg.cli import converting

    converting.convert(call, to, state=state, out=out, steps=steps)


SCHEDULE = examples(
    "Examples",
    {
        "warm up, then fall along a cosine": 'thalweg schedule "warmup(500).then(cosine(9500))" --total 10000',
        "lengths as fractions, three to compare, as a page":
            'thalweg schedule "cosine(1.0)" "linear(1.0)" "warmup(0.1).then(inverse_sqrt(0.1))" \\\n'
            "    --total 10000 --out schedules.html",
        "momentum from 0.5 to 0.9": 'thalweg schedule "anneal(0.5, 0.9, 2000)" --total 10000',
    },
)  # fmt: skip


def schedule(
    texts: Annotated[
        list[str],
        typer.Argument(metavar="SCHEDULE", help="A schedule as text; several to compare.", show_default=False),
    ],
    total: Annotated[int, option("N", "Steps of the training.", min=1, max=1_000_000)],
    base: Annotated[float | None, option("X", "The base value, such as the learning rate.", "factors of it")] = None,
    out: Annotated[Path | None, option_place("FILE", "Write them as a page, too.")] = None,
) -> None:
    """Show a schedule before training with it: its curve, and its first, peak and last value."""
    from thalweg.cli import scheduling

    scheduling.schedule(texts, total=total, base=base, out=out)


PLAY = examples(
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


def play(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            show_default=False,
            help="A surface, such as [bold]ravine[/], or your own surface or rule, [bold]FILE.py:NAME[/].",
        ),
    ] = "ravine",
    rules: Annotated[str | None, option("RULES", f"What walks: rules {SYNTAX}.", WALKERS)] = None,
    start: Annotated[str | None, option("X,Y", "Where all begin.", "the surface's own")] = None,
    noise: Annotated[float | None, option("σ", "Standard deviation of the noise on a gradient.", min=0)] = None,
    seed: Annotated[int, option("N", "Where the noise comes from.", "0", min=0, max=2**31)] = 0,
    schedule: Annotated[list[str] | None, option("TEXT", "A schedule to offer, over 500 steps; may repeat.")] = None,
    export: Annotated[Path | None, option_place("FILE", "Write the page here instead of opening it.")] = None,
) -> None:
    """Watch rules walk down a surface, in the browser: change, click, compare.

    The page is one file that needs no network: rules and surfaces run
    in it, printed from the same formulas as the kernels.
    """
    from thalweg.cli import playing

    playing.play(what, rules, start=start, noise=noise, seed=seed, schedules=schedule or (), export=export)


LANDSCAPE = examples(
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
        option("PROBLEM", "The model and its data, as for a race: a name, or FILE.py:FUNCTION.", "the run's own"),
    ] = None,
    data: Annotated[Path | None, option_place("DIR", "The folder with the problem's data files, or a file.")] = None,
    directions: Annotated[
        str, option("KIND", "principal: the path's principal components; random: filter-normalised.", "principal")
    ] = "principal",
    side: Annotated[int, option("N", "Points on a side of the grid: 5, 9, 17, 33, 65 or 129.", "33", min=5)] = 33,
    samples: Annotated[int, option("N", "Samples to compute the loss on; 0 for all.", "2048", min=0)] = 2_048,
    split: Annotated[str, option("SPLIT", "Of which data: train, validation or test.", "train")] = "train",
    statistics: Annotated[
        str,
        option("HOW", "Statistics of batch normalisation at each place: recomputed or frozen.", "recomputed"),
    ] = "recomputed",
    seed: Annotated[int, option("N", "Where samples and random directions come from.", "0", min=0)] = 0,
    out: Annotated[Path | None, option_place("FILE", "The page.", "RUN/landscape.html")] = None,
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
