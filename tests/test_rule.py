"""`Rule`: ranges, options, conversion to text and back."""

import dataclasses
import math
import pickle
import re
import subprocess
import sys
from copy import deepcopy
from typing import Any, NamedTuple, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import EVERY, RULES, forget
from thalweg import rules
from thalweg.hyperparameters import allowed, range_of
from thalweg.maths import Number, Value
from thalweg.parsing import parse_call
from thalweg.rule import Count, Linear, Log, Range, Rate, Row, Rule, annotations


def listed(annotation: Any) -> bool:
    """Whether an option is one of some choices, rather than any whole number or tuple."""
    return not any(word.startswith(("a whole number", "a tuple")) for word in allowed(annotation))


OWN = [(cls, field.name) for cls in RULES.values() for field in dataclasses.fields(cast(Any, cls))]
NUMBERS = [(cls, name) for cls, name in OWN if name in cls.example().numbers]
OPTIONS = [(cls, name) for cls, name in OWN if name in cls.example().options and listed(annotations(cls)[name])]


def numbers(allowed: Range) -> st.SearchStrategy[float]:
    low, high = (None if math.isinf(x) else x for x in (allowed.low, allowed.high))
    return st.floats(
        low, high, exclude_min=allowed.low_open, exclude_max=allowed.high_open, allow_nan=False, allow_infinity=False
    )


@st.composite
def any_rule(draw: st.DrawFn) -> Rule:
    """Any rule, with any options, and any numbers that it allows."""
    rule = draw(st.sampled_from(EVERY))
    chosen = {name: draw(numbers(range_of(rule.annotation(name)))) for name in rule.numbers}
    try:
        return rule.replace(**chosen)
    except ValueError:  # valid separately, but not in combination
        return rule


def outside(allowed: Range) -> list[Any]:
    """Values that are out of range or not numbers."""
    found: list[Any] = [math.nan, math.inf, -math.inf, "0.5", b"0.5", True, 10**400, 1j, [0.1]]
    if math.isfinite(allowed.low):
        found += [allowed.low - 1e-9, -1] + [allowed.low] * allowed.low_open
    if math.isfinite(allowed.high):
        found += [allowed.high + 1e-9] + [allowed.high] * allowed.high_open
    return found


@pytest.mark.parametrize(("cls", "name"), NUMBERS)
def test_a_number_out_of_its_range_is_refused(cls: type[Rule], name: str) -> None:
    allowed = range_of(annotations(cls)[name])
    for value in outside(allowed):
        with pytest.raises(ValueError, match=f"^{cls.__name__}'s {name} is ") as refused:
            cls(**{**cls.example().bases, name: value})
        assert repr(value) in str(refused.value)
        assert str(allowed) in str(refused.value)
        with pytest.raises(ValueError, match=f"{cls.__name__}'s {name} is "):
            cls.example().replace(**{name: value})
    for bound, is_open in ((allowed.low, allowed.low_open), (allowed.high, allowed.high_open)):
        if math.isfinite(bound) and not is_open:
            assert bound in allowed


@pytest.mark.parametrize(("cls", "name"), OPTIONS)
def test_an_unknown_option_is_refused(cls: type[Rule], name: str) -> None:
    for value in ("elsewhere", -1, -1.0, (), "None"):
        with pytest.raises(ValueError, match=f"^{cls.__name__}'s {name} is .*; allowed is ") as refused:
            cls(**{**cls.example().bases, name: value})
        default = getattr(cls.example(), name)
        assert ("a rule" if isinstance(default, Rule) else str(default)) in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Range(0), "a finite number >= 0"),
        (Range(0, low_open=True), "a finite number > 0"),
        (Range(0, 1), "a number in [0, 1]"),
        (Range(0, 1, high_open=True), "a number in [0, 1)"),
        (Range(), "a finite number"),
        (Count(1, 9), "a whole number from 1 to 9"),
        (Count(2), "a whole number >= 2"),
        (Row(3), "3 numbers, or a tuple of such"),
        (Row(whole=True), "a tuple of whole numbers"),
    ],
)
def test_ranges_in_words(kind: Any, said: str) -> None:
    assert str(kind) == said


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (Count(1, 9), 9, 9), (Count(1, 9), 10, None), (Count(1, 9), True, None), (Count(1, 9), 2.0, None),
        (Row(3), [1, 2, 3], (1.0, 2.0, 3.0)), (Row(3), ((1, 2, 3), [4, 5, 6]), ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))),
        (Row(3), (1, 2), None), (Row(3), ((1, 2, 3), (1, 2)), None), (Row(3), (1, 2, math.nan), None),
        (Row(3), (), None),
        (Row(whole=True), (), ()), (Row(whole=True), (0, 2), (0, 2)), (Row(whole=True), (0.5,), None),
    ],
)  # fmt: skip
def test_whole_numbers_and_tuples(kind: Count | Row, value: Any, read: Any) -> None:
    assert kind.read(value) == read


