"""The fused kernels against the reference: the same formula, evaluated on tensors."""

import copy
import math
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import thalweg
from cases import ALL, BACKENDS, FLAT, changes, well_posed
from thalweg import rules
from thalweg.kernels import build, launch
from thalweg.maths import cbrt, sqrt, where
from thalweg.printers import source as printer
from thalweg.rule import Rate, Rule

SHAPES = [(7,), (), (3, 5), (0, 4), (130, 67)]

SETTINGS: list[dict[str, Any]] = [
    {},
    {"clip_norm": 1.0},
    {"clip_value": 0.3, "weight_decay": 0.1, "decay_form": "l2"},
    {"clip_norm": 2.0, "weight_decay": 0.1, "decay_form": "scaled"},
    {"weight_decay": 0.1, "decay_form": "independent", "maximize": True},
    {"ema": 0.9, "nonfinite": "skip"},
    {"clip_norm": 0.5, "clip_value": 1.0, "weight_decay": 0.01, "decay_form": "scaled", "maximize": True, "ema": 0.99},
]


def parameters(dtype: torch.dtype = torch.float64, shapes: Any = SHAPES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, dtype=torch.float64, generator=generator).to(dtype).requires_grad_() for s in shapes]


def train(
    rule: Rule,
    backend: str,
    make: Callable[[], list[Tensor]] = parameters,
    steps: int = 8,
    zero_grad: bool = False,
    layout: Callable[[Tensor], Tensor] = lambda g: g,
    **settings: Any,
) -> tuple[list[Tensor], thalweg.Optimizer]:
    """Some steps with given gradients; the second parameter has none in the third and fourth."""
    ps = make()
    groups = [{"params": ps[:2], "lr": rule.lr / 2}, {"params": ps[2:]}]
    optimizer = thalweg.Optimizer(groups, rule, backend=backend, **settings)
    generator = torch.Generator().manual_seed(1)
    for i in range(steps):
        for j, p in enumerate(ps):
            g = torch.randn(p.shape, dtype=torch.float64, generator=generator).to(p.dtype)
            p.grad = None if j == 1 and i in (2, 3) else layout(g)
        optimizer.step(zero_grad=zero_grad)
        if zero_grad:
            assert all(p.grad is None or not p.grad.any() for p in ps)
    return ps, optimizer


def agree(a: tuple[list[Tensor], thalweg.Optimizer], b: tuple[list[Tensor], thalweg.Optimizer], close: float) -> None:
    for p, q in zip(a[0], b[0], strict=True):
        torch.testing.assert_close(p, q, rtol=close, atol=close)
        held, other = a[1].state[p], b[1].state[q]
        assert held.keys() == other.keys()
        for name in held:
            torch.testing.assert_close(
                held[name], other[name], rtol=close, atol=close, msg=lambda m, n=name: f"{n}: {m}"
            )


# Every option, in a step with stages.  Since a kernel takes a second to compile, pairs of options are tried without
# stages only, in test_optimizer.
FORMULAS = [rule for rule in ALL if changes(rule) <= 1 and well_posed(rule)]


@pytest.mark.parametrize("i", range(len(FORMULAS)), ids=[str(rule) for rule in FORMULAS])
def test_every_formula(i: int) -> None:
    settings = SETTINGS[i % len(SETTINGS)]
    zero_grad = i % 3 == 0
    fast, slow = (train(FORMULAS[i], b, zero_grad=zero_grad, **settings) for b in ("numba", "eager"))
    agree(fast, slow, 1e-12)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("rule", [rules.Adam(), rules.named("nesterov"), rules.ASGD(t0=3)], ids=str)
def test_every_stage(rule: Rule, settings: dict[str, Any]) -> None:
    agree(train(rule, "numba", **settings), train(rule, "eager", **settings), 1e-12)


