"""Programs: all that the engine derives from a cell and its spike function before it chooses a backend."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ... import ops
from ...cells.cell import Cell
from ...forks import cached_property
from ...ops import Surrogate
from ...surrogate import Spike, as_spike
from .. import tuning
from .adjoint import adjoint
from .compare import OPERATORS, difference, slope_difference
from .trace import NUMBERS, Graph, Symbol, TracedStep, Untraceable, needed, trace
from .variant import InputGrad, Param, State


@dataclass(frozen=True)
class Derivation:
    """The graph of a step in three parts: values that torch computes once, the forward and the backward of a step.

    Args:
        hoisted: nodes that depend on parameters only, which torch computes before the scan, with autograd; then the
            numbers that are kernel arguments.
        forward: the spikes, then the new states.
        backward: the gradients of each input, of each state and of each hoisted node; None if it is zero.
        cotangents: the gradients of the spikes, then of each new state.
        step: the traced step.
    """

    step: TracedStep
    hoisted: tuple[Symbol, ...]
    forward: tuple[Symbol, ...]
    cotangents: tuple[Symbol, ...]
    backward: tuple[Symbol | None, ...]

    @cached_property
    def recalled(self) -> frozenset[Symbol]:
        """The values that the backward of a step loads: leaves, hoisted values and the saved new states."""
        leaves = (*self.step.inputs, *self.step.states, *self.hoisted, *self.cotangents)
        return frozenset((*leaves, *self.step.new_states))

    @cached_property
    def needs_input(self) -> bool:
        """Whether the backward reads x, which then has to be saved."""
        nodes = needed([g for g in self.backward if g is not None], self.recalled)
        return not set(self.step.inputs).isdisjoint(nodes)

    @cached_property
    def every_state(self) -> tuple[State, ...]:
        """`Variant.states` if every state is saved."""
        return tuple(State.SPIKES if new is self.step.spk else State.SAVED for new in self.step.new_states)

    @cached_property
    def gradients(self) -> tuple[tuple[Symbol | None, ...], ...]:
        """The backward in three parts: the gradients of the inputs, of the states, and of the hoisted values."""
        first, second = len(self.step.inputs), len(self.step.inputs) + len(self.step.states)
        return self.backward[:first], self.backward[first:second], self.backward[second:]

    def backward_nodes(self, params: tuple[Param, ...], grad: InputGrad) -> dict[Symbol, None]:
        """The nodes of the backward in one variant (see `Variant`), both loaded and computed."""
        dxs, carries, totals = self.gradients
        learned = [g for g, kind in zip(totals, params, strict=True) if kind.learned]
        results = [*(dxs if grad != InputGrad.UNWANTED else ()), *carries, *learned]
        return needed([g for g in results if g is not None], self.recalled)

    def read_states(self, params: tuple[Param, ...], grad: InputGrad) -> tuple[State, ...]:
        """`Variant.states` if only the states that the backward reads are saved."""
        nodes, olds = set(self.backward_nodes(params, grad)), frozenset(self.step.states)
        pairs = zip(self.every_state, self.step.states, self.step.new_states, strict=True)
        return tuple(
            saved if old in nodes or (new in nodes and new not in olds) else State.DROPPED for saved, old, new in pairs
        )

    def __str__(self) -> str:
        results = [None if g is None else g.index for g in (*self.hoisted, *self.forward, *self.backward)]
        return "\n".join((str(self.step.graph), str(results), str([s.index for s in self.step.new_states])))


class Structure:
    """The graph, shared by programs that differ only in their numbers. Its key identifies the kernels.

    Args:
        derivation: the graph, in which numbers are placeholders.
        any_order: see `Cell`.
    """

    def __init__(self, derivation: Derivation, any_order: bool):
        self.derivation, self.any_order = derivation, any_order
        self.key = hashlib.sha256(f"{any_order}\n{derivation}".encode()).hexdigest()[:16]
        self.every_state = derivation.every_state
        # the hoisted values as a straight line: the parameters, then operations on numbers and on values before
        order = [node for node in needed(derivation.hoisted) if node.op not in NUMBERS]
        order.sort(key=lambda node: node.op != "param")
        position = {node: i for i, node in enumerate(order)}
        self.reads = tuple(node.value for node in order if node.op == "param")
        self.recipe = [(node.op, node.args, [position.get(a) for a in node.args]) for node in order[len(self.reads) :]]
        self.results = [
            (position[node], node.logical or node.op == "count") for node in derivation.hoisted if node.op != "number"
        ]
        self.places = [node.value for node in derivation.hoisted if node.op == "number"]
        # the hoisted values that are unchanged parameters; apart from the nodes, whose type torch.compile would read
        self.as_given = tuple(node.value if node.op == "param" else "" for node in derivation.hoisted)


class Program:
    """A cell with its spike function, traced and differentiated if that is possible.

    Programs are made by `program_for`, which returns the same one for equal cells and spikes.

    Attributes:
        numbers: the numbers in the equation and in the derivative of its spikes, by place.
    """

    def __init__(self, cell: Cell, surrogate: Surrogate):
        self.cell, self.surrogate = cell, surrogate
        self.derivation: Derivation | None = None
        self.key, self.every_state = "", tuple[State, ...]()
        self.untraceable, numbers = _equation(cell)
        self._guarded = self.untraceable != ""
        spike = as_spike(surrogate)
        if spike is None:
            self.untraceable = f"the spike function {surrogate!r} can only be called; use one of spikeloom.surrogate"
        if self.untraceable or spike is None:
            return
        try:
            slope = _Slope.of(spike)
            self.structure = _structure(cell, slope)
        except Untraceable as why:
            self.untraceable = str(why)
            return
        self.derivation, self.key = self.structure.derivation, self.structure.key
        self.every_state = self.structure.every_state
        self.numbers = (*numbers, *slope.traced[0].numbers)
        self._tensors: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}
        self._constants: dict[tuple[Any, ...], Constants] = {}
        self._recipe: list[tuple[Callable[..., Any], list[tuple[float | None, int | None]]]] = [
            (
                surrogate if op == "spike" else OPERATORS.get(op) or _on_tensors(op, places),
                [(self._number(arg), at) for arg, at in zip(args, places, strict=True)],
            )
            for op, args, places in self.structure.recipe
        ]

    def spikes_have_gradient(self) -> bool:
        """Whether the gradient of the spikes reaches the input or a state; False if there is no graph."""
        if self.derivation is None:
            return False
        dxs, carries, _ = self.derivation.gradients
        return self.derivation.cotangents[0] in needed([g for g in (*dxs, *carries) if g is not None])

    def _number(self, node: Symbol) -> float | None:
        return self.numbers[node.value] if node.op == "number" else node.value if node.op == "const" else None

    def hoist(self, params: Mapping[str, Tensor], like: Tensor) -> tuple[Tensor, ...]:
        """The values that are constant over time: functions of the parameters, differentiable, then the numbers.

        Args:
            params: the parameters by name.
            like: a state, for the dtype and device of the numbers.
        """
        values: list[Any] = [params[name] for name in self.structure.reads]
        for operator, arguments in self._recipe:
            values.append(operator(*[number if at is None else values[at] for number, at in arguments]))
        made = [values[i].to(like.dtype) if logical else values[i] for i, logical in self.structure.results]
        return (*made, *self._number_tensors(like)) if self.structure.places else tuple(made)

    def _number_tensors(self, like: Tensor) -> tuple[Tensor, ...]:
        """The numbers that a kernel takes as arguments."""
        if torch.compiler.is_compiling():  # then nothing may be cached that depends on the graph
            return self._made_numbers(like)
        found = self._tensors.get((like.dtype, like.device))
        if found is None:
            with torch.inference_mode(False):
                found = self._made_numbers(like)
            if all(type(number) is Tensor for number in found):
                self._tensors[like.dtype, like.device] = found
        return found

    def _made_numbers(self, like: Tensor) -> tuple[Tensor, ...]:
        numbers = [self.numbers[place] for place in self.structure.places]
        # in float64 first: torch.full rejects a number beyond float32, which is infinite in an operation with a tensor
        made = [torch.full((), rounded(n, like.dtype), dtype=like.dtype, device=like.device) for n in numbers]
        return tuple(made)

    def constants(self, dtype: torch.dtype, numbers: tuple[float, ...]) -> "Constants":
        """The hoisted values on the CPU for parameters that are numbers, none of them learned."""
        negative = tuple([str(number)[0] == "-" for number in numbers]) if 0.0 in numbers else ()  # -0.0 == 0.0
        key = (dtype, numbers, negative)
        found = self._constants.get(key)
        if found is None:
            if len(self._constants) >= tuning.limits.constants_most:
                self._constants.clear()
            with torch.inference_mode(False), torch.no_grad():
                given = [torch.tensor(number, dtype=dtype, device="cpu") for number in numbers]
                like = torch.empty(0, dtype=dtype, device="cpu")
                params = dict(zip(self.cell.params, given, strict=True))
                found = Constants.of(self.hoist(params, like))
            if all(type(value) is Tensor for value in found):
                self._constants[key] = found
        return found

    def step(self, params: Mapping[str, Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        """One step of the reference: the cell on tensors. An untraceable equation gets copies, which it may modify."""

        def step(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
            with ops.spiking_with(self.surrogate):
                return self.cell(x, *states, **params)

        def guarded(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
            own = {name: param.clone() for name, param in params.items()}
            with ops.spiking_with(self.surrogate):
                return self.cell(x.clone(), *[state.clone() for state in states], **own)

        return guarded if self._guarded else step


def rounded(number: float, dtype: torch.dtype) -> float:
    """A number as `torch.full` accepts it for a dtype; infinity if out of range, as in a conversion from float64."""
    most = torch.finfo(dtype).max
    if not math.isfinite(number) or abs(number) <= most:
        return number
    beyond = most * (1 + torch.finfo(dtype).eps / 4)  # half a unit in the last place above
    return math.copysign(math.inf if abs(number) >= beyond else most, number)


def _on_tensors(op: str, places: Sequence[int | None]) -> Callable[..., Tensor]:
    """An operation of `ops` on tensors and numbers: torch's own function, if that accepts numbers there."""
    own = ops.TENSOR_FUNCTIONS.get(op)
    numbers = [place is None for place in places]
    takes = numbers[1:] == [True, True] if op == "clamp" else not any(numbers)
    function: Callable[..., Tensor] = getattr(ops, op)
    return own if own is not None and takes else function


