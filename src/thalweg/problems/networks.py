"""The networks and metrics that the built-in problems share."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from thalweg.hyperparameters import check
from thalweg.rule import Decay


def mlp(name: str, inputs: int, outputs: int, hidden: Any, dropout: Any, batch_norm: Any) -> Callable[[], nn.Module]:
    """A factory of multilayer perceptrons: linear, batch normalisation if wanted, ReLU, dropout if wanted; … ; linear.

    Args:
        name: the problem's, for errors.
        inputs: number of features per sample.
        outputs: number of classes.
        hidden: the width of the hidden layer, or a sequence of widths; empty for none.
        dropout: the probability of dropping a hidden unit, in [0, 1).
        batch_norm: whether each hidden layer is normalised over the batch (Ioffe & Szegedy 2015).

    Raises:
        ValueError: a setting is out of its range; the message names setting, value and range.
    """
    widths = tuple(cast("list[Any]", hidden)) if isinstance(hidden, tuple | list) else (hidden,)
    if any(isinstance(w, bool) or not isinstance(w, int) or not 1 <= w <= 1_000_000 for w in widths):
        raise ValueError(f"{name}'s hidden is {hidden!r}; allowed are whole numbers in [1, 1000000], as in (128, 64)")
    rate = check(f"{name}'s dropout", dropout, Decay)
    normed = check(f"{name}'s batch_norm", batch_norm, bool)

    def model() -> nn.Module:
        layers: list[nn.Module] = []
        width = inputs
        for wide in widths:
            layers.append(nn.Linear(width, wide))
            if normed:
                layers.append(nn.BatchNorm1d(wide))
            layers.append(nn.ReLU())
            if rate:
                layers.append(nn.Dropout(rate))
            width = wide
        return nn.Sequential(*layers, nn.Linear(width, outputs))

    return model


def whole(name: str, setting: str, value: Any, most: int = 1_000_000) -> int:
    """A whole number in [1, `most`]; ``ValueError`` names the problem, the setting and the value."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{name}'s {setting} is {value!r}; allowed is a whole number in [1, {most}]")
    return value


def convolutional(
    name: str, pixels: tuple[int, int], outputs: int, channels: Any, hidden: Any
) -> Callable[[], nn.Module]:
    """A factory of small convolutional networks: for each number of channels a convolution of 3×3, ReLU and a maximum
    over 2×2 pixels; then a hidden layer, ReLU, and the output.

    Args:
        name: the problem's, for errors.
        pixels: the height and width of an image, which has one channel.
        outputs: number of classes.
        channels: of each convolution.
        hidden: the width of the hidden layer.
    """
    given = cast("tuple[Any, ...]", channels) if isinstance(channels, tuple | list) else (channels,)
    of = [1, *(whole(name, "channels", c, 10_000) for c in given)]
    wide = whole(name, "hidden", hidden)
    height, width = (n >> len(given) for n in pixels)
    if not height * width:
        raise ValueError(f"{name} has {len(given)} convolutions, which leave nothing of {pixels[0]}×{pixels[1]} pixels")

    def model() -> nn.Module:
        layers: list[nn.Module] = []
        for before, after in pairwise(of):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        inside = of[-1] * height * width
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inside, wide), nn.ReLU(), nn.Linear(wide, outputs))

    return model


def autoencoder(widths: Sequence[int]) -> Callable[[], nn.Module]:
    """A factory of networks through layers of these widths and back, with tanh between them; the code and the output
    are linear.
    """
    there = list(pairwise(widths))
    back = [(after, before) for before, after in reversed(there)]

    def half(sizes: Sequence[tuple[int, int]]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for size in sizes:
            layers += [nn.Linear(*size), nn.Tanh()]
        return layers[:-1]

    return lambda: nn.Sequential(*half(there), *half(back))


class Transformer(nn.Module):
    """A small decoder as in nanoGPT (Radford et al. 2019, GPT-2): layer norms first, GELU, a tied embedding.

    Args:
        symbols: number of different characters.
        block: number of characters in a text, at most.
        layers, heads, width: its size; `heads` divides `width`.
    """

    def __init__(self, symbols: int, block: int, layers: int, heads: int, width: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(symbols, width), nn.Embedding(block, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols, bias=False)
        self.head.weight = self.tokens.weight
        for name, p in self.named_parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * layers) if name.endswith("out.weight") else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        """The scores of the next character at each place: (N, T) → (N, T, symbols)."""
        h = self.tokens(x) + self.places.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attention_out = nn.Linear(width, width)
        self.up, self.down_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        x = self.first(h)
        q, k, v = (self._split(part(x)) for part in (self.query, self.key, self.value))
        found = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.attention_out(found.transpose(1, 2).flatten(2))
        return h + self.down_out(nn.functional.gelu(self.up(self.second(h))))

    def _split(self, x: Tensor) -> Tensor:
        """By heads: (N, T, width) → (N, heads, T, width / heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Recurrent(nn.Module):
    """An LSTM that reads characters one after another (Hochreiter & Schmidhuber 1997)."""

    def __init__(self, symbols: int, layers: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(symbols, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, symbols)

    def forward(self, x: Tensor) -> Tensor:
        """The scores of the next character at each place: (N, T) → (N, T, symbols)."""
        return self.head(self.lstm(self.tokens(x))[0])


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """The share of samples whose highest score, of shape (N, classes), is the target's, of shape (N,)."""
    return (prediction.argmax(1) == target).to(torch.float64).mean()