@pytest.mark.parametrize("rule", ["sm3(beta2=0.9)", "rotated(adam)"])
def test_sums_along_axes_are_not_kept_in_sixteen_bits(rule: str) -> None:
    """Of a vector such a sum is an element of a pass, as an average of Rotated is of a matrix."""

    def vectors_and_matrices() -> list[Tensor]:
        return parameters(torch.float32, [(4,), (3, 2)])

    def trained(backend: str) -> tuple[list[Tensor], thalweg.Optimizer]:
        return train(rules.parse(rule), backend, vectors_and_matrices, 2, state_dtype=torch.bfloat16)

    agree(trained("numba"), trained("eager"), 1e-2)


class Root(Rule):
    """Steps by the cube root of the gradient."""

    lr: Rate = 1.0

    def update(h, p: Any, g: Any, s: Any, t: Any) -> tuple[Any, Any]:
        return h.lr * cbrt(g), s


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_cube_roots(backend: str, dtype: torch.dtype) -> None:
    # Of all sizes, as of those of the float's exponent, and of what has no exponent to take a third of.
    kind = torch.finfo(dtype)
    sizes = torch.logspace(math.log10(kind.smallest_normal), math.log10(kind.max) - 1e-6, 10_001, dtype=torch.float64)
    exact = [0.0, -0.0, 1.0, 8.0, -27.0, math.inf, -math.inf, math.nan, kind.max, -kind.smallest_normal]
    edges = exact + [5e-324, -1e-310] * (dtype is torch.float64)  # kernels flush subnormal numbers in float32
    g = torch.cat([sizes, -sizes, torch.tensor(edges, dtype=torch.float64)]).to(dtype)
    p = torch.zeros_like(g).requires_grad_()
    p.grad = g
    thalweg.Optimizer([p], Root(), backend=backend).step()
    expected = np.cbrt(g.double().numpy())
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=3 * kind.eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", FLAT)
def test_every_type(name: str, dtype: torch.dtype) -> None:
    fast, slow = (train(FLAT[name].example(), b, lambda: parameters(dtype), clip_norm=1.0) for b in ("numba", "eager"))
    agree(fast, slow, 1e-5 if dtype is torch.float32 else torch.finfo(dtype).eps)
    for p in fast[0]:
        assert all(x.dtype != dtype or dtype is torch.float32 for x in fast[1].state[p].values())


def images() -> list[Tensor]:
    return [p.detach().requires_grad_() for p in parameters(shapes=[(4, 3, 5, 5), (6, 3, 5, 5)])]


def channels_last(x: Tensor) -> Tensor:
    return x.to(memory_format=torch.channels_last)


LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "both channels last": (channels_last, channels_last),
    "gradient channels last": (lambda p: p, channels_last),
    "parameter channels last": (channels_last, lambda g: g),
    "transposed": (lambda p: p.transpose(0, 3), lambda g: g),
    "every other element": (lambda p: p[..., ::2], lambda g: g),
    "expanded gradient": (lambda p: p, lambda g: g[:1].expand_as(g)),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("zero_grad", [False, True])
def test_every_layout(name: str, zero_grad: bool) -> None:
    if name == "expanded gradient" and zero_grad:
        pytest.skip("torch cannot write to an expanded tensor")
    of_p, of_g = LAYOUTS[name]

    def make() -> list[Tensor]:
        return [of_p(p.detach()).requires_grad_() for p in images()]

    fast, slow = (train(rules.Adam(), b, make, layout=of_g, zero_grad=zero_grad) for b in ("numba", "eager"))
    agree(fast, slow, 1e-12)


class Anchored(Rule):
    """Pulled back to where it began: its state begins with the parameter itself."""

    lr: float = 0.1
    strength: float = 0.5

    class State(rules.Lion.State):
        pass

    def init(self, p: Tensor) -> Any:
        return self.State(p * 1)

    def update(self, p: Tensor, g: Tensor, s: Any, t: float) -> Any:
        away = p - s.exp_avg
        return p - self.lr * g - where(away * away > 0.01, self.strength * away / sqrt(1 + away * away), 0 * away), s


