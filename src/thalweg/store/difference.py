"""Describes the difference between two plans."""

import dataclasses
from collections.abc import Mapping
from dataclasses import fields

from thalweg.store.records import EntryPlan, Plan, ProblemPlan

_GROWS = ("trials", "seeds", "finalists", "growths")
"""The numbers of a plan that may become larger while its runs are kept."""
_GIVEN = ("inputs", "targets", "tensor", "first batch", "weights of the model")
"""Name endings of parts of a problem that are not code."""


def difference(held: Plan, wanted: Plan) -> str:
    """The first difference between two plans, without the versions of libraries."""
    if held.problem != wanted.problem:
        return _of_problems(held.problem, wanted.problem)
    for name in ("seconds", "steps", "examples", "seed", "splits", "margin"):
        if getattr(held, name) != getattr(wanted, name):
            return f"its {name} is {getattr(held, name):,}, this one's is {getattr(wanted, name):,}"
    for name in _GROWS:
        if getattr(held, name) > getattr(wanted, name):
            more = f"its {name} is {getattr(held, name):,}, this one's is only {getattr(wanted, name):,}"
            return f"{more} (a race can have more of them, not fewer)"
    ours, theirs = [e.name for e in wanted.entries], [e.name for e in held.entries]
    if missing := [name for name in theirs if name not in ours]:
        return f"it has {', '.join(missing)}, this one does not (a race can have more entries, not fewer)"
    pairs = [(wanted.entry(e.name), dataclasses.replace(e, trials=wanted.entry(e.name).trials)) for e in held.entries]
    if changed := [e.name for e, other in pairs if e.code != other.code]:
        return f"the formula of {', '.join(changed)} has changed"
    changed = [e.name for e, other in pairs if e != other]
    return f"its settings of {', '.join(changed)} are others" if changed else "its format is another"


def grows(held: Plan, wanted: Plan) -> bool:
    """Whether a race of the first plan can go on as one of the second: the same with more trials, seeds or entries, or
    another target, on which no run depends.
    """
    if any(getattr(held, name) > getattr(wanted, name) for name in _GROWS):
        return False
    entries = [e for e in wanted.entries if e.name in {entry.name for entry in held.entries}]
    trials = {e.name: e.trials for e in entries}
    kept = tuple(dataclasses.replace(e, trials=trials.get(e.name, 0)) for e in held.entries)
    more = {name: getattr(wanted, name) for name in _GROWS}
    problem = dataclasses.replace(held.problem, target=wanted.problem.target)
    as_held = dataclasses.replace(held, **more, problem=problem, entries=tuple(sorted(kept, key=_name)))
    return as_held.hash == dataclasses.replace(wanted, entries=tuple(sorted(entries, key=_name))).hash


def _name(entry: EntryPlan) -> str:
    return entry.name


def _of_problems(held: ProblemPlan, wanted: ProblemPlan) -> str:
    if held.name != wanted.name:
        return f"its problem is {held.name}, this one's is {wanted.name}"
    if held.parts != wanted.parts:
        return f"of its problem {held.name} {parts(held.parts, wanted.parts)}"
    changed = [f.name for f in fields(ProblemPlan) if getattr(held, f.name) != getattr(wanted, f.name)]
    return f"its problem {held.name} is not what it was ({', '.join(changed)})"


def parts(held: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """The parts of a problem that differ, with the remark that they look random if no file has changed.

    Parts are hashes by name, as in `ProblemPlan.parts`; at least one must differ.
    """
    changed = [name for name in {**held, **wanted} if held.get(name) != wanted.get(name)]
    files = [name for name in changed if name.endswith(".py")]
    rest = [f"the {name}" for name in changed if name not in files]
    if files:
        also = f", and with it {', '.join(rest)}" if rest else ""
        return f"{', '.join(files)} {'has' if len(files) == 1 else 'have'} changed{also}"
    in_a_script = not any(name.endswith(".py") for name in held)  # of whose code no more is known
    if in_a_script and not all(name.endswith(_GIVEN) for name in changed):
        return f"{', '.join(rest)} {'has' if len(rest) == 1 else 'have'} changed"
    differ = "differs" if len(rest) == 1 else "differ"
    return (
        f"{', '.join(rest)} {differ} though no code has changed, which looks random: make it the same at every call, "
        "as with torch.Generator().manual_seed(0)"
    )


def other_versions(held: Plan, wanted: Plan) -> str:
    """The versions of a plan that differ from another's: ``"torch 2.6.0 (now 2.7.0)"``."""
    pairs = ((name, version, wanted.versions.get(name)) for name, version in held.versions.items())
    return ", ".join(f"{name} {version} (now {now})" for name, version, now in pairs if version != now)
