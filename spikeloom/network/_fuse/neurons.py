"""Steps of neurons in `fuse`: noted as one operation each, and executed as a step or as a scan over many."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from ..._torch import IS_REPLICA, storage_of, without_torch_function
from ...cells.firing import Model
from ...engine.feedback import HOOKS
from ...engine.run import forced
from ...neurons import SpikingNeuron
from ...neurons._forward import Running
from ...neurons._sequence import WholeSequence
from ...neurons._state import compute_dtype
from ...neurons.lstm import SLSTM, Gated, SConv2dLSTM
from ...neurons.recurrent import OneToOne, Recurrent
from .inputs import is_shared, watch
from .recorded import CannotNote, Kind, OpClass, Recorded, current_mode
from .rules import Fold, Rule

NEURON = Rule(Fold.NEVER)
"""Of a step of a neuron; the planner joins them to scans."""

KNOWN = tuple(vars(kind)["_drive_step"] for kind in (Running, Recurrent, SLSTM, SConv2dLSTM))
"""What a step adds to the input of the equation, of neurons that draw no random numbers."""
OPTIONS = ("_program", "_assigned", "state_quant", "inhibition", "recurrent")


class Touched:
    """A neuron in a recording: its parameters when its steps were recorded, and its states before.

    Raises `CannotNote` if its steps cannot be recorded.
    """

    classes: dict[Any, OpClass]

    def __init__(self, neuron: Any):
        own = neuron.__dict__
        if self.why(neuron):
            raise CannotNote
        registered = [_registered(neuron, name) for _, name in neuron._sources]
        held: list[tuple[dict[str, Any], str, Any]] = [(own, name, own.get(name)) for name in OPTIONS]
        held += [(where, name, where[name]) for where, name in registered]
        for part in neuron.modules():
            if part is not neuron:
                held += [(part._parameters, name, value) for name, value in part._parameters.items()]
        self.recurrent = isinstance(neuron, Recurrent)
        if self.recurrent:
            held.append((neuron._modules, "recurrent", neuron._modules.get("recurrent")))
        self.held = held
        self.where, self.which, self.values = zip(*held, strict=True)
        self.names = neuron._state_names()
        self.learned = tuple([value.requires_grad for value in self.values if isinstance(value, Tensor)])
        self.starts = {name: own[name] for name in self.names}
        self.program = neuron._program
        self.is_model = isinstance(neuron._model, Model)

    @staticmethod
    def why(neuron: Any) -> str:
        """Why a step of the neuron cannot be recorded; empty if it can."""
        if isinstance(neuron, WholeSequence) or IS_REPLICA in neuron.__dict__:
            return "it processes whole sequences"
        if reason := next(neuron._why_by_methods(), None) or neuron._program.untraceable:
            return str(reason)
        if type(neuron)._drive_step not in KNOWN:
            return "it draws random numbers"
        if isinstance(neuron, SLSTM) and neuron.memoryless:
            return "it is memoryless"
        if isinstance(neuron, Recurrent):
            layer = neuron.recurrent
            plain = type(layer) in (OneToOne, nn.Linear, nn.Conv2d)
            if not plain or "forward" in vars(layer) or any(getattr(layer, name) for name in HOOKS):
                return "its recurrent layer is a custom module or has hooks"
        return ""

    def holds(self) -> bool:
        """Whether the options and parameters are still the same objects."""
        return all(map(is_, map(dict.get, self.where, self.which), self.values))

    @contextmanager
    def restored(self) -> Iterator[None]:
        """A context in which the neuron has the options and parameters with which its steps were recorded."""
        now = [(where, name, where.get(name), name in where) for where, name, _ in self.held]
        for where, name, value in self.held:
            if where.get(name) is not value:
                where[name] = value
        try:
            yield
        finally:
            for where, name, value, was in now:
                if was:
                    where[name] = value


def _registered(neuron: Any, name: str) -> tuple[dict[str, Any], str]:
    for where in (neuron._buffers, neuron._parameters):
        value = where.get(name)
        if type(value) is Tensor or type(value) is nn.Parameter:
            return where, name
    raise CannotNote


def why_not_noted(recorder: Any, neuron: Any) -> str:
    """Why a step could not be recorded."""
    if reason := Touched.why(neuron):
        return reason
    if recorder.backend is not forced():
        return "the backend changes within the function"
    return "its input, states or parameters are of an unusual kind"


def note_neuron(recorder: Any, neuron: Any, x: Any, given: tuple[Any, ...]) -> Any:
    """Record a step of a neuron; returns what the neuron returns."""
    touched = recorder.touched.get(neuron)
    if touched is None or not touched.holds():
        touched = _touch(recorder, neuron, touched)
    own = neuron.__dict__
    if own["_cut"] is not None:
        given = _detached(own["_cut"](), given)
    kinds, numbers = recorder.kinds, recorder.numbers
    if type(x) is Recorded:
        at = x.at
        key = [current_mode(), kinds[at]]
    else:
        at, kind = _value(recorder, x)
        key = [current_mode(), kind]
    tensors, before = [at], None
    for name, before in zip(touched.names, given, strict=True):
        if before is None:
            before = own[name]
        elif neuron.init_hidden:
            raise CannotNote
        if type(before) is Recorded:
            number = before.at
            kind = kinds[number]
        else:
            found = numbers.get(id(before))
            number, kind = _value(recorder, before) if found is None else (found, recorder.outside_kinds[~found])
        if not kind.numel:
            before = _start(recorder, neuron, name, x, key[1])
            number, kind = _value(recorder, before)
        tensors.append(number)
        key.append(kind)
    if recorder.written and not recorder.written.isdisjoint(tensors):
        raise CannotNote
    if recorder.backend is not forced():
        raise CannotNote
    step = touched.classes.get(tuple(key))
    if step is None:
        step = _new_class(recorder, touched, neuron, x, tensors, key)
    outs = recorder.noted(step, tuple(tensors), ())
    spk, states = outs[0], outs[1:]
    if len(states) < len(touched.names):
        states = (spk, *states)  # the first state of a recurrent neuron is its spikes
    own.update(zip(touched.names, states, strict=True))
    own["_before"], own["_reset"], own["_cut"] = before if touched.is_model else None, None, None
    if neuron.init_hidden and not neuron.output:
        return spk
    return neuron._outs((spk, *states))


def _touch(recorder: Any, neuron: Any, touched: Touched | None) -> Touched:
    """Look at a neuron for the first time, or after its options or parameters have been replaced."""
    if touched is not None:
        recorder.execute()
    made = recorder.touched[neuron] = Touched(neuron)
    with without_torch_function():
        every = [value for value in made.values if isinstance(value, Tensor)]
        recorder.storages.update(map(storage_of, every))
    for value in filter(is_shared, every):
        watch(recorder, value)
    key = (neuron, made.program, made.learned)
    made.classes = recorder.vocabulary.steps.setdefault(key, {})
    return made


def _start(recorder: Any, neuron: Any, name: str, x: Any, kind: Kind) -> Tensor:
    """The state before the first step."""
    shape = neuron._shape_of_states(x)
    with recorder.aside():
        return torch.full(shape, neuron._starts_at(name), dtype=compute_dtype_of(kind), device=kind.device)


def compute_dtype_of(kind: Kind) -> torch.dtype:
    """The dtype of states for an input of a kind."""
    return compute_dtype(kind)  # type: ignore[arg-type]  # which reads its dtype alone


def _value(recorder: Any, tensor: Any) -> tuple[int, Kind]:
    """The number and the kind of a tensor."""
    kind = type(tensor)
    if kind is Recorded:
        return tensor.at, recorder.kinds[tensor.at]
    if kind is not Tensor and kind is not nn.Parameter:
        raise CannotNote
    number = recorder.numbers.get(id(tensor))
    if number is None:
        number = recorder.from_outside(tensor)
    return number, recorder.outside_kinds[~number]


def _detached(cut: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The given states; detached if the last one is that of before `utils.detach`."""
    if cut is None or given[-1] is not cut:
        return given
    return tuple([state if state is None else state.detach() for state in given])


