"""LaTeX of an update, for the docs and the report."""

from thalweg import rules
from thalweg.printers.formula import Printer
from thalweg.rule import Rule

_NAMES = {
    "theta", "eta", "beta", "mu", "tau", "rho", "epsilon", "psi", "lambda", "kappa", "nu", "alpha", "Pi", "zeta",
    "gamma", "phi",
}  # fmt: skip


class _Latex(Printer):
    operations = {
        "add": "{} + {}",
        "sub": "{} - {}",
        "mul": r"{} \, {}",
        "div": r"\frac{{{}}}{{{}}}",
        "pow": "{}^{{{}}}",
        "neg": "-{}",
        "lt": "{} < {}",
        "le": r"{} \le {}",
        "gt": "{} > {}",
        "ge": r"{} \ge {}",
        "eq": "{} = {}",
        "ne": r"{} \ne {}",
        "nabla": r"\nabla f\left({}\right)",
        "sqrt": r"\sqrt{{{}}}",
        "cbrt": r"\sqrt[3]{{{}}}",
        "abs": r"\lvert {} \rvert",
        "norm": r"\lVert {} \rVert",
        "sum": r"\sum {}",
        "size": "n",
        "total": r"\sum_{{\theta}} {}",
        "sum_over": r"\sum_{{{1}}} {0}",
        "amax_over": r"\max_{{{1}}} {0}",
        "size_over": "n_{{{1}}}",
        "matmul": r"{} \, {}",
        "transpose": r"{}^{{\top}}",
        "inverse_root": "{}^{{-1/{}}}",
        "unfold": r"\operatorname{{mat}}_{{{1}}}({0})",
        "fold": r"\operatorname{{ten}}_{{{1}}}({0})",
        "eye": "I",
        "orthogonalize": r"\operatorname{{NS}}_{{{1}}}({0})",
        "rounded": r"\operatorname{{{1}}}({0})",
        "qr": r"\operatorname{{Q}}({})",
        "eigenvectors": r"\operatorname{{V}}({})",
        "eigenvalues": r"\operatorname{{\Lambda}}({})",
        "within": r"\sum_{{B}} {0}",
        "heights": r"n_{{B}}",
        "arranged": r"\operatorname{{sort}}({}, {})",
        "remainder": r"{} \bmod {}",
        "resolution": r"\epsilon_{{\mathrm{{m}}}}",
        "when": r"\begin{{cases}} {1} & \text{{if }} {0} \\ {2} & \text{{otherwise}} \end{{cases}}",
        "sign": r"\operatorname{{sign}}({})",
        "single": r"\operatorname{{single}}({})",
        "maximum": r"\max({}, {})",
        "minimum": r"\min({}, {})",
        "where": r"\begin{{cases}} {1} & \text{{if }} {0} \\ {2} & \text{{otherwise}} \end{{cases}}",
        **{word: rf"\{word}({{}})" for word in ("exp", "log", "sin", "cos", "tanh")},
    }

    def join(self, op: str, parts: list[str]) -> str:
        if op == "mul" and parts[0][-1:].isdigit() and parts[1][:1].isdigit():
            return rf"{parts[0]} \cdot {parts[1]}"
        return super().join(op, parts)

    def letter(self, name: str, index: str) -> str:
        base, _, sub = name.partition("_")
        if base in _NAMES:
            base = f"\\{base}"
        elif len(base) > 1:
            base, sub = rf"\mathrm{{{name.replace('_', chr(92) + '_')}}}", ""
        sub = rf"\mathrm{{{sub}}}" if len(sub) > 1 else sub
        joined = ",".join(x for x in (sub, index) if x)
        return f"{base}_{{{joined}}}" if joined else base

    def constant(self, x: float) -> str:
        mantissa, _, exponent = f"{x:g}".partition("e")
        return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa

    def brackets(self, text: str) -> str:
        return rf"\left({text}\right)"

    def wraps(self, op: str) -> bool:
        return op != "div" and super().wraps(op)

    def binding(self, op: str) -> int:
        # A fraction needs no brackets, except as the base of a power.
        return 3 if op == "div" else super().binding(op)


def latex(rule: Rule | str) -> str:
    """The update of a rule with its options, as an ``aligned`` block of LaTeX, derived from its trace.

    Args:
        rule: a rule, or its text, such as ``"adam"`` or ``"adam(amsgrad=True)"``.

    Raises:
        ValueError: the text names no rule, or a setting that the rule does not allow.
    """
    rule = rules.parse(rule) if isinstance(rule, str) else rule
    lines = r" \\ ".join(f"{left} &= {right}" for left, right in _Latex().lines(rule))
    return rf"\begin{{aligned}} {lines} \end{{aligned}}"