@lru_cache(maxsize=512)
def _equation(cell: Cell) -> tuple[str, tuple[float, ...]]:
    """The reason why a cell cannot be traced, if any, and its numbers."""
    if cell.loop:
        return f"{cell.name} was created with loop=True, so it runs in the plain loop", ()
    try:
        step = trace(cell)
        return difference(cell, step), tuple(step.graph.numbers)
    except Untraceable as why:
        return str(why), ()


@dataclass(frozen=True)
class _Slope:
    """The derivative of a spike function; equal for formulas that differ only in their numbers.

    Args:
        text: its graph as text.
        formula: a custom function, if there is one.
        spike: the spike function.
        traced: its graph, with the argument and the result.
    """

    text: str
    formula: Callable[..., Any]
    spike: Spike = field(compare=False)
    traced: tuple[Graph, Symbol, Symbol | None] = field(compare=False)

    @staticmethod
    def of(spike: Spike) -> "_Slope":
        (graph, u, slope), (again, *_) = _traced_slope(spike), _traced_slope(spike)
        if (str(graph), repr(graph.numbers)) != (str(again), repr(again.numbers)):
            raise Untraceable(f"the derivative of {spike!r} computes something else when it is called again")
        text = f"{graph}\n{None if slope is None else slope.index}"
        return _Slope(text, spike.derivative, spike, (graph, u, slope))


