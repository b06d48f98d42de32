"""Random programs from seeds: an optimizer, its parameters, and what a user may do between steps.

An action is a function of a `Draw` that returns a line of the program; the table `ACTIONS` has the weight of each.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fuzz.world import Program

# Each setting takes a kernel or two to compile, so there are few per class, each with a different formula.
# Weight decay is a power of two: where it cancels the gradient, what remains is exact, and Adam does not make a whole
# step of a rounding error.
CLASSES: dict[str, Sequence[str]] = {
    "SGD": ("lr=0.05", "lr=0.05, momentum=0.9", "lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.125"),
    "Adagrad": ("lr=0.1", "lr=0.1, initial_accumulator_value=0.5, weight_decay=0.125"),
    "RMSprop": ("lr=0.01", "lr=0.01, momentum=0.9"),
    "Adam": ("lr=0.1", "lr=0.1, amsgrad=True", "lr=0.1, weight_decay=0.125, maximize=True"),
    "AdamW": ("lr=0.1", "lr=0.1, amsgrad=True"),
    "NAdam": ("lr=0.1", "lr=0.1, decoupled_weight_decay=True, weight_decay=0.1"),
    "RAdam": ("lr=0.1", "lr=0.1, betas=(0.6, 0.7)"),
    "Adamax": ("lr=0.1",),
    "Adadelta": ("lr=1.0", "lr=1.0, weight_decay=0.125"),
    "ASGD": ("lr=0.05, t0=3",),
    "Rprop": ("lr=0.01",),
}
RULES = (
    "adam(lr=0.1)", "momentum(lr=0.05, momentum=0.9, nesterov='lookahead')", "lion(lr=0.01)",
    "qhadam(lr=0.1)", "rmsprop(lr=0.01, momentum=0.9)",
)  # fmt: skip
SERVICES = ("", "clip_norm=1.0", "clip_value=0.5", "ema=0.9", "nonfinite='skip'", "weight_decay=0.125",
            "state_dtype=torch.bfloat16", "clip_each=1.0",
            "clip_norm=1.0, weight_decay=0.1, decay_form='independent'")  # fmt: skip
SHAPES: Sequence[tuple[int, ...]] = ((5, 4), (3,), (5, 4), (), (1,), (2, 3, 4, 4), (0, 3), (37,), (300,), (1, 7))
LAYOUTS = ("transposed", "gaps", "channels_last", "view", "function", "wrapped", "dispatching", "tensor", "numpy",
           "lazy copy", "guarded", "guarded at the start")  # fmt: skip
GRADIENTS = ("plain", "same layout", "zero", "some zeros", "transposed", "gaps", "view", "overlapping", "negative",
             "conjugate", "imaginary", "lazy copy", "numpy", "inference", "sparse",
             "guarded", "guarded at the start")  # fmt: skip


@dataclass
class Draw:
    """What is known of the program so far.

    Attributes:
        random: the source of all choices.
        name: the name of the optimizer's class, or "rule".
        make: the call that makes the optimizer.
        torches: whether the first world is torch's, which knows only torch's own classes.
        exact: whether both worlds have torch's names in groups and checkpoints.
        shapes: the shape and type of each parameter.
        last: the last number that `seed` returned.
    """

    random: random.Random
    name: str = ""
    make: str = ""
    torches: bool = True
    exact: bool = True
    shapes: list[tuple[tuple[int, ...], str]] = field(default_factory=list[tuple[tuple[int, ...], str]])
    last: int = 0

    def one(self, *choices: Any) -> Any:
        """One of them."""
        return self.random.choice(choices)

    def often(self, chance: float) -> bool:
        """True with this probability."""
        return self.random.random() < chance

    def p(self) -> str:
        """A parameter."""
        return f"ps[{self.random.randrange(len(self.shapes))}]"

    def pair(self) -> tuple[str, str] | None:
        """Two parameters of one shape and type."""
        pairs = [(i, j) for i, x in enumerate(self.shapes) for j, y in enumerate(self.shapes) if i != j and x == y]
        return None if not pairs else tuple(f"ps[{i}]" for i in self.random.choice(pairs))  # pyright: ignore

    def v(self) -> str:
        """A value of a state."""
        return f"value(o, {self.p()}, {self.random.randrange(3)})"

    def seed(self) -> int:
        """A new number."""
        self.last += 1
        return self.last

    def n(self) -> float:
        """A number to fill a state with."""
        return self.one(0.0, 0.25, 0.5, 1.0)


Action = Callable[[Draw], str | None]


def give(d: Draw) -> str:
    """Gradients for all parameters, or for some."""
    if d.often(0.5):
        return f"give(ps, {d.seed()})"
    which = d.one("ps", d.p(), "ps[1:]", "ps[::2]", "ps[:-1]")
    how = d.one("none", *GRADIENTS) if d.often(0.6) else "plain"
    if how == "sparse" and d.often(0.8):
        how = "plain"  # most optimizers refuse, and that ends the program
    scale = d.one(", 1e-3", ", 1e3") if d.often(0.1) else ""
    return f"give({which}, {d.seed()}, {how!r}{scale})"


def step(d: Draw) -> str:
    """A step, usually with new gradients."""
    if d.often(0.75):
        return f"give(ps, {d.seed()}); o.step()"
    return d.one("o.step()", f"o.step(lambda: give(ps, {d.seed()}) or torch.tensor(1.0))",
                 f"o.zero_grad(); give(ps[::2], {d.seed()}); o.step()", "o.zero_grad(); backward(ps); o.step()",
                 f"backward(ps); o.step(); give(ps[:1], {d.seed()}); o.step()")  # fmt: skip


def edit_step(d: Draw) -> str | None:
    """The count of steps."""
    if d.name == "SGD":
        return None  # torch's SGD counts no steps, and ours starts again at 0
    p = d.p()
    return d.one(f"count(o, {p}).zero_()", f"count(o, {p}).fill_({d.random.randrange(50)})",
                 f"count(o, {p}).add_(3)", f"held(o, {p}).update(step=torch.tensor({d.random.randrange(50)}.0))",
                 f"count(o, {p}).data = torch.tensor(7.0)")  # fmt: skip


def alias(d: Draw) -> str | None:
    """One tensor for the states of two parameters, or for two gradients."""
    found = d.pair()
    if found is None:
        return None
    p, q = found
    return d.one(f"alias(o, {p}, o, {q}, {d.random.randrange(3)})", f"{p}.grad = {q}.grad",
                 f"{p}.grad = {q}.grad; give(ps[:1], {d.seed()})",
                 f"o.state[{p}] = copy.deepcopy(o.state[{q}])")  # fmt: skip


def group(d: Draw) -> str | None:
    """Groups and their settings."""
    settings = ["o.param_groups[0]['lr'] *= 0.5", "o.param_groups[-1]['lr'] = 0.02",
                "o.param_groups.append(o.param_groups.pop(0))"]  # fmt: skip
    if "weight_decay" in d.make:
        settings += ["o.param_groups[0]['weight_decay'] = 0.25"]
    if d.exact and "betas" in d.make + ("betas" if d.name in ("Adam", "AdamW", "NAdam", "Adamax") else ""):
        settings += ["o.param_groups[0]['betas'] = (0.8, 0.9)"]
    settings += ["o.param_groups[-1]['params'].reverse()", "kept.append(o.param_groups[0]['params'].pop())",
                 "o.param_groups[0]['params'] = list(o.param_groups[0]['params'])"]  # fmt: skip
    if d.often(0.4):
        shape, kind = d.one(*d.shapes)
        d.shapes.append((shape, kind))
        lr = d.one("", ", 'lr': 0.02")
        return f"ps.append(param({shape}, {kind!r}, {d.seed()})); o.add_param_group({{'params': [ps[-1]]{lr}}})"
    return d.one(*settings)


def load(d: Draw) -> str:
    """Save, load and copy."""
    lines = [
        "o.load_state_dict(saved(o))", "kept.append(o.state_dict())",
        "o.load_state_dict(copy.deepcopy(o.state_dict()))", "o = again(o, 'deepcopy'); ps[:] = parameters(o)",
        "o = again(o, 'pickle'); ps[:] = parameters(o)", f"c = again(o, 'copy'); give(ps, {d.seed()}); c.step()",
        f"c = again(o, 'deepcopy'); give(parameters(c), {d.seed()}); c.step()",
        "o = fresh(o, type(o))",
    ]  # fmt: skip
    if not d.torches or d.exact:  # the state before shares what is loaded uncast, and a rule's numbers are float64
        lines.append("o.load_state_dict(o.state_dict())")
    if d.torches and d.exact:
        lines.append(f"t = fresh(o, torch.optim); t.load_state_dict(saved(o)); give(ps, {d.seed()}); t.step(); "
                     "o.load_state_dict(saved(t))")  # fmt: skip
    return d.one(*lines)


def keep(d: Draw) -> str:
    """Keep a reference for later."""
    p = d.p()
    return "kept.append(" + d.one(
        f"held(o, {p})", d.v(), f"{d.v()}[..., :1]", f"{d.v()}.untyped_storage()", f"numpy({d.v()})", f"count(o, {p})",
        "o.state", f"{p}.data", f"{p}.grad", f"list(held(o, {p}).values())",
    ) + ")"  # fmt: skip


def late(d: Draw) -> str:
    """Write to what was kept."""
    return f"write(kept, {d.random.randrange(8)}, {d.n()})"


def hook(d: Draw) -> str:
    """Hooks that edit state, parameters or gradients."""
    what = d.one("o.state.clear()", f"{d.v()}.mul_(0.5)", f"give(ps, {d.seed()})", "None", f"{d.p()}.data.mul_(0.5)")
    register = d.one("register_step_pre_hook", "register_step_post_hook")
    inside = what.replace("(o,", "(x,").replace("o.state", "x.state")
    once = f"hooked.append(o.{register}(lambda x, a, k: ({inside}) and None))"
    return d.one(once, once, "[hooked.pop().remove() for _ in list(hooked)]")


def default(d: Draw) -> str:
    """Torch's default types and devices."""
    run = step(d)
    short = "float64" if d.name in ("ASGD", "NAdam") else "bfloat16"  # torch rounds these two's numbers to the default
    return d.one(f"with default_dtype(torch.float64): {run}", f"with default_dtype(torch.{short}): {run}",
                 f"with default_device('meta'): {run}", f"with default_dtype(torch.float64): {load(d)}",
                 "torch.set_default_dtype(torch.float64)", "torch.set_default_dtype(torch.float32)",
                 f"with torch.no_grad(): {run}", f"with Counting(): {run}")  # fmt: skip


