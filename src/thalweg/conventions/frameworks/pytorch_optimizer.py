"""The meaning of pytorch_optimizer 4.1.0's names, according to its source code."""

from thalweg.conventions.frameworks.pytorch_optimizer_elements import ELEMENTS
from thalweg.conventions.frameworks.pytorch_optimizer_tensors import TENSORS
from thalweg.conventions.frameworks.shared import WRAPS
from thalweg.conventions.meaning import Framework

PYTORCH_OPTIMIZER = Framework(
    "pytorch_optimizer",
    "pytorch_optimizer.{}",
    "lr",
    {**ELEMENTS, **TENSORS},
    {
        "AdaMuon": "its second moment of the elements of orthogonal matrices is not translated",
        "ScheduleFreeWrapper": f"{WRAPS}; write thalweg.rules.ScheduleFree around a rule",
        "Lookahead": f"{WRAPS}; write thalweg.rules.Lookahead around a rule",
    },
    any_case=True,
    notes=(
        "Names may be written in lower case, as for `pytorch_optimizer.load_optimizer`.",
        "`weight_decouple`: with `'lambd'` the weight decay is the rule's own, at the end of its step; with `'none'` "
        "it has no effect, because the package adds it to the gradient after the gradient was used.",
        "`LaProp` rounds the correction of its momentum to float32, whatever the parameters are, unless given "
        "`foreach=False`; the rule rounds there, too. `Adan` adds up the norm for `max_grad_norm` in float32, and so "
        "does `Lamb` with `pre_norm`: `clip_in='float32'`.",
        "`Prodigy` and `DAdaptAdam` add up their sums in float32, one parameter after the other, where the rules do so "
        "in float64: they agree to 1e-6. Without `weight_decouple` `Prodigy`'s weight decay has no effect there.",
        "`AdaFactor`'s `lr` has no effect while `relative_step` is on: the rate is at most 0.01. Its momentum is in "
        "bfloat16 unless `momentum_dtype` says otherwise.",
        "`Shampoo`'s factor of a vector is singular but for `matrix_eps`, so its root magnifies the rounding of sums: "
        "steps of vectors agree to 1e-6 or so, and not at all where they diverge.",
    ),
)
"""The names of pytorch_optimizer."""