def _traced_slope(spike: Spike) -> tuple[Graph, Symbol, Symbol | None]:
    graph = Graph()
    u = graph.leaf("x", 0)
    try:
        return graph, u, graph.slope(spike, u, 0)
    except Exception as error:  # a custom formula that does not accept symbols
        raise Untraceable(f"the derivative of {spike!r} cannot be traced: {error}") from error


@lru_cache(maxsize=512)
def _structure(cell: Cell, slope: _Slope) -> Structure:
    """The structure of a cell with a spike function, shared by all living programs of the same key."""
    why = slope_difference(slope.spike, *slope.traced)
    if why:
        raise Untraceable(f"the derivative of {slope.spike!r} cannot be traced: {why}")
    made = Structure(_derive(trace(cell), slope.spike), cell.any_order)
    return _by_key.setdefault(made.key, made)


def _derive(step: TracedStep, spike: Spike) -> Derivation:
    forward = (step.spk, *step.new_states)
    everything = needed(forward)
    inner = [a for node in everything if node.varying for a in node.args]
    outer = [*inner, *forward]
    hoisted = tuple(sorted({n for n in outer if not n.varying and n.op not in NUMBERS}, key=lambda n: n.index))
    cotangents = tuple(step.graph.leaf("cotangent", i) for i in range(len(forward)))
    leaves = (*step.inputs, *step.states, *hoisted)
    pairs: Sequence[tuple[Symbol, Symbol]] = list(zip(forward, cotangents, strict=True))
    backward = adjoint(step.graph, pairs, leaves, spike)
    results = [*forward, *[g for g in backward if g is not None]]
    numbers = tuple(node for node in needed(results, frozenset(hoisted)) if node.op == "number")
    return Derivation(step, (*hoisted, *numbers), forward, cotangents, (*backward, *[None] * len(numbers)))


