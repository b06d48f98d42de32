"""A drop-in for torch.optim: its classes with its names, arguments, numbers and checkpoints.

``thalweg.optim.Adam(model.parameters(), lr=1e-3)`` is a ``torch.optim.Adam`` whose step is Thalweg's.  The classes are
made from the torch column of `thalweg.conventions.TABLE`: each uses torch's constructor, with its signature, checks and
groups, and reads its groups by that table.  Everything else under ``torch.optim``, such as `lr_scheduler` and `LBFGS`,
is torch's own.
"""

import inspect
from typing import TYPE_CHECKING, cast

import torch

from thalweg.conventions import TABLE
from thalweg.conventions.meaning import Convention
from thalweg.optim import lr_scheduler as lr_scheduler
from thalweg.optim import optimizer as optimizer
from thalweg.optim import swa_utils as swa_utils
from thalweg.optim.dropin import DropIn, constructor

__all__ = torch.optim.__all__  # pyright: ignore -- it depends on the version of torch


def _class(name: str, convention: Convention) -> type[DropIn]:
    theirs: type[torch.optim.Optimizer] = getattr(torch.optim, name)
    parent = theirs.__mro__[1].__name__  # AdamW is an Adam, as in torch
    ours = globals()[parent] if parent in TABLE["torch"].names else DropIn
    doc = (
        f"``torch.optim.{name}``: its arguments, numbers and checkpoints, with Thalweg's step.\n\n"
        "``foreach`` and ``fused`` are accepted and do not affect the numbers; with ``differentiable=True`` or "
        f"``capturable=True`` torch's own step runs.\n\n{theirs.__doc__}"
    )
    body = {
        "__doc__": doc,
        "__module__": __name__,
        "__init__": constructor(theirs),
        "convention": convention,
        "theirs": staticmethod(inspect.unwrap(theirs.step)),
    }
    return cast("type[DropIn]", type(name, (ours, theirs), body))


if TYPE_CHECKING:  # for editors and type checkers, with torch's constructors; the real classes are made below

    class SGD(torch.optim.SGD, DropIn): ...  # pyright: ignore

    class Adagrad(torch.optim.Adagrad, DropIn): ...  # pyright: ignore

    class RMSprop(torch.optim.RMSprop, DropIn): ...  # pyright: ignore

    class Adam(torch.optim.Adam, DropIn): ...  # pyright: ignore

    class AdamW(torch.optim.AdamW, Adam): ...  # pyright: ignore

    class NAdam(torch.optim.NAdam, DropIn): ...  # pyright: ignore

    class RAdam(torch.optim.RAdam, DropIn): ...  # pyright: ignore

    class Adamax(torch.optim.Adamax, DropIn): ...  # pyright: ignore

    class Adadelta(torch.optim.Adadelta, DropIn): ...  # pyright: ignore

    class ASGD(torch.optim.ASGD, DropIn): ...  # pyright: ignore

    class Rprop(torch.optim.Rprop, DropIn): ...  # pyright: ignore

    class Muon(torch.optim.Muon, DropIn): ...  # pyright: ignore

    class Adafactor(torch.optim.Adafactor, DropIn): ...  # pyright: ignore

    from torch.optim import LBFGS as LBFGS
    from torch.optim import Optimizer as Optimizer
    from torch.optim import SparseAdam as SparseAdam
else:
    for _name, _convention in TABLE["torch"].names.items():
        globals()[_name] = _class(_name, _convention)
    for _name in __all__:
        globals().setdefault(_name, getattr(torch.optim, _name))
