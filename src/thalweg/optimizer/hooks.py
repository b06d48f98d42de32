"""Torch's hooks and profiling around our methods, at no cost when they are not used."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import autograd
from torch.optim.optimizer import Optimizer as TorchOptimizer
from torch.optim.optimizer import _global_optimizer_post_hooks as _post_hooks  # pyright: ignore[reportPrivateUsage]
from torch.optim.optimizer import _global_optimizer_pre_hooks as _pre_hooks  # pyright: ignore[reportPrivateUsage]

profiler_enabled: Callable[[], bool] = autograd._profiler_enabled  # pyright: ignore
"""Whether a torch profiler is active."""

_frames: Any = torch._C._dynamo.eval_frame  # pyright: ignore
"""The part of torch's compiler that is loaded with torch; it decides for each frame whether to compile it."""

F = TypeVar("F", bound=Callable[..., Any])


def hooked(step: F) -> F:
    """`step` with torch's hooks and profiling only if there are any; torch's own wrapper costs 10 µs per step."""
    watched = TorchOptimizer.profile_hook_step(step)

    @functools.wraps(step)
    def plain_or_watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks or _pre_hooks or _post_hooks
        return (watched if hooks or profiler_enabled() else step)(self, *args, **kwargs)

    setattr(plain_or_watched, "hooked", True)  # noqa: B010 -- what torch looks for before it wraps a step itself
    return cast(F, uncompiled(plain_or_watched))


def uncompiled(method: F) -> F:
    """`method`, excluded from torch's compiler, which breaks the graph there and calls it.

    The public ``torch.compiler.disable`` does the same, but imports the compiler, which takes 1 s, for every user.
    """
    if not hasattr(_frames, "set_code_exec_strategy"):  # before torch 2.8
        return cast(F, torch.compiler.disable(method))
    skip = _frames._FrameAction.SKIP
    _frames.set_code_exec_strategy(method.__code__, _frames._FrameExecStrategy(skip, skip))
    for name, value in {"_torchdynamo_disable": True, "_torchdynamo_disable_msg": "thalweg's own kernels"}.items():
        setattr(method, name, value)
    return method


def unguarded(method: F) -> F:
    """Torch's `method` without its guard against torch's compiler, unless the compiler is loaded: the guard loads it,
    in 1 s.
    """
    plain = inspect.unwrap(method)

    @functools.wraps(method)
    def guarded_if_needed(*args: Any, **kwargs: Any) -> Any:
        return (method if "torch._dynamo" in sys.modules else plain)(*args, **kwargs)

    return cast(F, guarded_if_needed)
