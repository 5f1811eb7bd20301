"""The arguments of `unroll` and of all functions that run a network as it does: the steps, and the forward's inputs."""

from collections.abc import Mapping
from inspect import CO_VARARGS, Parameter, signature
from typing import Any

from torch import nn

from ..neurons import SpikingNeuron


def steps_of(net: nn.Module, steps: Any, num_steps: Any, kwargs: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """The number of steps, from `steps` and its other name `num_steps`, and the keyword inputs of the forward.

    If the forward has an argument `num_steps`, it is passed there, and is not another name of `steps`.
    """
    if num_steps is None and "num_steps" in kwargs:
        num_steps, kwargs = kwargs["num_steps"], {name: value for name, value in kwargs.items() if name != "num_steps"}
    if num_steps is None or num_steps is False:  # not given, as in snnTorch
        return steps, kwargs
    if _forward_takes(net, "num_steps"):
        return steps, {**kwargs, "num_steps": num_steps}
    if steps is not None and steps != num_steps:
        raise TypeError(f"unroll got steps={steps} and num_steps={num_steps}, two names of one argument; pass one")
    return num_steps, kwargs


def _forward_takes(net: nn.Module, name: str) -> bool:
    """Whether the forward of a network, or of the one that it wraps, has an argument of this name."""
    while isinstance(inner := getattr(net, "_orig_mod", getattr(net, "module", None)), nn.Module):
        net = inner
    parameters = signature(net.forward).parameters
    return name in parameters or any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def refuse_steps_by_position(net: nn.Module, args: tuple[Any, ...], steps: Any) -> None:
    """Raise if a number is passed as an input that the forward does not have: it is the number of steps."""
    most = most_inputs(net)
    if steps is None and most is not None and len(args) == most + 1 and type(args[most]) is int:
        raise TypeError(
            f"unroll got {args[most]} by position, as input {most} of the forward of {type(net).__name__}; pass the "
            f"number of steps by name: steps={args[most]}"
        )


def too_many_inputs(net: nn.Module, args: tuple[Any, ...]) -> str:
    """A sentence if there are more positional inputs than the forward has; empty if not."""
    most = most_inputs(net)
    if most is None or len(args) <= most:
        return ""
    return (
        f"unroll got {len(args)} inputs, but the forward of {type(net).__name__} takes {most}: all positional "
        "arguments are its inputs, and in a stream the elements of a tuple. To pair a stream with its targets, zip the "
        "outputs: for out, y in zip(snn.stream(net, xs), ys)"
    )


def most_inputs(net: nn.Module) -> int | None:
    """The number of positional arguments of the forward; None if it is not known, or any number."""
    if isinstance(net, SpikingNeuron):
        return 1
    code = getattr(net.forward, "__code__", None)
    if code is None or code.co_flags & CO_VARARGS:
        return None
    return int(code.co_argcount) - hasattr(net.forward, "__self__")
