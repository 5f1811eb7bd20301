"""The class of an operation that `fuse` has not seen: its results are those of one call on zeros."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .recorded import SAME, CannotNote, OpClass, Slot, filled
from .rules import INDEXED, RULES, UPDATES, Fold, Rule, selected_dim, tensors_in

EXTREMES = (torch.max, Tensor.max, torch.min, Tensor.min)


def new_class(
    recorder: Any, rule: Rule, func: Any, args: Any, kwargs: Any, key: Any, tensors: list[int], numbers: list[Any]
) -> OpClass:
    """A class that is new: its results are those of one call on zeros."""
    if func in (torch.where, Tensor.where) and len(args) + len(kwargs) < 2:
        raise CannotNote
    if func is Tensor.__getitem__ and any(True for _ in tensors_in(args[1])):
        raise CannotNote  # a mask's result has a size that depends on values
    if _has_hidden_effects(func, args, kwargs):
        raise CannotNote
    shaped = rule
    rule = _refined(rule, func, args, kwargs)
    kinds = [recorder.kind_of(number) for number in tensors]
    counts = [0, 0]
    form = _form(args, shaped, counts), _form(kwargs, shaped, counts)
    found = OpClass(func, rule, form, [], key[1], kinds)
    zeros = [kind.zeros() for kind in kinds]
    try:
        with recorder.aside():
            if rule.fold is Fold.WRITE:
                target = zeros[0].detach().clone()
                target[filled(form, [target, *zeros[1:]], numbers)[0][1]] = zeros[-1] if len(zeros) > 1 else args[2]
                out: Any = target.requires_grad_(torch.is_grad_enabled() and any(kind.requires_grad for kind in kinds))
            else:
                out = found.call(zeros, numbers)
    except Exception:
        raise CannotNote from None  # the user's own call raises it
    every = [out] if isinstance(out, Tensor) else out
    if not isinstance(every, (list, tuple)) or not all(isinstance(t, Tensor) for t in every):
        raise CannotNote
    if zeros and out is zeros[0]:
        found.container = SAME
        recorder.vocabulary.operations[key] = found
        return found
    if any(out is zero for zero in zeros) or any(t.layout is not torch.strided for t in every):
        raise CannotNote
    if not isinstance(out, Tensor):
        found.container = type(out)
    depth = 1 + max((kind.depth for kind in kinds), default=0)
    site = (func, *[kind.site for kind in kinds if type(kind.site) is int])
    for place, t in enumerate(every):
        # all slices are of one kind, and the numbers of a class do not matter
        where = (key, 0 if rule.fold is Fold.UNBIND else place)
        found.outs.append(recorder.vocabulary.kind(t, t.requires_grad, where, depth, site))
    recorder.vocabulary.operations[key] = found
    return found


def _has_hidden_effects(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation draws, writes, or depends on the number of rows, because its arguments say so."""

    def given(place: int, name: str) -> Any:
        return kwargs.get(name, args[place] if len(args) > place else None)

    if func is functional.scaled_dot_product_attention:
        return bool(given(4, "dropout_p"))
    if func is functional.instance_norm:
        return given(1, "running_mean") is not None
    if func is functional.embedding:
        return bool(given(5, "scale_grad_by_freq")) or given(3, "max_norm") is not None
    return func is Tensor.view and isinstance(given(1, "dtype"), torch.dtype)


def _refined(rule: Rule, func: Any, args: Any, kwargs: Any) -> Rule:
    """The rule for particular arguments."""
    if rule.fold is Fold.SELECT and selected_dim(args[1]) is None:
        return RULES[Tensor.transpose]
    if rule.fold is Fold.WRITE and (kwargs or len(args) != 3 or selected_dim(args[1]) != 0):
        raise CannotNote
    if func is torch.nn.functional.batch_norm:
        training = kwargs.get("training", args[5] if len(args) > 5 else False)
        running = args[1] if len(args) > 1 else kwargs.get("running_mean")
        return rule if not training else UPDATES if running is not None else RULES[Tensor.std]
    if func in EXTREMES:
        second = args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("dim", kwargs.get("axis")))
        return RULES[torch.maximum] if isinstance(second, Tensor) else rule
    if rule.fold is Fold.ELEMENTWISE and "alpha" in kwargs:
        return RULES[torch.lerp]
    if kwargs.get("memory_format") is not None:
        return Rule(Fold.NEVER, view=rule.view)
    if func is torch.einsum and sum(1 for _ in tensors_in(args)) == 1:
        return replace(rule, view=True)
    first = args[0] if args else None
    if rule.rows and not (isinstance(first, Tensor) and first.dim() == rule.rows):
        return RULES[Tensor.sum]
    return rule


def _form(arg: Any, rule: Rule, counts: list[int]) -> Any:
    """Arguments with slots for what differs between calls, in the order of `_describe`."""
    kind = type(arg)
    if isinstance(arg, Tensor):
        counts[0] += 1
        return Slot(counts[0] - 1, True)
    if (kind is int and rule.fold in INDEXED) or (
        rule.scalars and (kind is int or kind is float or kind is bool) and arg
    ):
        counts[1] += 1
        return Slot(counts[1] - 1, False)
    if kind is tuple or kind is list:
        return kind([_form(part, rule, counts) for part in arg])
    if kind is dict:
        return {name: _form(part, rule, counts) for name, part in arg.items()}
    return arg
