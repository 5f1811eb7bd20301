"""What a forked child needs anew: of the parent's threads only the one that forked goes on in it.

A lock that another thread held at that moment is never released in the child. So locks of the package are replaced
there; whoever forks inside a `with` block of one leaves the block with the lock that it has entered.
"""

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Result = TypeVar("Result")


def in_child(renew: Callable[[], None]) -> Callable[[], None]:
    """Have a function called in every forked child before anything else runs there. It can be a decorator."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
    return renew


class cached_property(Generic[Result]):  # noqa: N801 - in place of functools.cached_property
    """`functools.cached_property` without its lock, which releases of Python before 3.12 have: two threads may both
    compute the value."""

    def __init__(self, compute: Callable[[Any], Result]):
        self.compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "cached_property[Result]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> Result: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        value = self.compute(instance)
        return instance.__dict__.setdefault(self.name, value)
