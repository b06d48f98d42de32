"""Steps that are decided on the device of the parameters: norms, clipping, and whether a step is left out at all."""

from typing import Any, NoReturn, TypeAlias, cast

from torch import Tensor

from thalweg import kernels
from thalweg.kernels import Guard, StateMemoryError, Work
from thalweg.optimizer import checkpoint, switching

Optimizer: TypeAlias = Any
"""A `thalweg.Optimizer`, whose module imports this one."""


def route(optimizer: Optimizer) -> None:
    """Have the step done by a backend that knows the devices of the parameters; they may have moved."""
    elsewhere = any(not p.is_cpu for group in optimizer.param_groups for p in group["params"][:1])
    if elsewhere is not optimizer._elsewhere:
        optimizer._states.hand_over()
        keep_count(optimizer)
        optimizer._engine = (kernels.elsewhere if elsewhere else kernels.backend)(optimizer.backend)
        optimizer._elsewhere = elsewhere


def scale(optimizer: Optimizer) -> tuple[bool, float]:
    """Whether gradients are to be divided by something, and by what; 1 if only a device knows."""
    given = getattr(optimizer, "grad_scale", None)
    if hasattr(optimizer._engine, "guards") and isinstance(given, Tensor):
        return True, 1.0
    known = float(given or 1.0)
    return known != 1.0, known


def takes_scale(optimizer: Optimizer) -> bool:
    """Whether steps are decided on devices, which then need no gradient scaler to ask them."""
    route(optimizer)
    return hasattr(optimizer._engine, "guards") and optimizer.nonfinite != "raise"


def guarded(optimizer: Optimizer, works: list[Work]) -> bool:
    """Whether the step is decided on the devices, without the host, which then has nothing to look at."""
    engine: Any = optimizer._engine
    if not hasattr(engine, "guards"):
        return False
    if engine.capturing and any(map(switching.pending, optimizer.param_groups)):
        raise RuntimeError("a step can be captured in a CUDA graph only once all groups have switched rules")
    scale, found = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
    made = Guard(
        optimizer.clip_norm, optimizer.clip_eps, optimizer.clip_in == "float32", optimizer.clip_each,
        optimizer.nonfinite == "skip", scale, found,
    )  # fmt: skip
    if optimizer.nonfinite != "raise" and engine.guards(works, made):
        if engine.capturing and not optimizer.capturable:
            raise RuntimeError("a step is captured in a CUDA graph; make the optimizer with capturable=True for that")
        return True
    if engine.capturing:
        raise RuntimeError(
            "this step cannot be captured in a CUDA graph, since the host has a part in it: nonfinite='raise', a "
            "parameter on the CPU or one that only operations on tensors can step, a lookahead point or a "
            "decomposition where steps may be left out"
        )
    if scale is not None:
        for work in works:
            work.scalars = work.scalars._replace(unscale=1.0 / float(scale))
    return False


def skipped(optimizer: Optimizer) -> int:
    """How many steps the devices have left out since the engine was made, of which the host does not know."""
    return getattr(optimizer._engine, "skipped", 0)


def captured(optimizer: Optimizer) -> bool:
    """Whether the step was recorded, not taken."""
    return getattr(optimizer._engine, "capturing", False)


def hand_over(optimizer: Optimizer) -> None:
    """Have the numbers of the next step on the devices."""
    if optimizer.capturable and hasattr(optimizer._engine, "guards"):
        optimizer._begin()
        optimizer._engine.number()


def keep_count(optimizer: Optimizer) -> None:
    """Take the count of steps left out from an engine that is given up."""
    found = skipped(optimizer)
    if found:
        optimizer._skipped += found


def one_device(group: dict[str, Any]) -> None:
    """Raise ``ValueError`` where a group has parameters on the CPU and elsewhere."""
    params = cast("list[Tensor]", group["params"])
    elsewhere = [i for i, p in enumerate(params) if not p.is_cpu]
    if elsewhere and len(elsewhere) < len(params):
        i = next(i for i, p in enumerate(params) if p.is_cpu)
        other = elsewhere[0]
        raise ValueError(
            f"parameter {checkpoint.name_of(group, i)} is on the CPU, and {checkpoint.name_of(group, other)} of the "
            f"same group on {params[other].device}; move the model to one device before making the optimizer, or give "
            "the optimizer a group for each device"
        )


def no_memory(optimizer: Optimizer, error: StateMemoryError) -> NoReturn:
    """Say which parameter's state there is no memory for, and what to do."""
    for group in optimizer.param_groups:
        for i, p in enumerate(group["params"]):
            if p is error.parameter or getattr(p, "_local_tensor", None) is error.parameter:
                name = checkpoint.name_of(group, i)
                message = (
                    f"no memory on {p.device} for the state of parameter {name} of shape {tuple(p.shape)}; "
                    "state_dtype=torch.bfloat16 halves the state, rules such as lion, adafactor or sgd keep less, and "
                    "FSDP shards it. Nothing of this parameter was stepped"
                )
                raise StateMemoryError(p, message) from error
    raise error
