"""A rule's update as lines of text, for people: the common part of LaTeX and plain text."""

from collections.abc import Iterator, Mapping

from thalweg import trace
from thalweg.rule import Rule
from thalweg.symbols import Symbol

_GREEK = {
    "lr": "eta", "beta1": "beta_1", "beta2": "beta_2", "beta3": "beta_3", "warmup": "T", "momentum": "mu",
    "dampening": "tau", "decay": "rho", "eps": "epsilon", "eps_root": "epsilon_r", "momentum_decay": "psi",
    "lambd": "lambda", "lr_decay": "kappa", "nu": "nu", "nu1": "nu_1", "nu2": "nu_2", "alpha": "alpha", "t0": "t_0",
    "eta_minus": "eta_-", "eta_plus": "eta_+", "step_min": "s_min", "step_max": "s_max", "threshold": "rho_0",
    "rho": "rho", "trust": "zeta", "least": "n_min", "beta": "beta", "power": "p", "rms": "zeta", "safety": "gamma",
    "offset": "tau", "eps_scale": "epsilon_s", "clip": "d", "size": "r", "first": "r", "d0": "d_0", "d_coef": "c",
    "growth": "gamma", "eps_res": "epsilon_u", "gamma": "gamma", "trust_eps": "epsilon_n", "most": "n_max",
    "vector_rate": "kappa", "vector_beta1": "beta_3", "vector_beta2": "beta_4", "vector_lambd": "lambda_1",
    "factor_beta": "beta_3", "decoupling": "C",
}  # fmt: skip
_LETTERS = {
    "momentum_buffer": "v", "exp_avg": "m", "exp_avg_sq": "v", "max_exp_avg_sq": "w", "square_avg": "r", "sum": "r",
    "grad_avg": "c", "acc_delta": "a", "exp_inf": "u", "prev": "h", "step_size": "s", "mu_product": "Pi", "ax": "a",
    "eta": "e", "mu": "q", "exp_avg_slow": "m_2", "exp_avg_turned": "m_q", "exp_avg_diff": "d", "offset": "d",
    "weight_sum": "w", "lr_max": "gamma", "slow_params": "phi", "counter": "j", "second_momentum_buffer": "n",
    "row_var": "r", "col_var": "c", "variance": "v", "exp_avg_sq_row": "r", "exp_avg_sq_col": "c",
    "exp_avg_res_row": "r_u", "exp_avg_res_col": "c_u", "accumulator": "a", "initial": "o", "distance": "d",
    "square_distance": "d", "squares": "u", "p0": "o", "d_max": "a", "numerator": "b", "grad_sum": "s",
    "grad_sum_sq": "r", "last_grad": "h",
    "factor": "L", "root": "P", "basis": "Q", "averages": "a",
}  # fmt: skip
_SHARED = ("x", "y", "z", "k", "l", "q")

# How tightly each operation binds; a looser operand is put in brackets.
_BINDING = {
    "add": 1, "sub": 1, "sum": 2, "sum_over": 2, "within": 2, "amax_over": 2, "total": 2, "neg": 2, "mul": 2, "div": 2,
    "matmul": 2, "remainder": 2, "pow": 4, "transpose": 4, "inverse_root": 4,
}  # fmt: skip
_ATOM = 9
_TWO = Symbol("const", (2.0,), "number")
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")

_AXES = "ijklmnab"

Text = tuple[str, int]


