"""A program: all that the engine derives from a cell and its spike function before any backend is chosen."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from .. import ops
from ..cells.cell import Cell
from ..forks import cached_property
from ..ops import Surrogate
from ..surrogate import Spike, as_spike
from .adjoint import adjoint
from .trace import Symbol, Trace, Untraceable, needed, trace

OPERATORS: Mapping[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "spike": ops.spike,
}


@dataclass(frozen=True)
class Derivation:
    """The graph of a step split in three: what torch computes once, the forward of a step, the backward of a step.

    Args:
        hoisted: nodes made of parameters alone, which torch computes, with its own autograd, before the scan.
        forward: the spikes, then the new states.
        backward: the gradients of each input, of each state and of each hoisted node; None where there is none.
        cotangents: of the spikes, then of each new state.
        trace: the traced step.
    """

    trace: Trace
    hoisted: tuple[Symbol, ...]
    forward: tuple[Symbol, ...]
    cotangents: tuple[Symbol, ...]
    backward: tuple[Symbol | None, ...]

    @cached_property
    def recalled(self) -> frozenset[Symbol]:
        """What the backward of a step loads instead of computing: leaves, hoisted values and the saved new states."""
        leaves = (*self.trace.inputs, *self.trace.states, *self.hoisted, *self.cotangents)
        return frozenset((*leaves, *self.trace.new_states))

    @cached_property
    def needs_input(self) -> bool:
        """Whether the backward reads x, which then has to be saved."""
        nodes = needed([g for g in self.backward if g is not None], self.recalled)
        return not set(self.trace.inputs).isdisjoint(nodes)

    @cached_property
    def every_state(self) -> str:
        """A letter per state, as `emit_numba.Variant.traced` has it where all are kept."""
        return "".join("s" if new is self.trace.spk else "1" for new in self.trace.new_states)

    @cached_property
    def gradients(self) -> tuple[tuple[Symbol | None, ...], ...]:
        """The backward in its three parts: of the inputs, of the states, of the hoisted values."""
        first, second = len(self.trace.inputs), len(self.trace.inputs) + len(self.trace.states)
        return self.backward[:first], self.backward[first:second], self.backward[second:]

    def pulled(self, params: str, grad: str) -> list[Symbol]:
        """The nodes of the backward in one variant (see `emit_numba.Variant`): what it loads and what it computes."""
        dxs, carries, totals = self.gradients
        learned = [g for g, kind in zip(totals, params, strict=True) if kind.isupper()]
        results = [*(dxs if grad != "none" else ()), *carries, *learned]
        return needed([g for g in results if g is not None], self.recalled)

    def read_states(self, params: str, grad: str) -> str:
        """The same where those are kept that the backward reads."""
        nodes, olds = set(self.pulled(params, grad)), self.trace.states
        pairs = zip(self.every_state, olds, self.trace.new_states, strict=True)
        return "".join(
            letter if old in nodes or (new in nodes and new not in olds) else "0" for letter, old, new in pairs
        )

    def __str__(self) -> str:
        results = [None if g is None else g.index for g in (*self.hoisted, *self.forward, *self.backward)]
        rows = [f"{n.index} {n.op} {[a.index for a in n.args]} {n.value!r}" for n in self.trace.graph.nodes]
        return "\n".join((*rows, str(results), str([s.index for s in self.trace.new_states])))


class Program:
    """A cell with its spike function, traced and differentiated if that is possible.

    Programs are made by `program_for`, which returns the same one for equal cells and spikes.
    """

    def __init__(self, cell: Cell, surrogate: Surrogate):
        self.cell, self.surrogate = cell, surrogate
        self.oldest: Program | None = None
        """Of the programs with this key the one that `program_of` finds, which lives as long as any of them."""
        self.untraceable = ""
        self.derivation: Derivation | None = None
        self.key = ""
        self.every_state = ""
        self._reads: tuple[str, ...] = ()
        self._recipe: list[tuple[Callable[..., Any], tuple[tuple[Any, int | None], ...]]] = []
        self._results: tuple[int, ...] = ()
        spike = as_spike(surrogate)
        if spike is None:
            self.untraceable = f"the spike function {surrogate!r} can only be called; use one of spikeloom.surrogate"
            return
        try:
            self.derivation = _derive(trace(cell), spike)
        except Untraceable as why:
            self.untraceable = str(why)
            return
        # the names too, for they stand in the kernel's file
        told = f"{cell.name}, {surrogate!r}, {cell.any_order}\n{self.derivation}"
        self.key = hashlib.sha256(told.encode()).hexdigest()[:16]
        self.every_state = self.derivation.every_state
        self._prepare(self.derivation)

    def _prepare(self, derivation: Derivation) -> None:
        """The hoisted values as a straight line: the parameters, then operations on numbers and on values before."""
        order = needed(derivation.hoisted)
        order = [n for n in order if n.op == "param"] + [n for n in order if n.op not in ("param", "const")]
        position = {node: i for i, node in enumerate(order)}
        self._reads = tuple(node.value for node in order if node.op == "param")
        for node in order[len(self._reads) :]:
            operator = OPERATORS.get(node.op) or ops.TENSOR_FUNCTIONS[node.op]
            arguments = tuple((a.value, None) if a.op == "const" else (None, position[a]) for a in node.args)
            self._recipe.append((operator, arguments))
        self._results = tuple(position[node] for node in derivation.hoisted)

    def hoist(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The values that do not change over time, from the parameters; differentiable."""
        values = [params[name] for name in self._reads]
        for operator, arguments in self._recipe:
            values.append(operator(*[number if at is None else values[at] for number, at in arguments]))
        return tuple([values[i] for i in self._results])

    def step(self, params: Mapping[str, Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        """One step of the law: the cell on tensors."""

        def step(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
            with ops.spiking_with(self.surrogate):
                return self.cell(x, *states, **params)

        return step


def _derive(step: Trace, spike: Spike) -> Derivation:
    forward = (step.spk, *step.new_states)
    everything = needed(forward)
    inner = [a for node in everything if node.varying for a in node.args]
    outer = [*inner, *forward]
    hoisted = tuple(sorted({n for n in outer if not n.varying and n.op != "const"}, key=lambda n: n.index))
    cotangents = tuple(step.graph.leaf("cotangent", i) for i in range(len(forward)))
    leaves = (*step.inputs, *step.states, *hoisted)
    pairs: Sequence[tuple[Symbol, Symbol]] = list(zip(forward, cotangents, strict=True))
    try:
        backward = tuple(adjoint(step.graph, pairs, leaves, spike))
    except Untraceable:
        raise
    except Exception as error:  # a user's formula that does not take symbols
        raise Untraceable(f"the derivative of {spike!r} cannot be traced: {error}") from error
    return Derivation(step, hoisted, forward, cotangents, backward)


def program_for(cell: Cell, surrogate: Surrogate) -> Program:
    """The program of a cell and a spike function, shared by all networks that use both.

    A callable of the user's is not kept: it may be a method, and would hold its network in memory.
    """
    return Program(cell, surrogate) if as_spike(surrogate) is None else _shared_program(cell, surrogate)


@lru_cache(maxsize=512)
def _shared_program(cell: Cell, surrogate: Surrogate) -> Program:
    program = Program(cell, surrogate)
    if program.key:
        oldest = _by_key.setdefault(program.key, program)
        program.oldest = None if oldest is program else oldest
    return program


_by_key: WeakValueDictionary[str, Program] = WeakValueDictionary()


def program_of(key: str) -> Program:
    """The program of that key: the word by which the torch operator, which takes tensors and words alone, knows it."""
    if key not in _by_key:
        raise RuntimeError(f"no neuron in this process has the kernel {key}; make the network before you run it")
    return _by_key[key]


@cache
def read_states(key: str, params: str, grad: str) -> str:
    """`Derivation.read_states` of a program."""
    derivation = program_of(key).derivation
    assert derivation is not None
    return derivation.read_states(params, grad)


class Constants(tuple[Tensor, ...]):
    """The hoisted values of a program whose parameters are numbers, one number each; nobody else may change them.

    Attributes:
        addresses: where they lie.
        kinds: their letters in a `Variant`.
    """

    addresses: tuple[int, ...]
    kinds: str

    @staticmethod
    def of(values: Iterable[Tensor]) -> "Constants":
        """These values, which from now on nobody else may change."""
        made = Constants(values)
        made.addresses, made.kinds = tuple(value.data_ptr() for value in made), "u" * len(made)
        return made


@lru_cache(maxsize=1024)
def constants(key: str, dtype: torch.dtype, numbers: tuple[float, ...]) -> Constants:
    """The hoisted values of a program for these parameters."""
    program = program_of(key)
    with torch.inference_mode(False), torch.no_grad():
        given = zip(program.cell.params, numbers, strict=True)
        return Constants.of(
            program.hoist({name: torch.tensor(number, dtype=dtype, device="cpu") for name, number in given})
        )


def reads_input(key: str) -> bool:
    """Whether the backward of a program reads its input, which then has to be saved."""
    derivation = program_of(key).derivation
    return derivation is not None and derivation.needs_input


ELEMENTARY = frozenset({"exp", "log", "tanh", "sigmoid", "sin", "cos"})


@cache
def runs_quickly(key: str) -> bool:
    """Whether a step takes less time than memory does: it has no elementary functions."""
    return ELEMENTARY.isdisjoint(_operations(key))


WRITTEN_OUT = ELEMENTARY - {"exp", "sigmoid"}
"""Those that a GPU has no instruction for, so that its compiler writes them out wherever they stand."""


@cache
def compiles_quickly(key: str) -> bool:
    """Whether a step is so short on a GPU that a kernel can hold it many times over."""
    return WRITTEN_OUT.isdisjoint(_operations(key))


def _operations(key: str) -> set[str]:
    """Those of a step of a program that kernels run."""
    derivation = program_of(key).derivation
    assert derivation is not None
    return {node.op for node in needed(derivation.forward, frozenset(derivation.hoisted))}
