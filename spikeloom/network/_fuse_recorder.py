"""Record the operations of a user's function instead of running them: the first half of `fuse`.

The function runs as it is. Each operation in `RULES` is noted, and returns a `Recorded`: a tensor with the right shape,
dtype, device and requires_grad, and without values. Every other operation first executes what has been noted
(`Recorder.execute`), which turns each `Recorded` in place into the plain tensor that it stands for.
"""

import sys
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import FunctionMode, is_wrapped, pop_function_mode, topmost_function_mode, without_torch_function
from ..neurons._recorders import recorders
from ._fuse_neurons import note_neuron
from ._fuse_rules import DRAWS, DROPOUT, INPLACE, LIKE, READERS, READS, RULES, UPDATES, Fold, Rule, selected_dim, tensors_in
from ._fuse_values import SAME, CannotNote, Kind, OpClass, Recorded, Slot, Vocabulary, become, current_mode, filled, in_mode

INDEXED = (Fold.SELECT, Fold.WRITE)
SIMPLE = 12
"""At most so many operations are executed before the others."""
CONSTANTS = (type(None), str, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size)
GETITEM = Tensor.__getitem__
PASSING = object()
"""In the place of a frame: all is passed on."""

Operation = tuple[OpClass, tuple[int, ...], tuple[Any, ...]]
"""A noted operation: its class, its tensors by number (negative: from outside), and its own numbers."""


