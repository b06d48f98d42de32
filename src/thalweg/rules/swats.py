"""SWATS: switching from Adam to SGD when Adam's own steps indicate it.  Keskar & Socher 2017, Algorithm 1.

This module defines no rule; it has the part of a switch that depends on the formulas of the two rules.
"""

from collections.abc import Mapping

from thalweg.rule import Rule
from thalweg.rules.descent import SGD, Momentum


def successor(first: Rule, then: Rule) -> Rule:
    """The second rule, with the default learning rate until the switch finds one.

    ``SGD()`` becomes the paper's SGD, with momentum β₁ and the velocity ``averaged``; a `Momentum` of that form keeps
    its own momentum.

    Raises:
        ValueError: `first` has no β₁ and β₂ or looks ahead, or `then` is another rule or gives a rate.
    """
    if not {"beta1", "beta2"} <= first.numbers.keys() or first.looks_ahead:
        raise ValueError(f"Switch's first is {first} with at='auto'; allowed is a rule with beta1 and beta2")
    found = Momentum(momentum=first.numbers["beta1"], form="averaged") if then == SGD() else then
    if not (isinstance(found, Momentum) and found.form == "averaged" and found.lr == Momentum.lr):
        raise ValueError(
            f"Switch's then is {then} with at='auto', which finds the rate; "
            "allowed is SGD() or Momentum(form='averaged'), without a rate"
        )
    return found


def averaged(numbers: Mapping[str, float], average: float, rate: float, k: int) -> tuple[float, float]:
    """λ, the moving average of the rates γ equivalent to the first rule's steps, and λ corrected for its bias.

    Args:
        numbers: the first rule's numbers; the average decays by its β₂.
        average: λ after step k − 1.
        rate: γ, the rate at which gradient descent would move as far as step k.
        k: the step, 1, 2, …
    """
    beta2 = numbers["beta2"]
    average = beta2 * average + (1 - beta2) * rate
    return average, average / (1 - beta2**k)
