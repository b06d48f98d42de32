"""Parameters of which this process has only a part: ``torch.distributed.tensor.DTensor``, as FSDP2 makes them.

An element-wise step of the whole is the same step of each process's own part, so that is what is stepped, where the
gradient is laid out over the processes as the parameter is.  A step that sums up over the parameter is left to
operations on the whole.
"""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def is_sharded(p: Tensor) -> bool:
    """Whether a tensor is a DTensor; asks nothing of a process that has not imported them."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(p, module.DTensor)


def among(params: Sequence[Tensor]) -> dict[int, Tensor]:
    """Those parameters that are sharded, by their number."""
    module = sys.modules.get("torch.distributed.tensor")
    if module is None or not any(issubclass(kind, module.DTensor) for kind in set(map(type, params))):
        return {}
    return {i: p for i, p in enumerate(params) if is_sharded(p)}


def shard(p: Tensor) -> Tensor | None:
    """The part of a sharded parameter that this process has, or None if it is still being computed."""
    local: Any = cast(Any, p)._local_tensor
    return local if type(local) is Tensor or type(local).__name__ == "Parameter" else None


def gradient(p: Tensor) -> Tensor | None:
    """The process's part of the gradient of a sharded parameter; None if there is none, or it is laid out otherwise."""
    g: Any = p.grad
    if g is None or not is_sharded(g):
        return None
    own: Any = p
    same = g.device_mesh == own.device_mesh and g.placements == own.placements
    return g._local_tensor if same and not any(x.is_partial() for x in own.placements) else None


def gathered(p: Tensor) -> Tensor | None:
    """What a process has of the gradient of a sharded parameter, which is first laid out as the parameter is."""
    g: Any = p.grad
    own: Any = p
    return None if g is None else g.redistribute(own.device_mesh, own.placements).to_local()


def summed(params: Sequence[Tensor], parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each process has found of its parts of parameters, summed over the processes where these are sharded.

    Every process must have the same parameters.
    """
    for (mesh, over), which in _meshes(params).items():
        found = torch.from_numpy(parts[which]).to(mesh.device_type)
        for k in over:
            torch.distributed.all_reduce(found, group=mesh.get_group(k))
        parts[which] = found.cpu().numpy()
    return parts


class Mesh(NamedTuple):
    """Parameters that are sharded alike: over which axes of which mesh, and their numbers on a device."""

    mesh: Any
    over: tuple[int, ...]
    which: Tensor


def meshes(params: Sequence[Tensor], device: torch.device) -> list[Mesh]:
    """How parameters are sharded, to be asked once."""
    return [Mesh(mesh, over, torch.tensor(which, device=device)) for (mesh, over), which in _meshes(params).items()]


def summed_there(found: Sequence[Mesh], parts: Tensor) -> Tensor:
    """The same of a tensor, on its device and without waiting for it."""
    for mesh, over, which in found:
        own = parts.index_select(0, which)
        for k in over:
            torch.distributed.all_reduce(own, group=mesh.get_group(k))
        parts.index_copy_(0, which, own)
    return parts


def _meshes(params: Sequence[Tensor]) -> dict[Any, list[int]]:
    """The parameters that are sharded alike: over which axes of which mesh, and their numbers."""
    meshes: dict[Any, list[int]] = {}
    for i, p in among(params).items():
        own: Any = p
        over = tuple(k for k, placement in enumerate(own.placements) if not placement.is_replicate())
        meshes.setdefault((own.device_mesh, over), []).append(i)
    return meshes


def whole(x: Tensor) -> Tensor:
    """A tensor as all processes have it together."""
    return cast(Any, x).full_tensor() if is_sharded(x) else x


def like(p: Tensor, part: Tensor) -> Tensor:
    """A tensor sharded as a parameter is, of which this process's part is given."""
    own: Any = p
    return own.from_local(part, own.device_mesh, own.placements, run_check=False, shape=own.shape, stride=own.stride())
