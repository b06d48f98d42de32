"""An update in plain Unicode, for a terminal."""

from thalweg import trace
from thalweg.printers.formula import Printer
from thalweg.rule import Rule
from thalweg.symbols import Symbol

GREEK = {
    "theta": "θ", "eta": "η", "beta": "β", "mu": "μ", "tau": "τ", "rho": "ρ", "epsilon": "ε", "psi": "ψ",
    "lambda": "λ", "kappa": "κ", "nu": "ν", "alpha": "α", "Pi": "Π", "zeta": "ζ", "gamma": "γ", "phi": "φ",
}  # fmt: skip
_SUB = str.maketrans("0123456789+-rt", "₀₁₂₃₄₅₆₇₈₉₊₋ᵣₜ")


class _Plain(Printer):
    operations = {
        "add": "{} + {}",
        "sub": "{} − {}",
        "mul": "{}·{}",
        "div": "{} / {}",
        "pow": "{}^{}",
        "neg": "−{}",
        "lt": "{} < {}",
        "le": "{} ≤ {}",
        "gt": "{} > {}",
        "ge": "{} ≥ {}",
        "eq": "{} = {}",
        "ne": "{} ≠ {}",
        "nabla": "∇f({})",
        "sqrt": "√({})",
        "cbrt": "∛({})",
        "abs": "|{}|",
        "norm": "‖{}‖",
        "sum": "Σ {}",
        "size": "n",
        "total": "Σ_θ {}",
        "sum_over": "Σ_{1} {0}",
        "amax_over": "max_{1} {0}",
        "size_over": "n_{1}",
        "matmul": "{} @ {}",
        "transpose": "{}ᵀ",
        "inverse_root": "{}^(−1/{})",
        "unfold": "mat_{1}({0})",
        "fold": "ten_{1}({0})",
        "eye": "I",
        "orthogonalize": "NS_{1}({0})",
        "rounded": "{1}({0})",
        "qr": "Q({})",
        "eigenvectors": "V({})",
        "eigenvalues": "Λ({})",
        "within": "Σ_B {0}",
        "heights": "n_B",
        "arranged": "sort({}, {})",
        "remainder": "{} mod {}",
        "resolution": "εₘ",
        "when": "({1} if {0}, else {2})",
        "maximum": "max({}, {})",
        "minimum": "min({}, {})",
        "where": "({1} if {0}, else {2})",
        **{word: f"{word}({{}})" for word in ("sign", "single", "exp", "log", "sin", "cos", "tanh")},
    }

    def join(self, op: str, parts: list[str]) -> str:
        if op == "sqrt" and parts[0].isalnum():
            return f"√{parts[0]}"
        return f"{parts[0]}²" if op == "pow" and parts[1] == "2" else super().join(op, parts)

    def letter(self, name: str, index: str) -> str:
        base, _, sub = name.partition("_")
        if base not in GREEK and len(base) > 1:
            base, sub = name, ""
        if len(sub) > 1:
            return f"{GREEK.get(base, base)}_{sub}{index.translate(_SUB)}"
        return GREEK.get(base, base) + (sub + index).translate(_SUB)

    def brackets(self, text: str) -> str:
        return f"({text})"


def symbol(name: str) -> str:
    """The letter that `plain` writes for the number `name` of a rule: η for ``lr``."""
    return _Plain().show(trace.number(f"h.{name}"), {})[0]


def plain(rule: Rule) -> list[str]:
    """The update of a rule with its options, one line per quantity, derived from its trace."""
    return [f"{left} = {right}" for left, right in _Plain().lines(rule)]


def rows(rule: Rule, ndim: int) -> tuple[list[Symbol | None], list[tuple[str, str]]]:
    """The lines of an update as left and right sides, and the node of each in `trace.rule`; see `Printer.rows`."""
    found = _Plain().rows(rule, ndim)
    return [node for node, _, _ in found], [(left, right) for _, left, right in found]
