"""Describes the difference between two plans."""

from collections.abc import Mapping
from dataclasses import fields

from thalweg.store.records import Plan, ProblemPlan

_GIVEN = ("inputs", "targets", "weights of the model")
"""Name endings of parts of a problem that are not code."""


def difference(held: Plan, wanted: Plan) -> str:
    """The first difference between two plans, without the versions of libraries."""
    if held.problem != wanted.problem:
        return _of_problems(held.problem, wanted.problem)
    for name in ("trials", "seeds", "steps", "examples", "seed"):
        if getattr(held, name) != getattr(wanted, name):
            return f"its {name} is {getattr(held, name):,}, this one's is {getattr(wanted, name):,}"
    ours, theirs = [e.name for e in wanted.entries], [e.name for e in held.entries]
    if ours != theirs:
        return f"its entries are {', '.join(theirs)}, this one's are {', '.join(ours)}"
    pairs = list(zip(wanted.entries, held.entries, strict=True))
    if changed := [e.name for e, other in pairs if e.code != other.code]:
        return f"the formula of {', '.join(changed)} has changed"
    changed = [e.name for e, other in pairs if e != other]
    return f"its settings of {', '.join(changed)} are others" if changed else "its format is another"


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
