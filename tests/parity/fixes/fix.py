"""What a difference is, as a script that runs with either library."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fix:
    """One difference.

    Args:
        row: the first cell of its row in docs/from-snntorch.md.
        script: what shows it, run with `snn` as either library.
        old: what the script gives with snnTorch 1.0.0.
        new: what it gives with ours.
        back: how to have the old result, where there is a way that somebody might want.
    """

    row: str
    script: Callable[[Any], Any]
    old: Any
    new: Any
    back: Callable[[Any], Any] | None = None


def error_of(call: Callable[[], Any]) -> str:
    """The name of the error that a call raises, or "nothing"."""
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "nothing"
