"""The meaning of names in each framework and book as one table; rules, optimizers and translations from it.

``conventions.optimizer("keras", "RMSprop", params, rho=0.9)`` steps as Keras does; ``torch``, ``keras``, ``optax``,
``optax.contrib``, ``pytorch_optimizer`` and ``textbook`` are known, with their names and arguments.
"""

from typing import Any

from torch.optim.optimizer import ParamsT

from thalweg.conventions.frameworks import TABLE
from thalweg.conventions.meaning import OPTIMIZER, Framework
from thalweg.conventions.translation import Translation, translate
from thalweg.optimizer import Optimizer
from thalweg.rule import Rule, nearest

__all__ = ["TABLE", "Translation", "optimizer", "rule", "translate"]


def framework(name: str) -> Framework:
    """The column of the table for a framework; for an unknown one ``ValueError`` names the nearest."""
    if name not in TABLE:
        raise ValueError(f"there is no framework {name!r}{nearest(name, TABLE)}; the frameworks are {', '.join(TABLE)}")
    return TABLE[name]


def rule(framework: str, name: str, **theirs: Any) -> Rule:
    """The rule that a framework means by a name.

    Args:
        framework: ``torch``, ``keras``, ``optax``, ``optax.contrib``, ``pytorch_optimizer`` or ``textbook``.
        name: the optimizer, as the framework calls it.
        theirs: arguments under the framework's names; ``lr`` is the learning rate everywhere.

    Raises:
        ValueError: an unknown framework, name or argument (the nearest is named), a value that is not allowed, or an
            argument that belongs to the optimizer rather than to a rule, such as weight decay: use `optimizer`.
    """
    column = _framework(framework)
    plain = column.read(name, {k: x for k, x in theirs.items() if not _is_around(column, name, k)})
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
    return Optimizer(params, rule, **around)


_framework = framework


def _is_around(column: Framework, name: str, argument: str) -> bool:
    found = column.find(name).arguments.get(argument)
    return found is not None and any(setting in OPTIMIZER for setting in found.ours)
