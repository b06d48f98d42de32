"""Formulas as text: derived from the trace, well-formed, in the usual letters."""

import re

import pytest

import thalweg
from cases import EVERY, RULES
from thalweg import rules
from thalweg.printers.plain import plain
from thalweg.rule import Rule, annotations

each = pytest.mark.parametrize("rule", EVERY, ids=str)
# Names that belong to the code only; single letters and mathematical words may appear in formulas.
RAW = {
    *(name for cls in RULES.values() for name in annotations(cls) if len(name) > 2),
    *(field for cls in RULES.values() for field in cls.example().State._fields if len(field) > 2),
    "where", "maximum", "minimum", "const", "input", "None", "True", "False", "inf", "nan",
} - {"eta", "alpha", "beta", "gamma", "nu", *(base for cls in RULES.values() for base in cls.example().bases)
}  # fmt: skip


@each
def test_latex_is_well_formed(rule: Rule) -> None:
    text = thalweg.latex(rule)
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        assert depth >= 0, text[: i + 1]
    assert depth == 0
    for left, right in (
        (r"\left(", r"\right)"),
        (r"\lvert", r"\rvert"),
        (r"\lVert", r"\rVert"),
        (r"\begin{", r"\end{"),
    ):
        assert text.count(left) == text.count(right)
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        assert kind == "begin" or opened.pop() == name
        if kind == "begin":
            opened.append(name)
    assert not opened
    for fraction in re.finditer(r"\\frac", text):
        numerator = closing(text, fraction.end())
        denominator = closing(text, numerator + 1)
        assert min(numerator - fraction.end(), denominator - numerator) > 1, "neither part is empty"
    assert not re.search(r"\^\{[^{}]*\}\^|_\{[^{}]*\}_|\{\}|--|\+ -|- -", text), "double scripts, empty groups or signs"
    # Every line has one definition, and every command is one of LaTeX's.
    cases = re.compile(r"\\begin\{cases\}((?!\\begin).)*?\\end\{cases\}")
    while cases.search(text):
        text = cases.sub("", text)
    assert all(line.count("&=") == 1 for line in text.split(r" \\ "))
    known = {
        "begin", "end", "frac", "sqrt", "left", "right", "lvert", "rvert", "text", "max", "min", "operatorname",
        "mathrm", "cdot", "le", "ge", "ne", "theta", "eta", "beta", "mu", "tau", "rho", "epsilon", "psi", "lambda",
        "kappa", "nu", "alpha", "Pi", "nabla", "exp", "log", "zeta", "gamma", "phi", "sum", "lVert", "rVert", "top",
        "bmod", "Lambda",
    }  # fmt: skip
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= known


def closing(text: str, start: int) -> int:
    """The position of the brace that closes the one at `start`."""
    assert text[start] == "{", text[start:]
    depth = 0
    for i, c in enumerate(text[start:], start):
        depth += (c == "{") - (c == "}")
        if depth == 0:
            return i
    raise AssertionError(f"never closed: {text[start:]}")


@each
def test_no_names_of_the_code_appear(rule: Rule) -> None:
    for text in (thalweg.latex(rule), "\n".join(plain(rule))):
        read = text.replace(r"\sum", "").replace("\\", " ").replace(r"\_", "_")
        assert not RAW & set(re.findall(r"[A-Za-z_][A-Za-z_0-9]*", read))


@each
def test_every_line_uses_those_above_it(rule: Rule) -> None:
    lines = plain(rule)
    lefts = [line.split(" = ", 1)[0] for line in lines]
    assert len(set(lefts)) == len(lefts), "a letter means one thing"
    assert "θₜ" in lefts
    for i, line in enumerate(lines):
        right = line.split(" = ", 1)[1]
        assert right.count("(") == right.count(")")
        for later in lefts[i:]:
            assert not re.search(rf"(?<![A-Za-z]){re.escape(later)}(?![₋+−₊A-Za-z0-9₁])", right), line


PLAIN = {
    "sgd": ["θₜ = θₜ₋₁ − η·gₜ"],
    "momentum(form=velocity)": ["vₜ = μ·vₜ₋₁ − η·gₜ", "θₜ = θₜ₋₁ + vₜ"],
    "momentum(form=averaged)": ["vₜ = μ·vₜ₋₁ + (1 − μ)·gₜ", "θₜ = θₜ₋₁ − η·vₜ"],
    "rmsprop": ["rₜ = ρ·rₜ₋₁ + (1 − ρ)·gₜ²", "θₜ = θₜ₋₁ − η·gₜ / (√rₜ + ε)"],
    "adam": [
        "mₜ = β₁·mₜ₋₁ + (1 − β₁)·gₜ",
        "vₜ = β₂·vₜ₋₁ + (1 − β₂)·gₜ²",
        "θₜ = θₜ₋₁ − η·mₜ / (1 − β₁^t) / (√(vₜ / (1 − β₂^t)) + ε)",
    ],
    "lion": ["θₜ = θₜ₋₁ − η·sign(β₁·mₜ₋₁ + (1 − β₁)·gₜ)", "mₜ = β₂·mₜ₋₁ + (1 − β₂)·gₜ"],
}
LATEX = {
    "sgd": r"\theta_{t} &= \theta_{t-1} - \eta \, g_{t}",
    "momentum(form=velocity)": r"v_{t} &= \mu \, v_{t-1} - \eta \, g_{t} \\ \theta_{t} &= \theta_{t-1} + v_{t}",
    "adam": r"m_{t} &= \beta_{1} \, m_{t-1} + \left(1 - \beta_{1}\right) \, g_{t} \\ "
    r"v_{t} &= \beta_{2} \, v_{t-1} + \left(1 - \beta_{2}\right) \, g_{t}^{2} \\ "
    r"\theta_{t} &= \theta_{t-1} - \frac{\eta \, \frac{m_{t}}{1 - \beta_{1}^{t}}}"
    r"{\sqrt{\frac{v_{t}}{1 - \beta_{2}^{t}}} + \epsilon}",
}


@pytest.mark.parametrize("text", PLAIN)
def test_plain(text: str) -> None:
    assert plain(rules.parse(text)) == PLAIN[text]


@pytest.mark.parametrize("text", LATEX)
def test_latex(text: str) -> None:
    assert thalweg.latex(rules.parse(text)) == rf"\begin{{aligned}} {LATEX[text]} \end{{aligned}}"
    assert thalweg.latex(text) == thalweg.latex(rules.parse(text))


def test_latex_of_no_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no rule 'adamm'; did you mean 'adam'"):
        thalweg.latex("adamm")
