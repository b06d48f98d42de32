"""SWATS: switching from Adam to SGD when Adam's own steps indicate it.  Keskar & Socher 2017, Algorithm 1.

This is not a rule, but the knowledge of two rules that is needed to switch from one to the other.
"""

from collections.abc import Mapping

from thalweg.rule import Rule
from thalweg.rules.descent import SGD, Momentum


def successor(first: Rule, then: Rule) -> Rule:
    """The second rule, with a default in place of the rate that is still to be found.

    ``SGD()`` becomes the paper's, with momentum β₁ and the velocity ``averaged``; a `Momentum` of that form keeps its
    own momentum.

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
    """λ after step k = 1, 2, …, the moving average of the rates γ that equal the steps, and λ corrected for its bias.

    Args:
        numbers: the first rule's; the average decays by its β₂.
        average: λ after step k − 1.
        rate: γ, the rate at which gradient descent would move as far as step k.
        k: the step.
    """
    beta2 = numbers["beta2"]
    average = beta2 * average + (1 - beta2) * rate
    return average, average / (1 - beta2**k)
