"""The meaning of names in each framework and book as one table; rules, optimizers and translations from it.

``conventions.optimizer("keras", "RMSprop", params, rho=0.9)`` steps as Keras does; the frameworks of `TABLE` are known,
with their names and arguments.  ``conventions.load(optimizer, state_dict, "torch.optim.Muon")`` goes on from a
checkpoint of one of them, and ``conventions.convert`` makes one.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import Tensor
from torch.optim.optimizer import ParamsT

from thalweg.conventions.checkpoints import convert, load
from thalweg.conventions.frameworks import TABLE
from thalweg.conventions.meaning import OPTIMIZER, REQUIRED, Convention, Framework
from thalweg.conventions.translation import Translation, translate
from thalweg.hyperparameters import nearest
from thalweg.optimizer import Optimizer
from thalweg.rule import Rule

__all__ = ["TABLE", "Translation", "convert", "load", "optimizer", "rule", "translate"]


def framework(name: str) -> Framework:
    """The column of the table for a framework; for an unknown one ``ValueError`` names the nearest."""
    if name not in TABLE:
        raise ValueError(f"there is no framework {name!r}{nearest(name, TABLE)}; the frameworks are {', '.join(TABLE)}")
    return TABLE[name]


def rule(framework: str, name: str, **theirs: Any) -> Rule:
    """The rule that a framework means by a name.

    Args:
        framework: a name in `TABLE`, such as ``torch`` or ``optax.contrib``.
        name: the optimizer, as the framework calls it.
        theirs: arguments under the framework's names; ``lr`` is the learning rate everywhere.

    Raises:
        ValueError: an unknown framework, name or argument (the nearest is named), a value that is not allowed, or an
            argument that belongs to the optimizer rather than to a rule, such as weight decay: use `optimizer`.
    """
    column = _framework(framework)
    needed = {k: x for k, x in theirs.items() if k == "lr" or _is_needed(column, name, k)}
    plain = column.read(name, needed)
    meaning = column.read(name, theirs)
    for setting, value in meaning.around.items():
        if value != plain.around[setting]:
            raise ValueError(
                f"{framework}'s {name} sets {setting} to {value!r}, which is around a rule and not in it; "
                f"write conventions.optimizer({framework!r}, {name!r}, params, …)"
            )
    return meaning.rule


def optimizer(framework: str, name: str, params: ParamsT, **keywords: Any) -> Optimizer:
    """The optimizer that a framework means by a name, from the framework's arguments and further ones of `Optimizer`.

    A name that both have, such as ``weight_decay``, is read as the framework's.

    Raises:
        ValueError: as `rule` and `Optimizer` raise it.
    """
    column = _framework(framework)
    known = column.find(name).arguments
    theirs = {k: x for k, x in keywords.items() if k in known or k not in OPTIMIZER}
    rule, around = column.read(name, theirs)
    own = {k: x for k, x in keywords.items() if k not in theirs}
    # Where a framework's name does not say otherwise, its weight decay is added to the gradient.
    around: dict[str, Any] = {"decay_form": "l2", **around, **own}
    if column.find(name).others is not None:
        params = list(_routed(params, column, name, column.named(theirs)))
    return Optimizer(params, rule, **around)


def _tensor(member: Any) -> Tensor:
    """A parameter, which may be given with its name."""
    return cast(Any, member[1] if isinstance(member, tuple) else member)


_OF_GROUPS = ("weight_decay", "decay_form", "maximize")


def _routed(params: ParamsT, column: Framework, name: str, theirs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Groups by the framework's names, as groups of the parameters that are the rule's, and of all others."""
    convention = column.find(name)
    others = convention.others
    assert others is not None
    said = f"{column.name}'s {name}"
    given: list[Any] = list(params)
    for group in given if given and isinstance(given[0], dict) else [{"params": given}]:
        members: list[Any] = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        own = column.named({k: x for k, x in group.items() if k != "params" and k not in convention.flags})
        chosen = [convention.chosen(_tensor(x), group) for x in members]
        called: tuple[tuple[Convention, Mapping[str, str]], ...] = (convention, {}), (others, convention.group_names)
        for meant, names in called:
            part = [x for x, is_its in zip(members, chosen, strict=True) if is_its == (meant is convention)]
            if not part:
                continue
            renamed = {names.get(k, k): x for k, x in own.items()}
            settings = {k: x for k, x in {**theirs, **renamed}.items() if k in meant.arguments}
            rule, around = meant.read(said, settings)
            around = {"decay_form": "l2"} | {k: x for k, x in around.items() if k in _OF_GROUPS}
            rest = {k: x for k, x in own.items() if names.get(k, k) not in meant.arguments}
            yield {"rule": rule, **around, **rest, "params": part}


_framework = framework


def _is_needed(column: Framework, name: str, argument: str) -> bool:
    found = column.find(name).arguments.get(argument)
    return found is not None and found.default is REQUIRED