def _new_class(recorder: Any, touched: Touched, neuron: Any, x: Any, tensors: list[int], key: list[Any]) -> OpClass:
    """The class of a step, whose results are those of one step from zeros."""
    mode, kind, *_ = key
    if not kind.dtype.is_floating_point:
        raise CannotNote
    kinds = [recorder.kind_of(number) for number in tensors]
    dtype = compute_dtype_of(kind)
    shape = tuple(neuron._shape_of_states(x))
    if any(tuple(k.size) != shape or k.dtype is not dtype or k.device != kind.device for k in kinds[1:]):
        raise CannotNote  # it is broadcast or discarded
    with recorder.aside():
        try:
            alias = touched.recurrent and dtype is kind.dtype
            spk, *states = run_step(neuron, touched, kind.zeros(), [k.zeros() for k in kinds[1:]], alias)
        except Exception:
            raise CannotNote from None  # the step itself raises it
    found = OpClass(neuron, NEURON, None, [], mode, kinds)
    found.container = tuple
    for place, out in enumerate((spk, *states)):
        about = (out.size(), out.stride(), out.dtype, out.device, out.requires_grad)
        where = ("neuron", neuron, place, kind.site, about)
        found.outs.append(recorder.vocabulary.kind(out, out.requires_grad, where, 0, ("neuron", id(neuron), place)))
    touched.classes[tuple(key)] = found
    return found