@settings(max_examples=300)
@given(rule=any_rule())
def test_text_and_back(rule: Rule) -> None:
    for text in (str(rule), repr(rule)):
        again = rules.parse(text)
        assert again == rule
        assert hash(again) == hash(rule)
        assert repr(again) == repr(rule)
    assert deepcopy(rule) == pickle.loads(pickle.dumps(rule)) == rule
    assert rule.replace(**rule.numbers) == rule
    names = {**rule.numbers, **rule.options}.keys()
    assert names >= {f.name for f in dataclasses.fields(cast(Any, rule))}
    if not rule.bases:
        of_classes = {"State", "search", "variants", "decomposes", "one_rate", "kept_by", "in_words"}
        assert names == annotations(type(rule)).keys() - of_classes


@pytest.mark.parametrize("rule", EVERY, ids=str)
def test_the_search_space_is_allowed(rule: Rule) -> None:
    for name, space in rule.search.items():
        for u in (0.0, 0.3, 1.0):
            assert math.isclose(rule.replace(**{name: space.at(u)}).numbers[name], space.at(u))
        assert math.isclose(space.at(0), space.low)
        assert math.isclose(space.at(1), space.high)


def test_search_spaces() -> None:
    assert math.isclose(Log(1e-4, 1.0).at(0.5), 1e-2)
    assert Linear(1.0, 3.0).at(0.5) == 2.0


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("adam", "adam", {}),
        (" Adam ( ) ", "Adam", {}),
        ("adam(lr=1e-3, eps_at=inside)", "adam", {"lr": 1e-3, "eps_at": "inside"}),
        ("adam(lr=-1, amsgrad=True, eps_root=None, eps_at='inside',)", "adam",
         {"lr": -1, "amsgrad": True, "eps_root": None, "eps_at": "inside"}),
        ("adam(\n lr=0.1\n)", "adam", {"lr": 0.1}),
    ],
)  # fmt: skip
def test_a_call_is_read(text: str, name: str, arguments: dict[str, Any]) -> None:
    assert parse_call(text) == (name, arguments)


@pytest.mark.parametrize(
    "text",
    [
        "", "()", "1adam", "adam(", "adam)", "adam(lr)", "adam(0.1)", "adam(lr=)", "adam(lr=1)(eps=2)",
        "adam(lr=1).x()", "adam(lr=1, lr=2)", "adam(lr=open('x'))", "adam(lr=1+1)", "adam(*a)", "adam(**a)",
        "adam(lr=1) # x", "a b",
        "adam;sgd", "adam(lr=x.y)", "adam(lr=[)", "adam" + "(" * 500 + ")" * 500, "adam(lr=" + "9" * 5000 + ")",
        "adam(lr=" + "-" * 20000 + "1)",
    ],
)  # fmt: skip
def test_text_that_is_not_a_call_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        rules.parse(text)


