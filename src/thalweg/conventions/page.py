"""The page of conventions, generated from the table: ``python -m thalweg.conventions.page > docs/conventions.md``."""

from typing import Any

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

_TOPICS: tuple[tuple[str, str, tuple[tuple[str, str, dict[str, Any]], ...]], ...] = (
    (
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
    (
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
    (
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
)
_RATES = (0.1, 0.01)
_GRADIENTS = (1.0, 0.5)
_FORMS = {"l2": "λθ is added to the gradient", "scaled": "θ ← θ − ηλθ before the step"}


def page() -> str:
    """The page, in Markdown."""
    parts = [_TITLE]
    for title, text, cases in _TOPICS:
        parts.append(f"## {title}\n\n{text.format(rates=_RATES, eps=0.1)}\n\n{_worked(cases)}")
    parts += [f"## {column.name}\n\n{_column(column)}" for column in TABLE.values()]
    return "\n".join(parts)


def _worked(cases: tuple[tuple[str, str, dict[str, Any]], ...]) -> str:
    """The formulas of the cases, with equal ones grouped, and the first two steps of each."""
    groups: dict[str, list[str]] = {}
    rows: list[str] = []
    for framework, name, theirs in cases:
        column = TABLE[framework]
        call = f"{column.call.format(name)}({', '.join(f'{k}={v}' for k, v in theirs.items())})"
        rule, around = column.read(name, {"lr": _RATES[0], **theirs})
        decayed = f"\n{_FORMS[around.get('decay_form', 'l2')]}" if around.get("weight_decay") else ""
        groups.setdefault("\n".join(plain(rule)) + decayed, []).append(f"`{call}`")
        first, second = _two_steps(framework, name, theirs)
        rows.append(f"| `{call}` | {first:.6f} | {second:.6f} |")
    formulas = [f"{', '.join(calls)}\n\n```text\n{formula}\n```\n" for formula, calls in groups.items()]
    said = f"From θ₀ = 1, with gradients {_GRADIENTS[0]:g} and {_GRADIENTS[1]:g} and rates {_RATES[0]} and {_RATES[1]}:"
    return "\n".join([*formulas, said, "", "| | θ₁ | θ₂ |", "| --- | --- | --- |", *rows, ""])


def _two_steps(framework: str, name: str, theirs: dict[str, Any]) -> tuple[float, ...]:
    p = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = conventions.optimizer(framework, name, [p], lr=_RATES[0], backend="eager", **theirs)
    points: list[float] = []
    for rate, gradient in zip(_RATES, _GRADIENTS, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        p.grad = torch.full((), gradient, dtype=torch.float64)
        optimizer.step()
        points.append(p.item())
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
    lines.append("")
    if inert := sorted(
        {k for c in column.names.values() for k, a in c.arguments.items() if not a.ours and not a.refused}
    ):
        lines += [f"Accepted, without effect on the numbers: {', '.join(f'`{k}`' for k in inert)}.", ""]
    refusals = {k: a.refused for c in column.names.values() for k, a in c.arguments.items() if a.refused}
    refusals |= column.refused
    lines += [f"- `{name}` is refused: {why}." for name, why in refusals.items()]
    return "\n".join([*lines, ""] if refusals else lines)


def _rules(convention: Convention) -> str:
    plain = f"; without momentum `{convention.without_momentum.__name__}`" if convention.without_momentum else ""
    return f"`{convention.rule.__name__}`{plain}"


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
