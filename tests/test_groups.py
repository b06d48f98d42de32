"""Recipes for parameter groups."""

import pytest
import torch
from torch import nn

from thalweg import groups, optim


def model() -> nn.Module:
    return nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 3), nn.Linear(3, 2, bias=False))


def test_vectors_are_not_decayed() -> None:
    own = model()
    optimizer = optim.AdamW(groups.no_decay(own, 0.1))
    decays = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    assert decays == {"0.weight": 0.1, "2.weight": 0.1, "3.weight": 0.1, "1.weight": 0, "1.bias": 0, "2.bias": 0}


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    own = model()
    own[0].requires_grad_(False)  # pyright: ignore
    names = [name for group in groups.no_decay(own) for name, _ in group["params"]]
    assert "0.weight" not in names
    assert len(groups.no_decay(nn.Linear(2, 2, bias=False))) == 1


def test_rates_fall_with_depth() -> None:
    made = groups.layerwise(nn.Sequential(model()), 1.0, 0.5)
    assert [group["lr"] for group in made] == [0.125, 0.25, 0.5, 1.0]
    assert [[name for name, _ in group["params"]] for group in made] == [
        ["0.0.weight"], ["0.1.weight", "0.1.bias"], ["0.2.weight", "0.2.bias"], ["0.3.weight"],
    ]  # fmt: skip


def test_one_layer_keeps_its_rate() -> None:
    (group,) = groups.layerwise(nn.Linear(2, 2), 0.1)
    assert group["lr"] == 0.1
    assert len(group["params"]) == 2
    torch.optim.SGD([group])


@pytest.mark.parametrize(("decay", "lr"), [(1.5, 0.1), (0.5, -1.0)])
def test_bad_settings(decay: float, lr: float) -> None:
    with pytest.raises(ValueError, match=r"decay is 1\.5|lr is -1\.0"):
        groups.layerwise(model(), lr, decay)
