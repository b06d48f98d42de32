"""Parameters with gaps between their elements, such as slices of a larger tensor: a kernel steps a copy without."""

from typing import Any

import torch
from torch import Tensor

from thalweg.kernels import layout


class Copy:
    """A copy of a parameter without gaps, laid out as torch lays out its state."""

    def __init__(self, p: Tensor) -> None:
        self._layout = _layout(p)
        self._copy = torch.empty_like(p.detach())

    def of(self, p: Tensor) -> Tensor | None:
        """The copy, with the parameter's present values; None if its memory or layout is another by now."""
        return self._copy.copy_(p.detach()) if _layout(p) == self._layout else None

    def back(self, p: Tensor) -> None:
        """Copy into the parameter, which autograd notices."""
        with torch.no_grad():
            p.copy_(self._copy)


def copy_of(p: Tensor) -> Copy | None:
    """A copy of a parameter; None if its elements overlap, or are of a type or in memory that kernels cannot take."""
    known = type(p) in layout.TYPES and layout.keys(p) == layout.plain() and p.dtype in layout.DTYPES
    return Copy(p) if known and p.numel() and not _overlaps(p) else None


def extent(p: Tensor) -> tuple[int, int]:
    """The address of the first byte of a tensor and that after its last, with all gaps between them."""
    last = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
    return p.data_ptr(), p.data_ptr() + (last + 1) * p.element_size()


def _layout(p: Tensor) -> tuple[Any, ...]:
    return type(p), layout.keys(p), p.dtype, p.shape, p.stride(), p.data_ptr()


def _overlaps(p: Tensor) -> bool:
    """Whether two elements may share memory."""
    beyond = 0  # what the dimensions so far, those of smaller strides, reach
    for stride, size in sorted(zip(p.stride(), p.shape, strict=True)):
        if size > 1:
            if stride <= beyond:
                return True
            beyond += (size - 1) * stride
    return False