class Recorder(FunctionMode):
    """Notes operations, and executes them when a value is needed."""

    def __init__(self, vocabulary: Vocabulary, run: Callable[["Recorder"], None], backend: Any):
        super().__init__()
        self.vocabulary, self.run, self.backend = vocabulary, run, backend
        self.function_frame: Any = None  # of an autograd.Function that runs, within which nothing is noted
        self.touched: dict[nn.Module, Any] = {}
        self.watch: Any = None  # notes modules, for `explain`
        self._clear()

    def _clear(self) -> None:
        self.operations: list[Operation] = []
        self.first: list[int] = []  # the number of the first result of each operation
        self.kinds: list[Kind] = []  # of values
        self.refs: list[weakref.ref[Recorded]] = []  # the tensors that stand for values
        self.outside: list[Tensor] = []
        self.outside_kinds: list[Kind] = []
        self.numbers: dict[int, int] = {}  # the number of each tensor from outside, by its id
        self.storages: set[int] = set()
        self.written: set[int] = set()  # tensors from outside that a noted operation updates
        self.viewed: set[int] = set()  # values that share memory with others
        self.paths: list[Any] = []
        self.done: set[int] = set()  # operations that have been executed before the others
        self.resolved: dict[int, int] = {}  # their values, as tensors from outside

    # -- operations of torch ------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.function_frame is not None and self._in_function():
            return func(*args, **kwargs)
        rule = RULES.get(func)
        try:
            if rule is not None:
                if func is GETITEM and type(args[1]) is int and type(args[0]) in (Recorded, Tensor):
                    return self._note_select(args)
                if rule.fold is Fold.WRITE and type(args[0]) is not Recorded:
                    return self._change_plain(func, args, kwargs)
                return self._note(rule, func, args, kwargs)
            if func in READS:
                return func(*args, **kwargs)
            if func in INPLACE:
                return self._note_in_place(func, args, kwargs)
            if func in DROPOUT:
                return self._note_dropout(func, *args, **kwargs)
            layer = args[0] if args else None
            if isinstance(layer, nn.Module) and getattr(func, "__name__", "") == "_run":
                return self._note_layer(func, layer, args[1])
        except CannotNote:
            pass
        return self._execute_and_call(func, args, kwargs)

    def _execute_and_call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.operations:
            found = [t for t in tensors_in((args, kwargs)) if type(t) is Recorded]
            if func in LIKE and len(found) == 1 and found[0] is args[0]:
                args = (self.kinds[args[0].at].zeros().detach(), *args[1:])
            elif func not in DRAWS and func not in READERS or self.written or not self._resolve(found):
                self.execute()
        return func(*args, **kwargs)

    def _resolve(self, wanted: list[Any]) -> bool:
        """Execute only what some tensors need, if these are a few simple operations; returns whether it did."""
        needed, waiting = set[int](), [t.at for t in wanted]
        while waiting:
            at = waiting.pop()
            number = bisect_right(self.first, at) - 1
            if at < 0 or number in needed or at in self.resolved:
                continue
            needed.add(number)
            found, tensors, _ = self.operations[number]
            if isinstance(found.func, nn.Module) or len(needed) > SIMPLE:
                return False
            waiting += tensors
        for number in sorted(needed):
            found, tensors, numbers = self.operations[number]
            every = [self.outside[~(at if at < 0 else self.resolved[at])] for at in tensors]
            with self.aside(), in_mode(found.mode):
                outs = found.call(every, numbers)
            for place, out in enumerate([outs] if found.container is None else outs):
                at = self.first[number] + place
                tensor = self.refs[at]()
                if tensor is not None and tensor.at == at:
                    become(tensor, out)
                    out = tensor
                self.resolved[at] = self._from_outside(out)
            self.done.add(number)
        return True

    def _compact(self) -> None:
        """Remove the operations that have been executed, and number the values anew."""
        kept = [number for number in range(len(self.operations)) if number not in self.done]
        new, first = dict(self.resolved), list[int]()
        kinds, refs = self.kinds, self.refs
        self.kinds, self.refs = [], []
        for number in kept:
            found = self.operations[number][0]
            first.append(len(self.kinds))
            for at in range(self.first[number], self.first[number] + len(found.outs)):
                new[at] = len(self.kinds)
                self.kinds.append(kinds[at])
                self.refs.append(refs[at])
                tensor = refs[at]()
                if tensor is not None and tensor.at == at:
                    tensor.moved = new[at]
        for ref in self.refs:
            tensor = ref()
            if tensor is not None and "moved" in vars(tensor):
                tensor.at = vars(tensor).pop("moved")
        operations = [self.operations[number] for number in kept]
        self.operations = [
            (found, tuple([new[at] if at >= 0 else at for at in tensors]), numbers)
            for found, tensors, numbers in operations
        ]
        self.paths = [self.paths[number] for number in kept] if self.paths else []
        self.first = first
        self.done, self.resolved = set(), {}

    def _note(self, rule: Rule, func: Any, args: Any, kwargs: Any) -> Any:
        key: list[Any] = [func]
        tensors: list[int] = []
        numbers: list[Any] = []
        add = key.append
        add(current_mode())
        for arg in args:
            kind = type(arg)
            if kind is Recorded:
                at = arg.at
                tensors.append(at)
                add(self.kinds[at])
            elif kind is Tensor or kind is nn.Parameter:
                number = self.numbers.get(id(arg))
                if number is None:
                    number = self._from_outside(arg)
                tensors.append(number)
                add(self.outside_kinds[~number])
            else:
                self._describe(arg, kind, key, tensors, numbers, rule)
        if kwargs:
            if kwargs.get("requires_grad") or kwargs.get("out") is not None or "generator" in kwargs:
                raise CannotNote
            for name, arg in kwargs.items():
                add(name)
                self._describe(arg, type(arg), key, tensors, numbers, rule)
        found = self.vocabulary.operations.get(tuple(key))
        if found is None:
            found = self._new_class(rule, func, args, kwargs, tuple(key), tensors, numbers)
        rule = found.rule
        if func is GETITEM:
            dim = selected_dim(args[1])
            size = found.inputs[0].size
            limit = size[dim] if dim is not None else min(size, default=0)
            for index in numbers:
                if not -limit <= index < limit:
                    raise CannotNote  # the call itself raises an IndexError, if it is one
        elif rule.fold is Fold.ORDERED:
            self._will_write(tensors, found)
        elif rule.fold is Fold.WRITE:
            return self._note_write(found, args[0], tensors, numbers)
        if self.written and rule.fold is not Fold.ORDERED and not self.written.isdisjoint(tensors):
            self.execute()
            return self._note(rule, func, args, kwargs)
        if found.container is SAME:
            return args[0]
        return self._noted(found, tuple(tensors), tuple(numbers))

    def _note_select(self, args: Any) -> Any:
        """``x[i]``: the same as `_note`, in less time."""
        base, index = args
        if type(base) is Recorded:
            number = base.at
            kind = self.kinds[number]
        else:
            at = self.numbers.get(id(base))
            number = self._from_outside(base) if at is None else at
            kind = self.outside_kinds[~number]
        found = self.vocabulary.operations.get((GETITEM, current_mode(), kind))
        if found is None:
            key = (GETITEM, current_mode(), kind)
            found = self._new_class(RULES[GETITEM], GETITEM, args, {}, key, [number], [index])
        size = kind.size[0]
        if not -size <= index < size or self.written:
            raise CannotNote
        return self._noted(found, (number,), (index,))

    def _noted(self, found: OpClass, tensors: tuple[int, ...], numbers: tuple[Any, ...]) -> Any:
        """Append an operation; returns its results."""
        kinds = self.kinds
        at = len(kinds)
        self.operations.append((found, tensors, numbers))
        self.first.append(at)
        if self.watch is not None:
            self.paths.append(self.watch())
        if found.container is None:
            kind = found.outs[0]
            made = kind.made()
            made.at = at
            kinds.append(kind)
            self.refs.append(weakref.ref(made))
            if found.rule.view:
                self.viewed.add(at)
                self.viewed.add(tensors[0])
            return made
        results = []
        for place, kind in enumerate(found.outs):
            made = kind.made()
            made.at = at + place
            kinds.append(kind)
            self.refs.append(weakref.ref(made))
            results.append(made)
        if found.rule.view:
            self.viewed.update(range(at, at + len(results)), tensors[:1])
        return found.container(results)

    def _describe(
        self, arg: Any, kind: type, key: list[Any], tensors: list[int], numbers: list[Any], rule: Rule
    ) -> None:
        """Append what the class of an operation says about an argument."""
        if kind is Recorded:
            tensors.append(arg.at)
            key.append(self.kinds[arg.at])
        elif kind is Tensor or kind is nn.Parameter:
            number = self.numbers.get(id(arg))
            if number is None:
                number = self._from_outside(arg)
            tensors.append(number)
            key.append(self.outside_kinds[~number])
        elif kind is bool or kind is int or kind is float:
            if (rule.scalars and arg) or (kind is int and rule.fold in INDEXED):
                key.append(kind)
                numbers.append(arg)
            else:
                key.append((kind, arg if arg else str(arg)))  # the zeros of a float are equal
        elif kind in CONSTANTS or isinstance(arg, torch.dtype):
            key.append((kind, arg))
        elif kind is tuple or kind is list:
            key.append((kind, len(arg)))
            for part in arg:
                self._describe(part, type(part), key, tensors, numbers, rule)
        elif kind is slice:
            parts = (arg.start, arg.stop, arg.step)
            if not all(part is None or type(part) is int for part in parts):
                raise CannotNote
            key.append((slice, *parts))
        elif arg is Ellipsis:
            key.append(arg)
        else:
            raise CannotNote

    def _from_outside(self, tensor: Tensor) -> int:
        """The number of a tensor that is none of the noted operations'."""
        with without_torch_function():
            if tensor.layout is not torch.strided or is_wrapped(tensor) or tensor.is_neg() or tensor.is_conj():
                raise CannotNote
            number = ~len(self.outside)
            key: Any = (tensor.size(), tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad)
            if type(tensor) is nn.Parameter:
                key = (id(tensor), *key)
            self.outside_kinds.append(self.vocabulary.kind(tensor, tensor.requires_grad, key, 0, key[0]))
            self.storages.add(tensor.untyped_storage()._cdata)
        self.outside.append(tensor)
        self.numbers[id(tensor)] = number
        return number

    # -- classes ------------------------------------------------------------------------------------------------------

    def _new_class(
        self, rule: Rule, func: Any, args: Any, kwargs: Any, key: Any, tensors: list[int], numbers: list[Any]
    ) -> OpClass:
        """A class that has not been met: its results are those of one call on zeros."""
        if func in (torch.where, Tensor.where) and len(args) + len(kwargs) < 2:
            raise CannotNote
        if func is Tensor.__getitem__ and any(True for _ in tensors_in(args[1])):
            raise CannotNote  # a mask's result has a size that depends on values
        shaped = rule
        rule = self._refined(rule, func, args, kwargs)
        kinds = [self.kind_of(number) for number in tensors]
        counts = [0, 0]
        form = self._form(args, shaped, counts), self._form(kwargs, shaped, counts)
        found = OpClass(func, rule, form, [], key[1], kinds)
        zeros = [kind.zeros() for kind in kinds]
        try:
            with self.aside():
                if rule.fold is Fold.WRITE:
                    target = zeros[0].detach().clone()
                    target[filled(form, [target, *zeros[1:]], numbers)[0][1]] = zeros[-1] if len(zeros) > 1 else args[2]
                    out: Any = target.requires_grad_(
                        torch.is_grad_enabled() and any(kind.requires_grad for kind in kinds)
                    )
                else:
                    out = found.call(zeros, numbers)
        except Exception:
            raise CannotNote from None  # the user's own call raises it
        every = [out] if isinstance(out, Tensor) else out
        if not isinstance(every, (list, tuple)) or not all(type(t) is Tensor for t in every):
            if not (isinstance(out, Tensor) and any(out is zero for zero in zeros)):
                raise CannotNote
        if zeros and out is zeros[0]:
            found.container = SAME
            self.vocabulary.operations[key] = found
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
            found.outs.append(self.vocabulary.kind(t, t.requires_grad, where, depth, site))
        self.vocabulary.operations[key] = found
        return found

    def _refined(self, rule: Rule, func: Any, args: Any, kwargs: Any) -> Rule:
        """The rule for particular arguments."""
        if rule.fold is Fold.SELECT and selected_dim(args[1]) is None:
            return RULES[Tensor.transpose]
        if rule.fold is Fold.WRITE and (kwargs or len(args) != 3 or selected_dim(args[1]) != 0):
            raise CannotNote
        if func is torch.nn.functional.batch_norm:
            training = kwargs.get("training", args[5] if len(args) > 5 else False)
            running = args[1] if len(args) > 1 else kwargs.get("running_mean")
            return rule if not training else UPDATES if running is not None else RULES[Tensor.sum]
        if rule.fold is Fold.ELEMENTWISE and "alpha" in kwargs:
            return RULES[torch.lerp]
        first = args[0] if args else None
        if rule.rows and not (isinstance(first, Tensor) and self._dim(first) == rule.rows):
            return RULES[Tensor.sum]
        return rule

    def _dim(self, tensor: Tensor) -> int:
        return tensor.dim()

    def _form(self, arg: Any, rule: Rule, counts: list[int]) -> Any:
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
            return kind([self._form(part, rule, counts) for part in arg])
        if kind is dict:
            return {name: self._form(part, rule, counts) for name, part in arg.items()}
        return arg

    def kind_of(self, number: int) -> Kind:
        """The kind of a value."""
        return self.kinds[number] if number >= 0 else self.outside_kinds[~number]

    # -- operations in place, and those that draw ---------------------------------------------------------------------

    def _note_in_place(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation in place on a noted value: the tensor stands for the new value from now on."""
        target = args[0]
        if type(target) is not Recorded:
            return self._change_plain(func, args, kwargs)
        before = self.kinds[target.at]
        if target.at in self.viewed or (before.requires_grad and not torch.is_grad_enabled()):
            raise CannotNote
        made = self._note(RULES[INPLACE[func]], INPLACE[func], args, kwargs)
        if made is target:
            return target
        after = self.kinds[made.at]
        if (after.size, after.stride, after.dtype) != (before.size, before.stride, before.dtype):
            raise CannotNote
        self._stand_for(target, made)
        return target

    def _change_plain(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation in place on a tensor that has values; it runs at once if no noted operation reads them."""
        if type(args[0]) is Tensor and not any(type(t) is Recorded for t in tensors_in((args, kwargs))):
            if args[0].untyped_storage()._cdata not in self.storages:
                return func(*args, **kwargs)
        raise CannotNote

    def _note_write(self, found: OpClass, target: Any, tensors: list[int], numbers: list[Any]) -> None:
        """``target[i] = value``."""
        if type(target) is not Recorded or target.at in self.viewed:
            raise CannotNote
        if self.kinds[target.at].requires_grad and not torch.is_grad_enabled():
            raise CannotNote
        self._stand_for(target, self._noted(found, tuple(tensors), tuple(numbers)))

    def _stand_for(self, target: Any, made: Any) -> None:
        """Let a tensor stand for the value of another; it gets the other's requires_grad."""
        at, kind = made.at, self.kinds[made.at]
        if self.kinds[target.at].requires_grad is not kind.requires_grad:
            target.requires_grad_(kind.requires_grad)
        target.at = at
        made.at = -1
        self.refs[at] = weakref.ref(target)
        self.viewed.discard(at)
        if INPLACE_VIEWS & {self.operations[-1][0].func}:
            self.viewed.discard(self.operations[-1][1][0])

    def _note_dropout(
        self, func: Any, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, **more: Any
    ) -> Any:
        """Dropout: the mask is drawn at once, and the product with it is noted."""
        if more or inplace and training or type(p) not in (int, float) or type(training) is not bool:
            raise CannotNote
        if not training or p == 0:
            return input
        if type(input) is Recorded:
            kind = self.kinds[input.at]
        elif type(input) in (Tensor, nn.Parameter):
            kind = self.outside_kinds[~(self.numbers.get(id(input)) or self._from_outside(input))]
        else:
            raise CannotNote
        if not kind.dtype.is_floating_point:
            raise CannotNote
        ones = torch.empty_strided(kind.size, kind.stride, dtype=kind.dtype, device=kind.device).fill_(1)
        with torch.no_grad():
            mask = func(ones, p, True)
        return self._note(RULES[Tensor.mul], Tensor.mul, (input, mask), {})

    def _note_layer(self, func: Any, layer: nn.Module, x: Any) -> Any:
        """An accelerated layer, whose kernels read values."""
        parameters = tuple(layer.parameters(recurse=False))
        call = _layer_call(layer, func)
        rule = Rule(Fold.ROWS if any(p.dim() > 2 for p in parameters) or not parameters else Fold.LEADING, product=True)
        dims = x.dim()
        if rule.fold is Fold.ROWS and dims != 4:
            raise CannotNote
        return self._note(rule, call, (x, *parameters), {})

    def _will_write(self, tensors: list[int], found: OpClass) -> None:
        """Note that an operation updates its second and third tensor, which nobody may have read before."""
        running = [number for number in tensors[1:3]]
        if not all(number < 0 for number in running):
            raise CannotNote
        if not self.written.issuperset(running):
            others = {number for _, args, _ in self.operations for number in args}
            if not others.isdisjoint(running):
                raise CannotNote
        self.written.update(running)

    # -- neurons ------------------------------------------------------------------------------------------------------

    def neuron(self, neuron: Any, x: Tensor, given: tuple[Any, ...]) -> Any:
        """A step of a neuron; what cannot be noted runs at once."""
        if self.function_frame is None or not self._in_function():
            try:
                return note_neuron(self, neuron, x, given)
            except CannotNote:
                self.execute()
        with self.aside():
            return neuron._run(x, given)

    # -- autograd functions -------------------------------------------------------------------------------------------

    def enter_function(self, frame: Any) -> None:
        """An autograd.Function begins, in this frame: it reads values, and nothing in it is noted."""
        active = recorders.current() is self
        if active and (self.function_frame is None or not self._in_function()):
            self.execute()
            self.function_frame = frame

    def _in_function(self) -> bool:
        if self.function_frame is PASSING:
            return True
        frame: Any = sys._getframe(1)
        while frame is not None:
            if frame is self.function_frame:
                return True
            frame = frame.f_back
        self.function_frame = None
        return False

    # -- execution ----------------------------------------------------------------------------------------------------

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A context in which nothing is recorded."""
        innermost = topmost_function_mode() is self
        if innermost:
            pop_function_mode()
        frame, self.function_frame = self.function_frame, None
        try:
            with recorders.active(None):
                if not innermost:
                    self.function_frame = PASSING
                yield
        finally:
            self.function_frame = frame
            if innermost:
                self.__enter__()

    def alive(self) -> list[tuple[int, Recorded]]:
        """The values for which a tensor of the user stands."""
        found = []
        for at, ref in enumerate(self.refs):
            tensor = ref()
            if tensor is not None and tensor.at == at:
                found.append((at, tensor))
        return found

    def execute(self) -> None:
        """Execute what has been noted; every tensor that stands for a value becomes a plain one with this value."""
        if not self.operations and not self.touched:
            return
        if self.done:
            self._compact()
        with self.aside():
            self.run(self)

    def finish(self, values: dict[int, Tensor], alive: list[tuple[int, Recorded]]) -> None:
        """Give the tensors of the user their values, and forget what has been noted."""
        for at, tensor in alive:
            become(tensor, values[at])
        self.touched.clear()
        self._clear()

    def abandon(self) -> None:
        """Forget what has been noted after an error: the neurons get the states from before it."""
        for neuron, touched in self.touched.items():
            vars(neuron).update(touched.starts, _before=None, _reset=None)
        self.touched.clear()
        self._clear()


INPLACE_VIEWS = {Tensor.detach}

_calls: "weakref.WeakKeyDictionary[nn.Module, dict[Any, Any]]" = weakref.WeakKeyDictionary()


def _layer_call(layer: nn.Module, func: Any) -> Any:
    """The forward of an accelerated layer as a function of its input and, unused, its parameters."""
    made = _calls.setdefault(layer, {})
    if func not in made:
        held = weakref.ref(layer)
        made[func] = lambda x, *parameters: func(held(), x)
    return made[func]


