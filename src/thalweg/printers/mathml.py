"""An update as MathML, which browsers render natively: for pages that must work without a network."""

from thalweg.printers.formula import Printer
from thalweg.printers.plain import GREEK
from thalweg.rule import Rule

_SIGNS = {"add": "+", "sub": "−", "lt": "&lt;", "le": "≤", "gt": "&gt;", "ge": "≥", "eq": "=", "ne": "≠"}


def _call(name: str, *operands: str) -> str:
    return f"<mi>{name}</mi><mo>(</mo>{'<mo>,</mo>'.join(operands)}<mo>)</mo>"


def _called(name: str) -> str:
    """A call of one operand, with an index."""
    return f"<msub><mi>{name}</mi><mn>{{1}}</mn></msub><mo>(</mo>{{0}}<mo>)</mo>"


class _MathML(Printer):
    operations = {
        **{op: f"{{}}<mo>{sign}</mo>{{}}" for op, sign in _SIGNS.items()},
        **{word: _call(word, "{}") for word in ("sign", "single", "exp", "log", "sin", "cos", "tanh")},
        "mul": "{}<mspace width='0.17em'/>{}",
        "div": "<mfrac><mrow>{}</mrow><mrow>{}</mrow></mfrac>",
        "pow": "<msup><mrow>{}</mrow><mrow>{}</mrow></msup>",
        "neg": "<mo form='prefix'>−</mo>{}",
        "nabla": "<mi>∇</mi><mi>f</mi><mrow><mo>(</mo>{}<mo>)</mo></mrow>",
        "sqrt": "<msqrt>{}</msqrt>",
        "cbrt": "<mroot><mrow>{}</mrow><mn>3</mn></mroot>",
        "abs": "<mo form='prefix'>|</mo>{}<mo form='postfix'>|</mo>",
        "norm": "<mo form='prefix'>‖</mo>{}<mo form='postfix'>‖</mo>",
        "sum": "<mo>∑</mo>{}",
        "size": "<mi>n</mi>",
        "total": "<msub><mo>∑</mo><mi>θ</mi></msub>{}",
        "sum_over": "<msub><mo>∑</mo><mi>{1}</mi></msub>{0}",
        "amax_over": "<msub><mi>max</mi><mi>{1}</mi></msub>{0}",
        "size_over": "<msub><mi>n</mi><mi>{1}</mi></msub>",
        "matmul": "{}<mspace width='0.17em'/>{}",
        "transpose": "<msup><mrow>{}</mrow><mi>⊤</mi></msup>",
        "inverse_root": "<msup><mrow>{}</mrow><mrow><mo form='prefix'>−</mo><mn>1</mn><mo>/</mo><mn>{}</mn></mrow>"
        "</msup>",
        "unfold": _called("mat"),
        "fold": _called("ten"),
        "eye": "<mi>I</mi>",
        "orthogonalize": _called("NS"),
        "rounded": _call("{1}", "{0}"),
        "qr": _call("Q", "{}"),
        "eigenvectors": _call("V", "{}"),
        "eigenvalues": _call("Λ", "{}"),
        "within": "<msub><mo>∑</mo><mi>B</mi></msub>{0}",
        "heights": "<msub><mi>n</mi><mi>B</mi></msub>",
        "arranged": _call("sort", "{}", "{}"),
        "remainder": "{}<mo>mod</mo>{}",
        "resolution": "<msub><mi>ε</mi><mi>m</mi></msub>",
        "maximum": _call("max", "{}", "{}"),
        "minimum": _call("min", "{}", "{}"),
        **dict.fromkeys(
            ("where", "when"),
            "<mrow><mo>{{</mo><mtable class='cases'><mtr><mtd>{1}</mtd><mtd><mtext>if </mtext>{0}</mtd></mtr>"
            "<mtr><mtd>{2}</mtd><mtd><mtext>otherwise</mtext></mtd></mtr></mtable></mrow>",
        ),
    }

    def join(self, op: str, parts: list[str]) -> str:
        if op == "mul" and parts[0].endswith("</mn>") and parts[1].startswith("<mn>"):
            return f"{parts[0]}<mo>·</mo>{parts[1]}"
        return super().join(op, parts)

    def letter(self, name: str, index: str) -> str:
        base, _, sub = name.partition("_")
        if base not in GREEK and len(base) > 1:
            base, sub = name, ""
        steps = {"t": "<mi>t</mi>", "t-1": "<mi>t</mi><mo>−</mo><mn>1</mn>"}
        below = "<mo>,</mo>".join(x for x in (f"<mi>{sub}</mi>" if sub else "", steps.get(index, "")) if x)
        letter = f"<mi>{GREEK.get(base, base)}</mi>"
        return f"<msub>{letter}<mrow>{below}</mrow></msub>" if below else letter

    def constant(self, x: float) -> str:
        mantissa, _, exponent = f"{x:g}".partition("e")
        power = f"<mo>·</mo><msup><mn>10</mn><mn>{int(exponent)}</mn></msup>" if exponent else ""
        return f"<mn>{mantissa}</mn>{power}"

    def brackets(self, text: str) -> str:
        return f"<mrow><mo>(</mo>{text}<mo>)</mo></mrow>"

    def wraps(self, op: str) -> bool:
        return op != "div" and super().wraps(op)

    def binding(self, op: str) -> int:
        # A fraction needs no brackets, except as the base of a power.
        return 3 if op == "div" else super().binding(op)


def mathml(rule: Rule) -> str:
    """The update of a rule with its options as one ``<math>`` element, one row per quantity, derived from its trace."""
    rows = "".join(
        f"<mtr><mtd class='left'>{left}</mtd><mtd><mo>=</mo></mtd><mtd class='right'>{right}</mtd></mtr>"
        for left, right in _MathML().lines(rule)
    )
    return f"<math display='block'><mtable class='update' displaystyle='true'>{rows}</mtable></math>"
