"""The printed Triton kernels: in Triton's interpreter, on small tensors, they compute what the reference computes.

On a machine with a GPU the same table runs on it.
"""

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import thalweg
from thalweg import schedules
from thalweg.bench import proofs
from thalweg.kernels import layout
from thalweg.kernels import triton as device
from thalweg.kernels.cuda import Cuda
from thalweg.rule import Rule

pytest.importorskip("triton", reason="Triton is not installed: it is in the dev extra on Linux")

PLACE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES: tuple[tuple[int, ...], ...] = ((5, 4), (3,), (40,))
MATRICES: tuple[tuple[int, ...], ...] = ((5, 4), (4, 5))
pytestmark = [
    pytest.mark.skipif(PLACE == "cpu" and not device.interpreted(), reason="TRITON_INTERPRET is not 1"),
    # Both sides of a `where` are computed; NumPy, which Triton's interpreter computes with, says so.
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
]


def trained(
    rule: Rule | str,
    backend: str,
    dtype: torch.dtype = torch.float32,
    steps: int = 3,
    of: tuple[tuple[int, ...], ...] = SHAPES,
    edit: Callable[[int, thalweg.Optimizer, list[torch.nn.Parameter]], None] | None = None,
    **settings: Any,
) -> tuple[list[torch.nn.Parameter], thalweg.Optimizer]:
    """Parameters after some steps with random gradients, and their optimizer."""
    g = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s, generator=g).to(PLACE, dtype)) for s in of]
    optimizer = thalweg.Optimizer(params, rule, backend=backend, **settings)
    for step in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=g).to(PLACE, dtype)
        if edit is not None:
            edit(step, optimizer, params)
        optimizer.step()
    return params, optimizer


def compare(ours: Any, theirs: Any, tolerance: float = 1e-6) -> None:
    """Parameters and state agree."""
    (params, optimizer), (others, reference) = ours, theirs
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)
        assert optimizer.state[p].keys() == reference.state[q].keys()
        for name, x in reference.state[q].items():
            found: Tensor = optimizer.state[p][name]
            assert found.dtype == x.dtype
            torch.testing.assert_close(found, x.to(found.device), rtol=10 * tolerance, atol=tolerance, msg=name)


def on_device(optimizer: thalweg.Optimizer) -> bool:
    """Whether printed kernels stepped all parameters."""
    engines: dict[Any, Any] = cast(Any, optimizer)._engine._engines
    return len(engines) == 1 and not any(engine.rest for engine in engines.values())


