"""Operations of `fuse` in place, those that draw random numbers, and layers whose kernels read values."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from ..._torch import storage_of
from .inputs import take_original
from .recorded import CannotNote, OpClass, Recorded
from .rules import FLAGGED, INPLACE, RULES, Fold, Rule, tensors_in

INPLACE_VIEWS = {Tensor.detach}


def note_in_place(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """An operation in place on a recorded value: the tensor stands for the new value from now on."""
    target = args[0]
    if type(target) is not Recorded:
        return change_plain(recorder, func, args, kwargs)
    before = recorder.kinds[target.at]
    if func is Tensor.zero_ and before.requires_grad:
        raise CannotNote
    if target.at in recorder.viewed or (before.requires_grad and not torch.is_grad_enabled()):
        raise CannotNote
    func = INPLACE.get(func, func)
    made = recorder.note(RULES[func], func, args, kwargs)
    if made is target:
        return target
    after = recorder.kinds[made.at]
    if (after.size, after.stride, after.dtype) != (before.size, before.stride, before.dtype):
        raise CannotNote
    stand_for(recorder, target, made)
    return target


def works_in_place(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether the arguments of an activation request the in-place form."""
    return bool(kwargs.get("inplace") or args[FLAGGED[func] : FLAGGED[func] + 1] == (True,))


def note_flagged(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """An activation with inplace=True."""
    if not args:
        raise CannotNote
    if type(args[0]) is not Recorded:
        return change_plain(recorder, func, args, kwargs)
    kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}
    return note_in_place(recorder, func, args[: FLAGGED[func]], kwargs)


def change_plain(recorder: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """An operation in place on a tensor that has values; it runs at once if no recorded operation reads them."""
    plain = type(args[0]) is Tensor and not any(type(t) is Recorded for t in tensors_in((args, kwargs)))
    if not plain or storage_of(args[0]) in recorder.storages:
        raise CannotNote
    return func(*args, **kwargs)


def note_write(recorder: Any, found: OpClass, target: Any, tensors: list[int], numbers: list[Any]) -> None:
    """``target[i] = value``."""
    if type(target) is not Recorded or target.at in recorder.viewed:
        raise CannotNote
    if recorder.kinds[target.at].requires_grad and not torch.is_grad_enabled():
        raise CannotNote
    stand_for(recorder, target, recorder.noted(found, tuple(tensors), tuple(numbers)))


def stand_for(recorder: Any, target: Any, made: Any) -> None:
    """Let a tensor stand for the value of another; it gets the other's requires_grad."""
    at, kind = made.at, recorder.kinds[made.at]
    if recorder.kinds[target.at].requires_grad is not kind.requires_grad:
        target.requires_grad_(kind.requires_grad)
    recorder.tensors[target.at] = None
    target.at = at
    made.at = -1
    recorder.tensors[at] = target
    recorder.viewed.discard(at)
    if INPLACE_VIEWS & {recorder.operations[-1][0].func}:
        recorder.viewed.discard(recorder.operations[-1][1][0])


def note_dropout(
    recorder: Any, func: Any, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, **more: Any
) -> Any:
    """Dropout: the mask is drawn at once, and the product with it is recorded."""
    if more or (inplace and training) or type(p) not in (int, float) or type(training) is not bool:
        raise CannotNote
    if not training or p == 0:
        return input
    if type(input) is Recorded:
        kind = recorder.kinds[input.at]
    elif type(input) in (Tensor, nn.Parameter):
        kind = recorder.outside_kinds[~(recorder.numbers.get(id(input)) or recorder.from_outside(input))]
    else:
        raise CannotNote
    if not kind.dtype.is_floating_point:
        raise CannotNote
    ones = torch.empty_strided(kind.size, kind.stride, dtype=kind.dtype, device=kind.device).fill_(1)
    with torch.no_grad():
        mask = func(ones, p, True)
    return recorder.note(RULES[Tensor.mul], Tensor.mul, (input, mask), {})


def note_layer(recorder: Any, func: Any, layer: nn.Module, x: Any) -> Any:
    """An accelerated layer, whose kernels read values."""
    parameters = tuple(layer.parameters(recurse=False))
    call = _layer_call(layer, func)
    rule = Rule(Fold.ROWS if any(p.dim() > 2 for p in parameters) or not parameters else Fold.LEADING, product=True)
    dims = x.dim()
    if rule.fold is Fold.ROWS and dims != 4:
        raise CannotNote
    return recorder.note(rule, call, (x, *parameters), {})


def will_write(recorder: Any, tensors: list[int], found: OpClass) -> None:
    """Record that an operation updates its second and third tensor, which nobody may have read before."""
    running = tensors[1:3]
    if not all(number < 0 and take_original(recorder, number) for number in running):
        raise CannotNote
    if not recorder.written.issuperset(running):
        others = {number for _, args, _ in recorder.operations for number in args}
        if not others.isdisjoint(running):
            raise CannotNote
    recorder.written.update(running)


_calls: "weakref.WeakKeyDictionary[nn.Module, dict[Any, Any]]" = weakref.WeakKeyDictionary()


def _layer_call(layer: nn.Module, func: Any) -> Any:
    """The forward of an accelerated layer as a function of its input and, unused, its parameters."""
    made = _calls.setdefault(layer, {})
    if func not in made:
        held = weakref.ref(layer)
        call = made[func] = lambda x, *parameters: func(held(), x)
        call.__name__ = type(layer).__name__
    return made[func]
