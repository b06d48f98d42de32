"""MNIST and Fashion-MNIST, downloaded or from a folder of IDX files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.problems import idx
from thalweg.problems.download import cache_folder, fetch
from thalweg.problems.networks import accuracy, autoencoder, convolutional, mlp
from thalweg.problems.problem import Problem

_PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_CLASSES = 10
_FULL = (60_000, 10_000)


@dataclass(frozen=True)
class Archive:
    """A published set of four IDX files.

    Attributes:
        title: its common name and its authors.
        mirrors: URLs of the folders with the gzipped files.
        md5: their checksums, in the order training images, training labels, test images, test labels.
        target: the accuracy on validation data worth reaching.
    """

    title: str
    mirrors: tuple[str, ...]
    md5: tuple[str, str, str, str]
    target: float


# The checksums are those that torchvision publishes (torchvision.datasets.mnist).
_MNIST = Archive(
    title="MNIST (LeCun, Cortes & Burges 1998)",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    md5=(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    target=0.93,
)
_FASHION = Archive(
    title="Fashion-MNIST (Xiao, Rasul & Vollgraf 2017)",
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    md5=(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    target=0.85,
)


def mnist(*, data: Path | None = None, hidden: Any = (128, 64), dropout: Any = 0.0, batch_norm: Any = False) -> Problem:
    """MNIST's handwritten digits, 28×28 pixels, by a multilayer perceptron, 784-128-64-10."""
    return _problem("mnist", _MNIST, data, hidden, dropout, batch_norm)


def fashion_mnist(
    *, data: Path | None = None, hidden: Any = (128, 64), dropout: Any = 0.0, batch_norm: Any = False
) -> Problem:
    """Fashion-MNIST's articles of clothing, 28×28 pixels, by a multilayer perceptron, 784-128-64-10."""
    return _problem("fashion-mnist", _FASHION, data, hidden, dropout, batch_norm)


def mnist_cnn(*, data: Path | None = None, channels: Any = (8, 16), hidden: Any = 64) -> Problem:
    """MNIST's handwritten digits by a convolutional network: 8 and 16 channels of 3×3, a hidden layer of 64."""
    convolutional("mnist-cnn", (28, 28), _CLASSES, channels, hidden)  # wrong settings are reported first
    images = _read("mnist-cnn", "mnist", _MNIST, data)
    return images.problem(
        convolutional("mnist-cnn", images.pixels, _CLASSES, channels, hidden),
        shaped=lambda x: x[:, None],
        batch_size=64,
        target=0.97,
        steps=300,
    )


def mnist_autoencoder(*, data: Path | None = None) -> Problem:
    """MNIST's images through six numbers: a deep autoencoder, 784-400-200-100-50-25-6 and back."""
    images = _read("mnist-autoencoder", "mnist", _MNIST, data)
    widths = (images.pixels[0] * images.pixels[1], 400, 200, 100, 50, 25, 6)
    return images.problem(
        autoencoder(widths),
        shaped=lambda x: x.flatten(1),
        targets=lambda x, y: x,
        loss=nn.functional.mse_loss,
        metric=nn.functional.mse_loss,
        metric_name="squared error",
        higher_is_better=False,
        batch_size=200,
        target=0.05,
        steps=500,
    )


def _problem(name: str, archive: Archive, data: Path | None, hidden: Any, dropout: Any, batch_norm: Any) -> Problem:
    mlp(name, 1, _CLASSES, hidden, dropout, batch_norm)  # wrong settings are reported before anything is downloaded
    images = _read(name, name, archive, data)
    return images.problem(
        mlp(name, images.pixels[0] * images.pixels[1], _CLASSES, hidden, dropout, batch_norm),
        batch_size=256,
        target=archive.target,
        # The first 51,200 examples, where methods differ; after ten times as many, all tuned methods are alike.
        steps=200,
    )


