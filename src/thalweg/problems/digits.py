"""scikit-learn's handwritten digits: real images that need no download."""

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from thalweg.problems.networks import accuracy, mlp
from thalweg.problems.problem import Problem

_SOURCE = "1,797 handwritten digits of 8×8 pixels by 43 people (Alpaydin & Kaynak 1998, UCI; shipped with scikit-learn)"


def digits(*, hidden: Any = 64, dropout: Any = 0.0, batch_norm: Any = False) -> Problem:
    """Handwritten digits, 8×8 pixels, by a multilayer perceptron, 64-64-10."""
    return _problem("digits", mlp("digits", 64, 10, hidden, dropout, batch_norm), target=0.96)


def logistic() -> Problem:
    """Handwritten digits, 8×8 pixels, by multinomial logistic regression: a convex loss."""
    return _problem("logistic", lambda: nn.Linear(64, 10), target=0.94)


def _problem(name: str, model: Any, target: float) -> Problem:
    train, validation, test = _splits()
    return Problem(
        name=name,
        model=model,
        loss=nn.functional.cross_entropy,
        train=train,
        validation=validation,
        test=test,
        metric=accuracy,
        target=target,
        source=_SOURCE,
        steps=300,  # 18 epochs: only the fast methods have converged; seven entries race within a minute
    )


@cache
def _splits() -> tuple[tuple[Tensor, Tensor], ...]:
    """Splits of three fifths, one fifth and one fifth, stratified by digit; always the same."""
    # scikit-learn belongs to the lab extra, and is not needed for users' own problems.
    try:
        from sklearn import datasets, model_selection
    except ImportError:
        raise ValueError("the digits come with scikit-learn, which is missing; pip install 'thalweg[lab]'") from None

    images, labels = cast(Any, datasets).load_digits(return_X_y=True)
    split = cast(Any, model_selection).train_test_split
    x, x_test, y, y_test = split(images / 16, labels, test_size=360, stratify=labels, random_state=0)
    x_train, x_validation, y_train, y_validation = split(x, y, test_size=360, stratify=y, random_state=0)

    def pair(x: Any, y: Any) -> tuple[Tensor, Tensor]:
        return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.int64)

    return pair(x_train, y_train), pair(x_validation, y_validation), pair(x_test, y_test)
