"""Mirrors of a race's curves in TensorBoard, MLflow and Weights & Biases, through their own clients."""

from thalweg.mirrors.mirror import KINDS, Mirror, MirrorError, Mirrors, MirrorWarning, opened

__all__ = ["KINDS", "Mirror", "MirrorError", "MirrorWarning", "Mirrors", "opened"]
