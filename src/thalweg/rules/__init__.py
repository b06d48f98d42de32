"""The update rules, one module per family; every module is discovered, so there is no list to add a rule to.

The classes are attributes: ``rules.Adam(beta2=0.99)``.  ``rules.all()`` returns them by name, including your own
subclasses of `thalweg.rule.Rule`; ``rules.parse("adam(beta2=0.99)")`` reads a rule from text, also one that wraps
another, as in ``"cautious(adam)"``.
"""

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any

from thalweg.hyperparameters import nearest
from thalweg.parsing import Call, parse_nested
from thalweg.rule import Rule, annotations
from thalweg.wrapping import Wrapper

if TYPE_CHECKING:  # for editors and type checkers; what runs is discovered below
    from thalweg.rules.adaptive import Adadelta as Adadelta
    from thalweg.rules.adaptive import Adagrad as Adagrad
    from thalweg.rules.adaptive import RMSProp as RMSProp
    from thalweg.rules.averaging import ASGD as ASGD
    from thalweg.rules.belief import AdaBelief as AdaBelief
    from thalweg.rules.belief import Yogi as Yogi
    from thalweg.rules.descent import QHM as QHM
    from thalweg.rules.descent import SGD as SGD
    from thalweg.rules.descent import Momentum as Momentum
    from thalweg.rules.distance import DAdaptAdam as DAdaptAdam
    from thalweg.rules.distance import DoG as DoG
    from thalweg.rules.distance import DoWG as DoWG
    from thalweg.rules.distance import Prodigy as Prodigy
    from thalweg.rules.dual import MADGRAD as MADGRAD
    from thalweg.rules.factored import CAME as CAME
    from thalweg.rules.factored import SM3 as SM3
    from thalweg.rules.factored import Adafactor as Adafactor
    from thalweg.rules.layerwise import LAMB as LAMB
    from thalweg.rules.layerwise import LARS as LARS
    from thalweg.rules.layerwise import Fromage as Fromage
    from thalweg.rules.layerwise import NovoGrad as NovoGrad
    from thalweg.rules.mixtures import Adan as Adan
    from thalweg.rules.mixtures import AdEMAMix as AdEMAMix
    from thalweg.rules.moments import Adam as Adam
    from thalweg.rules.moments import Adamax as Adamax
    from thalweg.rules.moments import QHAdam as QHAdam
    from thalweg.rules.moments import RAdam as RAdam
    from thalweg.rules.normalized import ADOPT as ADOPT
    from thalweg.rules.normalized import LaProp as LaProp
    from thalweg.rules.orthogonal import Muon as Muon
    from thalweg.rules.preconditioned import SOAP as SOAP
    from thalweg.rules.preconditioned import Rotated as Rotated
    from thalweg.rules.preconditioned import Shampoo as Shampoo
    from thalweg.rules.signs import Grams as Grams
    from thalweg.rules.signs import Lion as Lion
    from thalweg.rules.signs import Rprop as Rprop
    from thalweg.rules.signs import Tiger as Tiger
    from thalweg.rules.variance import MARS as MARS
    from thalweg.rules.variance import StableAdamW as StableAdamW
    from thalweg.rules.wrappers import Cautious as Cautious
    from thalweg.rules.wrappers import Grafted as Grafted
    from thalweg.rules.wrappers import Lookahead as Lookahead
    from thalweg.rules.wrappers import ScheduleFree as ScheduleFree

__all__ = ["all", "bare", "built", "given", "named", "names", "parse", "wrappers"]

for _module in pkgutil.iter_modules(__path__):
    _family = importlib.import_module(f"{__name__}.{_module.name}")
    for _name, _thing in vars(_family).items():
        if isinstance(_thing, type) and issubclass(_thing, Rule) and _thing not in (Rule, Wrapper):
            globals()[_name] = _thing
            if _name not in __all__:
                __all__.append(_name)  # pyright: ignore[reportUnsupportedDunderAll] -- found, not listed


def __dir__() -> list[str]:
    return sorted(__all__)


def all() -> dict[str, type[Rule]]:
    """Every rule by its class's name, in the order of definition.

    If several rules have the same name, the library's own is returned, or else the one that was defined last, for
    instance when a notebook cell was run again.
    """
    found: dict[str, type[Rule]] = {}
    for cls in _classes():
        if not _is_ours(found.get(cls.__name__)):
            found[cls.__name__] = cls
    return found


def names() -> dict[str, tuple[type[Rule], dict[str, Any]]]:
    """The rule and the implied settings for every name of a rule or variant, in lower case.

    Names of wrappers that must be given a rule to wrap are not among them; see `wrappers`.
    """
    return {name: known for name, known in _known().items() if not _missing(*known)}


def wrappers() -> dict[str, tuple[type[Rule], dict[str, Any]]]:
    """As `names`, of wrappers that must be given a rule to wrap, such as ``lookahead(adam)``."""
    return {name: known for name, known in _known().items() if _missing(*known)}


def _known() -> dict[str, tuple[type[Rule], dict[str, Any]]]:
    ours = _ours()
    found = dict(ours)
    for cls in _theirs():
        found.update({said: (cls, preset) for said, preset in _said(cls.__name__, cls) if said not in ours})
    return found


