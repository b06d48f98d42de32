"""The page of conventions, generated from the table: ``python -m thalweg.conventions.page > docs/conventions.md``."""

from typing import Any, NamedTuple

import torch

from thalweg import conventions
from thalweg.conventions.frameworks import TABLE
from thalweg.conventions.meaning import REQUIRED, Argument, Convention, Framework
from thalweg.printers.plain import plain

_TITLE = """# What a name means

The same name stands for different formulas in different frameworks. This page is generated: its tables from the one
that `thalweg.conventions` reads, its formulas from the rules, its numbers by taking steps. A test checks that it is up
to date.

```python
thalweg.conventions.optimizer("keras", "RMSprop", model.parameters(), rho=0.9)  # steps as Keras does
thalweg.conventions.rule("optax", "adam", learning_rate=1e-3, nesterov=True)  # only the rule
print(thalweg.conventions.translate("keras.optimizers.SGD(momentum=0.9)", to="torch"))
```

On the command line: `thalweg convert "keras.optimizers.SGD(momentum=0.9)" --to torch`.
"""

_MOMENTUM = """The velocity contains the learning rate in some frameworks and not in others. The difference shows when
the rate changes: in this example it is {rates[0]} in the first step and {rates[1]} in the second."""
_EPSILON = """ε is added to the root of the corrected second moment, to the root of the uncorrected one, or under the
root. It is large here ({eps}) to make the difference visible. The variants differ most for small gradients and in the
first steps."""
_DECAY = """Weight decay is either added to the gradient (`l2`), where an adaptive method rescales it with the rest, or
subtracted from the parameter in proportion to the learning rate (`scaled`, also called decoupled). Keras uses the
second for every optimizer. A third form (`independent`, fully decoupled) does not depend on the base learning rate."""

_ADAN = """The decays are one minus those of the paper. The difference of two gradients enters the step with the factor
β₂ in pytorch_optimizer, as in the paper and its authors' code, and with 1 − β₂ in optax. Weight decay is the paper's,
θ ← θ/(1 + ηλ) after the step, in pytorch_optimizer without `weight_decouple`, and `scaled` elsewhere."""
_ADEMAMIX = """Neither package warms up α and β₃ by default. pytorch_optimizer does so over `t_alpha_beta3` steps; optax
accepts functions of the step instead, which are schedules of `thalweg.Optimizer` here."""
_ADOPT = """The first step only sets v. The divided gradient is clipped at (t − 1)^¼ in optax, as in the authors' code,
and at t^¼ in pytorch_optimizer, which also applies weight decay in the first step."""
_BELIEF = """pytorch_optimizer has one ε for both places, as in the paper; optax has two."""
_LAMB = """pytorch_optimizer corrects the bias of the first moment alone, after the ratio of the norms, bounds the norm
of the tensor at 10, and adds ε to that of the direction. Weight decay is part of the direction in optax, and comes
before the step in Keras and pytorch_optimizer."""
_SCHEDULE_FREE = """The average weighs each step by the square of the largest rate so far. In optax.contrib the
warmed-up rate of the steps lags one step behind that of the weights, so that the first step only counts. The numbers
are the points at which gradients are taken."""
_LAPROP = """The momentum contains the learning rate in pytorch_optimizer, as in the authors' code, but not in the paper
(`form='averaged'`). Weight decay comes after the step."""

_MUON = """torch averages the momentum, and others accumulate it: the step is the same, but the buffers differ by the
factor 1 − μ, 20 at μ = 0.95, so a checkpoint must not be taken from one to the other (`form`). torch makes matrices
orthogonal in bfloat16, optax in the type of the parameter. optax corrects the momentum for its start as NAdam does, and
its matrices have a row for each input, torch's one for each output: the scale of a matrix is that of its transpose.
The scales and tables of Moonlight, dion and timm are settings of the rule."""
_ADAFACTOR = """torch's rate is at most 1/√t, and ε² is the least second moment; optax adds ε to each square, computes
the decay of the second moment in float32, and factors the two largest axes rather than the last two. Weight decay is
proportional to the rate in torch, and not in optax."""
_PRODIGY = """prodigyopt corrects the moments for their start only with `use_bias_correction`, optax always."""

_RATES = (0.1, 0.01)


class _Topic(NamedTuple):
    """Calls to compare: their framework, name and arguments, and the gradients of the two steps."""

    title: str
    text: str
    cases: tuple[tuple[str, str, dict[str, Any]], ...]
    gradients: tuple[float, float] = (1.0, 0.5)
    shape: tuple[int, ...] = ()