def has_products(neuron: Any) -> bool:
    """Whether the scan of a neuron sums products in another order than its steps."""
    return isinstance(neuron, Gated) or (isinstance(neuron, Recurrent) and not isinstance(neuron.recurrent, OneToOne))


@contextmanager
def _kept(neuron: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A context after which the neuron stores what it stored before."""
    own = neuron.__dict__
    saved = {name: own.get(name) for name in (*names, "_before", "_reset", "_cut")}
    own["_cut"] = None
    try:
        yield own
    finally:
        own.update(saved)


def run_step(neuron: Any, touched: Touched, x: Tensor, states: Sequence[Tensor], alias: bool) -> list[Tensor]:
    """One step; returns the spikes and the states; if `alias`, without the first, which is the spikes."""
    with _kept(neuron, touched.names) as own:
        outs = neuron._step(x, tuple(states))
        found = [own[name] for name in touched.names]
    return [outs[0], *found[alias:]]


class Scan:
    """The results of a scan over a chain of steps.

    Args:
        columns: the spikes and the states after every step, [n, *S]; states only if they were requested.
        final_states: the states after the last step.
    """

    def __init__(
        self, neuron: Any, touched: Touched, x: Tensor, steps: int, states: Sequence[Tensor], traced: bool, alias: bool
    ):
        with _kept(neuron, touched.names):
            run, self.backend, self.refusals = neuron._scan(neuron._drive(x, steps), steps, tuple(states), traced)
        spk = run.spk if run.spk.dtype is x.dtype else run.spk.to(x.dtype)
        self.columns: list[Tensor | None] = [spk, *run.traces[alias:]]
        self.final_states = run.final_states[alias:]
        self.columns += [None] * (1 + len(self.final_states) - len(self.columns))


def set_aside(touched: dict[Any, Touched]) -> dict[Any, int]:
    """Release the membranes that the neurons hold only to derive their reset signal."""
    released = {}
    for neuron in touched:
        own = neuron.__dict__
        before = own.get("_before")
        if type(before) is Recorded:
            released[neuron] = before.at
            own["_before"] = None
    return released


def neurons_of(net: nn.Module) -> list[nn.Module]:
    """The neurons of a network."""
    return [module for module in net.modules() if isinstance(module, SpikingNeuron)]