def test_a_users_rule() -> None:
    agree(train(Anchored(), "numba", ema=0.5), train(Anchored(), "eager", ema=0.5), 1e-12)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    load = build.load

    def noted(text: str) -> Any:
        texts.append(text)
        return load(text)

    monkeypatch.setattr(build, "load", noted)
    return texts


def test_nothing_compiles_again(compiled: list[str]) -> None:
    """New rates, schedules and gradients, and frozen, thawed and added parameters do not change the kernel."""
    ps = parameters(torch.float32, [(8,), (70, 70)])
    optimizer = thalweg.Optimizer(ps, rules.Adam(), schedule=thalweg.schedules.cosine(10), clip_norm=1.0)

    def step(*there: Tensor) -> None:
        optimizer.zero_grad()
        for p in there:
            p.grad = torch.ones_like(p)
        optimizer.step()

    step(*ps)
    before = set(compiled)
    step(ps[0])
    optimizer.param_groups[0]["course"].initial["lr"] = 0.5
    step(*ps)
    more = torch.zeros(9, requires_grad=True)
    optimizer.add_param_group({"params": [more], "lr": 1e-2})
    step(*ps, more)
    assert set(compiled) == before
    assert [int(optimizer.state[p]["step"]) for p in (*ps, more)] == [4, 3, 1]


@pytest.mark.parametrize("backend", ["numba", "eager"])
def test_a_parameter_that_moves(backend: str) -> None:
    """`p.data = …` gives a parameter other memory, even in another layout, and the object stays the same."""
    p = torch.zeros(3, 4, 5, 5, requires_grad=True)
    optimizer = thalweg.Optimizer([p], rules.Momentum(lr=1.0, momentum=0.5), backend=backend)
    for i in range(4):
        if i == 2:
            p.data = p.data.clone()
        if i == 3:
            p.data = p.data.to(memory_format=torch.channels_last).clone(memory_format=torch.preserve_format)
        p.grad = torch.ones_like(p)
        optimizer.step()
    torch.testing.assert_close(p, torch.full_like(p, -(1 + 1.5 + 1.75 + 1.875)))


def test_the_same_parameter_twice_is_stepped_twice() -> None:
    """As in torch, which warns of it."""
    p = torch.zeros(3, requires_grad=True)
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = thalweg.Optimizer([p, p], rules.SGD(lr=1.0))
    p.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(p.detach(), -2 * torch.ones(3))


def test_a_population_is_rows_of_one_table() -> None:
    rates = [1e-3, 1e-2, 1e-1]
    shapes = [(5, 3), (3,)]
    alone = [train(rules.Adam(lr=lr), "numba", lambda: parameters(shapes=shapes))[0] for lr in rates]
    together = [parameters(shapes=shapes) for _ in rates]
    groups = [
        {"params": [p], "lr": lr / (2 if i < 2 else 1)}
        for ps, lr in zip(together, rates, strict=True)
        for i, p in enumerate(ps)
    ]
    optimizer = thalweg.Optimizer(groups, rules.Adam(), backend="numba")
    generators = [torch.Generator().manual_seed(1) for _ in rates]
    for step in range(8):
        for ps, generator in zip(together, generators, strict=True):
            for j, p in enumerate(ps):
                g = torch.randn(p.shape, dtype=torch.float64, generator=generator)
                p.grad = None if j == 1 and step in (2, 3) else g
        optimizer.step()
    assert len(optimizer._engine._buckets) == 1  # pyright: ignore
    for ps, qs in zip(alone, together, strict=True):
        assert all(map(torch.equal, ps, qs))


@pytest.fixture
def threads() -> Iterator[None]:
    had = torch.get_num_threads()
    yield
    torch.set_num_threads(had)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("own", [False, True], ids=["torch's", "our own"])
