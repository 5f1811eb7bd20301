"""Modules that print as the call that makes them."""

import inspect
from typing import Any

from torch import Tensor, nn


class Optioned(nn.Module):
    """An nn.Module whose repr shows the options that are not the defaults, and that has a ``__name__``."""

    def __init__(self) -> None:
        super().__init__()
        self.__name__ = type(self).__name__

    def extra_repr(self) -> str:
        """The options, as they are written in a call."""
        parameters = inspect.signature(type(self)).parameters
        values = {key: getattr(self, key) for key in parameters if hasattr(self, key)}
        given = {key: value for key, value in values.items() if not _is_default(value, parameters[key].default)}
        return ", ".join(f"{key}={value!r}" for key, value in given.items())


def _is_default(value: Any, default: Any) -> bool:
    return value is default if isinstance(value, Tensor) else bool(value == default)
