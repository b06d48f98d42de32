"""Rules that wrap rules: Schedule-Free, cautious steps, Lookahead and grafting."""

import math
from typing import Annotated, Literal, NamedTuple

from thalweg.maths import Number, Value, maximum, minimum, norm, single, size, sum, where, zeros_like
from thalweg.rule import Decay, Fraction, Positive, Range, Rate, Rule
from thalweg.rules.adaptive import RMSProp
from thalweg.rules.descent import SGD
from thalweg.rules.moments import Adam, RAdam
from thalweg.rules.signs import Lion
from thalweg.wrapping import Wrapper, move

Count = Annotated[float, Range(1)]


class ScheduleFree(Wrapper):
    """Averages a rule's steps instead of scheduling them.  Defazio et al. 2024, "The Road Less Scheduled", Algorithm 1.

    The rule moves z from the gradient at y = (1 − β)z + βx; x is the average of all z, where step t weighs tʳ·γᵖ, γ
    being the largest rate so far.  The parameters are y while training and x after `Optimizer.eval`; ``offset`` in the
    state is z − x.  β takes the place of the rule's own momentum, so wrap a rule without one.  ``lambd`` is weight
    decay at y, inside the step.  The rate rises linearly over the first ``warmup`` steps: from the ``first`` of these
    rates, or from ``zero``, one step later than in the weights (optax).  ``numbers_in``: the precision of a rate that
    is warmed up, which optax computes in float32.  ``decoupling``: C, by which with 1 − β the weight of a new point in
    the average is multiplied, but for at most 1 (Song et al. 2025, "Through the river").
    """

    rule: Rule
    beta: Decay = 0.9
    lambd: Rate | None = None
    warmup: Positive | None = None
    r: Rate = 0.0
    power: Rate = 2.0
    decoupling: Positive | None = None
    warmup_from: Literal["first", "zero"] = "first"
    numbers_in: Literal["float64", "float32"] = "float64"

    simple = {"rule": SGD(lr=1.0)}
    variants = {
        "schedule_free": {},
        "schedule_free_sgd": {"rule": SGD(lr=1.0)},
        "schedule_free_adamw": {"rule": RMSProp(lr=2.5e-3, decay=0.999, bias_correction=True)},
        "schedule_free_radam": {"rule": RAdam(lr=2.5e-3, beta1=0.0, threshold=math.nextafter(4, 5), below="stand")},
    }

    class Own(NamedTuple):
        offset: Value
        weight_sum: Number
        lr_max: Number

    def check(self):
        if self.rule.looks_ahead:
            raise ValueError(
                f"ScheduleFree's rule is {self.rule}, which looks ahead; allowed is a rule that takes the gradient at "
                "the parameters, since ScheduleFree takes it at a point of its own"
            )

    @property
    def looks_ahead(self):
        return True

    def lookahead(h, s: "ScheduleFree.Own"):
        return (1 - h.beta) * s.offset

    def warmed(h, t: Number) -> Rule:
        """The rule with the learning rate that the warm-up gives step `t`."""
        if h.warmup is None:
            return h.rule
        share: Number = minimum(t / h.warmup, 1.0)
        if h.numbers_in == "float64":
            return h.rule.bind({"lr": h.rule.lr * share})
        most: Number = single(h.rule.lr)
        return h.rule.bind({"lr": single(most - single(most * single(1 - single(share))))})

    def update(h, p: Value, g: Value, s: "ScheduleFree.Own", t: Number):
        own, base = h.split(s)
        rule = h.warmed(t - 1 if h.warmup_from == "zero" else t)
        step, base = move(rule, p + own.offset, g, base, t)
        z = own.offset + step
        if h.lambd is not None:
            z = z - rule.rate(t) * h.lambd * (p + (1 - h.beta) * own.offset)
        highest = maximum(own.lr_max, h.warmed(t).rate(t))
        weight: Number = t**h.r * highest**h.power
        total: Number = own.weight_sum + weight
        c: Number = where(total == 0, 0.0, weight / where(total == 0, 1.0, total))
        if h.decoupling is not None:
            c = minimum(1.0, c * (1 - h.beta) * h.decoupling)
        return p + c * z, h.join(ScheduleFree.Own((1 - c) * z, total, highest), base)


