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


def _trained(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]
