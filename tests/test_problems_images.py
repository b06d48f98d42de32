"""MNIST's files: how they are read, refused when damaged, and downloaded, from a server of our own."""

import gzip
import hashlib
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg import problems
from thalweg.problems import download, idx, images

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def packed(*shape: int, content: bytes | None = None, kind: int = 8) -> bytes:
    size = 1
    for n in shape:
        size *= n
    content = bytes(i % 10 for i in range(size)) if content is None else content
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + content


def folder_of(path: Path, **changed: bytes) -> Path:
    """Eighteen training and six test images of 4×4 pixels, with some of the files changed."""
    path.mkdir(parents=True, exist_ok=True)
    files = dict(zip(NAMES, (packed(18, 4, 4), packed(18), packed(6, 4, 4), packed(6)), strict=True))
    for name, content in files.items():
        short = name[: name.index("-idx")].replace("-", "_")
        (path / name).write_bytes(changed.get(short, content))
    return path


def test_a_folder_is_read_scaled_and_named_after_what_it_holds(tmp_path: Path):
    made = problems.get("mnist(hidden=5)", data=folder_of(tmp_path))
    made.check()
    assert made.name == "mnist-24"
    assert made.source.startswith(f"18 training and 6 test images from {tmp_path}, not all of MNIST")
    x, y = made.tensors("test")
    assert torch.equal(x * 255, (torch.arange(96) % 10).reshape(6, 16).float())
    assert torch.equal(y, torch.arange(6))
    assert len(made.tensors("validation")[0]) == 3
    rows = torch.cat([made.tensors("train")[0], made.tensors("validation")[0]])
    theirs = (torch.arange(288) % 10).reshape(18, 16) / 255
    assert sorted(row.numpy().tobytes() for row in rows) == sorted(row.numpy().tobytes() for row in theirs)


def test_gzipped_or_not_and_under_either_name_the_problem_is_the_same(tmp_path: Path):
    plain = folder_of(tmp_path / "plain")
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    dotted = tmp_path / "dotted"
    dotted.mkdir()
    for name in NAMES:
        (zipped / f"{name}.gz").write_bytes(gzip.compress((plain / name).read_bytes()))
        (dotted / name.replace("-idx", ".idx")).write_bytes((plain / name).read_bytes())
    prints = {problems.get("fashion-mnist", data=folder).fingerprint() for folder in (plain, zipped, dotted)}
    assert len(prints) == 1


def test_real_images(shared: Path):
    made = problems.get("mnist", data=shared / "data" / "mnist-10k")
    made.check()
    assert made.name == "mnist-10k"
    assert made.source.startswith("8,000 training and 2,000 test images from ")
    assert [len(made.tensors(split)[0]) for split in ("train", "validation", "test")] == [6667, 1333, 2000]
    x, y = made.tensors("train")
    assert x.shape[1] == 784
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    assert int(y.bincount(minlength=10).min()) > 500
    # The mean and standard deviation of MNIST are widely published as 0.1307 and 0.3081; this part of it is close.
    assert float(x.mean()) == pytest.approx(0.1307, abs=0.005)
    assert float(x.std()) == pytest.approx(0.3081, abs=0.005)