def line(*texts: str) -> Action:
    """An action that is one of these lines; names in braces (p, q, v, n, s, k) are replaced by drawn values."""

    def drawn(d: Draw) -> str:
        return d.one(*texts).format(p=d.p(), q=d.p(), v=d.v(), n=d.n(), s=d.seed(), k=d.random.randrange(3))

    return drawn


ACTIONS: dict[Action, float] = {
    give: 6,
    step: 14,
    edit_step: 2,
    alias: 2,
    group: 3,
    load: 3,
    keep: 2,
    late: 3,
    hook: 1,
    default: 1.5,
    line("o.state.clear()", "o.state = defaultdict(dict)", "o.state = dict(o.state)",
         "o.state = defaultdict(dict, o.state)",
         "o.state.pop({p}, None)", "o.state[{p}] = dict(held(o, {p}))", "held(o, {p}).clear()", "o.state[{p}] = {{}}",
         "o.state[{p}] = copy.deepcopy(o.state[{p}])", "held(o, {p})['mine'] = 3"): 3,
    line("{v}.zero_()", "{v}.mul_(0.5)", "{v}.data.fill_({n})", "share({v})", "{v}.data = {v}.clone()",
         "x = {v}; x.data = torch.full_like(x, {n})", "x = {v}; x.set_(torch.full_like(x, {n}))",
         "x = {v}; x.data = x.t().contiguous().t() if x.ndim == 2 else x", "flip(o, {p}, {k}, 'clone')",
         "flip(o, {p}, {k}, 'zeros')", "flip(o, {p}, {k}, 'lazy')", "flip(o, {p}, {k}, 'numpy')",
         "flip(o, {p}, {k}, 'gaps')", "flip(o, {p}, {k}, 'guarded')", "flip(o, {p}, {k}, 'double')",
         "numpy({v})[...] = {n}",
         "[share(*s.values()) for s in o.state.values()]",
         "resize({v}, {p}.shape, {n})"): 5,
    line("{p}.data.mul_(0.5)", "{p}.data = {p}.data.clone()", "{p}.data = random({p}.shape, {p}.dtype, {s})",
         "share({p}.data)", "x = {p}; x.data = x.data.t().contiguous().t() if x.ndim == 2 else x.data",
         "{p}.grad = None", "{p}.requires_grad_(False)", "{p}.requires_grad_()",
         "x = {p}; x.data = x.data.double()",
         "torch.nn.utils.clip_grad_norm_({p}, 1.0)", "[g.mul_(0.5) for p in ps if (g := p.grad) is not None]",
         "x = {p}; x.data = torch.as_strided(torch.ones(900, dtype=x.dtype), x.shape, [3 * s for s in x.stride()])"): 3,
    line("o.zero_grad()", "o.zero_grad(set_to_none=False)", "torch.set_num_threads(1)", "torch.set_num_threads(2)",
         "kept.clear()", "collect()", "repr(o)", "o.zero_grad(); backward(ps)"): 2,
}  # fmt: skip


