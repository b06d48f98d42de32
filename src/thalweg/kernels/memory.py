"""Memory as printed kernels see it: arrays by their addresses, 16-bit numbers, and subnormals flushed.

Each array is a *stream* of its own for LLVM: told that no two overlap it vectorises loops over any number of them,
without the run-time checks that it gives up on beyond a few.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from thalweg.printers import noise

_REALS = {"float32": types.float32, "float64": types.float64}
_FLUSH = 0x8040  # flush-to-zero and denormals-are-zero, of x86's MXCSR


def stream(index: int, dtype: str, count: int, name: str = "") -> tuple[Any, Any, Any]:
    """``load(address, i)``, ``store(address, i, x)`` and ``dither(address, i, x, salt)`` for an array of a kernel.

    Args:
        index: which array it is; arrays of one kernel never overlap.
        dtype: of its elements; float16 and bfloat16 are loaded as float32 and stored rounded to nearest, ties to even.
            ``dither`` rounds to bfloat16 up or down at random, as `thalweg.kernels.rounding` says.
        count: how many arrays the kernel has.
        name: of the array, which ``dither`` tells from others by it.
    """
    real = _REALS.get(dtype, types.float32)

    @intrinsic
    def load(typing: Any, address: Any, i: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            found = builder.load(_pointer(builder, dtype, *args))
            _alone(builder, found, index, count)
            return _widen(builder, dtype, found)

        return real(types.int64, types.intp), generate

    @intrinsic
    def store(typing: Any, address: Any, i: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kept = _narrow(builder, dtype, args[2])
            _alone(builder, builder.store(kept, _pointer(builder, dtype, args[0], args[1])), index, count)
            return context.get_dummy_value()

        return types.none(types.int64, types.intp, real), generate

    @intrinsic
    def dither(typing: Any, address: Any, i: Any, x: Any, salt: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(32)
            bits = builder.bitcast(args[2], word)
            x = builder.add(builder.trunc(args[3], word), word(noise.of_array(name)))
            mixed = noise.mix(
                x,
                xor=builder.xor,
                shift=lambda x, by: builder.lshr(x, word(by)),
                times=lambda x, by: builder.mul(x, word(by)),
            )
            chance = builder.and_(mixed, word(0xFFFF))
            finite = builder.icmp_unsigned("!=", builder.and_(bits, word(0x7F800000)), word(0x7F800000))
            rounded = builder.add(bits, builder.select(finite, chance, word(0)))
            kept = builder.trunc(builder.lshr(rounded, word(16)), ir.IntType(16))
            _alone(builder, builder.store(kept, _pointer(builder, dtype, args[0], args[1])), index, count)
            return context.get_dummy_value()

        return types.none(types.int64, types.intp, types.float32, types.int64), generate

    return load, store, dither


def _access(kind: Any, bits: Any) -> tuple[Any, Any]:
    """``load(address)`` and ``save(address, x)`` for a type, which has `bits` in memory and may be wider in code."""

    @intrinsic
    def load(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            found = builder.load(builder.inttoptr(args[0], bits.as_pointer()))
            return builder.zext(found, ir.IntType(64)) if kind == types.int64 and bits.width < 64 else found

        return kind(types.int64), generate

    @intrinsic
    def save(typing: Any, address: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kept = builder.trunc(args[1], bits) if kind == types.int64 and bits.width < 64 else args[1]
            builder.store(kept, builder.inttoptr(args[0], bits.as_pointer()))
            return context.get_dummy_value()

        return types.none(types.int64, kind), generate

    return load, save


word: Any
save_word: Any
word32: Any
save_word32: Any
real32: Any
save_real32: Any
real64: Any
save_real64: Any
word, save_word = _access(types.int64, ir.IntType(64))
word32, save_word32 = _access(types.int64, ir.IntType(32))
word16: Any = _access(types.int64, ir.IntType(16))[0]
real32, save_real32 = _access(types.float32, ir.FloatType())
real64, save_real64 = _access(types.float64, ir.DoubleType())


@intrinsic
def call(typing: Any, function: Any, a: Any, b: Any) -> Any:
    """Call ``int32_t function(void *a, void *b)``, as torch's C interface is called; 0 is success."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(64), ir.IntType(64)])
        return builder.sext(builder.call(builder.inttoptr(args[0], kind.as_pointer()), list(args[1:])), ir.IntType(64))

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic
def add(typing: Any, a: Any, b: Any) -> Any:
    """A sum of float64 that may be reordered, as no other operation around it: a loop of these is vectorised."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args, flags=("reassoc", "contract"))

    return types.float64(types.float64, types.float64), generate


@intrinsic
def start(typing: Any, function: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Call ``void function(int64_t a, int64_t b, int64_t c, int64_t d)``, as a printed module has them."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), 4 * [ir.IntType(64)])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), list(args[1:]))
        return context.get_dummy_value()

    return types.none(*5 * [types.int64]), generate


@intrinsic
def fetch(typing: Any, address: Any) -> Any:
    """Have the line of cache at an address, which need not be one, fetched while other work goes on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", (byte,), kind)
        builder.call(prefetch, [builder.inttoptr(args[0], byte), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.none(types.int64), generate


@intrinsic
def take(typing: Any, address: Any) -> Any:
    """The int64 at an address, which is counted up for the next thread that asks."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.IntType(64)
        return builder.atomic_rmw("add", builder.inttoptr(args[0], kind.as_pointer()), kind(1), "monotonic")

    return types.int64(types.int64), generate


@intrinsic
def ask(typing: Any, function: Any) -> Any:
    """Call ``int function(void)``; 0 where there is none, and its address is 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        answer = builder.alloca(word)
        builder.store(word(0), answer)
        with builder.if_then(builder.icmp_unsigned("!=", args[0], ir.IntType(64)(0))):
            pointer = builder.inttoptr(args[0], ir.FunctionType(word, []).as_pointer())
            builder.store(builder.call(pointer, []), answer)
        return builder.sext(builder.load(answer), ir.IntType(64))

    return types.int64(types.int64), generate


def _pointer(builder: Any, dtype: str, address: Any, i: Any) -> Any:
    element = {"float32": ir.FloatType(), "float64": ir.DoubleType()}.get(dtype, ir.IntType(16))
    return builder.gep(builder.inttoptr(address, element.as_pointer()), [i])


def _alone(builder: Any, access: Any, index: int, count: int) -> None:
    """Say that an access is to its own stream and to none of the others."""
    module = builder.module
    domain = module.add_metadata(["thalweg"])
    scopes = [module.add_metadata([f"thalweg {k}", domain]) for k in range(count)]
    access.set_metadata("alias.scope", module.add_metadata([scopes[index]]))
    access.set_metadata("noalias", module.add_metadata([s for k, s in enumerate(scopes) if k != index]))


def _widen(builder: Any, dtype: str, x: Any) -> Any:
    if dtype == "float16":
        return builder.fpext(builder.bitcast(x, ir.HalfType()), ir.FloatType())
    if dtype == "bfloat16":
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(x, word), word(16)), ir.FloatType())
    return x


