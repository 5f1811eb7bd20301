"""Renew locks in a forked child, in which only the forking thread of the parent continues.

A lock that another thread held at that moment is never released in the child. So the child replaces the locks of the
package. Code that forks inside a `with` block of a lock leaves the block with the lock that it entered.
"""

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Result = TypeVar("Result")


def in_child(renew: Callable[[], None]) -> Callable[[], None]:
    """Call `renew` in every forked child before other code runs there. Usable as a decorator."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
    return renew


class cached_property(Generic[Result]):  # noqa: N801 - in place of functools.cached_property
    """`functools.cached_property` without its lock (which Python before 3.12 has): two threads may both compute the
    value."""

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
