"""SWATS, from Adam to SGD where Adam's own steps say so: Keskar & Socher 2017, Algorithm 1.

It is no rule of its own, but what is needed to know of two rules to go from one to the other.
"""

from collections.abc import Mapping

from thalweg.rule import Rule
from thalweg.rules.descent import SGD, Momentum


def successor(first: Rule, then: Rule) -> Rule:
    """The rule to go on with, with a default in place of the rate that is to be found.

    ``SGD()`` becomes the paper's, whose momentum is β₁ and whose velocity is ``averaged``; a `Momentum` of that form
    keeps a momentum of its own.

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
    """λ after step k = 1, 2, …, the average of the rates γ that the steps amount to, and λ corrected for its bias.

    Args:
        numbers: those of the first rule, whose β₂ is that of the average.
        average: λ after step k − 1.
        rate: γ, the rate of gradient descent that step k amounts to.
        k: the step.
    """
    beta2 = numbers["beta2"]
    average = beta2 * average + (1 - beta2) * rate
    return average, average / (1 - beta2**k)