def _narrow(builder: Any, dtype: str, x: Any) -> Any:
    if dtype == "float16":
        return builder.bitcast(builder.fptrunc(x, ir.HalfType()), ir.IntType(16))
    if dtype == "bfloat16":
        word, half = ir.IntType(32), ir.IntType(16)
        bits = builder.bitcast(x, word)
        odd = builder.and_(builder.lshr(bits, word(16)), word(1))
        rounded = builder.add(bits, builder.add(odd, word(0x7FFF)))
        # Rounding could carry a NaN's payload over into infinity; a quiet NaN is stored instead.
        kept = builder.select(builder.fcmp_unordered("uno", x, x), word(0x7FC00000), rounded)
        return builder.trunc(builder.lshr(kept, word(16)), half)
    return x


@intrinsic
def flush(typing: Any) -> Any:
    """Have this thread flush subnormal numbers to zero; gives the mode it had, for `restore`.  On x86 only."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        if not _x86(builder):
            return word(0)
        slot = builder.alloca(word)
        _control(builder, "st", slot)
        mode = builder.load(slot)
        builder.store(builder.or_(mode, word(_FLUSH)), slot)
        _control(builder, "ld", slot)
        return mode

    return types.int32(), generate


@intrinsic
def restore(typing: Any, mode: Any) -> Any:
    """Bring back the mode that `flush` found."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _x86(builder):
            slot = builder.alloca(ir.IntType(32))
            builder.store(args[0], slot)
            _control(builder, "ld", slot)
        return context.get_dummy_value()

    return types.none(types.int32), generate


def _x86(builder: Any) -> bool:
    return str(builder.module.triple).startswith("x86_64")


def _control(builder: Any, direction: str, slot: Any) -> None:
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte])
    name = f"llvm.x86.sse.{direction}mxcsr"
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(function, [builder.bitcast(slot, byte)])
