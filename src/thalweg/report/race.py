"""The report of a race: one HTML page that begins with the verdict."""

import json
from pathlib import Path
from typing import Any

from thalweg import rules
from thalweg.report import figures, page, palette
from thalweg.store import EntryPlan, Results, Run
from thalweg.verdict import Row, judge

LANDSCAPE = "landscape.html"
"""The page of the loss around the race's runs, where there is one beside the report."""


def write(results: Results, path: Path | str) -> Path:
    """Write the report of a race, finished or not, and return its path.

    The page is one file: verdict and leaderboard; training curves; the effect of the learning rate; the time to the
    target; the code to paste for the winner; every run; the plan and the software versions.

    Raises:
        OSError: the file cannot be written.
    """
    plan, verdict = results.plan, judge(results)
    names = [row.entry for row in verdict.rows]
    colours = dict(zip(names, palette.colours(names), strict=True))
    numbers = {run.key: i for i, run in enumerate(results.runs, 1)}
    ranked = [row for row in verdict.rows if row.seeds]
    winner = ranked[0] if ranked else None
    sensitivity = figures.sensitivity(results, colours, numbers)
    data = {
        "ranking": figures.ranking(results, ranked, colours, numbers) if ranked else None,
        "curves": figures.curves(results, colours),
        "axes": {"x": figures.X, "y": {k: v.format(metric=plan.problem.metric) for k, v in figures.Y.items()}},
        "sensitivity": sensitivity,
    }
    return page.write(
        path, "race.html", data,
        title=f"{plan.problem.name}: {', '.join(names)}",
        plan=plan, verdict=verdict, results=results, colours=colours, numbers=numbers,
        sensitivity=sensitivity is not None,
        budgets=sorted({budget for tuned in verdict.tuning for budget in tuned.expected}),
        winner=winner,
        others=[*dict.fromkeys(name for row in verdict.rows for name in row.others)],
        code=snippet(winner, plan.entry(winner.entry)) if winner else "",
        landscape=LANDSCAPE if (Path(path).parent / LANDSCAPE).exists() else "",
        versions=_versions(results.runs),
        document=json.dumps(plan.document, indent=2, ensure_ascii=False),
    )  # fmt: skip


def snippet(row: Row, entry: EntryPlan) -> str:
    """Code to paste: a training loop with the optimizer of a row of the leaderboard."""
    chosen = entry.chosen(row.settings)
    others = chosen.pop("others", None)
    given = {name: repr(value) for name, value in chosen.items()}
    if row.schedule:
        given["schedule"] = "schedule"
    options = "".join(f", {name}={value}" for name, value in given.items())
    steps = entry.steps or int(row.steps)
    schedule = f"schedule = thalweg.schedules.parse({row.schedule!r}).resolve({steps})\n" if row.schedule else ""
    rule = f"thalweg.rules.parse({row.rule!r})"
    if row.rule.startswith("Switch("):
        rule = f"thalweg.Switch.parse({row.rule!r}).resolve({steps})"
    params = "model.parameters()"
    if others is not None:
        tuned = {n.removeprefix("others."): x for n, x in row.settings.items() if n.startswith("others.")}
        other = rules.parse(others).replace(**tuned)
        params = f"thalweg.groups.hidden_matrices(model, rule, {str(other)!r})"
    return f"""import thalweg

rule = {rule}
{schedule}\
optimizer = thalweg.Optimizer({params}, rule{options})

for x, y in batches:  # of {entry.batch_size:,} examples
    optimizer.zero_grad()
    loss_function(model(x), y).backward()
    optimizer.step()

optimizer.eval()  # before evaluating or saving; optimizer.train() before training further
"""


def _versions(runs: tuple[Run, ...]) -> list[dict[str, Any]]:
    """Each machine and set of versions, with the number of runs made there."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        key = json.dumps(dict(run.machine), sort_keys=True)
        found.setdefault(key, {"machine": dict(run.machine), "runs": 0})["runs"] += 1
    return list(found.values())
