"""Rounding to bfloat16 up or down at random, so that the mean is right and what is gathered in small steps is kept.

The noise is that of `thalweg.printers.noise`, the same bits in every backend.
"""

from typing import Any

import torch
from torch import Tensor

from thalweg.printers.noise import LOW, mix, of_array


def to_bfloat16(x: Tensor, salt: int, name: str) -> Tensor:
    """`x`, float32, rounded at random: float32 numbers that bfloat16 has.

    Args:
        x: the new values of a state, of the parameter's shape and strides.
        salt: see `thalweg.printers.noise.salt`.
        name: of the array; see `thalweg.printers.noise.of_array`.
    """
    reach = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    element = torch.arange(reach, device=x.device).as_strided(x.shape, x.stride())
    mixed = mix(
        (element + (salt + of_array(name))) & LOW,
        xor=torch.bitwise_xor,
        shift=_shifted,
        times=lambda x, by: (x * by) & LOW,
    )
    bits: Any = x.view(torch.int32)
    return torch.where(x.isfinite(), ((bits + (mixed & 0xFFFF).to(torch.int32)) & -0x10000).view(torch.float32), x)


def _shifted(x: Tensor, by: int) -> Tensor:
    return x >> by
