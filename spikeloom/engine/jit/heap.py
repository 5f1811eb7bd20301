"""What the C library's heap keeps of memory that was freed, and how to have it given back.

glibc does not fill a hole again by an aligned request of the same size once anything small lies beside it. So a heap in
which small things outlive large ones, as the nodes of a graph outlive what layers compute, grows with every large one:
unrolling a network in chunks took 172 MB at 69 MB of tensors, and 90 MB with this.
"""

import ctypes
import sys
from functools import cache
from time import perf_counter
from typing import Any

from .. import tuning

_next = 0.0  # by the clock of perf_counter


def trim() -> None:
    """Give free pages of the heap back to the system; elsewhere than in glibc, nothing happens."""
    malloc_trim = _malloc_trim()
    if malloc_trim is not None:
        malloc_trim(0)


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim if sys.platform == "linux" else None
    except (OSError, AttributeError):
        return None


def trim_now_and_then() -> None:
    """Trim, unless the last time is too close for how long it took."""
    global _next
    begin = perf_counter()
    if begin >= _next:
        trim()
        end = perf_counter()
        _next = end + tuning.limits.trim_share * (end - begin)
