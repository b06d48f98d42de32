"""Memory for what the passes of a step, and the words for arrays between them, write for each other."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from thalweg.kernels import launch
from thalweg.printers.lowering import Types
from thalweg.printers.rows import TOGETHER
from thalweg.printers.source import MOST, Source
from thalweg.printers.triton import Source as OnDevice
from thalweg.trace import Graph


def height(rows: int, wide: int) -> int:
    """How many rows of a matrix a chunk has, which share the sums of columns that it keeps."""
    return max(MOST // wide // TOGETHER, -(-rows // launch.PIECES // TOGETHER), 4) * TOGETHER


def shared(parts: Sequence[Source | OnDevice | Graph]) -> dict[str, str]:
    """For each value that the parts of a step hand on, the one whose memory it has.

    Two have the same memory where one is read for the last time before the other is written, or where one becomes the
    other unless something is due.
    """
    touched = [_touched(part) for part in parts]
    names = list(dict.fromkeys(name for some in touched for name in some if name.startswith("w.")))
    uses = {name: [k for k, some in enumerate(touched) if name in some] for name in names}
    first, last = {name: ks[0] for name, ks in uses.items()}, {name: ks[-1] for name, ks in uses.items()}
    same: dict[str, str] = {}
    for k, part in enumerate(parts):
        for name, node in part.outputs.items() if isinstance(part, Graph) else ():
            old = node.args[2] if node.op == "when" else node
            known = name in first and old.op == "input" and old.args[0] in first
            if known and last[old.args[0]] == k and old.args[0] not in same.values():
                same[name] = old.args[0]
    # Of those that become each other the first has the memory, for as long as the last is read.
    free: list[tuple[int, str]] = []
    found: dict[str, str] = {}
    for name in sorted((name for name in names if name not in same), key=first.__getitem__):
        owner = next((own for end, own in free if end < first[name]), name)
        end = last[name]
        for other, old in same.items():
            end = max(end, last[other]) if _origin(old, same) == name else end
        free = [*((e, own) for e, own in free if own != owner), (end, owner)]
        found[name] = owner
    return {name: found[_origin(name, same)] for name in names}


def _origin(name: str, same: Mapping[str, str]) -> str:
    while name in same:
        name = same[name]
    return name


def _touched(part: Source | OnDevice | Graph) -> Iterable[str]:
    return {*part.inputs, *part.outputs} if isinstance(part, Graph) else part.touched


def room(p: Tensor, names: Sequence[str], types: Types, owners: Mapping[str, str]) -> dict[str, Tensor]:
    """The memory of a parameter.

    Args:
        p: the parameter.
        names: what is handed on: values ``w.*``, numbers per row ``y.*`` and per column ``z.*``, and ``part.*``, what
            each chunk sums up per column.
        types: their types.
        owners: what `shared` gives.
    """
    shapes = {"w": p.shape, "y": (*p.shape[:1], 1), "z": (1, *p.shape[1:])}
    made: dict[str, Tensor] = {}
    for name in names:
        kind = name.partition(".")[0]
        if owners.get(name, name) in made:
            made[name] = made[owners[name]]
            continue
        if kind == "part":
            shape, stride = (-(-p.shape[0] // height(*p.shape)), p.shape[1]), (p.shape[1], 1)
        else:
            shape, stride = shapes[kind], p.stride() if kind == "w" else (1, 1)
        made[name] = torch.empty_strided(shape, stride, dtype=types.of(name), device=p.device)
        if name in owners:
            made[owners[name]] = made[name]
    return made


def fold(rooms: Iterable[Mapping[str, Tensor]], names: Sequence[str]) -> None:
    """Sum up what the chunks of each parameter have found per column."""
    for found in rooms:
        for name in names:
            found[name].copy_(found[f"part{name[1:]}"].sum(0, keepdim=True))
