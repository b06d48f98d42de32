"""Newton's method with the exact Hessian."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from thalweg.curvature import derivatives
from thalweg.curvature.memory import available, human
from thalweg.hyperparameters import check
from thalweg.rule import Rate

LinAlgError: type[RuntimeError] = cast(Any, torch.linalg).LinAlgError
"""torch's error for a matrix that does not have a required property."""


class Newton(Optimizer):
    """Newton's method, θ ← θ − η(H + λI)⁻¹g.  Goodfellow et al. 2016, Algorithm 8.8 (η = 1, λ = 0).

    H holds the exact second derivatives of the loss in all n parameters together: n² numbers, and n³/3 operations to
    solve by Cholesky.  It is meant for small models and large batches.

    The closure is an ordinary one that computes the loss from the model, without ``backward()``::

        optimizer = Newton(model.parameters(), damping=1e-3)
        loss = optimizer.step(lambda: loss_fn(model(x), y))

    H is taken by differentiating the closure's gradient again, many rows at once: ``torch.autograd.grad`` batched by
    torch.func's ``vmap``.  ``torch.func.hessian`` gives the same numbers, but requires a pure function of the
    parameters, so every closure, and every model that it calls, would have to be rewritten as one.

    Args:
        params: the parameters, as one group; those that do not require a gradient stay as they are.
        lr: the rate η, ≥ 0; 1 is the full step.
        damping: λ ≥ 0, added to the diagonal; it makes H positive definite where the loss curves downwards, and
            shortens the step where the loss is nearly flat.

    Raises:
        ValueError: a rate or damping out of range; more than one parameter group; parameters that are not of one
            real floating-point type on one device.
    """

    def __init__(self, params: ParamsT, *, lr: float = 1.0, damping: float = 0.0) -> None:
        super().__init__(
            params, {"lr": check("Newton's lr", lr, Rate), "damping": check("Newton's damping", damping, Rate)}
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add the parameter group; there may be only one."""
        if self.param_groups:
            raise ValueError("Newton's step couples all parameters; give them as one group, not as several")
        super().add_param_group(param_group)
        params = cast("list[Tensor]", self.param_groups[0]["params"])
        kinds = {(p.dtype, p.device) for p in params}
        if len(kinds) > 1 or not params[0].is_floating_point():
            found = ", ".join(sorted(f"{str(dtype).removeprefix('torch.')} on {device}" for dtype, device in kinds))
            raise ValueError(
                f"Newton needs parameters of one real floating-point type on one device; these are {found}"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] -- torch declares a float, and returns what the closure does
        """One step; the parameters change only if all of it succeeds.

        Args:
            closure: computes the loss, a scalar tensor with its graph, without calling ``backward()``.

        Returns:
            The loss before the step, as the closure returned it, detached.

        Raises:
            TypeError: there is no closure, or it does not return a scalar tensor.
            ValueError: the closure's loss has no graph, or one that ``backward()`` used up.
            MemoryError: the Hessian and its factor do not fit; nothing was allocated.
            FloatingPointError: the loss or its derivatives are not finite.
            LinAlgError: torch.linalg's; H + λI is not positive definite; the message proposes a damping.
        """
        if closure is None:
            raise TypeError("Newton.step needs a closure that returns the loss: step(lambda: loss_fn(model(x), y))")
        group = self.param_groups[0]
        params = [p for p in cast("list[Tensor]", group["params"]) if p.requires_grad]
        if not params:
            raise ValueError("no parameter requires a gradient; Newton has nothing to step")
        _must_fit(sum(p.numel() for p in params), params[0])

        with torch.enable_grad():
            loss = closure()
            _must_be_loss(loss)
            g, h = _derivatives(loss, params)
        step = _solve(g, h, group["damping"])
        parts = cast("tuple[Tensor, ...]", step.split([p.numel() for p in params]))
        for p, part in zip(params, parts, strict=True):
            p.sub_(part.view_as(p), alpha=group["lr"])
        return loss.detach()


def _must_fit(n: int, like: Tensor) -> None:
    needed = 2 * n * n * like.element_size()
    free = available(like.device)
    if free is not None and needed > free:
        raise MemoryError(
            f"the Hessian of {n:,} parameters and its Cholesky factor need {needed:,} bytes ({human(needed)}), and "
            f"{free:,} bytes ({human(free)}) are available; Newton's method is for models of up to about "
            f"{math.isqrt(free // (2 * like.element_size())):,} parameters here"
        )


def _must_be_loss(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r}"
        raise TypeError(f"the closure must return the loss, a tensor with one element; it returned {got}")
    if not torch.isfinite(loss).item():
        raise FloatingPointError(f"the loss is {loss.item()}; the parameters are left as they are")
    if not loss.requires_grad:
        raise ValueError("the closure's loss has no graph; compute it from the parameters, without detach() or item()")


def _derivatives(loss: Tensor, params: list[Tensor]) -> tuple[Tensor, Tensor]:
    try:
        graph = derivatives.gradient(loss, params, graph=True)
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        raise ValueError("the closure's graph is used up; leave backward() out, Newton differentiates itself") from None
    h = derivatives.hessian(graph, params)
    g = graph.detach()
    if not (torch.isfinite(g).all() and torch.isfinite(h).all()):
        raise FloatingPointError("the loss has derivatives that are not finite; the parameters are left as they are")
    return g, h


def _solve(g: Tensor, h: Tensor, damping: float) -> Tensor:
    """(H + λI)⁻¹g."""
    h.diagonal().add_(damping)
    factor, failed = cast("tuple[Tensor, Tensor]", torch.linalg.cholesky_ex(h))
    if not failed:
        return torch.cholesky_solve(g[:, None], factor)[:, 0]
    curvatures = cast(Tensor, torch.linalg.eigvalsh(h))
    lowest, highest = float(curvatures[0]), float(curvatures.abs().max())
    # A tenth more than the lowest eigenvalue requires, and enough for the rounding of a factorization.
    proposal = damping + 1.1 * max(-lowest, 0.0) + (math.sqrt(torch.finfo(h.dtype).eps) * highest or 1.0)
    raise LinAlgError(
        f"the Hessian{f' with damping {damping:g}' if damping else ''} is not positive definite: its smallest "
        f"eigenvalue is {lowest:.3g}; set damping={proposal:.2g}, or start nearer to a minimum"
    )