def program_for(cell: Cell, surrogate: Surrogate) -> Program:
    """The program of a cell and a spike function, shared by all networks that use both.

    A custom callable is not cached: it may be a method, which would keep its network in memory.
    """
    return Program(cell, surrogate) if as_spike(surrogate) is None else _shared_program(cell, surrogate)


_shared_program = lru_cache(maxsize=512)(Program)

_by_key: WeakValueDictionary[str, Structure] = WeakValueDictionary()


def structure_of(key: str) -> Structure:
    """Find a structure by its key. torch operators pass the key: they accept only tensors, numbers and strings."""
    if key not in _by_key:
        raise RuntimeError(f"no neuron in this process has the kernel {key}; make the network before you run it")
    return _by_key[key]


@cache
def read_states(key: str, params: tuple[Param, ...], grad: InputGrad) -> tuple[State, ...]:
    """`Derivation.read_states` of a program."""
    return structure_of(key).derivation.read_states(params, grad)


class Constants(tuple[Tensor, ...]):
    """The hoisted values of a program whose parameters are numbers, one number each; they must not be modified.

    Attributes:
        kinds: their kinds in a `Variant`.
    """

    kinds: tuple[Param, ...]

    @staticmethod
    def of(values: Iterable[Tensor]) -> "Constants":
        """The values as tensors, which must not be modified."""
        made = Constants(values)
        made.kinds = (Param.NUMBER,) * len(made)
        return made


def reads_input(key: str) -> bool:
    """Whether the backward of a program reads its input, which then has to be saved."""
    return structure_of(key).derivation.needs_input


ELEMENTARY = frozenset({"exp", "log", "tanh", "sigmoid", "sin", "cos"})


@cache
def runs_quickly(key: str) -> bool:
    """Whether a step is bound by memory: it has no elementary functions."""
    return ELEMENTARY.isdisjoint(_operations(key))


WRITTEN_OUT = ELEMENTARY - {"exp", "sigmoid"}
"""Operations without a GPU instruction, which the compiler expands at each use."""


@cache
def compiles_quickly(key: str) -> bool:
    """Whether a step is short enough on a GPU for a kernel to contain it several times."""
    return WRITTEN_OUT.isdisjoint(_operations(key))


def _operations(key: str) -> set[str]:
    """The operations of a step that a kernel runs."""
    derivation = structure_of(key).derivation
    return {node.op for node in needed(derivation.forward, frozenset(derivation.hoisted))}
