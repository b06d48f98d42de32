# ruff: noqa: E501 (a case is a line)
"""Whatever is done to an optimizer between its steps has the same effect as in torch.

A case is a few lines of Python, in the vocabulary of `fuzz`.  Each runs with torch's classes and with ours, in a process
that may die, and the two are compared after every step.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from fuzz.children import Server
from fuzz.world import Program

OPTIMIZERS = {
    "SGD": "SGD(ps, lr=0.05, momentum=0.9)",
    "Adagrad": "Adagrad(ps, lr=0.1)",
    "RMSprop": "RMSprop(ps, lr=0.01, momentum=0.9)",
    "Adam": "Adam(ps, lr=0.1)",
    "amsgrad": "AdamW(ps, lr=0.1, amsgrad=True)",
    "NAdam": "NAdam(ps, lr=0.1)",
    "RAdam": "RAdam(ps, lr=0.1)",
    "Adamax": "Adamax(ps, lr=0.1)",
    "Adadelta": "Adadelta(ps, lr=1.0)",
    "ASGD": "ASGD(ps, lr=0.05)",
    "Rprop": "Rprop(ps, lr=0.01)",
}
SOME = ("SGD", "Adam", "NAdam")
WORLDS = ("fused", "eager", "rules")
QUIET = {("fused", "Adam"), ("fused", "NAdam")}
"""Where each case runs once more with nothing compared before its end, as what is looked at is kept otherwise."""
PARAMS = "ps += [param((5, 4), seed=1), param((3,), seed=2), param((5, 4), seed=3)]"
Lines = str | Sequence[str]


def train(first: int, last: int) -> list[str]:
    return [f"give(ps, {seed}); o.step()" for seed in range(first, last)]


def lines(text: Lines) -> list[str]:
    return [line.strip() for line in ([text] if isinstance(text, str) else text)]


REFUSED = {
    "value in another type", "value of inference", "parameter in double", "meta by default from the first step",
    "a parameter of inference", "a parameter of one element, expanded", "conjugate",
    "parameters distributed", "parameter moved in its storage onto its gradient",
}  # fmt: skip
"""Cases that some or all of torch's classes refuse.  If they do, ours must not crash; what they do is up to them."""
UNDEFINED = {"two values one tensor", "values overlapping", "value is the parameter", "value is the gradient"}
"""Cases whose numbers depend on the order of operations in torch's step; ours must only not raise or crash."""

UNLIKE = {("amsgrad", "parameter moved in its storage onto its gradient")}
"""Cases that one class alone does otherwise: AdamW's decay of the parameter is in the gradient, too."""


def programs(
    text: Lines, own: Sequence[str] = tuple(OPTIMIZERS), params: Sequence[str] = (PARAMS,), case: str = ""
) -> list[Program]:
    """A case for each optimizer in each world, with plain steps before and after it."""
    found: list[Program] = []
    own = [name for name in own if (name, case) not in UNLIKE]
    for world in WORLDS:
        for name in own if world == "fused" else [name for name in own if name in SOME]:
            if name == "SGD" and "'step'" in "".join(lines(text)):
                continue  # torch's SGD counts no steps
            made = (*params, f"o = optim.{OPTIMIZERS[name]}", *train(0, 3), *lines(text), *train(10, 13))
            program = Program(made, ("torch", world), lenient=case in UNDEFINED, strict=case not in REFUSED)
            found += [program, replace(program, quiet=True)] if (world, name) in QUIET else [program]
    return found


def check(server: Server, programs: Sequence[Program]) -> None:
    assert programs
    failed = [outcome for outcome in server.run(programs) if outcome.difference is not None]
    said: list[str] = []
    for outcome in failed[:3]:
        at = outcome.difference
        assert at is not None
        said.append(f"{outcome.program}\n# line {at.line + 1} {at.kind}: {at.text}")
    kinds = sorted({f"{x.program.worlds[1]}: {x.difference and x.difference.kind}" for x in failed})
    assert not failed, f"{len(failed)} of {len(programs)}: {'; '.join(kinds)}\n\n" + "\n\n".join(said)


# ---------------------------------------------------------------------------------------------------------- the state

