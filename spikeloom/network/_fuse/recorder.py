"""Record the operations of a user's function instead of running them: the first half of `fuse`.

The function runs as it is. Each operation in `RULES` is recorded, and returns a `Recorded`: a tensor with the right
shape, dtype, device and requires_grad, and without values. Every other operation first executes the recording
(`Recorder.execute`), which turns each `Recorded` in place into the plain tensor that it stands for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..._torch import FunctionMode, count_dispatch_modes, is_running, pop_function_mode, topmost_function_mode
from ...neurons._unrolled_run import recorders
from .changes import (
    change_plain,
    note_dropout,
    note_flagged,
    note_in_place,
    note_layer,
    note_write,
    will_write,
    works_in_place,
)
from .inputs import from_outside, is_shared, is_view_of_shared, outside_modes, refuse_changed, without_numpy
from .neurons import note_neuron, why_not_noted
from .op_class import new_class
from .partly import compact, resolve
from .recorded import (
    ALONE,
    SAME,
    CannotNote,
    Kind,
    OpClass,
    Recorded,
    Vocabulary,
    become,
    current_mode,
    recycle,
    references,
)
from .rules import (
    DRAWS,
    DROPOUT,
    FLAGGED,
    INDEXED,
    INPLACE,
    LIKE,
    READERS,
    READS,
    RULES,
    Fold,
    Rule,
    name_of,
    overwrites,
    selected_dim,
    tensors_in,
)

CONSTANTS = (type(None), str, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size)
GETITEM = Tensor.__getitem__
PASSING = object()
"""In the place of a frame: all is passed on."""

Operation = tuple[OpClass, tuple[int, ...], tuple[Any, ...]]
"""A recorded operation: its class, its tensors by number (negative: from outside), and its own numbers."""


class Recorder(FunctionMode):
    """Records operations, and executes them when a value is needed."""

    def __init__(self, vocabulary: Vocabulary, run: Callable[["Recorder"], None], backend: Any):
        super().__init__()
        self.vocabulary, self.run, self.backend = vocabulary, run, backend
        self.function_frame: Any = None  # of an autograd.Function that runs, within which nothing is recorded
        self.touched: dict[nn.Module, Any] = {}
        self.watch: Any = None  # notes modules, for `explain`
        self.modes = count_dispatch_modes()  # of the caller
        self.cause = ""  # of an execution before the end
        self._clear()

    def _clear(self) -> None:
        self.operations: list[Operation] = []
        self.first: list[int] = []  # the number of the first result of each operation
        self.kinds: list[Kind] = []  # of values
        self.tensors: list[Any] = []  # the tensor that stands for each value; None if another one does
        self.outside: list[Tensor] = []
        self.outside_kinds: list[Kind] = []
        self.versions: list[int] = []  # of the tensors from outside; -1 if they may change
        self.copies: dict[Any, Any] = {}  # of tensors in shared memory
        self.watched: list[tuple[Tensor, Tensor]] = []  # parameters in shared memory, and their copies
        self.numbers: dict[int, int] = {}  # the number of each tensor from outside, by its id
        self.storages: set[int] = set()
        self.written: set[int] = set()  # tensors from outside that a recorded operation updates
        self.viewed: set[int] = set()  # values that share memory with others
        self.paths: list[Any] = []
        self.done: set[int] = set()  # operations that have been executed before the others
        self.resolved: dict[int, int] = {}  # their values, as tensors from outside

    # -- operations of torch ------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.function_frame is not None and self._in_function():
            return func(*args, **kwargs)
        if count_dispatch_modes() != self.modes:
            self.cause = "a TorchDispatchMode sees each operation"
            self.execute()
            return func(*args, **kwargs)
        rule = RULES.get(func)
        try:
            if rule is not None:
                if func is GETITEM and type(args[1]) is int and type(args[0]) in (Recorded, Tensor):
                    return self._note_select(args)
                if rule.fold is Fold.WRITE and type(args[0]) is not Recorded:
                    return change_plain(self, func, args, kwargs)
                if rule.view and is_view_of_shared(self, args, kwargs):
                    return func(*args, **kwargs)
                if func in FLAGGED and works_in_place(func, args, kwargs):
                    return note_flagged(self, func, args, kwargs)
                return self.note(rule, func, args, kwargs)
            if func in READS:
                return func(*args, **kwargs)
            if func in INPLACE:
                return note_in_place(self, func, args, kwargs)
            if func in DROPOUT:
                return note_dropout(self, func, *args, **kwargs)
            layer = args[0] if args else None
            if isinstance(layer, nn.Module) and getattr(func, "__name__", "") == "_run":
                return note_layer(self, func, layer, args[1])
        except CannotNote:
            if (plain := without_numpy(args, kwargs)) is not None:
                return self.__torch_function__(func, types, *plain)
        return self._execute_and_call(func, args, kwargs)

    def _execute_and_call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.operations:
            found = [t for t in tensors_in((args, kwargs)) if type(t) is Recorded]
            if func in LIKE and len(found) == 1 and found[0] is args[0]:
                args = (self.kinds[args[0].at].zeros().detach(), *args[1:])
            elif (
                (func not in DRAWS and func not in READERS)
                or overwrites(args, kwargs)
                or self.written
                or not resolve(self, found)
            ):
                self.cause = f"{name_of(func)} {'reads values' if func in READERS else 'is not recorded'}"
                self.execute()
        return func(*args, **kwargs)

    def note(self, rule: Rule, func: Any, args: Any, kwargs: Any) -> Any:
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
                    number = self.from_outside(arg)
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
            found = new_class(self, rule, func, args, kwargs, tuple(key), tensors, numbers)
        rule = found.rule
        if func is GETITEM:
            dim = selected_dim(args[1])
            size = found.inputs[0].size
            limit = size[dim] if dim is not None else min(size, default=0)
            for index in numbers:
                if not -limit <= index < limit:
                    raise CannotNote  # the call itself raises an IndexError, if it is one
        elif rule.fold is Fold.ORDERED:
            will_write(self, tensors, found)
        elif rule.fold is Fold.WRITE:
            return note_write(self, found, args[0], tensors, numbers)
        if self.written and rule.fold is not Fold.ORDERED and not self.written.isdisjoint(tensors):
            self.execute()
            return self.note(rule, func, args, kwargs)
        if found.container is SAME:
            return args[0]
        return self.noted(found, tuple(tensors), tuple(numbers))

    def _note_select(self, args: Any) -> Any:
        """``x[i]``: the same as `_note`, in less time."""
        base, index = args
        if type(base) is Recorded:
            number = base.at
            kind = self.kinds[number]
        else:
            at = self.numbers.get(id(base))
            if at is None and is_shared(base):
                return base[index]
            number = self.from_outside(base) if at is None else at
            kind = self.outside_kinds[~number]
        found = self.vocabulary.operations.get((GETITEM, current_mode(), kind))
        if found is None:
            key = (GETITEM, current_mode(), kind)
            found = new_class(self, RULES[GETITEM], GETITEM, args, {}, key, [number], [index])
        size = kind.size[0]
        if not -size <= index < size or number in self.written:
            raise CannotNote
        return self.noted(found, (number,), (index,))

    def noted(self, found: OpClass, tensors: tuple[int, ...], numbers: tuple[Any, ...]) -> Any:
        """Append an operation; returns its results."""
        kinds = self.kinds
        at = len(kinds)
        self.operations.append((found, tensors, numbers))
        self.first.append(at)
        if self.watch is not None:
            self.paths.append(self.watch())
        if found.container is None:
            kind = found.outs[0]
            made = kind.free.pop() if kind.free else kind.made()
            made.at = at
            kinds.append(kind)
            self.tensors.append(made)
            if found.rule.view:
                self.viewed.add(at)
                self.viewed.add(tensors[0])
            return made
        results = []
        for kind in found.outs:
            made = kind.free.pop() if kind.free else kind.made()
            made.at = at
            at += 1
            kinds.append(kind)
            self.tensors.append(made)
            results.append(made)
        if found.rule.view:
            self.viewed.update(range(at - len(results), at), tensors[:1])
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
                number = self.from_outside(arg)
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

    def from_outside(self, tensor: Tensor) -> int:
        """The number of a tensor that is none of the recorded operations'."""
        return from_outside(self, tensor)

    def kind_of(self, number: int) -> Kind:
        """The kind of a value."""
        return self.kinds[number] if number >= 0 else self.outside_kinds[~number]

    # -- neurons ------------------------------------------------------------------------------------------------------

    def neuron(self, neuron: Any, x: Tensor, given: tuple[Any, ...]) -> Any:
        """A step of a neuron; what cannot be recorded runs at once."""
        if count_dispatch_modes() != self.modes:
            self.cause = "a TorchDispatchMode sees each operation"
            self.execute()
        elif self.function_frame is None or not self._in_function():
            try:
                return note_neuron(self, neuron, x, given)
            except CannotNote:
                self.cause = f"a step of {type(neuron).__name__} is not recorded: {why_not_noted(self, neuron)}"
                self.execute()
        with self.aside():
            return neuron._run(x, given)

    # -- autograd functions -------------------------------------------------------------------------------------------

    def enter_function(self, frame: Any) -> None:
        """An autograd.Function begins, in this frame: it reads values, and nothing in it is recorded."""
        if self._interrupted("an autograd.Function"):
            self.function_frame = frame

    def enter_hidden(self, frame: Any) -> None:
        """A call begins whose operations function modes do not see: it reads values."""
        self._interrupted("TorchScript")

    def _interrupted(self, by: str) -> bool:
        if recorders.current() is not self or (self.function_frame is not None and self._in_function()):
            return False
        self.cause = f"{by} reads values"
        self.execute()
        return True

    @contextmanager
    def transform(self, level: Any) -> Iterator[Any]:
        """A transform of torch.func, which wraps tensors with values; nothing in it is recorded."""
        if recorders.current() is not self:
            with level as entered:
                yield entered
            return
        self.cause = "torch.func transforms a function"
        self.execute()
        with self.aside(), level as entered:
            yield entered

    def _in_function(self) -> bool:
        if self.function_frame is PASSING:
            return True
        if not is_running(self.function_frame):
            self.function_frame = None
        return self.function_frame is not None

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
        counts = references(self.tensors)
        return [(at, tensor) for at, tensor in enumerate(self.tensors) if counts[at] > ALONE and tensor is not None]

    def execute(self) -> None:
        """Execute what has been recorded; every tensor that stands for a value becomes a plain one with this value."""
        if not self.operations and not self.touched:
            return
        with outside_modes(self.modes), self.aside():
            refuse_changed(self)
            if self.done:
                compact(self)
            self.run(self)

    def finish(self, values: dict[int, Tensor], alive: list[tuple[int, Recorded]]) -> None:
        """Give the tensors of the user their values, and discard what has been recorded."""
        for at, tensor in alive:
            become(tensor, values[at])
            self.tensors[at] = None
        recycle(self.tensors, self.kinds)
        self.touched.clear()
        self._clear()

    def abandon(self) -> None:
        """Discard what has been recorded after an error; a neuron without states gets those from before it, or none."""
        for neuron, touched in self.touched.items():
            own = vars(neuron)
            own.update({name: touched.starts[name] for name in touched.names if type(own[name]) is Recorded})
            own.update({name: torch.zeros(0) for name in touched.names if type(own[name]) is Recorded})
            own.update(_before=None, _reset=None)
        self.touched.clear()
        self._clear()
