"""The vocabulary of programs, besides torch itself: parameters, gradients and states of many kinds, from seeds."""

# pyright: basic
# The strict mode would reject the arguments that torch passes to tensor subclasses, since they have no types.

import contextlib
import copy
import ctypes
import gc
import io
import mmap
import pickle
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "Counting", "Dispatching", "Functional", "Wrapped", "again", "alias", "backward", "clone", "collect",
    "concurrently", "copy", "count", "default_device", "default_dtype", "defaultdict", "flip", "fresh", "give",
    "held", "inner", "io", "named", "nn", "np", "numpy", "param", "parameters", "pickle", "raised", "random",
    "resize", "saved", "share", "states", "torch", "value", "version", "write",
]  # fmt: skip

_CPU = torch.device("cpu")
_NOBODY = 0  # PROT_NONE, which Python's mmap does not name


def random(shape: Sequence[int], dtype: torch.dtype, seed: int, scale: float = 1.0) -> Tensor:
    """Numbers with magnitudes from 0.1 to 2, so that no update divides by almost zero."""
    return _random(tuple(shape), dtype, seed % 61, scale).clone()


@lru_cache(8000)
def _random(shape: tuple[int, ...], dtype: torch.dtype, seed: int, scale: float) -> Tensor:
    with plain():
        generator = np.random.default_rng(seed)
        x = torch.from_numpy(np.array(generator.uniform(0.1, 2.0, shape) * generator.choice((-1, 1), shape)))
        return (torch.complex(x, x.flip(0) if x.ndim else -x) if dtype.is_complex else x).mul_(scale).to(dtype)


@contextlib.contextmanager
def plain() -> Generator[None]:
    """Torch's usual default type and device, whatever the program has set."""
    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    if device == _CPU and dtype == torch.float32:
        yield
        return
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(None if device == _CPU else device)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Generator[None]:
    """Another default type within this context."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device: str) -> Generator[None]:
    """Another default device within this context."""
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


class Functional(Tensor):
    """A subclass whose `__torch_function__` changes nothing."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


class Wrapped(Tensor):
    """A wrapper without memory of its own, like DTensor and quantized tensors: operations run on `inner`."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, requires_grad: bool = False) -> "Wrapped":
        wrap: Any = Tensor._make_wrapper_subclass  # pyright: ignore
        made = wrap(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=inner.device, requires_grad=requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    def __init__(self, inner: Tensor, requires_grad: bool = False) -> None: ...

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Wrapped({self.inner!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rewrapped, (type(self), self.inner, self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Wrapped":
        made = memo.get(id(self))
        if made is None:
            made = memo[id(self)] = _rewrapped(type(self), copy.deepcopy(self.inner, memo), self.requires_grad)
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tree = torch.utils._pytree  # pyright: ignore
        mapped: Any = tree.tree_map_only
        given, named = mapped(Wrapped, lambda x: x.inner, (args, kwargs or {}))
        result = func(*given, **named)
        flat = [x for x in tree.arg_tree_leaves(*args, **(kwargs or {})) if isinstance(x, Wrapped)]
        own = {id(x.inner): x for x in flat}
        return mapped(Tensor, lambda x: own[id(x)] if id(x) in own else cls(x), result)


class Dispatching(Tensor):
    """A subclass with ordinary memory whose `__torch_dispatch__` changes nothing."""

    @staticmethod
    def __new__(cls, data: Tensor, requires_grad: bool = False) -> "Dispatching":
        make: Any = Tensor._make_subclass  # pyright: ignore
        return make(cls, data, requires_grad)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C._DisableTorchDispatch():  # pyright: ignore
            return func(*args, **(kwargs or {}))


def _rewrapped(cls: Any, inner_: Tensor, requires_grad: bool) -> Any:
    made = cls(inner_)
    return made.requires_grad_(requires_grad)


class Counting(TorchDispatchMode):
    """A dispatch mode that changes nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def inner(x: Tensor) -> Tensor:
    """The plain tensor in a wrapper, or the tensor itself."""
    if isinstance(x, Wrapped):
        return inner(x.inner)
    if isinstance(x, (Functional, Dispatching)):
        return x.detach().as_subclass(Tensor)
    return x.to_local() if hasattr(x, "to_local") else x  # pyright: ignore


def distributed(x: Tensor) -> Any:
    """A DTensor of these values, on a mesh with only this process."""
    dist: Any = torch.distributed
    from torch.distributed.tensor import Shard, distribute_tensor

    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = dist.init_device_mesh("cpu", (1,))
    return distribute_tensor(x, mesh, [Shard(0)])