_TOPICS = (
    _Topic(
        "Momentum",
        _MOMENTUM,
        (
            ("torch", "SGD", {"momentum": 0.9}),
            ("keras", "SGD", {"momentum": 0.9}),
            ("optax", "sgd", {"momentum": 0.9}),
            ("textbook", "momentum", {"alpha": 0.9}),
            ("torch", "SGD", {"momentum": 0.9, "nesterov": True}),
            ("keras", "SGD", {"momentum": 0.9, "nesterov": True}),
            ("textbook", "nesterov", {"alpha": 0.9}),
        ),
    ),
    _Topic(
        "Epsilon",
        _EPSILON,
        (
            ("torch", "Adam", {"eps": 0.1}),
            ("keras", "Adam", {"epsilon": 0.1}),
            ("optax", "adam", {"eps": 0.1}),
            ("textbook", "adam_inside", {"delta": 0.1}),
            ("torch", "RMSprop", {"eps": 0.1, "alpha": 0.9}),
            ("keras", "RMSprop", {"epsilon": 0.1}),
            ("optax", "rmsprop", {"eps": 0.1}),
        ),
    ),
    _Topic(
        "Weight decay",
        _DECAY,
        (
            ("torch", "Adam", {"weight_decay": 0.1}),
            ("torch", "AdamW", {"weight_decay": 0.1}),
            ("keras", "Adam", {"weight_decay": 0.1}),
            ("optax", "adamw", {"weight_decay": 0.1}),
            ("torch", "SGD", {"weight_decay": 0.1}),
            ("keras", "SGD", {"weight_decay": 0.1}),
        ),
    ),
    _Topic(
        "AdaBelief",
        _BELIEF,
        (("optax", "adabelief", {"eps": 0.1, "eps_root": 0.0}), ("pytorch_optimizer", "AdaBelief", {"eps": 0.1})),
    ),
    _Topic(
        "Adan",
        _ADAN,
        (
            ("optax", "adan", {"eps_root": 0.0, "weight_decay": 0.1}),
            ("pytorch_optimizer", "Adan", {"weight_decay": 0.1}),
            ("pytorch_optimizer", "Adan", {"weight_decay": 0.1, "weight_decouple": True}),
        ),
    ),
    _Topic(
        "AdEMAMix",
        _ADEMAMIX,
        (
            ("optax.contrib", "ademamix", {"b3": 0.99}),
            ("pytorch_optimizer", "AdEMAMix", {"betas": (0.9, 0.999, 0.99)}),
            ("pytorch_optimizer", "AdEMAMix", {"betas": (0.9, 0.999, 0.99), "t_alpha_beta3": 10}),
        ),
    ),
    _Topic(
        "ADOPT",
        _ADOPT,
        (
            ("optax.contrib", "adopt", {"b2": 0.9}),
            ("pytorch_optimizer", "ADOPT", {"betas": (0.9, 0.9)}),
            ("optax.contrib", "adopt", {"b2": 0.9, "use_clipping": False}),
        ),
        (0.5, 1.0),
    ),
    _Topic(
        "LAMB",
        _LAMB,
        (
            ("keras", "Lamb", {"epsilon": 0.1, "weight_decay": 0.1}),
            ("optax", "lamb", {"eps": 0.1, "weight_decay": 0.1}),
            ("pytorch_optimizer", "Lamb", {"eps": 0.1, "weight_decay": 0.1}),
        ),
    ),
    _Topic(
        "Schedule-Free",
        _SCHEDULE_FREE,
        (
            ("schedulefree", "SGDScheduleFree", {"warmup_steps": 2}),
            ("optax.contrib", "schedule_free_sgd", {"warmup_steps": 2}),
        ),
    ),
    _Topic(
        "Muon",
        _MUON,
        (
            ("torch", "Muon", {"weight_decay": 0.0}),
            ("torch", "Muon", {"weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}),
            ("optax.contrib", "muon", {}),
            ("optax.contrib", "muon", {"consistent_rms": 0.2}),
        ),
        shape=(4, 1),
    ),
    _Topic(
        "Adafactor",
        _ADAFACTOR,
        (("torch", "Adafactor", {}), ("optax", "adafactor", {"min_dim_size_to_factor": 1})),
        shape=(4, 2),
    ),
    _Topic(
        "Prodigy",
        _PRODIGY,
        (("prodigyopt", "Prodigy", {"d0": 0.1}), ("optax.contrib", "prodigy", {"estim_lr0": 0.1})),
    ),
    _Topic("LaProp", _LAPROP, (("pytorch_optimizer", "LaProp", {"weight_decay": 0.1, "foreach": False}),)),
)
_FORMS = {"l2": "λθ is added to the gradient", "scaled": "θ ← θ − ηλθ before the step"}


def page() -> str:
    """The page, in Markdown."""
    topics = (f"## {x.title}\n\n{x.text.format(rates=_RATES, eps=0.1)}\n\n{_worked(x)}" for x in _TOPICS)
    columns = (f"## {column.name}\n\n{_column(column)}" for column in TABLE.values())
    return "\n".join([_TITLE, *topics, *columns])


def _worked(topic: _Topic) -> str:
    """The formulas of the cases, with equal ones grouped, and the first two steps of each."""
    groups: dict[str, list[str]] = {}
    rows: list[str] = []
    for framework, name, theirs in topic.cases:
        column = TABLE[framework]
        call = f"{column.call.format(name)}({', '.join(f'{k}={v}' for k, v in theirs.items())})"
        rule, around = column.read(name, {"lr": _RATES[0], **theirs})
        decayed = f"\n{_FORMS[around.get('decay_form', 'l2')]}" if around.get("weight_decay") else ""
        groups.setdefault("\n".join(plain(rule)) + decayed, []).append(f"`{call}`")
        first, second = _two_steps(framework, name, theirs, topic)
        rows.append(f"| `{call}` | {first:.6f} | {second:.6f} |")
    formulas = [f"{', '.join(calls)}\n\n```text\n{formula}\n```\n" for formula, calls in groups.items()]
    g = topic.gradients
    start = "a matrix of {} × {} ones".format(*topic.shape) if topic.shape else "θ₀ = 1"
    said = f"From {start}, with gradients {g[0]:g} and {g[1]:g} and rates {_RATES[0]} and {_RATES[1]}:"
    return "\n".join([*formulas, said, "", "| | θ₁ | θ₂ |", "| --- | --- | --- |", *rows, ""])


def _two_steps(framework: str, name: str, theirs: dict[str, Any], topic: _Topic) -> tuple[float, ...]:
    p = torch.nn.Parameter(torch.ones(topic.shape, dtype=torch.float64))
    optimizer = conventions.optimizer(framework, name, [p], lr=_RATES[0], backend="eager", **theirs)
    points: list[float] = []
    for rate, gradient in zip(_RATES, topic.gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        p.grad = torch.full(topic.shape, gradient, dtype=torch.float64)
        optimizer.step()
        points.append(p.flatten()[0].item())
    return tuple(points)


def _column(column: Framework) -> str:
    """Every name of a framework with our rule, the settings that it implies, and our name of each argument."""
    lines = [
        "| name | rule in Thalweg | implies | its arguments, with their names in Thalweg |",
        "| --- | --- | --- | --- |",
    ]
    for name, convention in column.names.items():
        said = ", ".join(f"`{k}` {_argument(k, a)}".strip() for k, a in convention.arguments.items() if a.ours)
        lines.append(f"| `{name}` ({convention.source}) | {_rules(convention)} | {_implied(convention)} | {said} |")
    lines += ["", *(line for note in column.notes for line in (note, ""))]
    if inert := sorted(
        {k for c in column.names.values() for k, a in c.arguments.items() if not a.ours and not a.refused}
    ):
        lines += [f"Accepted, without effect on the numbers: {', '.join(f'`{k}`' for k in inert)}.", ""]
    refusals: dict[str, str] = {}
    for name, convention in column.names.items():
        for k, a in convention.arguments.items():
            if a.refused:
                others = any(k in c.arguments and not c.arguments[k].refused for c in column.names.values())
                refusals[f"{name}({k})" if others else k] = a.refused
    refusals |= column.refused
    lines += [f"- `{name}` is refused: {why}." for name, why in refusals.items()]
    return "\n".join([*lines, ""] if refusals else lines)


def _rules(convention: Convention) -> str:
    plain = f"; without momentum `{convention.without_momentum.__name__}`" if convention.without_momentum else ""
    return f"`{convention.rule.__name__ if isinstance(convention.rule, type) else convention.rule}`{plain}"


def _implied(convention: Convention) -> str:
    return ", ".join(_one(name, value) for name, value in convention.fixed.items()) or "—"


def _one(name: str, value: Any) -> str:
    return f"`{name}` as torch's default dtype" if callable(value) else f"`{name}={value!r}`"


def _argument(name: str, argument: Argument) -> str:
    default = "" if argument.default is REQUIRED else f" = {argument.default}"
    called = "" if argument.ours == (name,) else f" → {', '.join(f'`{ours}`' for ours in argument.ours)}"
    turned = {k: v for k, v in argument.values.items() if k != v} if argument.closed else {}
    choices = f" ({', '.join(f'{k}: `{v!r}`' for k, v in turned.items())})" if turned else ""
    return f"{default}{called}{choices}".strip()


if __name__ == "__main__":
    print(page(), end="")