def optimizer(d: Draw) -> tuple[str, tuple[str, str], bool, Sequence[str]]:
    """The line that makes the optimizer, the worlds, whether the comparison is lenient, and the parameters' types."""
    d.name = d.one(*CLASSES)
    settings = d.one(*CLASSES[d.name])
    params = d.one("ps", "ps", "ps", "[{'params': ps[:1], 'lr': 0.03}, {'params': ps[1:]}]", "named(ps)")
    d.make = f"{d.name}({params}, {settings})"
    kind = d.random.random()
    if kind < 0.5:
        return f"o = optim.{d.make}", ("torch", "fused"), False, ("float32", "float32", "float64")
    if kind < 0.55:
        return f"o = optim.{d.make}", ("torch", "fused"), False, ("float32", "complex64", "complex128")
    if kind < 0.65:
        d.exact = False
        d.make = f"{d.name}(ps, {settings})"
        return f"o = optim.{d.make}", ("torch", "rules"), False, ("float32", "float64")
    if kind < 0.7:
        return f"o = optim.{d.make}", ("torch", "fused"), True, ("float32", "bfloat16", "float16")
    d.torches = False
    if kind < 0.8:
        return f"o = optim.{d.make}", ("eager", "fused"), False, ("float32", "bfloat16", "float16", "float16")
    d.name, d.exact = "rule", False
    services = d.one(*SERVICES)
    d.make = f"thalweg.Optimizer(ps, rules.parse({d.one(*RULES)!r}){', ' if services else ''}{services})"
    # Stochastic rounding to bfloat16 differs between backends.
    return f"o = {d.make}", ("eager", "fused"), "bfloat16" in services, ("float32", "float32", "float64", "float16")


