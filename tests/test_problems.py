"""`Problem`: what it refuses, what it provides to a race, and the built-in problems."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from thalweg import problems
from thalweg.problems import Problem
from thalweg.problems.problem import SPLITS

X, Y = torch.linspace(-1, 1, 24).reshape(12, 2), torch.arange(12) % 3


def problem(**changed: Any) -> Problem:
    settings: dict[str, Any] = {
        "name": "toy",
        "model": lambda: nn.Linear(2, 3),
        "loss": nn.functional.cross_entropy,
        "train": (X, Y),
        "validation": (X[:6], Y[:6]),
        "test": (X[6:], Y[6:]),
        "metric": accuracy,
    }
    return Problem(**(settings | changed))


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction.argmax(1) == target).float().mean()


class Pairs(Dataset[Any]):
    """A data set that counts how many items are read."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.reads = 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return self.items[index]


class Endless(IterableDataset[Any]):
    """A data set without a length."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(X[0], 1)])


ONE = nn.Linear(2, 3)

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": " "}, r"name is ' '"),
    "source": ({"source": 3}, r"source is 3"),
    "model that is made": ({"model": nn.Linear(2, 3)}, r"model is a Linear; wanted is a factory"),
    "loss that is no function": ({"loss": 0.5}, r"loss is 0\.5; wanted is something to call"),
    "direction": ({"higher_is_better": "yes"}, r"higher_is_better is 'yes'"),
    "batch size": ({"batch_size": 0}, r"batch_size is 0; wanted is a whole number >= 1"),
    "batch size of kind": ({"batch_size": 2.5}, r"batch_size is 2\.5"),
    "target": ({"target": float("nan")}, r"target is nan"),
    "empty": ({"train": (X[:0], Y[:0])}, r"the train set is empty"),
    "empty data set": ({"test": Pairs([])}, r"the test set is empty"),
    "lengths": ({"validation": (X, Y[:5])}, r"the validation set has 12 inputs and 5 targets"),
    "no pair": ({"train": X}, r"the train set is a tensor of shape \(12, 2\); wanted is a pair"),
    "three": ({"train": (X, Y, Y)}, r"the train set is a tuple; wanted is a pair"),
    "no tensors": ({"train": ([1.0], [2])}, r"the train set has a list for inputs"),
    "no rows": ({"train": (X, torch.tensor(1))}, r"the train set has a tensor of shape \(\) for targets"),
    "no length": ({"train": Endless()}, r"has no length"),
    "odd item": ({"train": Pairs([(X[0], 1), "ab!"])}, r"item 1 is no pair"),
    "ragged": ({"train": Pairs([(X[0], 1), (X[0, :1], 1)])}, r"items of several shapes"),
}

FAILS: dict[str, tuple[dict[str, Any], str]] = {
    "model of another kind": ({"model": lambda: "resnet"}, r"returns 'resnet'; wanted is a torch.nn.Module"),
    "factory raises": ({"model": lambda: nn.Linear(2, cast(Any, "3"))}, r"the model factory raises TypeError"),
    "no parameters": ({"model": nn.Flatten}, r"no trainable parameters"),
    "frozen": ({"model": lambda: nn.Linear(2, 3).requires_grad_(False)}, r"no trainable parameters"),
    "not fresh": ({"model": lambda: ONE}, r"one and the same model twice"),
    "model misfits": (
        {"model": lambda: nn.Linear(5, 3)},
        r"the model on a batch of shape \(8, 2\) raises RuntimeError",
    ),
    "loss of a shape": ({"loss": nn.CrossEntropyLoss(reduction="none")}, r"the loss has shape \(8,\); wanted is one"),
    "loss that raises": ({"loss": nn.functional.mse_loss}, r"the loss on .* raises"),
    "loss that is a float": ({"loss": lambda p, y: 0.5}, r"the loss is 0\.5; wanted is a tensor"),  # pyright: ignore
    "loss of integers": ({"loss": lambda p, y: p.argmax(1).sum()}, r"the loss is of torch.int64"),  # pyright: ignore
    "loss that is cut off": ({"loss": lambda p, y: p.detach().mean()}, r"the loss does not depend"),  # pyright: ignore
    "loss of something else": (
        {"loss": lambda p, y: torch.ones((), requires_grad=True) * 2},  # pyright: ignore
        r"gives no parameter of the model a gradient",
    ),
    "broadcast": (
        {
            "model": lambda: nn.Linear(2, 1),
            "loss": nn.functional.mse_loss,
            **dict.fromkeys(SPLITS, (X, X[:, 0])),
        },
        r"the loss on .* raises UserWarning: Using a target size",
    ),
    "metric a sample": ({"metric": lambda p, y: p.argmax(1) == y}, r"the metric is a tensor of shape \(6,\)"),  # pyright: ignore
    "metric in words": ({"metric": lambda p, y: "good"}, r"the metric is 'good'; wanted is one number"),  # pyright: ignore
    "metric of nothing": ({"metric": lambda p, y: None}, r"the metric is None; wanted is one number"),  # pyright: ignore
    "metric raises": ({"metric": lambda p, y: 1 / 0}, r"the metric raises ZeroDivisionError"),  # pyright: ignore
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_a_problem_is_refused_in_a_sentence(case: str):
    changed, said = WRONG[case]
    with pytest.raises(ValueError, match=said) as caught:
        problem(**changed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", FAILS)
def test_what_would_fail_in_a_race_is_found_before_it(case: str):
    changed, said = FAILS[case]
    made = problem(**changed)
    with pytest.raises(ValueError, match=said) as caught:
        made.check()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("problem 'toy': ")


@pytest.mark.parametrize(
    "metric",
    [accuracy, lambda p, y: 1, lambda p, y: torch.tensor([0.5])],  # pyright: ignore
    ids=["tensor", "int", "one element"],
)
def test_a_sound_problem_passes_and_leaves_the_random_numbers_alone(metric: Callable[[Tensor, Tensor], Any]):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    made = problem(metric=metric, model=lambda: nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5)))
    made.check()
    made.fingerprint()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_data_set_is_read_once_and_becomes_tensors():
    items = Pairs([(x.numpy(), int(y)) for x, y in zip(X, Y, strict=True)])
    made = problem(train=items, validation=TensorDataset(X, Y))
    made.check()
    made.tensors("train")
    x, y = made.tensors("train")
    assert items.reads == len(items)
    assert torch.equal(x, X)
    assert torch.equal(y, Y)
    assert made.tensors("validation")[0] is X


def test_evaluation_is_exact_over_chunks_and_gives_the_training_mode_back():
    x = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    made = problem(test=(x, y), model=lambda: nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3), nn.Dropout(0.9)))
    model = made.model()
    loss, metric = made.evaluate(model, "test")
    assert model.training
    model.eval()
    with torch.no_grad():
        assert loss == pytest.approx(float(nn.functional.cross_entropy(model(x), y)), rel=1e-6)
        assert metric == float(accuracy(model(x), y))


def test_a_fingerprint_is_reproducible_and_changes_with_each_part():
    changed: list[dict[str, Any]] = [
        {},
        {"name": "other"},
        {"batch_size": 32},
        {"target": 0.5},
        {"higher_is_better": False},
        {"metric_name": "share"},
        {"model": lambda: nn.Linear(2, 4)},
        {"model": lambda: nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.1))},
        {"model": lambda: nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.2))},
        {"loss": nn.CrossEntropyLoss()},
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        {"loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))},
        {"loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0]))},
        {"loss": partial(nn.functional.cross_entropy, label_smoothing=0.1)},
        {"loss": partial(nn.functional.cross_entropy, label_smoothing=0.2)},
        {"metric": nn.functional.cross_entropy},
        {"train": (X + 1e-6, Y)},
        {"train": (X.double(), Y)},
        {"train": (X[1:], Y[1:])},
        {"validation": (X, Y)},
        {"test": (X[6:].reshape(6, 2).flip(0), Y[6:])},
    ]
    prints = [problem(**change).fingerprint() for change in changed]
    assert len(set(prints)) == len(prints)
    assert prints == [problem(**change).fingerprint() for change in changed]


def test_the_source_of_the_data_is_not_part_of_the_fingerprint():
    assert problem(source="here").fingerprint() == problem(source="there").fingerprint()


@pytest.mark.parametrize("text", ["digits", "digits(hidden=(16, 8), dropout=0.2, batch_norm=True)", "logistic"])
def test_the_digits_are_whole_split_by_class_and_always_the_same(text: str):
    made = problems.get(text)
    made.check()
    sizes = {split: len(made.tensors(split)[0]) for split in SPLITS}
    assert sizes == {"train": 1077, "validation": 360, "test": 360}
    rows = torch.cat([made.tensors(split)[0] for split in SPLITS])
    assert rows.dtype == torch.float32
    assert (float(rows.min()), float(rows.max())) == (0.0, 1.0)
    from sklearn import datasets

    theirs = torch.tensor(cast(Any, datasets).load_digits().data / 16, dtype=torch.float32)
    assert sorted(row.numpy().tobytes() for row in rows) == sorted(row.numpy().tobytes() for row in theirs)
    for split in ("validation", "test"):
        counts = made.tensors(split)[1].bincount(minlength=10)
        assert int(counts.max() - counts.min()) <= 2
    assert problems.get(text).fingerprint() == made.fingerprint()


def test_settings_shape_the_network():
    made = problems.get("digits(hidden=(16, 8), dropout=0.25, batch_norm=True)").model()
    kinds = [type(layer).__name__ for layer in cast(nn.Sequential, made)]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2 + ["Linear"]
    shapes = [tuple(p.shape) for name, p in made.named_parameters() if p.ndim == 2 and name]
    assert shapes == [(16, 64), (8, 16), (10, 8)]
    assert cast(Any, made)[3].p == 0.25


def test_the_logistic_problem_is_convex():
    made = problems.get("logistic")
    x, y = (values[:200].double() if values.is_floating_point() else values[:200] for values in made.tensors("train"))
    model = made.model().double()
    shapes = {name: p.shape for name, p in model.named_parameters()}
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])

    def loss(theta: Tensor) -> Tensor:
        parts = cast("tuple[Tensor, ...]", theta.split([shape.numel() for shape in shapes.values()]))
        named = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return made.loss(torch.func.functional_call(model, named, (x,)), y)

    hessian = cast(Tensor, torch.autograd.functional.hessian(loss, theta))
    curvature: Tensor = cast(Any, torch.linalg).eigvalsh(hessian)
    assert float(curvature.min()) > -1e-12
    assert float(curvature.max()) > 1e-2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("digit", r"there is no problem 'digit'; did you mean 'digits'"),
        ("fashion_mnst", r"did you mean 'fashion-mnist'"),
        ("digits(dropuot=0.1)", r"digits has no setting 'dropuot'; it has hidden, dropout, batch_norm; did you mean"),
        ("mnist(data=here)", r"mnist has no setting 'data'"),
        ("logistic(hidden=3)", r"logistic has no setting 'hidden'; it has none"),
        ("digits(dropout=1)", r"digits's dropout is 1; allowed is a number in \[0, 1\)"),
        ("digits(batch_norm=1)", r"digits's batch_norm is 1; allowed is True or False"),
        ("digits(hidden=(8, 0))", r"digits's hidden is \(8, 0\); allowed are whole numbers in \[1,"),
        ("digits(hidden=wide)", r"digits's hidden is 'wide'"),
        ("mnist(dropout=-1)", r"mnist's dropout is -1"),
        ("digits(", r"cannot be read"),
        ("", r"cannot be read"),
        (
            "my-folder/mine.py:make",
            r"my-folder/mine\.py:make is a file, not the name of a problem; read it by problems\.read",
        ),
        ("my folder/noisy-quadratic", r"'my folder/noisy-quadratic' cannot be read"),
    ],
)
def test_a_problem_that_is_not_there_gets_a_sentence(text: str, said: str):
    with pytest.raises(ValueError, match=said):
        problems.get(text)


def test_a_data_folder_is_refused_by_problems_that_read_none():
    with pytest.raises(ValueError, match=r"digits brings its own data; leave --data folder out"):
        problems.get("digits", data=Path("folder"))


@given(st.text(max_size=40))
def test_any_other_text_gets_a_sentence(text: str):
    assume(text.strip().lower() not in problems.names())
    with pytest.raises(ValueError, match=r"."):
        problems.get(text)
