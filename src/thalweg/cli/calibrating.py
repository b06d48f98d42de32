"""``thalweg calibrate``."""

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from thalweg import problems
from thalweg.cli.exits import Mistake, stoppable
from thalweg.race import Entry, retuning
from thalweg.race.race import FINALISTS
from thalweg.verdict.calibration import ENTRIES, REPLICATES, Measured, looking, measure, sizes

_TRAINED = {"trials": 16, "finalists": FINALISTS, "steps": 100}
_SIZES = {
    "digits": {"tunings": 24, "replicates": 60},
    "logistic": {"tunings": 16, "replicates": 40},
    "noisy-quadratic": {"tunings": 16, "replicates": 40},
}
"""How much is trained on each problem to see how often a rule differs from itself: 3,136 runs in all."""


@stoppable()
def calibrate(races: int, seed: int, *, training: bool = False) -> None:
    """Measure the judge's errors in simulated races, print them, and fail if one is larger than allowed."""
    stderr = Console(stderr=True)
    found = [
        one
        for size in track(sizes(), "Racing", console=stderr, transient=True, disable=not stderr.is_terminal)
        for one in measure(races, *size, seed)
    ]
    found += [one for entries in ENTRIES for one in looking(races, entries, seed)]
    if training:
        found += _trained(races, seed, stderr)
    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    for what in dict.fromkeys(one.what for one in found):
        of = [one for one in found if one.what == what]
        console.print(f"\n{_allowed(of)}\n")
        console.print(_table(of))
    if wrong := [one for one in found if not one.holds]:
        first = wrong[0]
        raise Mistake(
            f"{len(wrong)} of {len(found)} shares are not as allowed, the first: {first.what} in {first.share:.1%} of "
            f"{races:,} races of {first.entries} entries with {first.replicates} replicates, {first.noise}"
        )


def _trained(races: int, seed: int, stderr: Console) -> list[Measured]:
    """How often a rule that is tuned twice differs from itself, with real training on several problems."""
    found: list[Measured] = []
    for name, size in _SIZES.items():
        runs = retuning.run(problems.get(name), Entry("adam"), **_TRAINED, **size)
        total, hidden = _TRAINED["trials"] * sum(size.values()), not stderr.is_terminal
        done = list(track(runs, f"Training, {name}", total, console=stderr, transient=True, disable=hidden))
        found += retuning.measure(done[0][0], [one for _, one in done], REPLICATES, races, seed)
    return found


def _allowed(of: list[Measured]) -> str:
    low, high = of[0].low, of[0].high
    within = f"at most {high:.0%}" if low == 0 else f"at least {low:.0%}" if high == 1 else f"{low:.0%} to {high:.0%}"
    return f"{of[0].what[0].upper()}{of[0].what[1:]}, in % of {of[0].races:,} races (allowed: {within})"


def _table(of: list[Measured]) -> Table:
    """Noises as rows, sizes as columns."""
    table = Table(box=box.MARKDOWN)
    table.add_column("noise")
    for n, entries in dict.fromkeys((one.replicates, one.entries) for one in of):
        table.add_column(f"{n} × {entries}", justify="right")
    for noise in dict.fromkeys(one.noise for one in of):
        row = [one for one in of if one.noise == noise]
        table.add_row(Text(noise), *(f"{'' if one.holds else '!'}{100 * one.share:.1f}" for one in row))
    return table