def program(seed: int) -> Program:
    """The program of a seed."""
    d = Draw(random.Random(seed))
    make, worlds, lenient, types = optimizer(d)
    params: list[str] = []
    odd = d.often(0.4)
    for _ in range(d.random.randint(1, 5)):
        shape, kind = d.one(*SHAPES), d.one(*types)
        how = f", {d.one(*LAYOUTS)!r}" if odd and d.often(0.5) else ""
        d.shapes.append((shape, kind))
        params.append(f"param({shape}, {kind!r}, {d.seed()}{how})")
    lines = [f"ps += [{', '.join(params)}]", make]
    if d.name == "Adagrad" and worlds[1] == "rules":  # until it has stepped, it lacks the state that torch begins with
        lines.append(f"give(ps, {d.seed()}); o.step()")
    lines += [step(d) for _ in range(d.random.randint(0, 3))]
    for _ in range(d.random.randint(2, 14)):
        (action,) = d.random.choices(list(ACTIONS), list(ACTIONS.values()))
        text = action(d)
        if text is not None:
            lines.append(text)
            if d.often(0.5):
                lines.append(step(d))
    lines.append(step(d))
    if d.often(0.03):  # threads that step at once may compute any numbers; they must not crash
        lines.append(f"give(ps, {d.seed()}); concurrently(o.step, {d.one('o.step', 'o.zero_grad', 'o.state.clear')})")
    quiet = d.often(0.3)
    return Program(tuple(lines), worlds, lenient, versions=not quiet, strict=False, quiet=quiet)