def test_the_same_bits_whatever_the_threads(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if own:
        monkeypatch.setattr(launch, "_openmp", lambda: (None, 0))
    found: list[tuple[list[Tensor], list[float]]] = []
    shapes = [(300, 301), (9,), (5000,)]
    for n in (1, 2, 2, 3, 300):
        torch.set_num_threads(n)
        ps, optimizer = train(rules.Adam(), "numba", lambda: parameters(torch.float32, shapes), clip_norm=1.0)
        works = [held.work for held in optimizer._works.values()]  # pyright: ignore
        found.append((ps, optimizer._engine.squares(works, clipped=True, strict=False).tolist()))  # pyright: ignore
    for ps, squares in found[1:]:
        assert squares == found[0][1]
        assert all(map(torch.equal, ps, found[0][0]))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch may have another OpenMP runtime, or none")
def test_torchs_threads_are_found_and_know_their_numbers() -> None:
    """If they were not, training would be correct but slower, and no other test would fail."""
    parallel, number = launch._openmp()  # pyright: ignore[reportPrivateUsage]
    assert parallel
    assert number
    source = """
from numba import cfunc
from thalweg.kernels.memory import ask, save_word, word

@cfunc("void(int64)", nopython=True)
def worker(job):
    save_word(job + 8 * (1 + ask(word(job))), 7)
"""
    worker = build.load(source).worker.address
    job = np.array([number, 0, 0, 0, 0], np.int64)
    parallel(worker, job.ctypes.data, 4, 0)
    assert job[1:].tolist() == [7, 7, 7, 7]
    job[:] = 0
    parallel(worker, job.ctypes.data, 4, 0)
    assert job[1:].tolist() == [7, 0, 0, 0]


@given(st.lists(st.integers(1, printer.MOST), min_size=1, max_size=300))
def test_a_table_is_cut_evenly(counts: list[int]) -> None:
    cost = np.array(counts) + 32
    cuts = launch.cuts(np.array(counts))
    assert cuts[0] == 0
    assert cuts[-1] == len(counts)
    assert len(cuts) - 1 == min(launch.PIECES, len(counts))
    assert (np.diff(cuts) >= 0).all()
    done = np.concatenate([[0], np.cumsum(cost)])
    ideal = cost.sum() * np.arange(len(cuts)) / (len(cuts) - 1)
    assert (abs(done[cuts] - ideal) <= cost.max() / 2 + 1e-6).all()


def test_threads_with_optimizers_of_their_own() -> None:
    expected = train(rules.Adam(), "numba", lambda: parameters(torch.float32, [(300, 301), (9,)]))[0]
    results: list[list[Tensor]] = []

    def work() -> None:
        results.append(train(rules.Adam(), "numba", lambda: parameters(torch.float32, [(300, 301), (9,)]))[0])

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    assert all(torch.equal(p, q) for ps in results for p, q in zip(ps, expected, strict=True))


def of_child() -> list[Tensor]:
    """More elements than our kernels step on one thread, but each tensor small enough for torch to use only one.

    Torch's own operations hang in a forked child if they use several.
    """
    return parameters(torch.float32, [(150, 150), (9,), (150, 150), (150, 149), (40,)])


def _in_a_child(queue: Any) -> None:
    ps, _ = train(rules.Adam(), "numba", of_child)
    queue.put([p.detach().numpy() for p in ps])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(method: str) -> None:
    expected = train(rules.Adam(), "numba", of_child)[0]
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_in_a_child, args=(queue,), daemon=True)
    child.start()
    found: list[Any] = queue.get(timeout=120)
    child.join(timeout=60)
    assert child.exitcode == 0
    assert all((p.detach().numpy() == q).all() for p, q in zip(expected, found, strict=True))
    assert not launch.small(sum(p.numel() for p in expected), 28)
    again = train(rules.Adam(), "numba", of_child)[0]
    assert all(map(torch.equal, again, expected))


def test_no_subnormal_state_is_left() -> None:
    p = torch.zeros(5000, requires_grad=True)
    optimizer = thalweg.Optimizer([p], rules.Adam(beta2=0.9), backend="numba")
    p.grad = torch.full((5000,), 1e-3)
    optimizer.step()
    p.grad = torch.zeros(5000)
    lowest = torch.finfo(torch.float32).tiny
    for _ in range(1000):
        optimizer.step()
        for name in ("exp_avg", "exp_avg_sq"):
            x = float(optimizer.state[p][name][17])
            assert x == 0 or abs(x) >= lowest
    assert not optimizer.state[p]["exp_avg"].any()


