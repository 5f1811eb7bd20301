"""The scan for torch.export: one operation of torch, whose body is one step, for any number of steps.

torch.export records it as ``torch.ops.higher_order.scan``, which a process without this library can load and run.
torch.onnx.export translates it to an ONNX Scan.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..._torch import FunctionMode, is_fake, scan_operator, storage_of, tree_leaves, tree_map_only, unrecorded

Tensors = Sequence[Tensor]
Body = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
"""One step: (carried, inputs) -> (carried, results)."""


def recorded_scan(body: Body, carried: Tensors, inputs: Tensors, steps: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Record a loop over time; returns the carried tensors after the last step, and the results stacked over time.

    Args:
        body: the step, called twice to record it. It may read any tensor and write any attribute.
        carried: the tensors carried from step to step, before the first.
        inputs: sequences [T, ...]; the body gets one step of each. May be empty.
        steps: T, an integer or a symbol.
    """
    states, count = [one.contiguous() for one in carried], len(carried)
    series = list(inputs) or [torch.arange(steps, device=states[0].device)]
    outside = read_outside(body, states, [one[0] for one in inputs])
    lifted = tuple([one if is_fake(one) else one.clone() for one in outside])  # a copy is recorded as a constant

    def recorded(*given: Tensor) -> list[Tensor]:
        at = count + len(series)
        with Replaced(outside, given[at:]):
            news, results = body(given[:count], given[count : count + len(inputs)])
            return [*_distinct([*news, *results], given)]

    outs = scan_operator()(recorded, states, series, lifted)
    return list(outs[:count]), list(outs[count:])


def _distinct(outs: Tensors, given: Tensors) -> Iterator[Tensor]:
    """Copy outputs that share memory with another output or with an argument, which the operation does not allow."""
    taken = {*map(storage_of, given)}
    for out in outs:
        own = out.contiguous()
        own = own.clone() if storage_of(own) in taken else own
        taken.add(storage_of(own))
        yield own


# -- tensors that a body reads from outside ----------------------------------------------------------------------------


class _Reads(FunctionMode):
    """Records the tensors that are read but were not created within this mode."""

    def __init__(self, given: Tensors):
        super().__init__()
        self._known = {id(tensor): tensor for tensor in given}  # kept alive, so that no id is reused
        self.outside: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            if id(tensor) not in self._known:
                self._known[id(tensor)] = tensor
                self.outside.append(tensor)
        result = func(*args, **(kwargs or {}))
        self._known |= {id(tensor): tensor for tensor in _tensors(result)}
        return result


class Replaced(FunctionMode):
    """Replaces tensors in the arguments of every call of torch."""

    def __init__(self, tensors: Tensors, by: Tensors):
        super().__init__()
        self._by = {id(tensor): other for tensor, other in zip(tensors, by, strict=True)}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Tensor, lambda t: self._by.get(id(t), t), (args, kwargs or {}))
        return func(*args, **kwargs)


def read_outside(body: Body, carried: Tensors, inputs: Tensors) -> list[Tensor]:
    """Find the tensors that the body reads in addition to its arguments. Runs it once, without recording."""
    with unrecorded(), torch.no_grad(), _Reads([*carried, *inputs]) as reads:
        body(carried, inputs)
    return reads.outside


def _tensors(tree: Any) -> Iterator[Tensor]:
    yield from (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
