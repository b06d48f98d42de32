"""Parameter groups of common training recipes: no weight decay for biases and norms, learning rates by depth.

The groups contain the parameters' names, so that checkpoints are matched by name.
"""

from typing import Any

from torch import Tensor, nn

from thalweg.rule import Fraction, Rate, check

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
    model: nn.Module, rule: Any = "muon", others: Any = "adam(lr=3e-4)", head: str | nn.Module | None = None
) -> Routes:
    """Groups for rules such as Muon: hidden matrices with `rule`, embeddings, the head, gains and biases with `others`.

    ``print(hidden_matrices(model))`` says what goes where, and why.  A tied weight is in one group, once: if it is
    an embedding or the head anywhere, it is not a hidden matrix.

    Args:
        model: the network; parameters that do not require a gradient are left out.
        rule: a rule or its text, for hidden matrices and kernels of convolutions.
        others: a rule or its text, for all other parameters.
        head: the layer that makes the output, or its name; by default the last one with a matrix.

    Returns:
        One group or two, to be given to `thalweg.Optimizer`.

    Raises:
        ValueError: `head` is not a layer of `model`.
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
    hidden: list[tuple[str, Tensor]] = []
    rest: list[tuple[str, Tensor]] = []
    for name, p in _trained(model):
        reason = _not_hidden(p, owners[p], last)
        tied = f", tied in {len(owners[p])} layers" if len(owners[p]) > 1 else ""
        found.reasons[name] = (str(others), reason + tied) if reason else (str(rule), _shown(p) + tied)
        (rest if reason else hidden).append((name, p))
    for members, own in ((hidden, rule), (rest, others)):
        if members:
            found.append({"params": members, "rule": own})
    return found


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
