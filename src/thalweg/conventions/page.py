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

_MUON = """torch, Jordan's code, timm and pytorch_optimizer average the momentum; Moonlight, dion and Keras accumulate
it (`form`). The step is the same, but the buffers, in the last column, differ by the factor 1 − μ: they are 20 times
as large at μ = 0.95. A checkpoint is therefore only taken over if its optimizer is named: `conventions.load`, or
`thalweg convert torch.optim.Muon --to dion.Muon --state old.pt --out new.pt`. Momentum looks one step ahead, except
in dion and timm. The scale of a matrix of m × n is √max(1, m/n) in torch, Jordan's code and pytorch_optimizer;
0.2·√max(m, n) in Moonlight, Keras and timm, where with the rate 0.02 it is 5.5 times that of Jordan at 768 × 768, and
in torch with `match_rms_adamw`; and √(m/n) in dion. optax corrects the momentum for its start as NAdam does, and its
matrices have a row for each input, so the scale of a matrix is that of its transpose. timm's table has five rows,
dion's is that of Polar Express with a margin of 2 %, and all others have Jordan's three numbers. torch, Jordan's
code, Moonlight, dion, timm and pytorch_optimizer make matrices orthogonal in bfloat16, optax and Keras in the type of
the parameter. Jordan's code, Moonlight's and dion's round each product and each sum to bfloat16, where torch, timm,
pytorch_optimizer and the rule round each sum once; for matrices as small as 6 × 4 these differ by a tenth of the
step, and each is as far from the formula.

Which parameters are Muon's: in optax all matrices, embeddings too; in Keras all that are not called embeddings; in
timm those whose shape suits it; in Jordan's code, pytorch_optimizer and dion those whose group says so; torch refuses
others. `thalweg.groups.hidden_matrices` follows Jordan's advice. With parameters in bfloat16 and `nesterov=False`
torch 2.13 overwrites the momentum by the orthogonal matrix; the rule does not."""
_NORMUON = """dion and pytorch_optimizer divide each row of the orthogonal matrix by a running norm of it, and restore
the norm of the whole; with `match_rms` that is 0.2·√(mn) instead."""
_SOAP = """The first step only builds the factors, in the authors' code and in pytorch_optimizer. The basis is brought
up to date by a power iteration and QR every 10 steps (`every`; HeavyBall: 2, Meta's Shampoo: 1), the second moment is
permuted as its columns are, and ε is beside the uncorrected root. HeavyBall's β₁ is 0.9. The first moment is turned
where the basis changes, which gives the same points as turning it in every step."""
_SHAMPOO = """The factors are sums, from ε·I on, and the exponent is −1/(2k) for k axes. pytorch_optimizer keeps the
step in its momentum, not the gradient: what is averaged with the next gradient was already multiplied by the roots."""
_MARS = """The gradient of the step before is 0 at first, so that the first one counts (1 + γβ₁/(1 − β₁)) times; then
its norm is bounded by 1. Vectors fall to AdamW unless `optimize_1d`. A copy of the gradient is kept: the authors'
code keeps the gradient itself, which zero_grad(set_to_none=False) sets to zero."""
_CAUTIOUS = """What is left of a step grows by one over its share, at least 1e-3, in the authors' AdamW and in timm,
and by the number of elements over one more than how many are left in the authors' Lion and in pytorch_optimizer."""
_LARS = """optax's LARS is the paper's: the momentum contains the rate. λ is in the norm that the tensor's is divided
by."""
_ADAFACTOR = """torch's rate is at most 1/√t, and ε² is the least second moment; optax adds ε to each square, computes
the decay of the second moment in float32, and factors the two largest axes rather than the last two. Weight decay is
proportional to the rate in torch, and not in optax."""
_PRODIGY = """prodigyopt corrects the moments for their start only with `use_bias_correction`, optax always."""

_RATES = (0.1, 0.01)


