"""Torch's services around our methods, at no cost where they have nothing to do."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import autograd
from torch.optim.optimizer import Optimizer as TorchOptimizer
from torch.optim.optimizer import _global_optimizer_post_hooks as _post_hooks  # pyright: ignore[reportPrivateUsage]
from torch.optim.optimizer import _global_optimizer_pre_hooks as _pre_hooks  # pyright: ignore[reportPrivateUsage]

profiler_enabled: Callable[[], bool] = autograd._profiler_enabled  # pyright: ignore
"""Whether a profiler of torch's is watching."""

F = TypeVar("F", bound=Callable[..., Any])


def hooked(step: F) -> F:
    """`step` with torch's hooks and profiling around it where there are any: torch's own wrapper costs 10 µs a step."""
    watched = TorchOptimizer.profile_hook_step(step)

    @functools.wraps(step)
    def plain_or_watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks or _pre_hooks or _post_hooks
        return (watched if hooks or profiler_enabled() else step)(self, *args, **kwargs)

    setattr(plain_or_watched, "hooked", True)  # noqa: B010 -- what torch looks for before it wraps a step itself
    return cast(F, plain_or_watched)


def unguarded(method: F) -> F:
    """Torch's `method` without its guard against torch's compiler, unless that is loaded: it loads it, in 1 s."""
    plain = inspect.unwrap(method)

    @functools.wraps(method)
    def guarded_if_needed(*args: Any, **kwargs: Any) -> Any:
        return (method if "torch._dynamo" in sys.modules else plain)(*args, **kwargs)

    return cast(F, guarded_if_needed)