@pytest.mark.parametrize("backend", ["numba", "eager"])
def test_a_16_bit_state_is_right_in_the_mean(backend: str) -> None:
    """Each step adds 0.001 of the gradient, which is too little for bfloat16: rounded to nearest, it would be lost."""
    n, steps = 20_000, 100
    p = torch.zeros(n, requires_grad=True)
    optimizer = thalweg.Optimizer([p], rules.Adam(), backend=backend, state_dtype=torch.bfloat16)
    for _ in range(steps):
        p.grad = torch.ones(n)
        optimizer.step()
    v = optimizer.state[p]["exp_avg_sq"]
    assert v.dtype == torch.bfloat16
    exact = 1 - 0.999**steps
    # Every step rounds by at most 2⁻⁸ of the value, uniformly, so the error of the mean is less than this (5 sigma).
    assert abs(float(v.double().mean()) - exact) < 5 * exact * 2**-8 * steps**0.5 / n**0.5
    neighbours = torch.corrcoef(torch.stack([v[:-1].float(), v[1:].float()]))[0, 1]
    assert abs(float(neighbours)) < 5 / n**0.5


def test_a_16_bit_state_is_seeded() -> None:
    def run(seed: int) -> Tensor:
        make = lambda: parameters(torch.float32, [(3,), (2,), (4000,)])  # noqa: E731
        ps, optimizer = train(rules.Adam(), "numba", make, state_dtype=torch.bfloat16, seed=seed)
        return optimizer.state[ps[2]]["exp_avg_sq"]

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_the_table_is_small() -> None:
    p = torch.zeros(1_000_000, requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = thalweg.Optimizer([p], rules.Adam(), clip_norm=1.0, backend="numba")
    optimizer.step()
    [bucket] = optimizer._engine._buckets.values()  # pyright: ignore
    arrays: list[Any] = [x for x in vars(bucket).values() if hasattr(x, "nbytes")]  # pyright: ignore
    assert any(x is bucket.table for x in arrays)
    assert sum(int(x.nbytes) for x in arrays) < 0.01 * p.nbytes


def test_copies_go_their_own_way() -> None:
    ps, optimizer = train(rules.Adam(), "numba")
    twin_ps, twin = copy.deepcopy((ps, optimizer))
    before = {name: x.clone() for name, x in optimizer.state[ps[0]].items()}
    for p in twin_ps:
        p.grad = torch.ones_like(p)
    twin.step()
    assert all(torch.equal(x, optimizer.state[ps[0]][name]) for name, x in before.items())
    assert not torch.equal(twin_ps[0], ps[0])


SCRIPT = """
import torch, thalweg
from thalweg import rules
p = torch.zeros(10, requires_grad=True); p.grad = torch.ones(10)
thalweg.Optimizer([p], rules.Adam(), backend="numba").step()
print(float(p[0]))
"""


def _process(cache: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "THALWEG_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_kernels_are_stored_on_disk(tmp_path: Path) -> None:
    """Three processes start together with an empty cache; a fourth finds all kernels there."""
    out = ""
    for process in [_process(tmp_path) for _ in range(3)]:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert float(out) == pytest.approx(-1e-3)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.suffix for path in kept} == {".kernel"}
    process = _process(tmp_path)
    assert process.communicate(timeout=120)[0].strip() == out.strip()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_a_folder_that_others_can_write_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THALWEG_CACHE_DIR", str(tmp_path))
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    kernels.chmod(0o777)
    assert build.folder() is None
    process = _process(tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert float(out) == pytest.approx(-1e-3)
    assert list(kernels.iterdir()) == []


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backend is 'nmba'; allowed is .*'numba'"):
        thalweg.Optimizer([torch.zeros(1, requires_grad=True)], rules.SGD(), backend="nmba")


def test_import_is_lazy() -> None:
    code = "import sys, thalweg; thalweg.Optimizer; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
