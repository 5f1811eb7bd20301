"""What cannot be written in C."""

from typing import NoReturn

from torch import nn


class CannotExport(NotImplementedError):
    """A network has a layer or an operation that the target has no form for; the message names it."""


def refuse(what: str, why: str) -> NoReturn:
    """Raise `CannotExport`."""
    raise CannotExport(f"{what} cannot be written in C: {why}")


def label(path: str, module: nn.Module) -> str:
    """The name of a module in messages and comments."""
    return f"{path!r} ({type(module).__name__})" if path else type(module).__name__