EDITS: dict[str, Lines] = {
    # the table
    "cleared": "o.state.clear()",
    "replaced by an empty dict": "o.state = defaultdict(dict)",
    "replaced by an equal dict": "o.state = defaultdict(dict, o.state)",
    "replaced by a plain dict": "o.state = dict(o.state)",
    "replaced by a deep copy of its values": "o.state = defaultdict(dict, {p: copy.deepcopy(s) for p, s in o.state.items()})",
    "entry deleted": "del o.state[ps[0]]",
    "entry popped": "o.state.pop(ps[0])",
    "entry popped and put back": ["kept = o.state.pop(ps[0])", *train(4, 6), "o.state[ps[0]] = kept"],
    "all entries deleted one by one": "[o.state.pop(p) for p in list(o.state)]",
    "entry replaced by a copy": "o.state[ps[0]] = dict(o.state[ps[0]])",
    "entry replaced by a deep copy": "o.state[ps[0]] = copy.deepcopy(o.state[ps[0]])",
    "entry replaced by an empty one": "o.state[ps[0]] = {}",
    "entry cleared": "o.state[ps[0]].clear()",
    "entry updated": "o.state[ps[0]].update(copy.deepcopy(o.state[ps[2]]))",
    "entry of another parameter": "o.state[ps[0]] = copy.deepcopy(o.state[ps[2]])",
    "entry shared by two parameters": "o.state[ps[0]] = o.state[ps[2]]",
    "entries swapped": "o.state[ps[0]], o.state[ps[2]] = o.state[ps[2]], o.state[ps[0]]",
    "keys of a user's own": "o.state[ps[0]]['mine'] = torch.ones(3)",
    "entry of another's parameter": "other = param((2,)); o.state[other] = {'mine': torch.ones(2)}",
    # the tensors
    "value replaced by zeros": "o.state[ps[0]][states(o, ps[0])[0]] = torch.zeros(5, 4)",
    "values replaced by clones": "o.state[ps[0]].update({k: x.clone() for k, x in o.state[ps[0]].items()})",
    "values replaced and the old ones written to": [
        "old = [x for x in o.state[ps[0]].values()]",
        "o.state[ps[0]].update({k: x.clone() for k, x in o.state[ps[0]].items()})",
        "[x.fill_(1e9) for x in old]",
    ],
    "value zeroed": "value(o, ps[0]).zero_()",
    "value multiplied": "value(o, ps[0]).mul_(0.5)",
    "value of one element": "value(o, ps[0])[0, 0] = 0.25",
    "value through .data": "value(o, ps[0]).data.zero_()",
    "value through numpy": "value(o, ps[0]).numpy()[:] = 0.5",
    "value through its storage": "value(o, ps[1]).untyped_storage().fill_(0)" ,
    "value.data assigned": "value(o, ps[0]).data = torch.full((5, 4), 0.5)",
    "value.data assigned twice": ["value(o, ps[0]).data = torch.full((5, 4), 0.5)", *train(4, 5),
                                  "value(o, ps[0]).data = torch.full((5, 4), 0.25)"],
    "value shared": "value(o, ps[0]).share_memory_()",
    "all shared": "[x.share_memory_() for s in o.state.values() for x in s.values()]",
    "value set_": "x = value(o, ps[0]); x.set_(torch.full((5, 4), 0.5))",
    "value set_ to a storage of the user's": "room = torch.full((100,), 0.5); value(o, ps[0]).set_(room.untyped_storage(), 7, (5, 4), (4, 1))",
    "value resized": "x = value(o, ps[0]); x.resize_(400, 50); x.fill_(0.5); x.resize_(5, 4)",
    "value transposed in place": "value(o, ps[0]).data = torch.full((4, 5), 0.5).t()",
    "value as_strided_": "value(o, ps[0]).as_strided_((5, 4), (1, 5))",
    "value swapped by t_": "x = value(o, ps[0]); x.t_(); x.resize_(5, 4)",
    "value in another type": "o.state[ps[0]][states(o, ps[0])[0]] = value(o, ps[0]).double()",
    "value expanded": "o.state[ps[1]][states(o, ps[1])[0]] = torch.full((3,), 0.5).repeat_interleave(2)[::2]",
    "value a subclass": "o.state[ps[0]][states(o, ps[0])[0]] = value(o, ps[0]).clone().as_subclass(Functional)",
    "value a parameter": "o.state[ps[0]][states(o, ps[0])[0]] = nn.Parameter(torch.full((5, 4), 0.5), requires_grad=False)",
    "value of inference": "with torch.inference_mode(): made = torch.full((5, 4), 0.5)\no.state[ps[0]][states(o, ps[0])[0]] = made",
    "value a lazy copy": "made = torch._lazy_clone(value(o, ps[0])); o.state[ps[0]][states(o, ps[0])[0]] = made",
    "lazy copy kept": ["kept = torch._lazy_clone(value(o, ps[0]))", *train(4, 6), "ps.append(kept)", *train(6, 7)],
    "value of numpy's memory": "room = np.full((5, 4), 0.5, np.float32); o.state[ps[0]][states(o, ps[0])[0]] = torch.from_numpy(room)",
    # the step
    "step zeroed": "o.state[ps[0]]['step'].zero_()",
    "step filled": "o.state[ps[0]]['step'].fill_(40)",
    "step set": "o.state[ps[0]]['step'] = torch.tensor(40.0)",
    "step added to": "o.state[ps[0]]['step'] += 10",
    "step through .data": "o.state[ps[0]]['step'].data = torch.tensor(40.0)",
    "steps shared by two": "o.state[ps[0]]['step'] = o.state[ps[1]]['step']",
    "step in float64": "o.state[ps[0]]['step'] = torch.tensor(40.0, dtype=torch.float64)",
    "numbers multiplied": "[x.mul_(0.5) for k, x in o.state[ps[0]].items() if x.ndim == 0 and k != 'step']",
    # two of something
    "aliased by two parameters": "alias(o, ps[0], o, ps[2])",
    "all aliased by two parameters": "[alias(o, ps[0], o, ps[2], k) for k in range(3)]",
    "two values one tensor": "o.state[ps[0]].update(dict.fromkeys(states(o, ps[0]), torch.full((5, 4), 0.5)))",
    "values overlapping": "room = torch.full((50,), 0.5); o.state[ps[0]].update({k: room[2 * i : 2 * i + 20].view(5, 4) for i, k in enumerate(states(o, ps[0]))})",
    "value is the parameter": "o.state[ps[0]][states(o, ps[0])[0]] = ps[0].data",
    "value is the gradient": "o.state[ps[0]][states(o, ps[0])[-1]] = torch.full((5, 4), 0.5); ps[0].grad = o.state[ps[0]][states(o, ps[0])[-1]]; o.step()",
    "copied": ["b = again(o, 'copy')", "give(ps, 4); b.step()", *train(5, 7), "give(ps, 7); b.step()"],
    "copied and the copy cleared": ["b = again(o, 'copy')", "b.state.clear()", "give(ps, 4); b.step()"],
    "deep copy stepped": ["b = again(o, 'deepcopy')", "give(b.param_groups[0]['params'], 4); b.step()", "del b"],
    "pickle stepped": ["b = again(o, 'pickle')", "give(b.param_groups[0]['params'], 4); b.step()"],
    "deep copy goes on, the first dies": ["o = again(o, 'deepcopy'); ps[:] = o.param_groups[0]['params']"],
    "loaded from itself": "o.load_state_dict(o.state_dict())",
    "loaded from a file": "o.load_state_dict(saved(o))",
    "loaded, and what was loaded edited": ["d = copy.deepcopy(o.state_dict())", "o.load_state_dict(d)",
                                           "[x.zero_() for s in d['state'].values() for k, x in s.items() if x is not None and (x.ndim or k == 'step')]"],
    "state_dict edited": "[x.zero_() for s in o.state_dict()['state'].values() for x in s.values() if x is not None]",
    "state_dict kept": ["d = o.state_dict()", *train(4, 6), "o.load_state_dict(d)"],
    # what was kept from before
    "entry kept": ["kept = o.state[ps[0]]", *train(4, 8), "kept.clear()"],
    "entry kept over a clear": ["kept = o.state[ps[0]]", "o.state.clear()", *train(4, 8), "kept.clear()"],
    "tensor kept": ["kept = value(o, ps[0])", *train(4, 8), "kept.zero_()"],
    "tensor kept over a clear": ["kept = value(o, ps[0])", "o.state.clear()", *train(4, 8), "kept.zero_()"],
    "view kept": ["kept = value(o, ps[0])[1]", *train(4, 8), "kept.zero_()"],
    "storage kept": ["kept = value(o, ps[1]).untyped_storage()", *train(4, 8), "kept.fill_(0)"],
    "numpy kept": ["kept = value(o, ps[0]).numpy()", *train(4, 8), "kept[:] = 0"],
    "step kept": ["kept = o.state[ps[0]]['step']", *train(4, 8), "kept.zero_()"],
    "table kept": ["kept = o.state", *train(4, 8), "kept.clear()"],
    "table kept over a replacement": ["kept = o.state", "o.state = defaultdict(dict)", *train(4, 8), "kept.clear()"],
    "values kept and the optimizer gone": [
        "b = again(o, 'deepcopy'); kept = [x for s in b.state.values() for x in s.values()]; del b",
        *train(4, 6),
        "[x.fill_(3) for x in kept]",
    ],
    "entry kept of a parameter without a gradient": [
        "d = saved(o); o = fresh(o, optim); o.load_state_dict(d); del d",
        "kept = o.state[ps[2]]; name = states(o, ps[2])[0]",
        # In one line, as what is compared after a line is looked at.
        "; ".join(["o.zero_grad(); give(ps[:2], 4); o.step()", "give(ps[:2], 5); o.step()", *train(6, 8),
                   "kept[name] = torch.full((5, 4), 0.5)", *train(8, 9)]),
    ],
    # parameters and groups
    "parameter's data assigned": "ps[0].data = torch.full((5, 4), 0.5)",
    "parameter moved in its storage": ["room = random((60,), torch.float32, 5)", "ps[0].data = room[:20].view(5, 4)", *train(4, 6),
                                       "ps[0].data = room[40:].view(5, 4)"],
    "parameter moved in its storage onto its gradient": [
        "room = random((60,), torch.float32, 5)", "ps[0].data = room[:20].view(5, 4)", *train(4, 6),
        "give(ps, 6); ps[0].data = room[40:].view(5, 4); ps[0].grad = room[30:50].view(5, 4); o.step()",
    ],
    "parameter's data with gaps": "ps[0].data = torch.full((5, 8), 0.5)[:, ::2]",
    "parameter's data with other gaps": ["ps[0].data = torch.full((5, 8), 0.5)[:, ::2]", *train(4, 6),
                                         "ps[0].data = torch.full((10, 4), 0.5)[::2]", *train(6, 8),
                                         "ps[0].data = torch.full((5, 4), 0.5)"],
    "parameters' data with gaps in each other": ["room = random((5, 8), torch.float32, 5)",
                                                 "ps[0].data = room[:, ::2]; ps[2].data = room[:, 1::2]", *train(4, 6)],
    "parameters' data with gaps, over each other": ["room = random((5, 8), torch.float32, 5)",
                                                    "ps[0].data = room[:, ::2]; ps[2].data = room[:, 2:6]", *train(4, 6)],
    "parameter's data with gaps, its gradient in them": [
        "room = random((5, 8), torch.float32, 5)", "give(ps, 4); ps[0].data = room[:, ::2]; ps[0].grad = room[:, 1::2]; o.step()",
        "ps[0].grad = room[:, ::2].clone(); o.step(); ps[0].grad = room[:, 1::2]; o.step()"],
    "parameter transposed": "ps[0].data = torch.full((4, 5), 0.5).t()",
    "parameter shared": "ps[0].data.share_memory_()",
    "parameter set_": "ps[0].data.set_(torch.full((5, 4), 0.5))",
    "parameter's storage resized": "x = ps[0].data; kept = x.clone(); x.untyped_storage().resize_(0); x.untyped_storage().resize_(80); x.copy_(kept)",
    "parameter swapped": "torch.utils.swap_tensors(ps[0], param((5, 4), seed=9))",
    "parameter in double": "ps[0].data = ps[0].data.double()",
    "parameter taken out": ["o.param_groups[0]['params'].pop(1)", *train(4, 6)],
    "parameter taken out and its state": ["p = o.param_groups[0]['params'].pop(1); o.state.pop(p, None)", *train(4, 6)],
    "parameter replaced in its group": "ps[0] = o.param_groups[0]['params'][0] = param((5, 4), seed=9)",
    "group emptied and filled": ["kept = o.param_groups[0]['params']; o.param_groups[0]['params'] = []", "o.step()",
                                 "o.param_groups[0]['params'] = kept"],
    "group added": "ps.append(param((2, 2), seed=9)); o.add_param_group({'params': [ps[-1]], 'lr': 0.02})",
    "group removed": ["ps.append(param((2, 2), seed=9)); o.add_param_group({'params': [ps[-1]]})", *train(4, 6),
                      "o.param_groups.pop(0)"],
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_edits(edit: str, server: Server) -> None:
    check(server, programs(EDITS[edit], case=edit))


@pytest.mark.parametrize("name", ["NAdam", "ASGD"])
def test_what_torch_casts_on_loading_is_a_copy(name: str, server: Server) -> None:
    # The numbers of a float64 parameter; what is not cast is shared by both.
    text = ["b = again(o, 'copy')", "o.load_state_dict(o.state_dict())", *train(4, 6), "give(ps, 6); b.step()"]
    params = ["ps += [param((5, 4), 'float64', 1), param((3,), 'float64', 2)]"]
    made = (*params, f"o = optim.{OPTIMIZERS[name]}", *train(0, 3), *text)
    check(server, [Program(made, ("torch", world)) for world in ("fused", "eager")])


# -------------------------------------------------------------------------- what surrounds a step: types, devices, modes

AROUND: dict[str, Lines] = {
    "float64 by default": ["torch.set_default_dtype(torch.float64)", *train(4, 7)],
    "float64 by default from the first step": ["o = fresh(o, type(o)); torch.set_default_dtype(torch.float64)", *train(4, 7)],
    "float64 by default while saving": ["with default_dtype(torch.float64): d = saved(o)", "o.load_state_dict(d)"],
    "float64 by default while loading": ["d = saved(o)", "with default_dtype(torch.float64): o.load_state_dict(d)"],
    "bfloat16 by default": ["torch.set_default_dtype(torch.bfloat16)", *train(4, 7), "torch.set_default_dtype(torch.float32)"],
    "bfloat16 by default from the first step": ["o = fresh(o, type(o)); torch.set_default_dtype(torch.bfloat16)", *train(4, 7)],
    "meta by default": ["torch.set_default_device('meta')", *train(4, 7), "torch.set_default_device(None)"],
    "meta by default, gradients laid out otherwise": [
        "torch.set_default_device('meta')", *(f"give(ps, {seed}, 'transposed'); o.step()" for seed in (4, 5)), "torch.set_default_device(None)"],
    "meta by default from the first step": ["o = fresh(o, type(o)); torch.set_default_device('meta')", *train(4, 7)],
    "a mode that sees operations": ["with Counting(): give(ps, 5); o.step()"],
    "inference mode": ["with torch.inference_mode(): o.step()"],
    "no_grad": ["with torch.no_grad(): o.step()"],
    "deterministic": ["torch.use_deterministic_algorithms(True)", *train(4, 6), "torch.use_deterministic_algorithms(False)"],
}  # fmt: skip


@pytest.mark.parametrize("around", AROUND)
def test_around(around: str, server: Server) -> None:
    # torch rounds the numbers of NAdam and ASGD to the default type, and ASGD reads its own, which meta tensors lack.
    own = ("SGD", "Adam", "amsgrad", "RMSprop", "RAdam", "Adagrad")
    check(server, programs(AROUND[around], own if "by default" in around else tuple(OPTIMIZERS), case=around))


# ------------------------------------------------------------------------------------------- parameters and gradients

KINDS: dict[str, Lines] = {
    **{f"parameters {how}": f"ps += [param((5, 4), seed=1, how={how!r}), param((3,), seed=2), param((2, 3, 4, 4), seed=3, how={how!r})]"
       for how in ("transposed", "gaps", "channels_last", "view", "function", "wrapped", "dispatching", "tensor",
                   "numpy", "lazy copy", "distributed")},
    **{f"parameters {kind}": f"ps += [param((5, 4), {kind!r}, 1), param((), {kind!r}, 2), param((0, 3), {kind!r}, 3)]"
       for kind in ("float64", "complex64", "complex128")},
    "a parameter of inference": ["with torch.inference_mode(): x = random((3,), torch.float32, 1)", "ps += [param((3,)), x]"],
    "one buffer": ["room = random((40,), torch.float32, 5)", "ps += [nn.Parameter(room[:20].view(5, 4)), nn.Parameter(room[20:])]"],
    "one buffer, with overlap": ["room = random((40,), torch.float32, 5)", "ps += [nn.Parameter(room[:25]), nn.Parameter(room[15:])]"],
    "the whole and a part": ["room = random((40,), torch.float32, 5)", "ps += [nn.Parameter(room), nn.Parameter(room[8:20])]"],
    "one memory twice": ["room = random((40,), torch.float32, 5)", "ps += [nn.Parameter(room), nn.Parameter(room)]"],
    "a parameter of one element, expanded": "ps += [param((3,)), random((1,), torch.float32, 5).expand(4).requires_grad_()]",
}  # fmt: skip
GRADIENTS = ("same layout", "zero", "some zeros", "transposed", "gaps", "view", "overlapping", "negative", "imaginary",
             "lazy copy", "numpy", "inference", "own", "none")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_parameters(kind: str, server: Server) -> None:
    check(server, programs(["give(ps, 5, 'same layout'); o.step()"], params=lines(KINDS[kind]), case=kind))


@pytest.mark.parametrize("how", ["dispatching", "function", "wrapped", "gaps"])
def test_state_aliased_by_a_parameter_that_is_stepped_eagerly(how: str, server: Server) -> None:
    # Torch steps one parameter after another, in their order.
    params = [f"ps += [param((5, 4), seed=1, how={how!r}), param((3,), seed=2), param((5, 4), seed=3)]"]
    again = "flip(o, ps[0], 1, 'gaps'); alias(o, ps[0], o, ps[2], 1)"
    check(server, programs(["alias(o, ps[2], o, ps[0])", *train(4, 6), again], params=params))


@pytest.mark.parametrize("how", GRADIENTS)
def test_gradients(how: str, server: Server) -> None:
    edits = [f"give(ps, {seed}, {how!r}); o.step()" for seed in (4, 5)]
    own = [
        name for name in OPTIMIZERS if how != "own" or name != "amsgrad"
    ]  # AdamW's decay then changes the gradient, too
    check(server, programs([*edits, *train(6, 7), edits[0]], own))


@pytest.mark.parametrize("how", ["plain", "conjugate", "transposed", "negative"])
def test_complex_gradients(how: str, server: Server) -> None:
    params = ["ps += [param((5, 4), 'complex64', 1), param((3,), 'complex128', 2)]"]
    check(server, programs([f"give(ps, {seed}, {how!r}); o.step()" for seed in (4, 5)], params=params, case=how))


def test_a_complex_parameter_that_becomes_real(server: Server) -> None:
    # The state stays complex; most of torch's classes then refuse.
    params = ["ps += [param((5, 4), 'complex64', 1), param((3,), 'complex128', 2)]"]
    check(server, programs(["x = ps[1]; x.data = x.data.double()", "give(ps, 4); o.step()"], ("ASGD",), params=params))


MOVED: dict[str, Lines] = {
    "one gradient for two parameters": "give(ps, 4); ps[0].grad = ps[2].grad; o.step()",
    "a gradient that is another parameter": "give(ps, 4); ps[0].grad = ps[2].data; o.step()",
    "a gradient that is an earlier parameter": "give(ps, 4); ps[2].grad = ps[0].data; o.step()",
    "a gradient that is an earlier parameter stepped eagerly": [
        "x = param((5, 4), seed=9); o.add_param_group({'params': [x]}); ps.append(x)", "ps[2].data = torch.full((2, 20), 0.5).view(40)[::2].view(5, 4)", "give(ps, 4); ps[1].grad = None; ps[3].grad = ps[2].data; o.step()",
        "give(ps, 5, 'negative'); ps[3].grad = ps[0].data; o.step()"],
    "gradients in one buffer": "room = random((43,), torch.float32, 4); ps[0].grad = room[:20].view(5, 4); ps[1].grad = room[20:23]; ps[2].grad = room[23:].view(5, 4); o.step()",
    "gradients that overlap": "room = random((43,), torch.float32, 4); ps[0].grad = room[:20].view(5, 4); ps[2].grad = room[10:30].view(5, 4); o.step()",
    "gradient kept": ["give(ps, 4); kept.append(ps[0].grad); o.step()", "give(ps, 5); kept[0].fill_(0.5); o.step()"],
    "gradient moved": ["give(ps, 4); o.step()", "ps[0].grad.data = torch.full((5, 4), 0.5); o.step()", "ps[0].grad.set_(torch.full((5, 4), 0.25)); o.step()"],
    "gradient freed": ["give(ps, 4); o.step()", "o.zero_grad(); o.step()", "give(ps[:1], 5); o.step()"],
    "gradients come and go": [line for i in range(4) for line in (f"o.zero_grad(); give(ps[{i % 3}:], {i + 4}); o.step()", f"give(ps[::2], {i + 9}); o.step()")],
    "a real backward": ["backward(ps); o.step()", "o.zero_grad(); backward(ps); o.step()", "o.zero_grad(set_to_none=False); backward(ps); o.step()"],
    "frozen": ["ps[0].requires_grad_(False)", *train(4, 6)],
}  # fmt: skip


@pytest.mark.parametrize("moved", MOVED)
def test_gradients_moved(moved: str, server: Server) -> None:
    check(server, programs(MOVED[moved]))


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
def test_a_parameter_twice_in_a_group(server: Server) -> None:
    """It is stepped twice, as in torch.  SGD is left out: torch reads both momenta before it steps either."""
    own = tuple(name for name in OPTIMIZERS if name != "SGD")
    twice = "ps += [param((5, 4), seed=1), param((3,), seed=2)]; ps.append(ps[0])"
    check(server, programs(train(4, 6), own, params=[twice]))


def test_sparse_gradients(server: Server) -> None:
    sparse = ["give(ps, 4, 'sparse'); o.step()", "give(ps, 5, 'sparse'); o.step()"]
    check(server, programs(sparse, ("Adagrad",)))
    # The drop-in makes them dense, as torch's SGD does; `thalweg.Optimizer` refuses them for rules with momentum.
    check(server, [program for program in programs(sparse, ("SGD",)) if "rules" not in program.worlds])


# ------------------------------------------------------------------------------------------------------ version counters

VERSIONS: dict[str, Lines] = {
    "plain": "give(ps, 4); o.step()",
    "with a closure": "o.step(lambda: give(ps, 4) or torch.tensor(1.0))",
    "backward again": ["x = sum((p * p).sum() for p in ps); x.backward(retain_graph=True); o.step()", "said.append(raised(x.backward))", "assert said == ['RuntimeError'], said"],
    "backward again through the state": [
        "w = torch.ones(5, 4, requires_grad=True); x = (w * value(o, ps[0])).sum()", "give(ps, 4); o.step()", "said.append(raised(x.backward))", "assert said == ['RuntimeError'], said"],
    "with gaps": ["ps[0].data = ps[0].data.repeat_interleave(2, 1)[:, ::2]", "give(ps, 4); o.step()", "give(ps, 5); o.step()"],
    "few gradients": ["o.zero_grad(); give(ps[:1], 4); o.step()", "o.zero_grad(); give(ps[1:], 5); o.step()"],
}  # fmt: skip


@pytest.mark.parametrize("case", VERSIONS)
def test_versions(case: str, server: Server) -> None:
    check(server, [replace(program, versions=True) for program in programs(VERSIONS[case])])


# ----------------------------------------------------------------------------------------------- clipping each gradient


def holds(server: Server, text: Lines, worlds: Sequence[str] = ("eager", "fused")) -> None:
    """Check that nothing is raised; the programs contain assertions."""
    check(server, [Program(tuple(lines(text)), ("", world)) for world in worlds])


CLIPPED = "o = thalweg.Optimizer(ps, rules.parse('sgd(lr=1)'), clip_each=1.0{})"
CLIP_EACH: dict[str, Lines] = {
    "as Keras": [
        "ps += [param((5, 4), 'float64', 1), param((3,), 'float64', 2)]", CLIPPED.format(""),
        "old = [clone(p) for p in ps]; give(ps, 1); ps[1].grad.mul_(0.01)",
        "due = [x - p.grad * min(1, 1 / p.grad.norm().item()) for x, p in zip(old, ps)]", "o.step()",
        "torch.testing.assert_close([clone(p) for p in ps], due, rtol=1e-12, atol=0)"],
    "a norm that float16 does not hold": [
        "ps.append(nn.Parameter(torch.zeros(4, dtype=torch.float16)))", CLIPPED.format(""),
        "ps[0].grad = torch.full((4,), 6e4, dtype=torch.float16)", "o.step()", "assert ps[0].tolist() == [-0.5] * 4, ps"],
    "a norm whose square float32 does not hold": [
        "ps.append(nn.Parameter(torch.zeros(4)))", CLIPPED.format(""), "ps[0].grad = torch.full((4,), 1e30)", "o.step()",
        "torch.testing.assert_close(clone(ps[0]), torch.full((4,), -0.5))"],
    "sparse": [
        "ps.append(param((5, 4), 'float64', 1))", CLIPPED.format(""),
        "old = clone(ps[0]); g = torch.zeros(5, 4, dtype=torch.float64); g[1] = 3.0; ps[0].grad = g.to_sparse(1)",
        "o.step()", "torch.testing.assert_close(clone(ps[0]), old - g / 6)"],
    **{f"skips {wrong} in {kind}": [
        f"ps += [param((5,), {kind!r}, 1), param((3,), {kind!r}, 2)]", CLIPPED.format(", nonfinite='skip'"),
        "give(ps, 1); o.step()",
        f"give(ps, 2); ps[0].grad[1] = float({wrong!r}); old = [clone(p) for p in ps]; gs = [clone(p.grad) for p in ps]",
        "o.step()", "assert o.skipped_steps == 1", "assert all(map(torch.equal, ps, old))",
        "torch.testing.assert_close([p.grad for p in ps], gs, equal_nan=True, rtol=0, atol=0)",
        "give(ps, 3); o.step()", "assert not any(map(torch.equal, ps, old)) and all(p.isfinite().all() for p in ps)"]
       for wrong in ("nan", "inf") for kind in ("float32", "float16")},
    "raises for nan": [
        "ps.append(param((5,)))", CLIPPED.format(", nonfinite='raise'"), "give(ps, 2); ps[0].grad[1] = torch.nan; old = clone(ps[0])",
        "try: o.step()\nexcept RuntimeError as error: assert 'not finite' in str(error)\nelse: assert False",
        "assert torch.equal(ps[0], old)"],
    "under a loss scale": [
        "ps.append(param((5,), 'float64', 1))", CLIPPED.format(""), "old = clone(ps[0]); give(ps, 1); g = clone(ps[0].grad)",
        "ps[0].grad.mul_(1024); o.grad_scale = torch.tensor(1024.0); o.step()",
        "torch.testing.assert_close(clone(ps[0]), old - g / g.norm().clamp(min=1))"],
}  # fmt: skip


@pytest.mark.parametrize("case", CLIP_EACH)
def test_clip_each(case: str, server: Server) -> None:
    holds(server, CLIP_EACH[case])


@pytest.mark.parametrize("clip", ["clip_norm=1.0", "clip_each=1.0"])
@pytest.mark.parametrize(
    "eagerly", ["give(ps[0], 4, 'negative'); give(ps[1:], 5)", "give(ps, 4); alias(o, ps[0], o, ps[2])"]
)
def test_clipping_where_some_parameters_are_stepped_eagerly_this_time(clip: str, eagerly: str, server: Server) -> None:
    text = (
        PARAMS,
        f"o = thalweg.Optimizer(ps, 'adam(lr=0.1)', {clip})",
        *train(0, 3),
        eagerly,
        "o.step()",
        *train(6, 8),
    )
    check(server, [Program(text, ("eager", "fused"))])


# ---------------------------------------------------------------------------------- stochastic rounding, users' rules

USERS_RULE = """
from typing import NamedTuple
from thalweg.maths import Value
from thalweg.rule import Rate, Rule
class Many(Rule):
    \"\"\"A user's rule with many states.\"\"\"
    lr: Rate = 0.1
    State = NamedTuple("State", [(f"s{{i}}", Value) for i in range({n})])
    def update(h, p, g, s, t):
        new = [0.75 * x + {factor} * g for i, x in enumerate(s)]
        return p - h.lr * sum(new), Many.State(*new)
"""
ZEROS = "ps += [nn.Parameter(torch.zeros(400)) for _ in range(2)]"


def rounded(params: str, rule: str) -> str:
    return f"thalweg.Optimizer({params}, {rule}, state_dtype=torch.bfloat16)"


def alike(n: int) -> tuple[str, ...]:
    """An optimizer of one parameter with `n` states that would be equal if they were not rounded differently."""
    return USERS_RULE.format(n=n, factor="0.3"), ZEROS, f"o = {rounded('ps[:1]', 'Many()')}"


NOISE: dict[str, Lines] = {
    "two parameters": [
        ZEROS, f"o = {rounded('ps', 'rules.Adam()')}",
        "for i in range(5): give(ps[0], i); ps[1].grad = ps[0].grad.clone(); o.step()",
        "a, b = (o.state[p]['exp_avg'] for p in ps)", "assert (a != b).float().mean() > 0.2, (a, b)",
        "torch.testing.assert_close(a.float(), b.float(), rtol=0.05, atol=0.01)"],
    "two states": [
        *alike(2), "for i in range(5): give(ps[0], i); o.step()", "a, b = o.state[ps[0]].pop('s0'), o.state[ps[0]].pop('s1')",
        "assert (a != b).float().mean() > 0.2, (a, b)", "torch.testing.assert_close(a.float(), b.float(), rtol=0.05, atol=0.02)"],
    "two steps": [
        *alike(1), "kept = []",
        "for i in range(2): o.state[ps[0]]['s0'] = torch.zeros(400, dtype=torch.bfloat16); give(ps[0], 1); o.step(); kept.append(o.state[ps[0]]['s0'].clone())",
        "assert (kept[0] != kept[1]).float().mean() > 0.2, kept"],
    "the same seed": [
        ZEROS, f"a, b = ({rounded('[p]', 'rules.Adam()')} for p in ps)",
        "for i in range(5): give(ps[0], i); ps[1].grad = ps[0].grad.clone(); a.step(); b.step()",
        "assert torch.equal(a.state[ps[0]]['exp_avg'], b.state[ps[1]]['exp_avg'])"],
}  # fmt: skip


@pytest.mark.parametrize("case", NOISE)
def test_stochastic_rounding(case: str, server: Server) -> None:
    holds(server, NOISE[case])


@pytest.mark.parametrize("n", [12, 13, 14, 15, 40])
def test_rules_of_many_states(n: int, server: Server) -> None:
    rule = USERS_RULE.format(n=n, factor="(i + 1)")
    made = [rule, PARAMS, "o = thalweg.Optimizer(ps, Many(lr=1e-3), ema=0.9)"]
    check(server, [Program((*made, *train(0, 4)), ("eager", "fused"))])
    final = f"due = [sum((i + 1) for i in range({n})) * 1e-3 * p.grad for p in ps]"
    holds(server, [*made, "old = [clone(p) for p in ps]", "give(ps, 1); o.step()", final,
                   "torch.testing.assert_close([clone(p) for p in ps], [x - d for x, d in zip(old, due)])"])  # fmt: skip


# ------------------------------------------------------------------------------------------- very large and very small


@pytest.mark.parametrize(
    ("name", "scale"),
    [("NAdam", 1.7e38), ("Adam", 1.7e38), ("Rprop", 1e-20), ("Rprop", 1e-18)],
)
def test_extremes(name: str, scale: float, server: Server) -> None:
    # Only one step with gradients this large: when their sign changes, torch's own averages are no longer finite.
    edits = [f"give(ps, {seed}, scale={scale}); o.step()" for seed in range(1 if scale > 1 else 3)]
    made = (PARAMS, f"o = optim.{OPTIMIZERS[name]}", *edits)
    check(server, [Program(made, ("torch", world)) for world in WORLDS])


# ---------------------------------------------------------------------------------------------------------- what is saved


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_the_state_of_a_parameter_taken_out_is_not_saved(rule: str, server: Server) -> None:
    text = [
        PARAMS, f"o = thalweg.Optimizer(ps, '{rule}(lr=0.1)')", *train(0, 3), "p = o.param_groups[0]['params'].pop(1)",
        "kept = dict(o.state)", "d = o.state_dict(); assert list(d['state']) == [0, 1]", "assert dict(o.state) == kept",
        *train(3, 5), "o.param_groups[0]['params'].append(p)", *train(5, 7), "assert o.state[p]['step'] == 5",
    ]  # fmt: skip
    holds(server, text)


def test_a_small_state_is_saved_small(server: Server) -> None:
    text = [
        "ps += [param((500, 500), seed=1), param((5,), seed=2)]", "o = optim.Adam(ps)", "give(ps, 1); o.step()",
        "file = io.BytesIO(); torch.save(o.state[ps[1]], file); assert file.tell() < 20_000, file.tell()",
        "assert len(pickle.dumps(copy.deepcopy(o.state[ps[1]]))) < 20_000",
        "file = io.BytesIO(); torch.save(o.state_dict()['state'][1], file); assert file.tell() < 20_000, file.tell()",
    ]  # fmt: skip
    holds(server, text)