class Printer:
    """Prints expressions bottom up; a subclass says how each operation and name looks."""

    operations: Mapping[str, str]
    """How each operation looks, with ``{}`` for its operands; and ``nabla``, the gradient at a point."""

    def letter(self, name: str, index: str) -> str:
        """A name, such as ``beta_1``, with the index of its step: ``"t"``, ``"t-1"`` or none."""
        raise NotImplementedError

    def constant(self, x: float) -> str:
        """A constant."""
        return f"{x:g}"

    def join(self, op: str, parts: list[str]) -> str:
        """The text of an operation on the texts of its operands."""
        return self.operations[op].format(*parts)

    def how(self, node: Symbol) -> tuple[str, ...]:
        """The texts of what an operation depends on besides its operands, such as the axes that are summed over."""
        if node.op in ("sum_over", "amax_over", "size_over"):
            return ("".join(_AXES[k] for k in node.how),)
        if node.op in ("unfold", "fold"):
            return (str(node.how[0] + 1),)
        if node.op == "rounded":
            return (str(node.how[0]).removeprefix("torch."),)
        if node.op == "orthogonalize":  # B stands for the blocks of rows
            return (f"{node.how[0]:g}" + (",B" if len(node.how) > 3 else ""),)
        return (f"{node.how[0]:g}",) if node.op == "inverse_root" else ()

    def brackets(self, text: str) -> str:
        """`text` in brackets."""
        raise NotImplementedError

    def binding(self, op: str) -> int:
        """How tightly the text of an operation binds."""
        return _BINDING.get(op, 0 if op in COMPARISONS else _ATOM)

    inside: tuple[str, ...] = ()
    """The names of the rules inside the one that is printed, which the names of their settings and state begin with."""

    def called(self, name: str, letters: Mapping[str, str]) -> str:
        """The letter of a name; of a rule inside, with the name of that rule as its index."""
        for base in self.inside:
            if name.startswith((f"{base}.", f"{base}_")) and name not in letters:
                letter = self.called(name[len(base) + 1 :], letters)
                return f"{letter},{base}" if "_" in letter else f"{letter}_{base}"
        return letters.get(name, name)

    def lines(self, rule: Rule) -> list[tuple[str, str]]:
        """The update as pairs of a left and a right side, each using those above it: of a matrix, if that matters."""
        return [(left, right) for _, left, right in self.rows(rule.fit(rule.shown_for), 2)]

    def rows(self, rule: Rule, ndim: int) -> list[tuple[Symbol | None, str, str]]:
        """As `lines`, for a rule as it is for a shape of `ndim` axes; with the node of each line in `trace.rule`.

        The line that says where a lookahead method takes the gradient has no node.
        """
        traced = trace.rule(rule, ndim)
        self.inside = tuple(_bases(rule))
        names: dict[Symbol, str] = {}
        shared = iter(_SHARED)
        for name, node in traced.outputs.items():
            if node.op not in ("input", "const"):
                names[node] = self._field(name[2:], "t") if name != "p" else self.letter("theta", "t")
        uses = traced.uses()
        for node in traced.nodes:
            worth = _size(node) > (7 if node.kind == "number" else 2) and node.op != "unfold"
            if uses[node] > 1 and worth and node not in names and node.op not in COMPARISONS:
                names[node] = self.letter(next(shared, f"x_{len(names)}"), "t")
        ahead = trace.point(rule, ndim)
        rows: list[tuple[Symbol | None, str, str]] = []
        if ahead is not None:
            taken = self.operations["nabla"].format(self.show(ahead.outputs["p"], {})[0])
            rows.append((None, self.letter("g", "t"), taken))
        return rows + [(n, names[n], self.show(n, names, top=True)[0]) for n in traced.nodes if n in names]

    def show(self, node: Symbol, names: Mapping[Symbol, str], top: bool = False) -> Text:
        """The text of a node, and how tightly it binds."""
        if node in names and not top:
            return names[node], _ATOM
        if node.op == "input":
            return self._input(node.args[0]), _ATOM
        if node.op == "const":
            return self.constant(node.args[0]), _ATOM if node.args[0] >= 0 else 1
        if node.op == "add" and (right := _negated(node.args[1])) is not None:
            node = Symbol("sub", (node.args[0], right))
        if node.op == "mul" and (square := _square(node)) is not None:
            factor, x = square
            node = Symbol("pow", (x, _TWO)) if factor is None else Symbol("mul", (factor, Symbol("pow", (x, _TWO))))
        if node.op == "sqrt" and (x := _squared(node.args[0])) is not None:
            node = Symbol("norm", (x,))
        binding = self.binding(node.op)
        parts: list[str] = []
        for i, operand in enumerate(node.args):
            text, tight = self.show(operand, names)
            strict = (i == 1 and node.op in ("sub", "div")) or (i == 0 and self.binding(node.op) == _BINDING["pow"])
            parts.append(self.brackets(text) if tight < binding + strict and self.wraps(node.op) else text)
        if node.op == "fold":
            parts = parts[:1]  # not what it is in the shape of
        return self.join(node.op, [*parts, *self.how(node)]), binding

    def wraps(self, op: str) -> bool:
        """Whether a looser operand of `op` needs brackets; inside bars, roots and fractions it does not."""
        return op in _BINDING

    def _input(self, name: str) -> str:
        if name in ("p", "g", "t"):
            return {"p": self.letter("theta", "t-1"), "g": self.letter("g", "t"), "t": self.letter("t", "")}[name]
        group, _, rest = name.partition(".")
        if group == "s":
            return self._field(rest, "t-1")
        return self.letter(self.called(rest, _GREEK), "")

    def _field(self, name: str, index: str) -> str:
        """A field of the state, or one of several arrays in it: of the first axis, of the second …"""
        base, _, k = name.rpartition(".") if name.rpartition(".")[2].isdigit() else (name, "", "")
        letter = self.called(base, _LETTERS)
        return self.letter(f"{letter}_{int(k) + 1}" if k else letter, index)


def _bases(rule: Rule) -> Iterator[str]:
    """The names of all rules inside a rule, those of the innermost ones, too."""
    for name, base in rule.bases.items():
        yield name
        yield from _bases(base)


def _negated(node: Symbol) -> Symbol | None:
    """For −x and −x·y …: the same without its sign; else None."""
    if node.op == "neg":
        return node.args[0]
    if node.op in ("mul", "div") and (left := _negated(node.args[0])) is not None:
        return Symbol(node.op, (left, node.args[1]))
    return None


def _square(node: Symbol) -> tuple[Symbol | None, Symbol] | None:
    """For x·x and a·x·x, as rules write squares: the factor a, or None, and x."""
    left, right = node.args
    if left is right:
        return None, right
    return (left.args[0], right) if left.op == "mul" and left.args[1] is right else None


def _squared(node: Symbol) -> Symbol | None:
    """For a sum of squares x·x: x; else None."""
    terms = node.args[0] if node.op == "sum" else None
    return terms.args[0] if terms is not None and terms.op == "mul" and terms.args[0] is terms.args[1] else None


def _size(node: Symbol) -> int:
    return 1 + sum(_size(a) for a in trace.operands(node))