@dataclass(frozen=True)
class _Images:
    """The images of an archive, or a part of it, for a problem.

    Attributes:
        name: the problem's, with the number of images if they are not all.
        source: one line on them.
        pixels: the height and width of an image.
        train, validation, test: images (N, height, width) and labels.
    """

    name: str
    source: str
    pixels: tuple[int, int]
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def problem(
        self,
        model: Callable[[], nn.Module],
        *,
        shaped: Callable[[Tensor], Tensor] = lambda x: x.flatten(1),
        targets: Callable[[Tensor, Tensor], Tensor] = lambda x, y: y,
        **settings: Any,
    ) -> Problem:
        """A problem with inputs in [0, 1], `shaped` from images, and targets from inputs and labels."""

        def pair(images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            x = shaped(images[0].to(torch.float32).div_(255))
            return x, targets(x, images[1].to(torch.int64))

        rest: dict[str, Any] = {"loss": nn.functional.cross_entropy, "metric": accuracy, **settings}
        data = {"train": pair(self.train), "validation": pair(self.validation), "test": pair(self.test)}
        return Problem(name=self.name, source=self.source, model=model, **data, **rest)


def _read(name: str, folder: str, archive: Archive, data: Path | None) -> _Images:
    """The images of an archive from the folder `data`, or downloaded to a folder of that name."""
    train, test = read_folder(data or _downloaded(folder, archive))
    counts = len(train[0]), len(test[0])
    held, kept = _held_out(train)
    source = f"{counts[0]:,} training and {counts[1]:,} test images"
    if counts == _FULL:
        source = f"{archive.title}: {source}"
    else:
        # A result on part of the data must not be mistaken for one on all of it.
        thousands, rest = divmod(sum(counts), 1000)
        name = f"{name}-{sum(counts) if rest else f'{thousands}k'}"
        source = f"{source} from {data}, not all of {archive.title}"
    source += f"; {len(held[0]):,} of the training images are held out for validation"
    height, width = train[0].shape[1:]
    return _Images(name, source, (height, width), kept, held, test)


def read_folder(folder: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The training and the test set in a folder of four IDX files: images (N, height, width) and labels, both uint8.

    Raises:
        ValueError: a file is missing, cannot be read or does not fit the others; the message names it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name one that holds {_PARTS[0]} and the other three files")
    paths = [_found(folder, part) for part in _PARTS]
    train, test = _pair(*paths[:2]), _pair(*paths[2:])
    if train[0].shape[1:] != test[0].shape[1:]:
        sizes = [" × ".join(map(str, images.shape[1:])) for images, _ in (train, test)]
        raise ValueError(f"{paths[2]} has images of {sizes[1]} pixels, {paths[0].name} of {sizes[0]}")
    return train, test


def _found(folder: Path, part: str) -> Path:
    for name in (part, f"{part}.gz", part.replace("-idx", ".idx")):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"the folder {folder} has neither {part} nor {part}.gz")


def _pair(images_path: Path, labels_path: Path) -> tuple[Tensor, Tensor]:
    images, labels = idx.read(images_path, 3), idx.read(labels_path, 1)
    if len(images) != len(labels):
        raise ValueError(f"{labels_path} has {len(labels):,} labels, {images_path.name} has {len(images):,} images")
    if int(labels.max()) >= _CLASSES:
        first = int((labels >= _CLASSES).nonzero()[0])
        raise ValueError(f"{labels_path}: label {first} is {int(labels[first])}; allowed is 0 to {_CLASSES - 1}")
    return images, labels


def _downloaded(name: str, archive: Archive) -> Path:
    folder = cache_folder() / name
    for part, md5 in zip(_PARTS, archive.md5, strict=True):
        fetch(f"{part}.gz", md5, archive.mirrors, folder)
    return folder


def _held_out(pair: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """One sixth for validation and the rest, shuffled first because the files may be ordered."""
    x, y = pair
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held, kept = order[: max(1, len(x) // 6)], order[max(1, len(x) // 6) :]
    return (x[held], y[held]), (x[kept], y[kept])