FORMS: dict[str, dict[str, Any]] = {
    "clipped": {"clip_norm": 0.5},
    "clipped in float32": {"clip_norm": 0.5, "clip_in": "float32"},
    "each clipped": {"clip_each": 0.1, "clip_value": 0.05},
    "everything": {"clip_norm": 0.5, "ema": 0.9, "weight_decay": 0.1, "decay_form": "scaled", "maximize": True},
    "skipping": {"nonfinite": "skip", "clip_norm": 0.5, "weight_decay": 0.1, "decay_form": "l2"},
    "raising": {"nonfinite": "raise", "clip_norm": 0.5},
    "scheduled": {"schedule": schedules.cosine(4), "weight_decay": 0.1, "decay_form": "independent"},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_service(form: str) -> None:
    compare(trained("adam", "triton", **FORMS[form]), trained("adam", "eager", **FORMS[form]))


@pytest.mark.parametrize("rule", ["adam", "lamb", "adafactor"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_every_type(rule: str, dtype: torch.dtype) -> None:
    """Sums are taken in another order than torch's, by which 16-bit parameters may be rounded otherwise."""
    ours, theirs = trained(rule, "triton", dtype, 2), trained(rule, "eager", dtype, 2)
    tolerance = {torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 1e-3}[dtype]
    if rule == "adam" and dtype != torch.float64:
        assert all(torch.equal(p, q) for p, q in zip(ours[0], theirs[0], strict=True))
    for p, q in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sixteen_bits_of_state_are_rounded_as_on_the_cpu(dtype: torch.dtype) -> None:
    """Each element's noise is its own; an element may be rounded otherwise where float32 is in its last bit."""
    settings: dict[str, Any] = {"state_dtype": torch.bfloat16, "seed": 7, "of": ((20, 12), (30,)), "steps": 2}
    params, ours = trained("adam", "triton", dtype, **settings)
    for backend in ("eager", "numba") if PLACE == "cpu" else ("eager",):
        others, theirs = trained("adam", backend, dtype, **settings)
        for p, q in zip(params, others, strict=True):
            for name in ("exp_avg", "exp_avg_sq"):
                unlike = (ours.state[p][name] != theirs.state[q][name]).float().mean()
                assert ours.state[p][name].dtype == torch.bfloat16
                assert unlike < 1e-2, (backend, name)


def test_bits_repeat() -> None:
    settings: dict[str, Any] = {"clip_norm": 0.5, "state_dtype": torch.bfloat16, "steps": 2}
    one, two = trained("lamb", "triton", **settings), trained("lamb", "triton", **settings)
    assert all(torch.equal(p, q) for p, q in zip(one[0], two[0], strict=True))


def test_chunks_and_parameters_of_no_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "LONG", 64)
    of = ((7, 25), (0,), (), (64,), (65,))
    ours, theirs = (trained("lamb", backend, of=of, steps=2, clip_norm=0.5) for backend in ("triton", "eager"))
    compare(ours, theirs, 2e-6)


@pytest.mark.parametrize("known", [True, False], ids=["told natively", "asked of torch"])
def test_gradients_come_and_go_and_state_is_edited(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not known:

        def unknown(_: torch.device) -> None:
            return None

        monkeypatch.setattr(layout, "on", unknown)

    def edit(step: int, optimizer: thalweg.Optimizer, params: list[torch.nn.Parameter]) -> None:
        if step == 1:
            params[0].grad = None
        if step == 2:
            optimizer.state[params[1]]["exp_avg"].mul_(0.5)
            optimizer.state[params[1]]["step"].fill_(7.0)
            params[2].data = params[2].data.clone()
        if step == 3:
            held = optimizer.state[params[2]]
            held["exp_avg"] = held["exp_avg"].clone().zero_()
        if step == 4:
            del optimizer.state[params[1]]
            params[0].grad = params[0].detach()  # in memory that the step writes

    ours = trained("adam", "triton", steps=6, edit=edit)
    compare(ours, trained("adam", "eager", steps=6, edit=edit))


def test_a_step_that_is_not_finite_is_left_out_on_the_device() -> None:
    def edit(step: int, optimizer: thalweg.Optimizer, params: list[torch.nn.Parameter]) -> None:
        if step == 1 and params[1].grad is not None:
            params[1].grad[0] = torch.nan

    ours = trained("nadam", "triton", steps=3, edit=edit, nonfinite="skip")
    theirs = trained("nadam", "eager", steps=3, edit=edit, nonfinite="skip")
    compare(ours, theirs)
    assert ours[1].skipped_steps == theirs[1].skipped_steps == 1
    assert [float(ours[1].state[p]["step"]) for p in ours[0]] == [2.0, 2.0, 2.0]


def test_a_gradient_scaler_is_not_asked_on_the_host() -> None:
    """What torch.amp.GradScaler hands over stays on the device: the scale, and whether anything was infinite."""

    def scaled(step: int, optimizer: Any, params: list[torch.nn.Parameter]) -> None:
        for p in params:
            assert p.grad is not None
            p.grad.mul_(8.0)
        optimizer.grad_scale = torch.tensor(8.0, device=PLACE)
        optimizer.found_inf = torch.tensor(float(step == 1), device=PLACE)

    def plain(step: int, optimizer: Any, params: list[torch.nn.Parameter]) -> None:
        optimizer.found_inf = torch.tensor(float(step == 1), device=PLACE)

    ours = trained("adam", "triton", edit=scaled, clip_norm=0.5)
    compare(ours, trained("adam", "eager", edit=plain, clip_norm=0.5))
    assert ours[1]._step_supports_amp_scaling  # pyright: ignore[reportPrivateUsage]


def test_a_sparse_gradient_is_stepped_otherwise() -> None:
    def edit(step: int, optimizer: thalweg.Optimizer, params: list[torch.nn.Parameter]) -> None:
        if step == 1:
            assert params[0].grad is not None
            params[0].grad = params[0].grad.to_sparse()

    compare(trained("sgd", "triton", edit=edit), trained("sgd", "eager", edit=edit))


def test_zeroed_gradients_and_version_counters() -> None:
    params, optimizer = trained("adam", "triton", steps=1)
    versions = [p._version for p in params]
    optimizer.step(zero_grad=True)
    assert all(p.grad is not None and not p.grad.any() for p in params)
    assert all(p._version > before for p, before in zip(params, versions, strict=True))


def test_totals_where_a_parameter_has_no_gradient() -> None:
    def edit(step: int, optimizer: thalweg.Optimizer, params: list[torch.nn.Parameter]) -> None:
        if step == 1:
            params[0].grad = None

    compare(trained("prodigy", "triton", edit=edit), trained("prodigy", "eager", edit=edit), 2e-6)


def test_a_checkpoint_goes_on_in_another_backend() -> None:
    params, ours = trained("adam", "triton", steps=2)
    saved = copy.deepcopy(ours.state_dict())
    others, theirs = trained("adam", "eager", steps=0)
    for q, p in zip(others, params, strict=True):
        q.data.copy_(p.data)
    theirs.load_state_dict(saved)
    for p, q in zip(params, others, strict=True):
        q.grad = None if p.grad is None else p.grad.clone()
    ours.step()
    theirs.step()
    compare((params, ours), (others, theirs))


class Recorded:
    """A CUDA graph's part in a captured step, played by a list of launches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.launches: list[tuple[Any, ...]] = []
        self.capturing = False
        launch = device.launch

        def recorded(kernel: Any, programs: int, *arguments: Any, **named: Any) -> None:
            if self.capturing:
                self.launches.append((kernel, programs, arguments, named))
            else:
                launch(kernel, programs, *arguments, **named)

        monkeypatch.setattr(device, "launch", recorded)

        def capturing(_: torch.device) -> bool:
            return self.capturing

        monkeypatch.setattr(device, "capturing", capturing)
        self.launch = launch
        send = Cuda._send  # pyright: ignore[reportPrivateUsage]

        def sent(engine: Cuda, array: Any, into: Tensor) -> None:
            if self.capturing:
                self.launches.append((into.copy_, torch.from_numpy(array.copy()).reshape(into.shape)))
            else:
                send(engine, array, into)

        monkeypatch.setattr(Cuda, "_send", sent)

    def replay(self) -> None:
        for kernel, *what in self.launches:
            if len(what) == 1:
                kernel(*what)
            else:
                programs, arguments, named = what
                self.launch(kernel, programs, *arguments, **named)


def test_a_captured_step_follows_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a step but its launches is needed to repeat it; the schedule's next value is handed over between."""
    graph = Recorded(monkeypatch)
    settings: dict[str, Any] = {"schedule": schedules.linear(5), "clip_value": 1.0, "of": ((5,),)}
    params, ours = trained("nadam", "triton", steps=1, capturable=True, **settings)
    graph.capturing = True
    ours.step()
    graph.capturing = False
    others, theirs = trained("nadam", "eager", steps=1, **settings)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        noise = torch.randn(5, generator=generator).to(PLACE)
        for p in (params[0], others[0]):
            assert p.grad is not None
            p.grad.copy_(noise)
        graph.replay()
        ours.replayed()
        theirs.step()
        torch.testing.assert_close(params[0], others[0], rtol=1e-6, atol=1e-7)
    assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]


def test_what_cannot_be_captured_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Recorded(monkeypatch)
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("adam", {}, "capturable=True"),
        ("adam", {"nonfinite": "raise", "capturable": True}, "the host has a part in it"),
        ("adafactor", {"capturable": True}, "cannot be captured: between its passes"),
    )
    for rule, settings, said in cases:
        graph.capturing = False
        _, optimizer = trained(rule, "triton", steps=1, of=((5, 4),), **settings)
        graph.capturing = True
        with pytest.raises(RuntimeError, match=said):
            optimizer.step()
    graph.capturing = False
    _, optimizer = trained("adam", "triton", steps=0, capturable=True)
    graph.capturing = True
    with pytest.raises(RuntimeError, match="take one on a side stream before"):
        optimizer.step()


def test_what_the_bench_proves_holds_in_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)

    def capture(_: torch.device, step: Callable[[], object]) -> Callable[[], object]:
        recorded.capturing = True
        step()
        recorded.capturing = False
        return recorded.replay

    monkeypatch.setattr(proofs, "SHAPES", ((5,),))
    here = torch.device(PLACE)
    # Between launches a norm takes operations of torch, which are not recorded here.
    unclipped = {name: x for name, x in proofs.FORM.items() if name != "clip_norm"}
    figures = [proofs.parity(here, "triton", 2), proofs.repeats(here, "triton", 1), proofs.waiting(here, "triton", 1)]
    monkeypatch.setattr(proofs, "FORM", unclipped)
    figures.append(proofs.captured(here, "triton", 4, capture))
    for figure in figures:
        assert figure.holds, figure


def test_a_graph_and_steps_outside_it_keep_their_own_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each replay hands over where its gradients are, whatever was stepped meanwhile; so does the step after it."""
    graph = Recorded(monkeypatch)
    params, ours = trained("sgd", "triton", steps=1, of=((5,),), capturable=True)
    [p] = params
    ours.param_groups[0]["lr"] = 1.0
    ours.step()
    inside, outside = torch.full_like(p, 2.0), torch.full_like(p, 8.0)
    p.grad = inside
    graph.capturing = True
    ours.step()
    graph.capturing = False
    for once, taken in ((ours.step, 2.0), (graph.replay, 2.0)):
        before = p.detach().clone()
        once()
        torch.testing.assert_close(before - p.detach(), torch.full_like(p, taken))
    p.grad = outside
    for once, taken in ((ours.step, 8.0), (graph.replay, 2.0), (ours.step, 8.0)):
        before = p.detach().clone()
        once()
        torch.testing.assert_close(before - p.detach(), torch.full_like(p, taken))