@cache
def _ours() -> dict[str, tuple[type[Rule], dict[str, Any]]]:
    """The library's own part of what is known, which does not change."""
    found: dict[str, tuple[type[Rule], dict[str, Any]]] = {}
    for cls in filter(_is_ours, _classes()):
        for said, preset in _said(cls.__name__, cls):
            found.setdefault(said, (cls, preset))
    return found


def _theirs() -> list[type[Rule]]:
    """Every rule that is not the library's own."""
    ours = {cls for cls, _ in _ours().values()}
    return [cls for cls in _classes() if cls not in ours]


def _missing(cls: type[Rule], preset: dict[str, Any]) -> bool:
    return any(base not in preset for base in _bases(cls))


def named(name: str, *inside: Rule, **settings: Any) -> Rule:
    """The rule or variant of that name, in any case, with the given settings in place of its defaults.

    Args:
        name: the name.
        inside: the rules that it wraps, in order.
        settings: its settings, and those of the rules inside.

    Raises:
        ValueError: no such rule or setting (the nearest is named), a setting out of its range, rules inside one that
            wraps none or none inside one that does, or an ambiguous name, which both a rule of the library and one of
            yours have.
    """
    cls, preset = _find(name, len(inside))
    return cls.of({**preset, **dict(zip(_bases(cls), inside, strict=False)), **settings})


def _find(name: str, inside: int = 0) -> tuple[type[Rule], dict[str, Any]]:
    """The rule of a name and the settings that it implies, to be given so many rules to wrap; raises as `named`."""
    known = _known()
    if name.lower() == "switch":
        raise ValueError("a switch cannot be inside a rule; wrap its rules, as in switch(cautious(adam), sgd, at=0.5)")
    if name.lower() not in known:
        raise ValueError(f"there is no rule {name!r}{nearest(name, known)}; the rules are {', '.join(sorted(known))}")
    cls, preset = known[name.lower()]
    if _is_ours(cls):
        for other in _theirs():
            if name.lower() in dict(_said(other.__name__, other)):
                raise ValueError(
                    f"{name!r} means {_place(cls)} and {_place(other)}; rename your class, or give the rule itself"
                )
    wraps = len(_bases(cls))
    if inside > wraps:
        raise ValueError(
            f"what is in the brackets of {name} cannot be read: it wraps {wraps or 'no'} "
            f"rule{'' if wraps == 1 else 's'} and was given {inside}; write settings as name=value, as in adam(lr=0.01)"
        )
    return cls, preset


def _bases(cls: type[Rule]) -> list[str]:
    """The settings of a wrapper that are rules, in order."""
    return [name for name, hint in annotations(cls).items() if hint is Rule]


def _classes() -> list[type[Rule]]:
    """Every subclass of `Rule`, breadth first."""
    found: list[type[Rule]] = []
    waiting = list(Rule.__subclasses__())
    while waiting:
        cls = waiting.pop(0)
        if cls is not Wrapper:
            found.append(cls)
        waiting.extend(cls.__subclasses__())
    return found


def _said(name: str, cls: type[Rule]) -> list[tuple[str, dict[str, Any]]]:
    """The names of a rule in text, each with the settings that it implies; variants are not inherited."""
    variants = vars(cls).get("variants", {})
    return [(name.lower(), {}), *((variant, dict(settings)) for variant, settings in variants.items())]


def _is_ours(cls: type[Rule] | None) -> bool:
    return cls is not None and cls.__module__.startswith(f"{__name__}.")


def _place(cls: type[Rule]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def parse(text: str) -> Rule:
    """A rule from text: ``adam``, ``Adam(lr=0.01)``, ``nesterov(momentum=0.5)``, ``cautious(adam(lr=0.01))``.

    Literals and rules only, nothing is evaluated.

    Raises:
        ValueError: the text cannot be read, a setting is unknown or not allowed, or rules are nested that cannot be.
    """
    return built(parse_nested(text))


def built(call: Call) -> Rule:
    """The rule that a call means; raises as `parse`."""
    cls, _ = _find(call.name, len(call.inside))
    settings = dict(call.settings)
    for name, x in settings.items():
        if isinstance(x, Call):
            settings[name] = built(x)
        elif isinstance(x, str) and name in _bases(cls):
            settings[name] = named(x)
    return named(call.name, *map(built, call.inside), **settings)


def bare(call: Call) -> Call:
    """A call of a rule with only the rules that it wraps, without further settings."""
    cls, _ = _find(call.name, len(call.inside))
    return call._replace(settings={name: x for name, x in call.settings.items() if name in _bases(cls)})


def given(call: Call, rule: Rule) -> dict[str, Any]:
    """The settings that a call gives, by their names in `rule`, which is what it was built from."""
    if not isinstance(rule, Wrapper):
        return call.settings
    inside = dict(zip(rule.bases, call.inside, strict=False)) | call.settings
    found: dict[str, Any] = {}
    for name, x in inside.items():
        if name not in rule.bases:
            found[name] = x
        elif isinstance(x, Call):
            found |= {rule.here(name, setting): y for setting, y in given(x, rule.bases[name]).items()}
    return found