def guarded(x: Tensor, at_end: bool) -> Tensor:
    """The same values in pages of their own, at their end or start; touching the page beyond crashes."""
    page = mmap.PAGESIZE
    size = x.numel() * x.itemsize
    pages = mmap.mmap(-1, (2 + -(-size // page)) * page)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    for edge in (begin, begin + len(pages) - page):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), _NOBODY) == 0
    offset = len(pages) - page - size if at_end else page
    made = torch.frombuffer(pages, dtype=torch.uint8, offset=offset, count=size).view(x.dtype).view(x.shape)
    return made.copy_(x)


def laid(x: Tensor, how: str) -> Tensor:
    """The same values in another memory layout, where their shape and type have it."""
    if how == "transposed":
        return x.new_empty(x.shape[::-1]).permute(*reversed(range(x.ndim))).copy_(x) if x.ndim > 1 else x
    if how == "gaps":
        return x.repeat_interleave(2, -1)[..., ::2] if x.ndim else x
    if how == "channels_last":
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    if how == "view":  # in the middle of a larger tensor, not aligned to a cache line
        return torch.cat([x.new_zeros(3), x.reshape(-1), x.new_zeros(5)])[3 : 3 + x.numel()].view(x.shape)
    if how == "overlapping":
        return x[..., :1].expand(x.shape) if x.ndim else x
    if how == "lazy copy":
        # Of memory that torch did not allocate itself, as that of a loaded tensor, the copy crashes when it is written.
        kept: Any = torch._lazy_clone(x if x.untyped_storage().resizable() else x.clone())  # pyright: ignore
        return kept
    if how == "numpy":
        return torch.from_numpy(x.numpy().copy()) if x.dtype != torch.bfloat16 else x
    if how in ("guarded", "guarded at the start") and x.numel():
        return guarded(x, how == "guarded")
    if how == "inference":
        with torch.inference_mode():
            return x.clone()
    return x


def param(shape: Sequence[int], dtype: str = "float32", seed: int = 0, how: str = "plain") -> Any:
    """A parameter of random values; `how` is its layout or its subclass."""
    with plain():
        x = laid(random(shape, getattr(torch, dtype), seed), how)
        if how == "function":
            return x.as_subclass(Functional).requires_grad_()
        if how == "wrapped":
            return cast(Any, Wrapped)(x, requires_grad=True)
        if how == "dispatching":
            return cast(Any, Dispatching)(x, requires_grad=True)
        if how == "distributed":
            x = distributed(x)
        return nn.Parameter(x) if how != "tensor" else x.requires_grad_()


def give(params: Any, seed: int, how: str = "plain", scale: float = 1.0) -> None:
    """Set the gradients of parameters; `how` is their layout, or what else is special about them."""
    with plain(), torch.no_grad():
        for i, p in enumerate([params] if isinstance(params, Tensor) else params):
            p.grad = gradient(p, seed * 1009 + i, how, scale)


def gradient(p: Tensor, seed: int, how: str, scale: float) -> Any:
    """One gradient."""
    if how == "none":
        return None
    g = random(p.shape, p.dtype, seed, scale)
    if how == "own":  # the parameter's own memory
        return p.detach()
    if how == "zero":
        g.zero_()
    elif how == "some zeros":
        g.view(-1)[::2] = 0
    elif how == "sparse":
        return g.to_sparse(1) if p.ndim and not isinstance(p, (Wrapped, Dispatching, Functional)) else g
    elif how == "negative":
        g = cast(Any, torch)._neg_view(g)
    elif how == "conjugate" and g.is_complex():
        g = g.conj()
    elif how == "imaginary" and not g.is_complex() and g.dtype in (torch.float32, torch.float64):
        g = torch.complex(g, -g).conj().imag
    elif isinstance(p, Functional):
        g = laid(g, how).as_subclass(Functional)
    elif how == "same layout":
        g = torch.empty_like(inner(p.detach())).copy_(g)
    else:
        g = laid(g, how)
    if hasattr(p, "device_mesh"):
        g = distributed(g)
    elif isinstance(p, Wrapped):
        g = Wrapped(g)
    elif isinstance(p, Dispatching):
        g = Dispatching(g)
    return g


def states(optimizer: Optimizer, p: Any) -> list[str]:
    """The sorted names of the tensors in a parameter's state that have its shape."""
    held = optimizer.state.get(p, {})
    return sorted(name for name, x in held.items() if isinstance(x, Tensor) and x.shape == p.shape and name != "step")


def value(optimizer: Optimizer, p: Any, k: int = 0) -> Any:
    """The k-th tensor of a parameter's state; an unrelated tensor if there is none."""
    names = states(optimizer, p)
    return optimizer.state[p][names[k % len(names)]] if names else torch.zeros(3)


def alias(optimizer: Optimizer, p: Any, other: Optimizer, q: Any, k: int = 0) -> None:
    """Make two parameters' states share one tensor."""
    names = states(optimizer, p)
    if names and states(other, q) == names and inner(p).shape == inner(q).shape and p.dtype == q.dtype:
        name = names[k % len(names)]
        other.state[q][name] = optimizer.state[p][name]


def saved(optimizer: Optimizer) -> Any:
    """An optimizer's `state_dict`, saved to a file and read back."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def again(optimizer: Any, how: str) -> Any:
    """A copy by ``deepcopy``, ``pickle`` or ``copy``; the first two copy the parameters too."""
    if how == "pickle":
        return pickle.loads(pickle.dumps(optimizer))
    return copy.deepcopy(optimizer) if how == "deepcopy" else copy.copy(optimizer)


def parameters(optimizer: Any) -> list[Any]:
    """All parameters of an optimizer."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def fresh(optimizer: Any, source: Any) -> Any:
    """A new optimizer of the same parameters and groups; torch's class of that name if `source` is ``torch.optim``."""
    if source is not torch.optim:
        made = copy.copy(optimizer)
        made.state = defaultdict(dict)
        return made
    groups = [dict(group) for group in optimizer.param_groups]
    return getattr(source, type(optimizer).__name__)(groups)


def named(params: Sequence[Any]) -> list[tuple[str, Any]]:
    """Parameters with names."""
    return [(f"p{i}", p) for i, p in enumerate(params)]


def held(optimizer: Any, p: Any) -> dict[str, Any]:
    """The state of a parameter, or an empty dictionary if there is none."""
    return optimizer.state.get(p, {})


def count(optimizer: Any, p: Any) -> Tensor:
    """A parameter's step count, or an unrelated tensor if there is none."""
    return held(optimizer, p).get("step", torch.zeros(()))


def flip(optimizer: Any, p: Any, k: int, how: str) -> None:
    """Replace a tensor of a state by another one."""
    names = states(optimizer, p)
    if not names:
        return
    held = optimizer.state[p]
    name = names[k % len(names)]
    x = held[name].detach()
    if how == "zeros":
        held[name] = torch.zeros_like(x)
    elif how == "double" and not isinstance(x, Wrapped):
        held[name] = x.double()
    elif how in ("gaps", "numpy", "lazy", "guarded", "guarded at the start") and type(x) is Tensor:
        held[name] = laid(x, "lazy copy" if how == "lazy" else how)
    else:
        held[name] = x.clone()


def share(*tensors: Any) -> None:
    """Move tensors to shared memory.

    Wrappers have none to move, and torch crashes on them.  Of memory that an array shows torch frees what the array
    goes on to show.
    """
    for x in tensors:
        if not isinstance(x, Tensor) or isinstance(x, Wrapped | Dispatching):
            continue
        if x.is_sparse or x.untyped_storage().data_ptr() not in _arrays:
            x.share_memory_()


_arrays = weakref.WeakValueDictionary[int, Any]()  # by where their memory begins


def numpy(x: Any) -> Any:
    """A tensor's memory as an array, or an unrelated array if NumPy cannot represent it."""
    if type(x) is not Tensor or x.dtype == torch.bfloat16:
        return np.zeros(3)
    array = _arrays[x.untyped_storage().data_ptr()] = x.detach().numpy()
    return array


def resize(x: Tensor, shape: Sequence[int], number: float) -> None:
    """Enlarge a tensor, fill it, and give it a shape; torch crashes if its memory is shared by processes."""
    if not x.is_shared():
        x.resize_(x.numel() + 40).fill_(number)
        x.resize_(shape).fill_(number)


def write(kept: list[Any], i: int, number: float) -> None:
    """Write to something kept earlier: a tensor, an array, a storage, a list of tensors, a state, or all states."""
    if not kept:
        return
    x = kept[i % len(kept)]
    if isinstance(x, Tensor):
        x.detach().fill_(number if x.ndim else 8 * number)  # a step count stays a whole number
    elif isinstance(x, np.ndarray):
        x[...] = number
    elif isinstance(x, torch.UntypedStorage):
        cast(Any, x).fill_(0)
    elif isinstance(x, list):
        for one in cast("list[Any]", x):
            if isinstance(one, Tensor):
                one.fill_(number if one.ndim else 8 * number)
    elif isinstance(x, dict) and "state" not in x:
        cast("dict[Any, Any]", x).clear()


def backward(params: Sequence[Any]) -> None:
    """Run a backward pass, which adds to existing gradients."""
    trained = [p for p in params if p.requires_grad]
    losses = [(p.abs() ** 2).sum().to(torch.float64) for p in trained if type(p) is nn.Parameter]
    if losses:
        torch.stack(losses).sum().backward()


def collect() -> None:
    """Collect garbage except in the oldest generation, where torch's objects would take half a second."""
    gc.collect(1)


def raised(task: Callable[[], Any]) -> str:
    """The name of the error that a task raises, or an empty string."""
    try:
        task()
    except Exception as error:
        return type(error).__name__
    return ""


def clone(x: Any) -> Any:
    """A copy of a tensor's values and layout."""
    return x.detach().clone()


def version(x: Any) -> int:
    """A tensor's version counter: how often it has been changed in place, as autograd sees it."""
    return x._version


def concurrently(*tasks: Callable[[], Any], times: int = 20) -> None:
    """Run each task `times` times, all tasks at the same time; the first error is raised here."""
    raised: list[BaseException] = []

    def run(task: Callable[[], Any]) -> None:
        try:
            for _ in range(times):
                task()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
