"""Predicting the next character of a text file: a small transformer and an LSTM."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.problems.networks import Recurrent, Transformer, whole
from thalweg.problems.problem import Problem

_HELD = 20
"""One part in so many is for validation, the last parts but one, and as much for the test."""
_MOST = 1 << 28
_OR_FOLDER = "or a folder with one text file in it, with --data FILE"


def transformer(
    *,
    data: Path | None = None,
    layers: Any = 2,
    heads: Any = 4,
    width: Any = 64,
    block: Any = 64,
    windows: Any = 200,
) -> Problem:
    """The next character of a text (--data FILE), by a small transformer: 2 layers, 4 heads, 64 wide."""
    name = "char-transformer"
    size = [whole(name, setting, value, 10_000) for setting, value in
            (("block", block), ("layers", layers), ("heads", heads), ("width", width))]  # fmt: skip
    if size[3] % size[2]:
        raise ValueError(f"{name}'s width is {width} and its heads {heads}; the width must be a multiple of the heads")
    return _problem(name, data, size[0], windows, lambda symbols: Transformer(symbols, *size))


def lstm(
    *, data: Path | None = None, layers: Any = 1, width: Any = 128, block: Any = 64, windows: Any = 200
) -> Problem:
    """The next character of a text (--data FILE), by an LSTM: 1 layer, 128 wide."""
    name = "char-lstm"
    size = whole(name, "layers", layers, 10_000), whole(name, "width", width, 10_000)
    return _problem(name, data, whole(name, "block", block, 10_000), windows, lambda symbols: Recurrent(symbols, *size))


def _problem(name: str, data: Path | None, block: int, windows: Any, model: Callable[[int], nn.Module]) -> Problem:
    most = whole(name, "windows", windows)
    file = _file(name, data)
    text = _read(file)
    symbols = sorted(set(text))
    number = {symbol: i for i, symbol in enumerate(symbols)}
    codes = torch.tensor([number[symbol] for symbol in text])
    held = len(codes) // _HELD
    if held <= block:
        raise ValueError(
            f"{file} has {len(codes):,} characters; {name} with block={block} needs at least {_HELD * (block + 1):,}"
        )
    ends = (0, len(codes) - 2 * held, len(codes) - held, len(codes))
    train, validation, test = (_windows(codes[a:b], block) for a, b in pairwise(ends))
    return Problem(
        name=name,
        model=lambda: model(len(symbols)),
        loss=next_character,
        train=train,
        validation=_some(validation, most),
        test=_some(test, most),
        metric=next_character,
        metric_name="loss",
        higher_is_better=False,
        batch_size=12,
        target=2.2,
        source=f"{file.name}: {len(codes):,} characters, {len(symbols)} different ones, in windows of {block}; "
        f"validation and test are the last two twentieths, of each at most {most:,} windows",
        steps=500,
    )


def next_character(prediction: Tensor, target: Tensor) -> Tensor:
    """The cross-entropy in nats a character, of scores (N, T, symbols) for characters (N, T)."""
    return nn.functional.cross_entropy(prediction.flatten(0, 1), target.flatten())


def _file(name: str, data: Path | None) -> Path:
    if data is None:
        raise ValueError(f"{name} reads a text: name the file, {_OR_FOLDER}")
    if data.is_file():
        return data
    if not data.is_dir():
        raise ValueError(f"there is no file {data}; name a text, {_OR_FOLDER}")
    files = sorted(data.glob("*.txt"))
    if len(files) != 1:
        found = f"{len(files)} text files ({', '.join(file.name for file in files)})" if files else "no file *.txt"
        raise ValueError(f"the folder {data} has {found}; name the text with --data FILE")
    return files[0]


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _MOST:
            raise ValueError(f"{file} has {file.stat().st_size:,} bytes; allowed are at most {_MOST:,}")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: byte {error.start:,} cannot be read") from None


def _windows(codes: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """A part of the text cut into windows, and the character that follows each of theirs; both (windows, block)."""
    n = (len(codes) - 1) // block
    return codes[: n * block].reshape(n, block), codes[1 : n * block + 1].reshape(n, block)


def _some(pair: tuple[Tensor, Tensor], most: int) -> tuple[Tensor, Tensor]:
    """As many evenly spaced windows."""
    n = len(pair[0])
    rows = torch.linspace(0, n - 1, min(n, most)).round().long()
    return pair[0][rows], pair[1][rows]
