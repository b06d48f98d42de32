"""The workloads: shapes of the parameters of small and well-known models."""

import math
from dataclasses import dataclass
from itertools import pairwise

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Workload:
    """The parameters of a model, as an optimizer sees them.

    Attributes:
        name: its name for ``--workloads``.
        title: its name in tables.
        shapes: one shape per parameter, in the model's order.
    """

    name: str
    title: str
    shapes: tuple[Shape, ...]

    @property
    def parameters(self) -> int:
        """The number of elements of all parameters together."""
        return sum(map(math.prod, self.shapes))


def layers(*widths: int) -> list[Shape]:
    """Fully connected layers: weights of (out, in) and biases."""
    shapes: list[Shape] = []
    for n_in, n_out in pairwise(widths):
        shapes += [(n_out, n_in), (n_out,)]
    return shapes


def resnet18() -> list[Shape]:
    """ResNet-18 for 1,000 classes.  He et al. 2016, table 1, with the shortcuts as torchvision has them."""

    def convolution(n_out: int, n_in: int, size: int) -> list[Shape]:
        return [(n_out, n_in, size, size), (n_out,), (n_out,)]  # with its batch normalization

    shapes = convolution(64, 3, 7)
    width = 64
    for n_out in (64, 128, 256, 512):
        for n_in in (width, n_out):
            shapes += convolution(n_out, n_in, 3) + convolution(n_out, n_out, 3)
            if n_in != n_out:
                shapes += convolution(n_out, n_in, 1)
        width = n_out
    return [*shapes, *layers(512, 1000)]


def gpt2_small() -> list[Shape]:
    """GPT-2 small, its output layer tied to the embedding.  Radford et al. 2019, table 2."""
    width, depth, words, context = 768, 12, 50_257, 1_024
    norm: list[Shape] = [(width,), (width,)]
    attention: list[Shape] = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    network: list[Shape] = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(words, width), (context, width), *depth * [*norm, *attention, *norm, *network], *norm]


def _workload(name: str, title: str, shapes: list[Shape]) -> tuple[str, Workload]:
    return name, Workload(name, title, tuple(shapes))


WORKLOADS = dict([
    _workload("mlp", "MLP 784-128-64-10", layers(784, 128, 64, 10)),
    _workload("tiny", "1,000 tensors of 32", 1_000 * [(32,)]),
    _workload("small", "148 small tensors", 100 * [(64, 64)] + 48 * [(64,)]),
    _workload("1m", "1 tensor of 1 M", [(1_000_000,)]),
    _workload("resnet18", "ResNet-18", resnet18()),
    _workload("33m", "1 tensor of 33.5 M", [(2**25,)]),
    _workload("gpt2", "GPT-2 small", gpt2_small()),
])  # fmt: skip
"""Every workload by name, the small ones first."""
