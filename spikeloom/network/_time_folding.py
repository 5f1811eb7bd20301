"""Fold time into dimension 0: inputs become [T*B, ...] for the forward, and outputs [T, B, ...] again.

A `Request` is a call of `unroll` or a similar function: the network and its inputs, checked by `read`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import CO_VARARGS, Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import (
    TreeSpec,
    is_traced,
    is_view,
    transformed,
    tree_flatten,
    tree_flatten_with_path,
    tree_leaves,
    tree_unflatten,
    uncompiled,
)
from ..layers import SEES_TIME
from ..neurons import SpikingNeuron
from ..neurons._unrolled_run import UnrolledRun, current_run


@dataclass(frozen=True)
class Request:
    """A network and its inputs.

    Args:
        net: the network.
        args: positional inputs, every tensor in them [T, B, ...], or [B, ...] if static.
        kwargs: keyword inputs, of the same shapes.
        steps: T.
        batch: B.
        static: whether the inputs are the same at every step.
        names: the path of each module in the network.
    """

    net: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    steps: int
    batch: int
    static: bool
    names: Mapping[nn.Module, str]

    def leaves(self) -> tuple[list[Any], TreeSpec | None]:
        """The inputs as a list, and their containers (None for a single tensor: flattening takes 50 us)."""
        if len(self.args) == 1 and not self.kwargs and isinstance(self.args[0], Tensor):
            return [self.args[0]], None
        return tree_flatten((self.args, dict(self.kwargs)))

    def tensors(self) -> list[Tensor]:
        """The tensors among the inputs."""
        return [leaf for leaf in self.leaves()[0] if isinstance(leaf, Tensor)]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inputs, with `change` applied to every tensor that has a batch dimension."""
        leaves, containers = self.leaves()
        changed = [change(x) if isinstance(x, Tensor) and x.dim() else x for x in leaves]
        if containers is None:
            return (changed[0],), {}
        args, kwargs = tree_unflatten(changed, containers)
        return args, kwargs

    def layers(self) -> set[nn.Module]:
        """The modules of the network, without the submodules of modules that process time themselves."""
        return set(self.names) - {p for m in self.names if isinstance(m, SEES_TIME) for p in m.modules() if p is not m}

    def folded(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inputs with time in dimension 0: [T*B, ...]; static ones are repeated."""
        if self.static:
            return self.mapped(lambda t: t.expand(self.steps, *t.shape).flatten(0, 1))
        return self.mapped(lambda t: t.flatten(0, 1))

    def at(self, step: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inputs of one step: [B, ...]."""
        return self.mapped(lambda t: t if self.static else t[step])


def read(
    net: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], steps: int | None, num_steps: int | None = None
) -> Request:
    """Check the arguments and return a request; raises an error if they cannot be unrolled.

    `num_steps` is another name of `steps`, see `steps_of`.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"unroll requires a network, an nn.Module; got {type(net).__name__}")
    if num_steps is not None or "num_steps" in kwargs:
        steps, kwargs = steps_of(net, steps, num_steps, kwargs)
    if current_run() is not None:
        raise RuntimeError("unroll was called within a network that is being unrolled; unroll the outermost one only")
    whole = isinstance(steps, int) or hasattr(steps, "__index__")  # torch.compile knows only the first
    if steps is not None and (isinstance(steps, bool) or not whole):
        raise TypeError(f"steps is {steps!r}; pass a whole number of steps")
    if steps is not None and steps < 0:
        raise ValueError(f"steps is {steps}; pass zero or more steps")
    several = len(args) > 1 and not torch.compiler.is_compiling()
    if several:
        refuse_steps_by_position(net, args, steps)
    if isinstance(net, SpikingNeuron) and (len(args) > 1 or kwargs):
        raise TypeError(
            f"{type(net).__name__} is unrolled with its input as the only argument, starting from its stored state; "
            "to start from another state, assign it to the layer"
        )
    names = {module: name for name, module in net.named_modules()}
    for module in names:
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise TypeError(
                f"{names[module] or 'the network'!r} is an nn.DataParallel, whose threads cannot take part in an "
                "unrolled run; use nn.parallel.DistributedDataParallel"
            )
    more = too_many_inputs(net, args) if several else ""
    try:
        sizes = _sizes(args, kwargs, () if steps is None else (steps,))
    except ValueError as error:
        raise (ValueError(f"{error}. {more}") if more else error) from None
    if more:
        raise TypeError(more)
    return Request(net, args, kwargs, *sizes, static=steps is not None, names=names)


def _sizes(args: tuple[Any, ...], kwargs: Mapping[str, Any], steps: tuple[int, ...]) -> tuple[int, int]:
    """T and B, which must be equal for all tensors."""
    lead = 1 if steps else 2
    form = "[B, ...], with steps=T" if steps else "[T, B, ...]; or pass steps=T if it is the same at every step"
    first: tuple[int, ...] = ()
    inputs = {f"input {i}" if i else "the input": arg for i, arg in enumerate(args)} | dict(kwargs)
    for name, arg in inputs.items():
        for t in [arg] if isinstance(arg, Tensor) else tree_leaves(arg):
            if not isinstance(t, Tensor) or (first and not t.dim()):
                continue
            if t.dim() < lead:
                raise ValueError(f"{name} has shape {tuple(t.shape)}; pass a tensor of shape {form}")
            size = tuple(t.shape[:lead])
            if first and size != first:
                raise ValueError(
                    f"{name} has shape {tuple(t.shape)}, but the first input starts with {first}; every tensor passed "
                    f"to unroll must have shape {form}. Register other tensors as buffers of the network"
                )
            first = first or size
    if not first:
        raise TypeError(f"no tensor to run over was passed; pass one of shape {form}")
    total, batch = (*steps, *first)
    return total, batch


def unfolded(outputs: Any, unrolled: UnrolledRun) -> Any:
    """The outputs of a forward, every tensor reshaped to [T, B, ...], in the same containers."""
    if isinstance(outputs, Tensor):  # neurons return this or the next form; flattening containers takes 50 us
        return _unfolded(outputs, unrolled, "")
    if type(outputs) is tuple and all(isinstance(out, Tensor) for out in outputs):
        return tuple([_unfolded(out, unrolled, f"[{i}]") for i, out in enumerate(outputs)])
    leaves, form = tree_flatten_with_path(outputs)
    return tree_unflatten([_unfolded(leaf, unrolled, "".join(map(str, path))) for path, leaf in leaves], form)


def _unfolded(out: Any, unrolled: UnrolledRun, path: str) -> Any:
    if not isinstance(out, Tensor):
        if any(isinstance(value, Tensor) for value in getattr(out, "__dict__", {}).values()):
            raise TypeError(
                f"the forward returned a {type(out).__name__}, whose tensors unroll cannot find; return tensors in "
                "tuples, lists or dicts, or register the class with torch.utils._pytree.register_dataclass"
            )
        return out
    if unrolled.bare:
        return not_a_view(out)
    if not out.dim() or out.shape[0] != unrolled.rows(out):
        raise ValueError(
            f"output{path} of the unrolled forward has shape {tuple(out.shape)}; dimension 0 must be "
            f"{unrolled.rows_text(out)}. Return one row per step and batch entry, and reduce the result of unroll"
        )
    static = unrolled.is_static(out)
    steps, batch = unrolled.steps, unrolled.batch
    view = out.expand(steps, *out.shape) if static else out.view(steps, batch, *out.shape[1:])
    return _without_view(view)


def not_a_view(made: Tensor) -> Tensor:
    """The same values, not as a view for autograd, so that torch allows `detach_()`."""
    return _without_view(made) if is_view(made) else made


def _without_view(view: Tensor) -> Tensor:
    if transformed() or (not torch.compiler.is_compiling() and is_traced()):
        return view  # torch.func transforms, tangents and the check of torch.jit.trace accept only views
    return _NoView.apply(view) if view.requires_grad else view.detach()


class _NoView(torch.autograd.Function):
    """Return a view as a tensor that is not a view for autograd, so that torch allows `detach_()`."""

    @staticmethod
    def forward(ctx: Any, view: Tensor) -> Tensor:
        return view.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


# -- the arguments of `unroll` -----------------------------------------------------------------------------------------


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
        raise TypeError(f"steps={steps} and num_steps={num_steps} are two names of one argument; pass one")
    return num_steps, kwargs


def _forward_takes(net: nn.Module, name: str) -> bool:
    """Whether the forward of a network, or of the one that it wraps, has an argument of this name."""
    net = uncompiled(net)
    while isinstance(inner := getattr(net, "module", None), nn.Module):
        net = uncompiled(inner)
    parameters = signature(net.forward).parameters
    return name in parameters or any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def refuse_steps_by_position(net: nn.Module, args: tuple[Any, ...], steps: Any) -> None:
    """Raise if a number is passed as an input that the forward does not have: it is the number of steps."""
    most = most_inputs(net)
    if steps is None and most is not None and len(args) == most + 1 and type(args[most]) is int:
        raise TypeError(
            f"{args[most]} was passed by position, as input {most} of the forward of {type(net).__name__}; pass the "
            f"number of steps by name: steps={args[most]}"
        )


def too_many_inputs(net: nn.Module, args: tuple[Any, ...]) -> str:
    """A sentence if there are more positional inputs than the forward has; empty if not."""
    most = most_inputs(net)
    if most is None or len(args) <= most:
        return ""
    return (
        f"{len(args)} inputs were passed, but the forward of {type(net).__name__} takes {most}: all positional "
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
