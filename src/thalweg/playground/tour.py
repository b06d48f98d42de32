"""The lectures as a tour: twelve states of the playground, each with two sentences."""

from typing import Any

_ALL = (0, 1, 2, 3, 4)  # arrows: gradient, momentum, squares, step, adjusted gradient


def _stop(title: str, text: str, surface: str, *runners: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"title": title, "text": text, "state": {"s": surface, "a": [0, 1, 3], "r": list(runners)} | more}


def _walker(rule: str, lr: float, label: str | None = None, **more: Any) -> dict[str, Any]:
    """A runner; `more` has its other settings, and what the state of a runner has under a name of one letter."""
    known = {name: x for name, x in more.items() if len(name) == 1}
    settings = {name: x for name, x in more.items() if len(name) > 1}
    return {"r": rule, "h": {"lr": lr, **settings}, **({"l": label} if label else {}), **known}


STOPS: list[dict[str, Any]] = [
    _stop(
        "full batch against noise",
        "With all samples the gradient is exact and descent goes straight to the minimum; with one sample it "
        "is noisy, "
        "and descent ends in a walk around the minimum. Sixteen samples have a quarter of the noise of one, "
        "at sixteen "
        "times the cost.",
        "noisy",
        _walker("sgd", 0.05, "all samples", m=0), _walker("sgd", 0.05, "16 samples", m=16, u="orange"),
        _walker("sgd", 0.05, "one sample", m=1, u="violet"), n=3, q=1,
    ),
    _stop(
        "the ravine",
        "Where a surface is much steeper across than along, gradient descent zigzags: its rate is limited by "
        "the steep "
        "direction, and along the flat one it creeps. The number beside the rate is the largest that is "
        "stable for the "
        "curvature here; drag the slider over it.",
        "ravine", _walker("sgd", 0.97), _walker("sgd", 0.3, "sgd, smaller rate", u="orange"),
    ),
    _stop(
        "what momentum damps",
        "A velocity adds up the gradients: along the ravine they agree and it grows, across they change sign "
        "and cancel. "
        "Momentum reaches the minimum many times sooner than descent at the same rate, swinging through it "
        "on the way.",
        "ravine", _walker("sgd", 0.5), _walker("momentum", 0.5, momentum=0.9),
    ),
    _stop(
        "looking ahead",
        "Nesterov's method takes the gradient where the velocity will lead, the start of the orange arrow, "
        "and so brakes "
        "before it overshoots. Here its swings die out sooner than those of plain momentum with the same rate.",
        "ravine", _walker("momentum", 0.3, momentum=0.95), _walker("nesterov", 0.3, u="orange", momentum=0.95), i=1,
    ),
    _stop(
        "AdaGrad's dying rate",
        "AdaGrad divides by the root of all squared gradients so far, which frequent large gradients make "
        "large. The sum "
        "never shrinks, so the steps do, and here AdaGrad all but stops long before the minimum.",
        "rosenbrock", _walker("adagrad", 0.02), _walker("rmsprop", 0.02, decay=0.9), a=[0, 2, 3], q=4,
    ),
    _stop(
        "RMSProp's forgetting",
        "RMSProp averages the squares over the last steps only, so what was steep long ago no longer "
        "shortens its steps. "
        "Its rectangle, the root of that average, shrinks again on flat ground, while AdaGrad's only grows.",
        "beale", _walker("adagrad", 0.1), _walker("rmsprop", 0.02, decay=0.9), a=[0, 2, 3], i=1, q=2,
    ),
    _stop(
        "Adam's bias correction in the first steps",
        "Both averages of Adam start at zero, the average of squares much more slowly: uncorrected, its "
        "first step is "
        "three times the rate, and the next ones are longer still. Take single steps and compare the arrows.",
        "bowl", _walker("adam", 0.1), _walker("adam", 0.1, "adam, uncorrected", o={"bias_correction": 1}, u="orange"),
        a=list(_ALL), q=0.3,
    ),
    _stop(
        "the saddle",
        "At a saddle point the gradient vanishes though it is no minimum, and gradient descent stays near it "
        "for long. "
        "Methods that divide by the size of the gradients step out along the flat direction as fast as along "
        "any other.",
        "saddle",
        *(_walker(rule, lr) for rule, lr in (
            ("sgd", 0.01), ("momentum", 0.01), ("adagrad", 0.12), ("rmsprop", 0.02), ("adam", 0.02),
        )),
    ),
    _stop(
        "the plateau",
        "Far out the surface is all but flat, and a step in proportion to the gradient is all but nothing. "
        "Divided by "
        "their own size, small gradients carry as far as large ones; that is why adaptive methods leave a "
        "plateau first.",
        "plateau",
        *(_walker(rule, lr) for rule, lr in (
            ("sgd", 0.3), ("momentum", 0.3), ("adagrad", 0.3), ("rmsprop", 0.04), ("adam", 0.12),
        )),
        q=2,
    ),
    _stop(
        "schedules",
        "With a constant rate noise keeps descent away from the minimum; a rate that falls lets it settle "
        "there. Momentum "
        "can follow a schedule, too: here it goes from 0.5 to 0.9, as the fifth lecture has it.",
        "noisy",
        _walker("sgd", 0.1, "constant rate"),
        _walker("sgd", 0.1, "cosine", u="orange", c={"lr": "cosine(1.0)"}),
        _walker("momentum", 0.02, "warm-up, cosine, momentum 0.5 to 0.9",
                c={"lr": "warmup(0.1).then(cosine(0.9))", "momentum": "anneal(0.5, 0.9, 0.5)"}),
        n=2, q=4,
    ),
    _stop(
        "switching",
        "Adam converges fast, and descent often ends better: so use Adam first, then descent. The orange "
        "runner changes "
        "after 80 steps; Adam alone keeps stepping by its rate in the noise, whatever the size of the gradient.",
        "noisy",
        _walker("adam", 0.15),
        _walker("adam", 0.15, "adam, then sgd", u="orange", t={"at": 80, "r": "sgd", "lr": 0.02}),
        _walker("sgd", 0.02), n=1.5, q=2,
    ),
    _stop(
        "Newton",
        "Newton's method divides the gradient by the curvature, so it needs one step for a quadratic and few "
        "near any "
        "minimum. Where the surface curves downwards it has no minimum to step to, and stops: move its start with a "
        "click, or set its damping.",
        "basins",
        _walker("sgd", 0.08), _walker("newton", 1, u="orange"), _walker("line_search", 1, u="violet"), q=0.3, i=1,
    ),
]  # fmt: skip
"""For each stop its ``title``, its ``text``, and the ``state``, as the address bar of the page has it."""
