"""Methods that use the curvature of the loss: Newton's, with the exact Hessian.

Unlike an update rule, which sees one tensor at a time, these solve a linear system over all parameters at
once; so they are optimizers of their own, stepped with a closure that returns the loss.
"""

from thalweg.curvature.newton import Newton

__all__ = ["Newton"]