IMAGES = packed(18, 4, 4)
BAD_FOLDERS: dict[str, tuple[dict[str, bytes], str]] = {
    "empty file": ({"train_images": b""}, r"train-images-idx3-ubyte is no IDX file"),
    "text": (
        {"train_labels": b"<html>404</html>"},
        r"train-labels-idx1-ubyte is no IDX file: it begins with '3c68746d'",
    ),
    "magic": ({"train_images": packed(18)}, r"begins with '00000801'; wanted is '00000803'"),
    "floats": ({"train_images": packed(18, 4, 4, kind=0x0D)}, r"begins with '00000d03'"),
    "header cut": ({"train_images": IMAGES[:10]}, r"train-images-idx3-ubyte is truncated: it ends in its header"),
    "content cut": ({"train_images": IMAGES[:-1]}, r"truncated: its header says 18 × 4 × 4 bytes, it holds 287"),
    "content long": ({"t10k_labels": packed(6) + b"\0"}, r"t10k-labels-.* its header says 6 bytes, it holds more"),
    "huge": (
        {"train_images": packed(2**32 - 1, 2**32 - 1, 28, content=b"x")},
        r"is refused: its header says 4,294,967",
    ),
    "large": ({"train_images": packed(30_000, 128, 128, content=b"x")}, r"truncated: .* it holds 1"),
    "none": ({"train_images": packed(0, 4, 4)}, r"is refused: its header says 0 × 4 × 4 bytes"),
    "gzip cut": ({"train_images": gzip.compress(IMAGES)[:-9]}, r"is truncated: its gzip stream ends early"),
    "gzip header cut": ({"train_images": b"\x1f\x8b\x08"}, r"is truncated: its gzip stream ends early"),
    "gzip damaged": ({"train_images": gzip.compress(IMAGES)[:-8] + bytes(8)}, r"is damaged: CRC"),
    "gzip nonsense": ({"train_images": gzip.compress(IMAGES)[:10] + b"\xff" * 40}, r"train-images-.* is damaged: "),
    "labels": (
        {"t10k_labels": packed(6, content=bytes([0, 1, 2, 10, 4, 11]))},
        r"t10k-labels-idx1-ubyte: label 3 is 10; allowed is 0 to 9",
    ),
    "mismatch": ({"train_labels": packed(17)}, r"train-labels-.* has 17 labels, train-images-\S+ has 18 images"),
    "sizes": ({"t10k_images": packed(6, 4, 5)}, r"t10k-images-\S+ has images of 4 × 5 pixels, train-.* of 4 × 4"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_file_that_is_not_what_it_says_is_named_with_what_is_wrong(case: str, tmp_path: Path):
    changed, said = BAD_FOLDERS[case]
    with pytest.raises(ValueError, match=said) as caught:
        problems.get("mnist", data=folder_of(tmp_path, **changed))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("squeezed", [False, True])
def test_a_header_that_claims_much_takes_no_memory(squeezed: bool, tmp_path: Path):
    content = packed(30_000, 128, 128, content=bytes(1000))
    (tmp_path / "images").write_bytes(gzip.compress(content) if squeezed else content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"it holds 1,000"):
            idx.read(tmp_path / "images", 3)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_missing_folder_or_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        problems.get("mnist", data=tmp_path / "nowhere")
    folder = folder_of(tmp_path)
    (folder / NAMES[3]).unlink()
    with pytest.raises(ValueError, match=r"has neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte\.gz"):
        problems.get("mnist", data=folder)


@settings(max_examples=200)
@given(st.binary(max_size=64), st.sampled_from([1, 3]), st.sampled_from([b"", b"\x1f\x8b\x08\0", b"\0\0\x08\x01"]))
def test_any_bytes_are_read_exactly_or_refused(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, n: int, head: bytes
):
    path = tmp_path_factory.getbasetemp() / "any.idx"
    path.write_bytes(head + tail)
    try:
        read = idx.read(path, n)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017 -- most bytes are refused, but not all
    else:
        assert packed(*read.shape, content=read.numpy().tobytes()) == head + tail


FILE = "train-images-idx3-ubyte.gz"
CONTENT = gzip.compress(packed(60, 28, 28), mtime=0)  # the same in every process: a test is named by its sum
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Mirror(BaseHTTPRequestHandler):
    """A server whose folders behave differently; it records what is asked for."""

    def do_GET(self) -> None:
        asked: list[str] = self.server.asked  # pyright: ignore
        asked.append(self.path)
        _, behaviour, *rest = self.path.split("/")
        if behaviour == "gone" or not rest:
            self.send_error(404)
            return
        self.send_response(200)
        whole = {"good": CONTENT, "other": CONTENT[::-1]}.get(behaviour, CONTENT)
        if behaviour != "unmeasured":
            self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(whole[: len(whole) // 2] if behaviour == "cut" else whole)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.asked = []  # pyright: ignore
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def at(mirror: ThreadingHTTPServer) -> Callable[[str], str]:
    return lambda behaviour: f"http://127.0.0.1:{mirror.server_port}/{behaviour}/"


At = Callable[[str], str]
get = partial(download.fetch, FILE, MD5)


def asked(mirror: ThreadingHTTPServer) -> list[str]:
    return [path.split("/")[1] for path in mirror.asked]  # pyright: ignore


@pytest.mark.parametrize("behaviour", ["good", "unmeasured"])
def test_a_download_is_put_in_place_once(behaviour: str, tmp_path: Path, at: At, mirror: ThreadingHTTPServer):
    folder = tmp_path / "deep" / "cache"
    for _ in range(2):
        path = get([at(behaviour), at("gone")], folder)
        assert path.read_bytes() == CONTENT
        assert list(folder.iterdir()) == [path]
    assert asked(mirror) == [behaviour]


@pytest.mark.parametrize("first", ["gone", "other", "cut"])
def test_a_mirror_that_fails_is_passed_over(first: str, tmp_path: Path, at: At, mirror: ThreadingHTTPServer):
    assert get([at(first), at("good")], tmp_path).read_bytes() == CONTENT
    assert asked(mirror) == [first, "good"]


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path: Path, at: At):
    (tmp_path / FILE).write_bytes(CONTENT[:100])
    assert get([at("good")], tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("gone", r"127\.0\.0\.1:\d+: 404 Client Error: Not Found"),
        ("other", rf"does not match the known hash: expected md5:{MD5} but got [0-9a-f]{{32}}"),
        ("cut", rf"IncompleteRead\({len(CONTENT) // 2} bytes read, {len(CONTENT) - len(CONTENT) // 2} more expected"),
    ],
)
def test_nothing_is_left_where_no_mirror_has_the_file(behaviour: str, said: str, tmp_path: Path, at: At):
    with pytest.raises(ValueError, match=said) as caught:
        get([at(behaviour), at("gone")], tmp_path)
    assert str(caught.value).startswith(f"{FILE} could not be downloaded (")
    assert str(caught.value).endswith("--data DIR")
    assert list(tmp_path.iterdir()) == []


def test_offline_the_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    address = f"http://127.0.0.1:{server.server_port}/good/"
    server.server_close()
    with pytest.raises(ValueError, match=r"refused.*\); try again when online, or name a folder .* with --data DIR"):
        get([address], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_is_too_large_is_stopped(tmp_path: Path, at: At, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "_MOST", 100)
    with pytest.raises(ValueError, match=r"sent more than 100 bytes"):
        get([at("good")], tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"the cache folder .* cannot be written"):
        get(["http://127.0.0.1:1/"], tmp_path / "file" / "cache")


def test_a_problem_without_a_folder_downloads_to_the_cache(
    tmp_path: Path, at: At, mirror: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    archive = images.Archive("Test", (at("good"),), (MD5, MD5, MD5, MD5), 0.5)
    monkeypatch.setattr(images, "_MNIST", archive)
    # The server gives one file under all four names: the labels are refused, by the name they have in the cache.
    with pytest.raises(ValueError, match=r"thalweg/mnist/train-labels-idx1-ubyte\.gz is no IDX file"):
        problems.get("mnist")
    assert len(asked(mirror)) == 4
    assert len(list((tmp_path / "thalweg" / "mnist").iterdir())) == 4


def test_settings_are_refused_before_anything_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"fashion-mnist's dropout is 2"):
        problems.get("fashion-mnist(dropout=2)")
    assert list(tmp_path.iterdir()) == []
