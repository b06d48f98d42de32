"""First and second derivatives of a loss, over all parameters, concatenated to one vector of n numbers."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

ROWS_AT_ONCE = 128
"""Rows of the Hessian per batched backward pass: enough to be fast, few enough not to need much memory."""


def flat(parts: Sequence[Tensor]) -> Tensor:
    """The elements of all `parts` as one vector."""
    return torch.cat([part.reshape(-1) for part in parts])


def gradient(loss: Tensor, params: Sequence[Tensor], *, graph: bool = False) -> Tensor:
    """The gradient of `loss`, shape ``(n,)``; zero for a parameter that the loss does not depend on.

    Args:
        loss: a scalar with its graph.
        params: the n parameters, as tensors of any shapes.
        graph: keep the graph, so that the gradient can be differentiated again.
    """
    return flat(torch.autograd.grad(loss, params, create_graph=graph, materialize_grads=True))


def hessian(gradient: Tensor, params: Sequence[Tensor]) -> Tensor:
    """The exact second derivatives, shape ``(n, n)``: row i is the derivative of element i of `gradient`.

    Args:
        gradient: from `gradient` with ``graph=True``; its graph is kept.
        params: the parameters that it was taken for.
    """
    n = gradient.numel()
    rows = gradient.new_zeros(n, n)
    if not gradient.requires_grad:  # a loss that is linear in every parameter
        return rows
    for start in range(0, n, ROWS_AT_ONCE):
        chunk = rows[start : start + ROWS_AT_ONCE]
        picks = torch.zeros_like(chunk)
        picks.diagonal(start).fill_(1)
        parts = torch.autograd.grad(
            gradient, params, picks, is_grads_batched=True, retain_graph=True, allow_unused=True
        )
        columns = cast("tuple[Tensor, ...]", chunk.split([p.numel() for p in params], dim=1))
        for part, column in zip(cast("tuple[Tensor | None, ...]", parts), columns, strict=True):
            if part is not None:  # None: the gradient does not depend on that parameter
                column.copy_(part.reshape(column.shape))
    return rows