@given(text=st.text(max_size=40) | st.from_regex(r"adam\([a-z_]{1,8}=.{0,12}\)", fullmatch=True))
def test_any_text_is_a_rule_or_refused_in_a_sentence(text: str) -> None:
    try:
        assert isinstance(rules.parse(text), Rule)
    except ValueError as refused:
        if len(str(refused)) <= 20:
            raise


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("adm", "there is no rule 'adm'; did you mean 'adam'"),
        ("RMSProb", "did you mean 'rmsprop'"),
        ("adam(beta_1=0.9)", "Adam has no setting 'beta_1'"),
        ("adam(beta_1=0.9)", "did you mean 'beta1'"),
        ("adam(eps_at=insde)", "did you mean 'inside'"),
        ("adam(lr=nan)", "Adam's lr is 'nan'; allowed is a finite number >= 0"),
        ("momentum(nesterov=True)", "allowed is False or 'correction' or 'lookahead'"),
        ("momentum(form=velocity, dampening=0.5)", "only form='accumulated'"),
        ("rmsprop(nesterov=lookahead)", "set momentum"),
        ("schedule_free", "ScheduleFree wraps a rule; write"),
        ("grafted(adam)", "Grafted wraps 2 rules, direction and magnitude; write"),
        ("schedule_free(adam, sgd)", "it wraps 1 rule and was given 2"),
        ("adam(sgd)", "it wraps no rules and was given 1"),
        ("schedule_free(nesterov)", "looks ahead; allowed is a rule that takes the gradient at the parameters"),
        ("grafted(sgd, schedule_free(adam))", "Grafted's magnitude is ScheduleFree(Adam()), which looks ahead"),
        ("cautious(switch(adam, sgd, at=5))", "a switch cannot be inside a rule; wrap its rules"),
        ("cautious(adm)", "there is no rule 'adm'; did you mean 'adam'"),
        ("cautious(adam, bta1=0.5)", "Cautious(Adam()) has no setting 'bta1'"),
        ("cautious(adam(lr=-1))", "Adam's lr is -1; allowed is a finite number >= 0"),
        ("cautious(rule=1)", "Cautious's rule is 1; allowed is a rule"),
        ("qqqqqqq", "the rules are adabelief, adadelta, adafactor, adagrad"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        rules.parse(text)


def test_names_and_their_variants() -> None:
    assert rules.parse("NAdam") == rules.Adam(lr=2e-3, nesterov="scheduled")
    assert rules.parse("nesterov(lr=1)") == rules.Momentum(lr=1, form="velocity", nesterov="lookahead")
    assert rules.named("amsgrad", lr=1).options["amsgrad"] is True
    assert {name.lower() for name in RULES} <= (rules.names() | rules.wrappers()).keys()
    for name in rules.names():
        assert isinstance(rules.named(name), Rule)
    for cls in RULES.values():
        assert cls.__doc__
        assert any(c.isdigit() for c in cls.__doc__), "the docstring names the paper and its year"
        assert getattr(rules, cls.__name__) is cls


def test_a_users_rule_is_found_and_inherits_no_variants() -> None:
    class Slow(rules.Adam):
        """Adam at a tenth of the rate."""

        lr: Rate = 1e-4

    class Heavy(Rule):
        lr: float = 0.5
        damping: float = -1.0

        class State(NamedTuple):
            path: Value
            steps: Number

        def update(h, p: Value, g: Value, s: State, t: Number) -> tuple[Value, Any]:
            return p - h.lr * g, type(s)(s.path + g, s.steps + 1)

    try:
        assert rules.parse("slow(beta1=0.5)") == Slow(beta1=0.5)
        assert type(rules.parse("nadam")) is rules.Adam
        assert rules.parse("heavy(damping=-3)") == Heavy(damping=-3)
        assert Heavy().init(torch.zeros(())) == Heavy.State(torch.zeros(()), 0.0)
        assert not Heavy().looks_ahead
        with pytest.raises(ValueError, match="Heavy's damping is nan; allowed is a finite number"):
            Heavy(damping=math.nan)
    finally:
        del Slow, Heavy
        forget()
    assert "slow" not in rules.names()


def test_a_rule_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        rules.Adam().lr = 1.0  # pyright: ignore[reportAttributeAccessIssue]


TWO_OF_A_NAME = """
import thalweg
from thalweg import Rule, rules
from thalweg.rule import Rate

def sgd(name, **settings):
    return type(name, (Rule,), {"__annotations__": {"lr": Rate}, "lr": 0.5, "__module__": "mine",
                                "update": lambda h, p, g, s, t: (p - h.lr * g, s), **settings})

first, second = sgd("Signum"), sgd("Signum")
assert type(rules.parse("signum")) is second, "a cell of a notebook that was run again"
kept = [sgd("Adam")]  # classes that nobody holds may be collected
kept.append(sgd("Mine", variants={"nesterov": {"lr": 0.1}}))
assert rules.all()["Adam"].__module__ == "thalweg.rules.moments" and rules.names()["adam"][0] is rules.Adam
for text, places in (("adam(lr=0.1)", ("thalweg.rules.moments.Adam", "mine.Adam")),
                     ("nesterov", ("thalweg.rules.descent.Momentum", "mine.Mine"))):
    try:
        rules.parse(text)
        raise SystemExit(f"{text} was taken for one of two")
    except ValueError as error:
        assert all(place in str(error) for place in places) and "rename your class" in str(error), error
assert str(rules.parse("amsgrad")) == "Adam(amsgrad=True)" and str(rules.parse("mine")) == "Mine()"
"""


def test_a_users_rule_with_a_name_of_the_librarys_is_never_taken_for_it() -> None:
    # Runs in its own process, since classes cannot be undefined.
    subprocess.run([sys.executable, "-c", TWO_OF_A_NAME], check=True, timeout=120)
