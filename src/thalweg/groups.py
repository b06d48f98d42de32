"""Parameter groups of common training recipes: no weight decay for biases and norms, learning rates by depth.

The groups contain the parameters' names, so that checkpoints are matched by name.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from thalweg.hyperparameters import check
from thalweg.rule import Fraction, Rate

Group = dict[str, Any]


def no_decay(model: nn.Module, weight_decay: float = 0.01) -> list[Group]:
    """Two groups: matrices and larger with `weight_decay`; biases, norms' scales and other vectors with none.

    As for GPT-3 and in most recipes since, parameters with fewer than two dimensions are not decayed.  Parameters that
    do not require a gradient are left out.
    """
    decay: float = check("weight_decay", weight_decay, Rate)
    named = _trained(model)
    decayed = [(name, p) for name, p in named if p.ndim >= 2]
    others = [(name, p) for name, p in named if p.ndim < 2]
    groups = ({"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def layerwise(model: nn.Module, lr: float, decay: float = 0.8) -> list[Group]:
    """One group per layer; the rate falls by the factor `decay` per layer below the last (Howard & Ruder 2018, ULMFiT).

    Layers are the children of `model`, or of its only child, in order; parameters that belong to no child form a layer
    below all others.
    """
    rate: float = check("lr", lr, Rate)
    share: float = check("decay", decay, Fraction)
    inside, prefix = model, ""
    while len(children := list(inside.named_children())) == 1:
        prefix += f"{children[0][0]}."
        inside = children[0][1]
    layers = ["", *(f"{prefix}{name}." for name, _ in children)]
    members: dict[str, list[tuple[str, Tensor]]] = {layer: [] for layer in layers}
    for name, p in _trained(model):
        owner = next((layer for layer in layers[1:] if name.startswith(layer)), "")
        members[owner].append((name, p))
    filled = [own for own in members.values() if own]
    return [{"params": own, "lr": rate * share**depth} for depth, own in enumerate(reversed(filled))][::-1]


class Routes(list[Group]):
    """Parameter groups whose text says which parameter is in which group, and why.

    Attributes:
        reasons: the rule and the reason of each parameter, by name.
    """

    reasons: dict[str, tuple[str, str]]

    def __str__(self) -> str:
        width = max(map(len, self.reasons), default=0)
        return "\n".join(f"{name:{width}}  {rule}: {reason}" for name, (rule, reason) in self.reasons.items())


def hidden_matrices(
    model: nn.Module,
    rule: Any = "muon",
    others: Any = "adam(lr=3e-4)",
    head: str | nn.Module | None = None,
    split: Mapping[str, int | tuple[int, ...]] | None = None,
) -> Routes:
    """Groups for rules such as Muon: hidden matrices with `rule`, embeddings, the head, gains and biases with `others`.

    ``print(hidden_matrices(model))`` says what goes where, and why.  A tied weight is in one group, once: if it is
    an embedding or the head anywhere, it is not a hidden matrix.

    Args:
        model: the network; parameters that do not require a gradient are left out.
        rule: a rule or its text, for hidden matrices and kernels of convolutions.
        others: a rule or its text, for all other parameters.
        head: the layer that makes the output, or its name; by default the last one with a matrix.
        split: for names, or ends of names, of stacked matrices, of how many blocks of rows they consist, or how many
            rows each has: ``{"attn.c_attn.weight": 3}`` for queries, keys and values of one size.  Each block is then
            stepped as a matrix of its own, by a rule with a setting ``split``, such as Muon.

    Returns:
        A group for each kind of parameter, to be given to `thalweg.Optimizer`.

    Raises:
        ValueError: `head` is not a layer of `model`, or `split` names no hidden matrix or does not divide its rows.
    """
    layers: dict[str, nn.Module] = dict(model.named_modules())  # pyright: ignore[reportUnknownArgumentType]
    owners: dict[Tensor, list[nn.Module]] = {}
    for layer in layers.values():
        for p in layer.parameters(recurse=False):
            owners.setdefault(p, []).append(layer)
    if head is None:
        with_matrix = [layer for layer in layers.values() if any(p.ndim > 1 for p in layer.parameters(recurse=False))]
        last = with_matrix[-1] if with_matrix else None
    else:
        last = layers.get(head) if isinstance(head, str) else head
        if last is None or not any(last is layer for layer in layers.values()):
            raise ValueError(f"head is {head!r}; allowed is a layer of the model or its name: {', '.join(layers)}")
    found = Routes()
    found.reasons = {}
    hidden: dict[int | tuple[int, ...], list[tuple[str, Tensor]]] = {}
    rest: list[tuple[str, Tensor]] = []
    unused = set(split or ())
    for name, p in _trained(model):
        reason = _not_hidden(p, owners[p], last)
        tied = f", tied in {len(owners[p])} layers" if len(owners[p]) > 1 else ""
        if reason:
            found.reasons[name] = str(others), reason + tied
            rest.append((name, p))
            continue
        ends = [end for end in split or () if f".{name}".endswith(f".{end}")]
        blocks = (split or {})[max(ends, key=len)] if ends else 1
        unused -= set(ends)
        found.reasons[name] = str(rule), _shown(p) + _stacked(name, p, blocks) + tied
        hidden.setdefault(blocks, []).append((name, p))
    if unused:
        raise ValueError(
            f"split names {min(unused)!r}, which no hidden matrix is called; they are "
            f"{', '.join(name for members in hidden.values() for name, _ in members) or 'none'}"
        )
    for blocks, members in sorted(hidden.items(), key=lambda item: item[0] != 1):
        found.append({"params": members, "rule": rule} | ({} if blocks == 1 else {"split": blocks}))
    if rest:
        found.append({"params": rest, "rule": others})
    return found


def _stacked(name: str, p: Tensor, blocks: int | tuple[int, ...]) -> str:
    """How a matrix is split."""
    rows = p.shape[0]
    sizes = (rows // blocks,) * blocks if isinstance(blocks, int) and blocks > 0 else blocks
    if not isinstance(sizes, tuple) or sum(sizes) != rows or min(sizes) < 1:
        raise ValueError(
            f"split is {blocks!r} for {name}, which has {rows} rows; allowed is a number that divides them, or a tuple "
            "of numbers that add up to them"
        )
    return "" if len(sizes) == 1 else f", split into {len(sizes)} of {', '.join(map(str, sorted(set(sizes))))} rows"


def _not_hidden(p: Tensor, layers: list[nn.Module], head: nn.Module | None) -> str:
    """Why a parameter is no hidden matrix; empty if it is one."""
    if sum(n > 1 for n in p.shape) < 2:
        return "a gain, a bias or another vector"
    if any(isinstance(layer, nn.Embedding | nn.EmbeddingBag) for layer in layers):
        return "an embedding"
    return "the head, which makes the output" if any(layer is head for layer in layers) else ""


def _shown(p: Tensor) -> str:
    sizes = " × ".join(map(str, p.shape))
    if p.ndim == 2:
        return f"a hidden matrix of {sizes}"
    return f"a kernel of {sizes}, as a matrix of {p.shape[0]} × {p[0].numel()}"


def _trained(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]
