"""The ``thalweg`` command."""

from thalweg.cli.app import main

__all__ = ["main"]
