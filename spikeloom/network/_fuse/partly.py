"""Execute recorded operations of `fuse` one by one: a few where their values are needed, and all after an error."""

from bisect import bisect_right
from typing import Any

from torch import Tensor, nn

from ...neurons import SpikingNeuron
from .neurons import run_step
from .recorded import OpClass, Recorded, become, in_mode
from .rules import Fold

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
        with recorder.aside():
            outs = _outs(found, every, numbers, recorder.touched)
        for at, out in enumerate(outs, recorder.first[number]):
            recorder.resolved[at] = recorder.from_outside(_handed(recorder, at, out))
        recorder.done.add(number)
    return True


def _outs(found: OpClass, tensors: list[Tensor], numbers: Any, touched: Any) -> list[Tensor]:
    """The results of one operation."""
    with in_mode(found.mode):
        if isinstance(found.func, SpikingNeuron):
            alias = len(found.outs) == len(found.inputs) - 1
            return run_step(found.func, touched[found.func], tensors[0], tensors[1:], alias)
        if found.rule.fold is Fold.WRITE:
            written = tensors[0].clone()
            found.call([written, *tensors[1:]], numbers)
            return [written]
        outs = found.call(tensors, numbers)
    return [outs] if found.container is None else list(outs)


def _handed(recorder: Any, at: int, out: Tensor) -> Tensor:
    """A value, as the tensor that the user has for it if there is one."""
    tensor = recorder.tensors[at]
    if tensor is None:
        return out
    recorder.tensors[at] = None
    become(tensor, out)
    return tensor  # type: ignore[no-any-return]


def replay(recorder: Any, updated: set[int]) -> Exception | None:
    """Execute the operations in the order of the loop after an error, as far as the loop would come.

    Gives tensors and states the values that the loop would have left, and discards what has been recorded.

    Args:
        updated: the operations that have updated running statistics already.

    Returns:
        The error of the first operation that fails, or None.
    """
    values: dict[int, Tensor] = {}
    states: dict[Any, list[Tensor]] = {}
    error = None
    for number, (found, tensors, numbers) in enumerate(recorder.operations):
        every = [recorder.outside[~at] if at < 0 else values[at] for at in tensors]
        if number in updated:
            every[1:3] = [tensor.clone() for tensor in every[1:3]]
        try:
            outs = _outs(found, every, numbers, recorder.touched)
        except Exception as failure:
            error = failure
            break
        handed = [_handed(recorder, at, out) for at, out in enumerate(outs, recorder.first[number])]
        values.update(enumerate(handed, recorder.first[number]))
        if isinstance(found.func, SpikingNeuron):
            states[found.func] = handed[len(handed) - len(every) + 1 :]
    for neuron, touched in recorder.touched.items():
        if any(type(vars(neuron)[name]) is Recorded for name in touched.names):
            vars(neuron).update(zip(touched.names, states.get(neuron, touched.starts.values()), strict=True))
    recorder.abandon()
    return error


def compact(recorder: Any) -> None:
    """Remove the operations that have been executed, and number the values anew."""
    kept = [number for number in range(len(recorder.operations)) if number not in recorder.done]
    new, first = dict(recorder.resolved), list[int]()
    kinds, held = recorder.kinds, recorder.tensors
    recorder.kinds, recorder.tensors = [], []
    for number in kept:
        found = recorder.operations[number][0]
        first.append(len(recorder.kinds))
        for at in range(recorder.first[number], recorder.first[number] + len(found.outs)):
            new[at] = len(recorder.kinds)
            recorder.kinds.append(kinds[at])
            recorder.tensors.append(held[at])
            if held[at] is not None:
                held[at].at = new[at]
    operations = [recorder.operations[number] for number in kept]
    recorder.operations = [
        (found, tuple([new[at] if at >= 0 else at for at in tensors]), numbers)
        for found, tensors, numbers in operations
    ]
    recorder.paths = [recorder.paths[number] for number in kept] if recorder.paths else []
    recorder.first = first
    recorder.done, recorder.resolved = set(), {}
