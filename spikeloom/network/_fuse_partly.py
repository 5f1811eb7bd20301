"""Execute a few of the noted operations of `fuse` before the others, where their values are needed."""

from bisect import bisect_right
from typing import Any

from torch import nn

from ._fuse_values import become, in_mode

SIMPLE = 12
"""At most so many operations are executed before the others."""


def resolve(recorder: Any, wanted: list[Any]) -> bool:
    """Execute only what some tensors need, if these are a few simple operations; returns whether it did."""
    needed, waiting = set[int](), [t.at for t in wanted]
    while waiting:
        at = waiting.pop()
        number = bisect_right(recorder.first, at) - 1
        if at < 0 or number in needed or at in recorder.resolved:
            continue
        needed.add(number)
        found, tensors, _ = recorder.operations[number]
        if isinstance(found.func, nn.Module) or len(needed) > SIMPLE:
            return False
        waiting += tensors
    for number in sorted(needed):
        found, tensors, numbers = recorder.operations[number]
        every = [recorder.outside[~(at if at < 0 else recorder.resolved[at])] for at in tensors]
        with recorder.aside(), in_mode(found.mode):
            outs = found.call(every, numbers)
        for place, out in enumerate([outs] if found.container is None else outs):
            at = recorder.first[number] + place
            tensor = recorder.refs[at]()
            if tensor is not None and tensor.at == at:
                become(tensor, out)
                out = tensor
            recorder.resolved[at] = recorder.from_outside(out)
        recorder.done.add(number)
    return True


def compact(recorder: Any) -> None:
    """Remove the operations that have been executed, and number the values anew."""
    kept = [number for number in range(len(recorder.operations)) if number not in recorder.done]
    new, first = dict(recorder.resolved), list[int]()
    kinds, refs = recorder.kinds, recorder.refs
    recorder.kinds, recorder.refs = [], []
    for number in kept:
        found = recorder.operations[number][0]
        first.append(len(recorder.kinds))
        for at in range(recorder.first[number], recorder.first[number] + len(found.outs)):
            new[at] = len(recorder.kinds)
            recorder.kinds.append(kinds[at])
            recorder.refs.append(refs[at])
            tensor = refs[at]()
            if tensor is not None and tensor.at == at:
                tensor.moved = new[at]
    for ref in recorder.refs:
        tensor = ref()
        if tensor is not None and "moved" in vars(tensor):
            tensor.at = vars(tensor).pop("moved")
    operations = [recorder.operations[number] for number in kept]
    recorder.operations = [
        (found, tuple([new[at] if at >= 0 else at for at in tensors]), numbers)
        for found, tensors, numbers in operations
    ]
    recorder.paths = [recorder.paths[number] for number in kept] if recorder.paths else []
    recorder.first = first
    recorder.done, recorder.resolved = set(), {}
