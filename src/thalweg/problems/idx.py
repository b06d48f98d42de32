"""IDX files, the format of MNIST and similar data sets: a header with counts, then bytes; gzipped or not."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

_BYTES = 0x08  # the format's code for unsigned bytes, the only type that MNIST's files have
_GZIP = b"\x1f\x8b"
_MOST = 1 << 30
_CHUNK = 1 << 20


def read(path: Path, dimensions: int) -> Tensor:
    """An IDX file of unsigned bytes as a uint8 tensor; ``dimensions`` is 3 for images, 1 for labels.

    The memory allocated is limited by the bytes in the file, whatever its header claims.

    Raises:
        ValueError: the file cannot be read or is not such an IDX file; the message names the file and the fault.
    """
    try:
        with path.open("rb") as file:
            gzipped = file.read(2) == _GZIP
            file.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if gzipped else file
            shape = _shape(path, stream, dimensions)
            content = _content(stream, math.prod(shape) + 1)
    except EOFError:
        raise ValueError(f"{path} is truncated: its gzip stream ends early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(content) != math.prod(shape):
        holds = "more" if len(content) > math.prod(shape) else f"{len(content):,}"
        promised = " × ".join(f"{n:,}" for n in shape)
        wrong = "is truncated" if len(content) < math.prod(shape) else "is no IDX file as MNIST's"
        raise ValueError(f"{path} {wrong}: its header says {promised} bytes, it holds {holds}")
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


def _shape(path: Path, stream: BinaryIO, dimensions: int) -> tuple[int, ...]:
    header = stream.read(4 + 4 * dimensions)
    wanted = struct.pack(">HBB", 0, _BYTES, dimensions)
    if header[:4] != wanted[: len(header)] or not header:
        raise ValueError(f"{path} is no IDX file: it begins with {header[:4].hex()!r}; wanted is {wanted.hex()!r}")
    if len(header) < 4 + 4 * dimensions:
        raise ValueError(f"{path} is truncated: it ends in its header")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if not 0 < math.prod(shape) <= _MOST:
        promised = " × ".join(f"{n:,}" for n in shape)
        raise ValueError(f"{path} is refused: its header says {promised} bytes; wanted are 1 to {_MOST:,}")
    return shape


def _content(stream: BinaryIO, most: int) -> bytearray:
    # A read of `most` bytes would allocate them first, and `most` is only what the header claims.
    content = bytearray()
    while chunk := stream.read(min(_CHUNK, most - len(content))):
        content += chunk
    return content
