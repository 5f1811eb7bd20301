"""Warnings that name the line of the user's code, however many functions of the package are in between."""

import warnings
from inspect import currentframe

import torch

PASSED = frozenset({__name__.partition(".")[0], "torch", "contextlib"})
"""The packages whose frames lie between the user's line and the warning."""


def warn_caller(message: str) -> None:
    """Issue a UserWarning at the innermost line of the stack that is neither of this package nor of PyTorch."""
    level = 2
    if not torch.compiler.is_compiling():
        here = currentframe()
        frame = here and here.f_back
        while frame and frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in PASSED:
            frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
