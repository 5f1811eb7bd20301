"""Copies of user functions with frozen global and enclosing variables.

A kernel compiled from an equation contains the values that the equation's global variables had when it was traced. The
plain loop would read these variables again at every step. So both run the same copy of the function, whose
variables have the values of the time of tracing.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

LIBRARIES = ("spikeloom", "torch", "numpy", "math")
"""Packages whose functions and modules are not copied."""

_copies: WeakKeyDictionary[FunctionType, FunctionType] = WeakKeyDictionary()


def fixed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a function whose global and enclosing names keep their values of the first call of `fixed`.

    This includes the user functions that it calls, and the values that it reads from modules and objects.
    """
    if type(function) is partial:
        return partial(fixed(function.func), *function.args, **function.keywords)
    if type(function) is not FunctionType or _of_a_library(function.__module__):
        return function
    if function not in _copies:
        _copies[function] = _copy(function, {})
    return _copies[function]


def _copy(function: FunctionType, known: dict[int, Any]) -> FunctionType:
    names, outside = _names(function.__code__), function.__globals__
    given: dict[str, Any] = {name: outside[name] for name in ("__builtins__", "__name__") if name in outside}
    cells = tuple(CellType() for _ in function.__closure__ or ())
    copy = FunctionType(function.__code__, given, function.__name__, function.__defaults__, cells or None)
    known[id(function)] = copy
    copy.__kwdefaults__, copy.__qualname__ = function.__kwdefaults__, function.__qualname__
    copy.__doc__, copy.__annotations__ = function.__doc__, function.__annotations__
    given.update({name: _fixed_value(outside[name], names, known) for name in names if name in outside})
    for cell, theirs in zip(cells, function.__closure__ or (), strict=True):
        try:
            cell.cell_contents = _fixed_value(theirs.cell_contents, names, known)
        except ValueError:  # the name has no value yet
            continue
    return copy


def _fixed_value(value: Any, names: frozenset[str], known: dict[int, Any]) -> Any:
    if id(value) in known:
        return known[id(value)]
    if type(value) is FunctionType:
        return value if _of_a_library(value.__module__) else _copy(value, known)
    if type(value) is ModuleType:
        if _of_a_library(value.__name__):
            return value
        space = known[id(value)] = SimpleNamespace()
        vars(space).update({n: _fixed_value(vars(value)[n], names, known) for n in names if n in vars(value)})
        return space
    if isinstance(value, (type, MethodType)):
        return value
    try:
        return deepcopy(value, known)
    except Exception:  # a user object may raise anything
        return value


def _names(code: CodeType) -> frozenset[str]:
    """The names that a function reads, including those of nested functions."""
    inner = [_names(const) for const in code.co_consts if isinstance(const, CodeType)]
    return frozenset(code.co_names).union(*inner)


def _of_a_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in LIBRARIES
