"""Recipes for parameter groups."""

import re

import pytest
import torch
from torch import nn

import thalweg
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


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.kernel = nn.Conv2d(2, 3, 2)
        self.hidden = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.table.weight


def test_hidden_matrices_are_told_from_all_others() -> None:
    own = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    routes = groups.hidden_matrices(own, "muon(lr=0.01)", "adam")
    hidden, rest = ([name for name, _ in group["params"]] for group in routes)
    assert hidden == ["1.weight"]
    assert rest == ["0.weight", "1.bias", "2.weight", "2.bias", "3.weight", "3.bias"]
    said = str(routes)
    assert re.search(r"^1.weight +muon\(lr=0.01\): a hidden matrix of 5 × 4$", said, re.MULTILINE)
    assert re.search(r"^0.weight +adam: an embedding$", said, re.MULTILINE)
    assert re.search(r"^3.weight +adam: the head, which makes the output$", said, re.MULTILINE)
    assert re.search(r"^2.bias +adam: a gain, a bias or another vector$", said, re.MULTILINE)
    optimizer = thalweg.Optimizer(routes, "sgd")
    assert [type(group["rule"]).__name__ for group in optimizer.param_groups] == ["Muon", "Adam"]
    own(torch.tensor([[1, 2]])).sum().backward()
    optimizer.step()


class Attention(nn.Module):
    """A block as nanoGPT has it."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Linear(4, 12)
        self.c_proj = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)


def test_stacked_matrices_are_split_on_request() -> None:
    own = Attention()
    routes = groups.hidden_matrices(own, split={"c_attn.weight": 3})
    assert [[name for name, _ in group["params"]] for group in routes[:2]] == [["c_proj.weight"], ["c_attn.weight"]]
    assert "c_attn.weight  muon: a hidden matrix of 12 × 4, split into 3 of 4 rows" in str(routes)
    optimizer = thalweg.Optimizer(routes, "sgd")
    assert [group["rule"].options.get("split") for group in optimizer.param_groups] == [1, 3, None]
    again = thalweg.Optimizer(groups.hidden_matrices(own, split={"c_attn.weight": (4, 8)}), "sgd")
    with pytest.raises(
        ValueError, match=r"stepped by Muon\(split=3\), this optimizer's rule is Muon\(split=\(4, 8\)\)"
    ):
        again.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            {"c_atn.weight": 3},
            "split names 'c_atn.weight', which no hidden matrix is called; they are c_attn.weight, c_pr",
        ),
        (
            {"c_attn.weight": 5},
            "split is 5 for c_attn.weight, which has 12 rows; allowed is a number that divides them",
        ),
        ({"c_attn.weight": (4, 4)}, r"split is \(4, 4\) for c_attn.weight, which has 12 rows"),
    ],
)
def test_splits_that_do_not_fit(split: dict[str, int | tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        groups.hidden_matrices(Attention(), split=split)


def test_a_rule_that_splits_nothing_says_so() -> None:
    routes = groups.hidden_matrices(Attention(), "soap", split={"c_attn.weight": 3})
    with pytest.raises(
        ValueError, match="a group has split=3, and SOAP splits no matrices; give these parameters a rule"
    ):
        thalweg.Optimizer(routes, "sgd")


def test_tied_weights_are_routed_once() -> None:
    routes = groups.hidden_matrices(Tied())
    hidden, rest = ([name for name, _ in group["params"]] for group in routes)
    assert hidden == ["kernel.weight", "hidden.weight"]
    assert rest.count("table.weight") == 1
    assert "out.weight" not in rest
    assert "table.weight   adam(lr=3e-4): an embedding, tied in 2 layers" in str(routes)
    assert "a kernel of 3 × 2 × 2 × 2, as a matrix of 3 × 8" in str(routes)


def test_the_head_can_be_named() -> None:
    named = groups.hidden_matrices(Tied(), head="hidden")
    assert "hidden.weight" in [name for name, _ in named[1]["params"]]
    with pytest.raises(ValueError, match=r"head is 'tail'; allowed is a layer of the model or its name: .*hidden"):
        groups.hidden_matrices(Tied(), head="tail")


@pytest.mark.parametrize(("decay", "lr"), [(1.5, 0.1), (0.5, -1.0)])
def test_bad_settings(decay: float, lr: float) -> None:
    with pytest.raises(ValueError, match=r"decay is 1\.5|lr is -1\.0"):
        groups.layerwise(model(), lr, decay)