def agreeing(step: Value, g: Value, least: float | None) -> Value:
    """The elements of a step that go against the gradient, larger by as much as the others are missing.

    Args:
        step: the step.
        g: the gradient.
        least: the least that the share of these elements is taken to be; or None to count one of them more, instead.
    """
    agrees = step * g < 0
    left = sum(where(agrees, 1.0, zeros_like(g)))
    factor = size(g) / (left + 1) if least is None else 1 / maximum(left / size(g), least)
    return factor * where(agrees, step, 0 * step)


class Cautious(Wrapper):
    """Steps only where the step agrees with the gradient.  Liang et al. 2024, "Cautious Optimizers", Algorithm 1.

    The elements that are left grow by one over their share of all, which is taken to be at least ``least``; or with
    ``scale="count"`` by the number of elements over one more than how many are left, as the authors' Lion does, and
    pytorch_optimizer.
    """

    rule: Rule
    least: Fraction = 1e-3
    scale: Literal["mean", "count"] = "mean"

    simple = {"rule": SGD()}
    variants = {"cautious_adam": {"rule": Adam()}, "cautious_lion": {"rule": Lion(), "scale": "count"}}

    def update(h, p: Value, g: Value, s: object, t: Number):
        _, base = h.split(s)
        step, base = move(h.rule, p, g, base, t)
        return p + agreeing(step, g, None if h.scale == "count" else h.least), h.join(h.Own(), base)


class Lookahead(Wrapper):
    """Every ``k`` steps, back to a part ``alpha`` of the way.  Zhang et al. 2019, "Lookahead", Algorithm 1."""

    rule: Rule
    k: Count = 5.0
    alpha: Fraction = 0.5

    simple = {"rule": SGD()}

    class Own(NamedTuple):
        slow_params: Value
        counter: Number

    def begin(self, p: Value):
        return Lookahead.Own(zeros_like(p) + p, 0.0)

    def update(h, p: Value, g: Value, s: "Lookahead.Own", t: Number):
        own, base = h.split(s)
        fast, base = h.rule.update(p, g, base, t)
        count = own.counter + 1
        slow: Value = own.slow_params
        slow = where(count >= h.k, slow + h.alpha * (fast - slow), slow)
        new = Lookahead.Own(slow, where(count >= h.k, 0.0, count))
        return where(count >= h.k, slow, fast), h.join(new, base)


class Grafted(Wrapper):
    """The direction of one rule's step, with the length of another's.  Agarwal et al. 2020, "Disentangling", eq. 1.

    Both rules see the same gradients.  The learning rate is that of ``magnitude``; that of ``direction`` cancels.
    """

    direction: Rule
    magnitude: Rule

    leads = "magnitude"
    simple = {"direction": SGD(), "magnitude": Adam()}

    @property
    def search(self):  # pyright: ignore[reportIncompatibleVariableOverride] -- see `Wrapper`
        """The search spaces of both rules, without the learning rate that cancels."""
        return {name: space for name, space in super().search.items() if name != "direction.lr"}

    def check(self):
        for name, rule in self.bases.items():
            if rule.looks_ahead:
                raise ValueError(
                    f"Grafted's {name} is {rule}, which looks ahead; allowed is a rule that takes the gradient at the "
                    "parameters, since the two rules of Grafted share one"
                )

    def update(h, p: Value, g: Value, s: object, t: Number):
        _, first, second = h.split(s)
        way, first = move(h.direction, p, g, first, t)
        step, second = move(h.magnitude, p, g, second, t)
        length = norm(way)
        factor = where(length == 0, 0.0, norm(step) / where(length == 0, 1.0, length))
        return p + factor * way, h.join(h.Own(), first, second)
