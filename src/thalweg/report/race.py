"""The report of a race: one HTML page that begins with the verdict.

The page is made of parts, which are text, and of the runs as data, from which its script draws figures and table.  The
page of ``thalweg watch`` is made of the same, again and again.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from thalweg import rules
from thalweg.report import page, runs
from thalweg.store import EntryPlan, Plan, Results, Run
from thalweg.verdict import Row, Verdict, judge

LANDSCAPE = "landscape.html"
"""The page of the loss around the race's runs, where there is one beside the report."""
PARTS = ("heading", "verdict", "leaderboard", "lost", "landscape", "tuning", "times", "code", "pairs", "plan")
_LOST = 8
"""How many lost runs are shown with their last lines."""
_LINES = 6


def write(results: Results, path: Path | str) -> Path:
    """Write the report of a race, finished or not, and return its path.

    The page is one file: verdict and leaderboard; training curves; the effect of the learning rate; the time to the
    target; the code to paste for the winner; every run; the plan and the software versions.

    Raises:
        OSError: the file cannot be written.
    """
    plan, verdict = results.plan, judge(results)
    landscape = LANDSCAPE if (Path(path).parent / LANDSCAPE).exists() else ""
    data = runs.about(plan, verdict.rows) | {
        "kept": runs.kept(results),
        "runs": runs.ended(plan, results.runs, runs.most(len(results.runs))),
    }
    return page.write(path, "race.html", data, title=title(plan), parts=parts(results, verdict, landscape=landscape))


def title(plan: Plan) -> str:
    """The title of a race's page."""
    return f"{plan.problem.name}: {', '.join(entry.name for entry in plan.entries)}"


def parts(
    results: Results, verdict: Verdict | None, lost: Sequence[Run] | None = None, landscape: str = ""
) -> dict[str, Markup]:
    """The parts of a race's page that are text, by the name of the element that contains each.

    Args:
        results: the race.
        verdict: its verdict, which may be of fewer runs; without one there is a heading only.
        lost: the runs that diverged or failed, the latest last; by default in the order of the runs.
        landscape: the address of the page of the loss around its runs, if there is one.
    """
    plan = results.plan
    if verdict is None:
        told = {name: page.part(f"parts/{name}.html", {"plan": plan, "verdict": None}) for name in PARTS[:2]}
        return dict.fromkeys(PARTS, Markup("")) | told
    ranked = [row for row in verdict.rows if row.seeds]
    winner = ranked[0] if ranked else None
    lost = [run for run in results.runs if run.status in ("diverged", "failed")] if lost is None else lost
    context: Mapping[str, Any] = {
        "plan": plan, "verdict": verdict, "results": results, "colours": runs.colours_of(plan), "winner": winner,
        "budgets": sorted({budget for tuned in verdict.tuning for budget in tuned.expected}),
        "others": [*dict.fromkeys(name for row in verdict.rows for name in row.others)],
        "code": snippet(winner, plan.entry(winner.entry)) if winner else "",
        "lost": [(run, last_lines(run.message)) for run in reversed(lost[-_LOST:])],
        "more": max(len(lost) - _LOST, 0),
        "landscape": landscape,
        "versions": _versions(results.runs),
        "document": json.dumps(plan.document, indent=2, ensure_ascii=False),
    }  # fmt: skip
    return {name: page.part(f"parts/{name}.html", context) for name in PARTS}


def last_lines(message: str) -> str:
    """The last lines of what a run said, without empty ones; of very long lines both ends."""
    lines = [line for line in message.splitlines() if line.strip()][-_LINES:]
    return "\n".join(runs.cut(line, 300) for line in lines)


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