class _Topic(NamedTuple):
    """Calls to compare: their framework, name and arguments, the gradients of the two steps, and a state to show."""

    title: str
    text: str
    cases: tuple[tuple[str, str, dict[str, Any]], ...]
    gradients: tuple[float, float] = (1.0, 0.5)
    shape: tuple[int, ...] = ()
    state: str = ""


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
            ("muon", "SingleDeviceMuon", {}),
            ("pytorch_optimizer", "Muon", {}),
            ("pytorch_optimizer", "Muon", {"use_adjusted_lr": True}),
            ("moonlight", "Muon", {"wd": 0.0}),
            ("keras", "Muon", {"weight_decay": None}),
            ("dion", "Muon", {"weight_decay": 0.0}),
            ("timm", "Muon", {}),
            ("optax.contrib", "muon", {}),
            ("optax.contrib", "muon", {"consistent_rms": 0.2}),
        ),
        shape=(2, 4),
        state="momentum_buffer",
    ),
    _Topic(
        "NorMuon",
        _NORMUON,
        (
            ("dion", "NorMuon", {"weight_decay": 0.0}),
            ("pytorch_optimizer", "NorMuon", {}),
            ("pytorch_optimizer", "NorMuon", {"update_scale": "match_rms"}),
        ),
        shape=(2, 4),
    ),
    _Topic(
        "SOAP",
        _SOAP,
        (
            ("pytorch_optimizer", "SOAP", {"weight_decay": 0.0}),
            ("pytorch_optimizer", "SOAP", {"weight_decay": 0.0, "betas": (0.9, 0.95)}),
            ("pytorch_optimizer", "SOAP", {"weight_decay": 0.0, "correct_bias": False}),
            ("pytorch_optimizer", "SOAP", {"weight_decay": 0.0, "normalize_gradient": True}),
        ),
        shape=(2, 1),
    ),
    _Topic(
        "Shampoo",
        _SHAMPOO,
        (
            ("pytorch_optimizer", "Shampoo", {}),
            ("pytorch_optimizer", "Shampoo", {"momentum": 0.9}),
            ("pytorch_optimizer", "Shampoo", {"weight_decay": 0.1}),
            ("pytorch_optimizer", "Shampoo", {"weight_decay": 0.1, "weight_decouple": True}),
        ),
        shape=(2, 1),
    ),
    _Topic(
        "MARS",
        _MARS,
        (("pytorch_optimizer", "MARS", {}), ("pytorch_optimizer", "MARS", {"optimize_1d": True})),
        shape=(4,),
    ),
    _Topic(
        "Cautious steps",
        _CAUTIOUS,
        (
            ("c_optim", "AdamW", {}),
            ("timm", "AdamWLegacy", {"caution": True, "weight_decay": 0.0}),
            ("c_optim", "Lion", {}),
            ("timm", "Lion", {"caution": True}),
            ("pytorch_optimizer", "Lion", {"cautious": True}),
        ),
        shape=(4,),
    ),
    _Topic(
        "LARS",
        _LARS,
        (("optax", "lars", {}), ("optax", "lars", {"weight_decay": 0.1}), ("optax", "lars", {"nesterov": True})),
        shape=(4,),
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
    """The formulas of the cases, with equal ones grouped, and the first two steps of each; of one element each."""
    groups: dict[str, list[str]] = {}
    rows: list[str] = []
    for framework, name, theirs in topic.cases:
        column = TABLE[framework]
        call = f"{column.call.format(name)}({', '.join(f'{k}={v}' for k, v in theirs.items())})"
        rule, around = column.read(name, {"lr": _RATES[0], **theirs})
        decayed = f"\n{_FORMS[around.get('decay_form', 'l2')]}" if around.get("weight_decay") else ""
        groups.setdefault("\n".join(plain(rule)) + decayed, []).append(f"`{call}`")
        numbers = " | ".join(f"{x:.6f}" for x in _two_steps(framework, name, theirs, topic))
        rows.append(f"| `{call}` | {numbers} |")
    formulas = [f"{', '.join(calls)}\n\n```text\n{formula}\n```\n" for formula, calls in groups.items()]
    g = topic.gradients
    start = f"{'a matrix' if len(topic.shape) > 1 else 'a vector'} of {' × '.join(map(str, topic.shape))} ones"
    start = start if topic.shape else "θ₀ = 1"
    said = f"From {start}, with gradients {g[0]:g} and {g[1]:g} and rates {_RATES[0]} and {_RATES[1]}:"
    head = ["", "θ₁", "θ₂", *([f"`{topic.state}`"] if topic.state else [])]
    lines = [f"| {' | '.join(head)} |".replace("|  |", "| |"), f"|{' --- |' * len(head)}"]
    return "\n".join([*formulas, said, "", *lines, *rows, ""])


def _two_steps(framework: str, name: str, theirs: dict[str, Any], topic: _Topic) -> tuple[float, ...]:
    p = torch.nn.Parameter(torch.ones(topic.shape, dtype=torch.float64))
    group = {"params": [p], **({"use_muon": True} if "use_muon" in TABLE[framework].find(name).flags else {})}
    optimizer = conventions.optimizer(framework, name, [group], lr=_RATES[0], backend="eager", **theirs)
    points: list[float] = []
    for rate, gradient in zip(_RATES, topic.gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        p.grad = torch.full(topic.shape, gradient, dtype=torch.float64)
        optimizer.step()
        points.append(p.flatten()[0].item())
    return (*points, optimizer.state[p][topic.state].flatten()[0].item()) if topic.state else tuple(points)


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
