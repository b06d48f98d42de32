"""The table of conventions: what it refuses, with which messages, and translations between its columns."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from thalweg import conventions
from thalweg.conventions import TABLE, translate
from thalweg.conventions.meaning import REQUIRED
from thalweg.conventions.page import page
from thalweg.rules import (
    ADOPT,
    LAMB,
    MADGRAD,
    MARS,
    SGD,
    AdaBelief,
    Adafactor,
    Adam,
    Adan,
    Cautious,
    Lion,
    Momentum,
    RMSProp,
    ScheduleFree,
)

CALLS = [(framework, name) for framework, column in TABLE.items() for name in column.names]


def walk(framework: str, name: str, gradients: list[list[float]], **theirs: Any) -> list[list[float]]:
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    q = torch.nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    optimizer = conventions.optimizer(framework, name, [p, q], **theirs)
    for g in gradients:
        p.grad, q.grad = torch.tensor(g, dtype=torch.float64), torch.tensor([8.0], dtype=torch.float64)
        optimizer.step()
    return [p.tolist(), q.tolist()]


@pytest.mark.parametrize(("framework", "name"), CALLS)
def test_every_name_is_a_rule(framework: str, name: str) -> None:
    # where the rate of the steps counts, it has no other there
    theirs = {"relative_step": False} if name == "AdaFactor" else {}
    rule = conventions.rule(framework, name, lr=0.25, **theirs)
    assert rule.lr == 0.25


@pytest.mark.parametrize(("framework", "name"), CALLS)
def test_defaults_may_be_given(framework: str, name: str) -> None:
    column = TABLE[framework]
    needed = {k: 0.1 for k, a in column.names[name].arguments.items() if a.default is REQUIRED}
    given = {k: a.default for k, a in column.names[name].arguments.items()} | needed
    assert column.read(name, given) == column.read(name, needed)


@pytest.mark.parametrize(
    ("framework", "name", "theirs", "expected"),
    [
        ("torch", "SGD", {"lr": 0.1}, SGD(lr=0.1)),
        ("torch", "SGD", {"momentum": 0.9, "nesterov": True}, Momentum(lr=1e-3, momentum=0.9, nesterov="correction")),
        ("keras", "SGD", {"momentum": 0.5}, Momentum(lr=1e-2, momentum=0.5, form="velocity")),
        ("keras", "Adam", {}, Adam(eps=1e-7, eps_at="uncorrected")),
        ("optax", "rmsprop", {"learning_rate": 0.1, "eps_in_sqrt": False},
         RMSProp(lr=0.1, decay=0.9, momentum_form="velocity")),
        ("optax", "adam", {"learning_rate": 1, "nesterov": True, "eps_root": 1e-8},
         Adam(lr=1, nesterov="constant", eps_root=1e-8)),
        ("textbook", "adam_inside", {"rho1": 0.5}, Adam(beta1=0.5, eps_at="inside")),
        ("pytorch_optimizer", "AdaBelief", {"eps": 1e-8}, AdaBelief(eps=1e-8, eps_root=1e-8)),
        ("pytorch_optimizer", "adopt", {"clip_lambda": None}, ADOPT(clip=False)),
        ("pytorch_optimizer", "madgrad", {"momentum": 0, "eps": 0}, MADGRAD(lr=1e-3, momentum=None, eps=None)),
        ("pytorch_optimizer", "adan", {"weight_decay": 0.1}, Adan(lambd=0.1)),
        ("pytorch_optimizer", "lion", {"cautious": True}, Cautious(Lion(), scale="count")),
        ("pytorch_optimizer", "mars", {"lr": 0.5, "lr_1d": 0.25},
         MARS(lr=0.5, vector_rate=0.5, vector_lambd=0.1, eps_root=1e-15)),
        ("schedulefree", "SGDScheduleFree", {"weight_decay": 0.1}, ScheduleFree(SGD(lr=1.0), lambd=0.1)),
        ("keras", "Lamb", {}, LAMB(eps=1e-7)),
        ("pytorch_optimizer", "AdaFactor", {"lr": 0.5}, Adafactor(
            momentum=0.9, beta2=0.999, momentum_in="bfloat16", eps=1e-30, eps_at="squares", decay_at="step")),
    ],
)  # fmt: skip
def test_rules(framework: str, name: str, theirs: dict[str, Any], expected: Any) -> None:
    assert conventions.rule(framework, name, **theirs) == expected


@pytest.mark.parametrize(
    ("framework", "name", "theirs", "message"),
    [
        ("kers", "SGD", {}, "there is no framework 'kers'; did you mean 'keras'"),
        ("torch", "Adamm", {}, "torch has no optimizer 'Adamm'; did you mean 'Adam'"),
        ("torch", "Adam", {"beta": 0.9}, "torch's Adam has no argument 'beta'; did you mean 'betas'"),
        ("torch", "Adam", {"betas": 0.9}, "torch's Adam's betas is 0.9; allowed is a pair of numbers"),
        ("torch", "Adam", {"betas": (0.9, 1.0)}, r"torch's Adam's betas is 1.0; allowed is a number in \[0, 1\)"),
        ("keras", "Adam", {"amsgrad": "yes"}, "keras's Adam's amsgrad is 'yes'; allowed is True or False"),
        ("keras", "Ftrl", {}, "keras's Ftrl cannot be expressed: its step is"),
        ("keras", "SGD", {"use_ema": True}, "keras's SGD's use_ema is True; allowed is False: "),
        ("optax", "adam", {}, "optax's adam needs learning_rate: it has no default there"),
        ("optax.contrib", "adopt", {"learning_rate": 1, "clip_value_fn": abs}, "allowed is None: the limit is"),
        (
            "optax",
            "adan",
            {"learning_rate": abs},
            "learning_rate is a function; write a number, and give.* schedule of lr",
        ),
        ("pytorch_optimizer", "ADOPTT", {}, "has no optimizer 'ADOPTT'; did you mean 'adopt'"),
        (
            "pytorch_optimizer",
            "lion",
            {"adanorm": True},
            "adanorm is True; allowed is False: the gradient is lengthened",
        ),
        (
            "pytorch_optimizer",
            "ScheduleFreeRAdam",
            {"silent_sgd_phase": False},
            "the first steps have the rate 1 there",
        ),
        ("keras", "ScheduleFreeAdamW", {"weight_decay": 0.1}, "it moves the point of the gradient there, and not the"),
        ("pytorch_optimizer", "lamb", {"pre_norm": True}, "sets clip_norm to 1.0, which is around a rule"),
        ("schedulefree", "ScheduleFreeWrapper", {}, "it wraps another rule; write thalweg.rules.ScheduleFree"),
        ("pytorch_optimizer", "adopt", {"clip_lambda": abs}, r"allowed is 'step \*\* 0.25' or None"),
        ("pytorch_optimizer", "adopt", {"fixed_decay": True}, "write decay_form='independent' of thalweg.Optimizer"),
        ("pytorch_optimizer", "ademamix", {"betas": (0.9, 0.99)}, r"betas is \(0.9, 0.99\); allowed is 3 numbers"),
        ("pytorch_optimizer", "ademamix", {"t_alpha_beta3": 0}, "t_alpha_beta3 is 0; allowed is a finite number > 0"),
        ("pytorch_optimizer", "adan", {"maximize": True}, "its first difference is then twice the gradient"),
        ("torch", "AdamW", {"weight_decay": 0.1}, "sets weight_decay to 0.1, which is around a rule and not in it"),
    ],
)
def test_what_is_refused(framework: str, name: str, theirs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conventions.rule(framework, name, **theirs)


def test_keras_clips_each_variable_by_its_own_norm() -> None:
    # |(3, 4)| = 5 is scaled to 2, and |8| to 2; the book's SGD: θ − ηg.
    expected = [[1.0 - 0.5 * 1.2, -2.0 - 0.5 * 1.6], [0.5 - 0.5 * 2.0]]
    for found, wanted in zip(
        walk("keras", "SGD", [[3.0, 4.0]], learning_rate=0.5, clipnorm=2.0), expected, strict=True
    ):
        assert found == pytest.approx(wanted, rel=1e-15)


def test_keras_clips_by_the_global_norm_without_an_epsilon() -> None:
    share = 2.0 / math.hypot(3.0, 4.0, 8.0)
    found = walk("keras", "SGD", [[3.0, 4.0]], learning_rate=0.5, global_clipnorm=2.0)
    assert found[0] == pytest.approx([1.0 - 0.5 * 3 * share, -2.0 - 0.5 * 4 * share], rel=1e-15)


def test_keras_decays_before_the_step_whatever_the_optimizer() -> None:
    found = walk("keras", "SGD", [[3.0, 4.0]], learning_rate=0.5, weight_decay=0.1)
    assert found[0] == pytest.approx([1.0 * 0.95 - 1.5, -2.0 * 0.95 - 2.0], rel=1e-15)


def test_without_epsilon_optax_takes_zero_over_zero_as_zero() -> None:
    settings = {"learning_rate": 0.5, "initial_accumulator_value": 0.0, "eps": 0.0}
    assert walk("optax", "adagrad", [[0.0, 4.0]], **settings)[0] == [1.0, -2.5]


def test_without_weight_decay_it_does_not_matter_where_lamb_has_it() -> None:
    coupled, decoupled = (
        walk("pytorch_optimizer", "lamb", [[3.0, 4.0]] * 3, lr=0.1, weight_decouple=x) for x in (False, True)
    )
    assert coupled == decoupled


@pytest.mark.parametrize("name", ["laprop", "grams"])
def test_without_weight_decouple_laprop_and_grams_do_not_decay(name: str) -> None:
    plain, coupled, decoupled = (
        walk("pytorch_optimizer", name, [[3.0, 4.0]] * 3, lr=0.1, **theirs)
        for theirs in (
            {}, {"weight_decay": 0.5, "weight_decouple": False}, {"weight_decay": 0.5, "weight_decouple": True}
        )
    )  # fmt: skip
    assert coupled == plain != decoupled


@pytest.mark.parametrize(
    ("call", "to", "expected", "kind"),
    [
        ("keras.optimizers.SGD(learning_rate=0.1)", "torch", "torch.optim.SGD(lr=0.1)", "exact"),
        ("keras.optimizers.SGD(learning_rate=0.1, momentum=0.9)", "torch", "torch.optim.SGD(lr=0.1, momentum=0.9)",
         "constant"),
        ("tf.keras.optimizers.RMSprop()", "optax", "optax.rmsprop(learning_rate=0.001, eps=1e-07)", "exact"),
        ("torch.optim.AdamW(1e-3)", "optax", "optax.adamw(learning_rate=0.001, weight_decay=0.01)", "exact"),
        ("optax.adam(1e-3)", "torch", "torch.optim.Adam()", "exact"),
        ("textbook.nesterov(alpha=0.9)", "torch", "torch.optim.SGD(lr=0.01, momentum=0.9, nesterov=True)", "constant"),
        ("optax.amsgrad(0.001)", "torch", "torch.optim.Adam(amsgrad=True)", "nearest"),
        ("keras.optimizers.Adam()", "torch", "torch.optim.Adam(eps=1e-07)", "nearest"),
        ("optax.yogi(0.01)", "pytorch_optimizer", "pytorch_optimizer.Yogi()", "exact"),
        ("pytorch_optimizer.ademamix(1e-3, weight_decay=0.1, weight_decouple=True)", "optax.contrib",
         "optax.contrib.ademamix(learning_rate=0.001, weight_decay=0.1)", "exact"),
        ("optax.contrib.adopt(1e-3)", "pytorch_optimizer", "pytorch_optimizer.ADOPT()", "nearest"),
        ("optax.contrib.adopt(1e-3, use_clipping=False)", "pytorch_optimizer",
         "pytorch_optimizer.ADOPT(clip_lambda=None)", "exact"),
        ("pytorch_optimizer.AdaBelief(1e-3, eps=1e-8)", "optax",
         "optax.adabelief(learning_rate=0.001, eps=1e-08, eps_root=1e-08)", "exact"),
    ],
)  # fmt: skip
def test_translations(call: str, to: str, expected: str, kind: str) -> None:
    found = translate(call, to)
    assert (found.call, found.kind) == (expected, kind)
    assert (found.strays <= 1e-9) == (kind != "nearest")
    assert {"exact": "Exact:", "constant": "Exact while", "nearest": "Not expressible"}[kind] in str(found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("torch.optim.Adam(lr=open('x'))", "cannot be read; write a call of literals"),
        ("torch.optim.Adam", "cannot be read"),
        ("torch.optim.Adam(**{})", "cannot be read"),
        ("numpy.adam()", "it begins with 'numpy'"),
        ("torch.optim.Adam(1e-3, lr=1e-3)", "gives an argument twice"),
        ("torch.optim.Adam(beta=1)", "did you mean 'betas'"),
        ("keras.optimizers.Ftrl()", "cannot be expressed"),
    ],
)
def test_what_cannot_be_translated(call: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        translate(call, "optax")


def test_the_page_is_up_to_date() -> None:
    written = Path(__file__).resolve().parents[1] / "docs" / "conventions.md"
    assert written.read_text(encoding="utf-8") == page(), "run python -m thalweg.conventions.page > docs/conventions.md"
