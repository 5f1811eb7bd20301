"""The frame that neurons share: threshold, reset, reset delay and graded spikes.

A model defines only the *charge*, the update of the states without spikes. The frame turns it into a cell:

    R    = H(mem - threshold)                 from the membrane of the previous step, without gradient
    mem' = reset rule of the charge with R    (delayed reset: it acts one step after the spike)
    spk  = H(mem' - threshold) * factor

With ``reset_delay=False``, spikes that are not in R reset the membrane within the same step. A model may also feed the
spikes of the previous step back into its input. It declares which of its parameters are decays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .. import ops
from ..forks import cached_property
from ..ops import Value
from .cell import Cell, initial_of, returned, signature_of
from .decay import DECAYS
from .linear import Nearest

States = tuple[Value, ...]
Charge = Callable[..., States]
Rule = Callable[[Charge, Value, States, Value, Value], States]

FRAME_PARAMS = ("threshold", "graded_spikes_factor")


def subtract(charge: Charge, x: Value, states: States, fired: Value, threshold: Value) -> States:
    """Subtract the threshold after the charge: mem' = charge(mem, x) - R * threshold."""
    *rest, mem = charge(x, *states)
    return (*rest, mem - fired * threshold)


def zero(charge: Charge, x: Value, states: States, fired: Value, threshold: Value) -> States:
    """Clear the membrane after the charge, including the new input: mem' = (1 - R) * charge(mem, x)."""
    *rest, mem = charge(x, *states)
    return (*rest, (1 - fired) * mem)


def zero_before_charge(charge: Charge, x: Value, states: States, fired: Value, threshold: Value) -> States:
    """Clear the membrane before the charge, without the new input: mem' = charge((1 - R) * mem, x)."""
    *rest, mem = states
    return charge(x, *rest, (1 - fired) * mem)


def none(charge: Charge, x: Value, states: States, fired: Value, threshold: Value) -> States:
    """No reset: mem' = charge(mem, x)."""
    return charge(x, *states)


RESETS: Mapping[str, Rule] = {"subtract": subtract, "zero": zero, "none": none}

# The reset within the same step, for spikes that are not in R: late = spk - R.
IMMEDIATE: Mapping[str, Callable[[Value, Value, Value], Value]] = {
    "subtract": lambda mem, late, threshold: mem - late * threshold,
    "zero": lambda mem, late, threshold: mem - late * mem,
    "none": lambda mem, late, threshold: mem,
}


@dataclass(frozen=True)
class Frame:
    """Options of a layer: the reset mechanism, its delay, and the parametrization of decays (see `DECAYS`)."""

    reset: str = "subtract"
    delayed: bool = True
    decay: str = "clamp"


@dataclass(frozen=True)
class Model:
    """A neuron with the common frame: its charge equation, and its differences from the frame.

    Args:
        charge: ``(x, *states, *, params) -> new states``; the membrane is the last state.
        resets: rules that replace those of `RESETS` by name.
        decays: names of the parameters that are decays per step; these stay in [0, 1] (see `DECAYS`).
        recurrent: whether V * spk is added to the input, where spk, the first state, is the spikes of the last step.
        inputs: number of inputs in x; if there are several, the charge receives a tuple.
        loop: see `Cell`.
        nearest: if the charge is not linear, the linear neuron that comes nearest to it, for exchange formats.
    """

    charge: Charge
    resets: Mapping[str, Rule] = field(default_factory=dict, hash=False)
    decays: tuple[str, ...] = ()
    recurrent: bool = False
    inputs: int = 1
    loop: bool = False
    nearest: Nearest | None = field(default=None, compare=False)

    @cached_property
    def states(self) -> tuple[str, ...]:
        return ("spk", *self.charged) if self.recurrent else self.charged

    @cached_property
    def charged(self) -> tuple[str, ...]:
        """The states that the charge accepts and returns, the membrane last."""
        return signature_of(self.charge)[0]

    @cached_property
    def initial(self) -> Mapping[str, float]:
        return {"spk": 0.0, **initial_of(self.charge)}

    @cached_property
    def params(self) -> tuple[str, ...]:
        return (*self.charge_params, *(("V",) if self.recurrent else ()), *FRAME_PARAMS)

    @cached_property
    def charge_params(self) -> tuple[str, ...]:
        """The parameters of the charge."""
        return signature_of(self.charge)[1]

    def charging(self, decay: str, p: Mapping[str, Value]) -> Charge:
        """The charge with its parameters: ``(x, *states) -> new states``."""
        own = {name: p[name] for name in self.charge_params}
        own |= {name: DECAYS[decay].bounded(p[name]) for name in self.decays}
        return lambda x, *states: returned(self.charge, self.charge(x, *states, **own), self.charged)

    def rule(self, reset: str) -> Rule:
        """The rule of a reset mechanism."""
        return self.resets.get(reset, RESETS[reset])

    def step(self, frame: Frame, x: Value, states: States, p: Mapping[str, Value]) -> States:
        """One time step: returns the spikes, then the new states."""
        if self.recurrent:
            last, *states_left = states
            x, states = x + p["V"] * last, tuple(states_left)
        threshold, factor = (p[name] for name in FRAME_PARAMS)
        fired = ops.detach(ops.spike(states[-1] - threshold))
        *rest, mem = self.rule(frame.reset)(self.charging(frame.decay, p), x, states, fired, threshold)
        spk = ops.spike(mem - threshold) * factor
        if not frame.delayed:
            mem = IMMEDIATE[frame.reset](mem, spk / factor - fired, threshold)
        return (spk, spk, *rest, mem) if self.recurrent else (spk, *rest, mem)

    def cell(self, frame: Frame) -> Cell:
        """The cell of this model for a frame."""
        timing = "delayed" if frame.delayed else "immediate"
        marks = (*(["recurrent"] if self.recurrent else []), *([frame.decay] if self.decays else []))
        name = "/".join((self.charge.__name__, *marks, frame.reset, timing))
        return Cell(name, _Equation(self, frame), self.states, self.params, self.inputs, loop=self.loop)


@dataclass(frozen=True)
class _Equation:
    """The step of a model in a frame as a complete equation. Equal models and frames compare equal."""

    model: Model
    frame: Frame

    def __call__(self, x: Value, *states: Value, **params: Value) -> States:
        return self.model.step(self.frame, x, states, params)


@dataclass(frozen=True)
class Whole:
    """A neuron whose equation includes spikes and reset: ``(x, *states, *, params) -> (spk, *new states)``.

    It uses only the `decay` of a frame.

    Args:
        equation: the equation of one step.
        decays: see `Model`.
        recurrent: see `Model`.
        any_order: see `Cell`; for neurons without a step form.
        loop: see `Cell`.
        nearest: the linear neuron that comes nearest to the equation, for exchange formats.
    """

    equation: Callable[..., States]
    decays: tuple[str, ...] = ()
    recurrent: bool = False
    any_order: bool = False
    loop: bool = False
    nearest: Nearest | None = field(default=None, compare=False)

    @cached_property
    def states(self) -> tuple[str, ...]:
        own = self.returned[1:]
        return ("spk", *own) if self.recurrent else own

    @cached_property
    def returned(self) -> tuple[str, ...]:
        """The names of what the equation returns: the spikes, then its states."""
        return ("spk", *signature_of(self.equation)[0])

    @cached_property
    def initial(self) -> Mapping[str, float]:
        return {"spk": 0.0, **initial_of(self.equation)}

    @cached_property
    def params(self) -> tuple[str, ...]:
        own = signature_of(self.equation)[1]
        return (*own, "V") if self.recurrent else own

    def cell(self, frame: Frame) -> Cell:
        """The equation as a cell."""
        marks = (*(["recurrent"] if self.recurrent else []), *([frame.decay] if self.decays else []))
        name = "/".join((self.equation.__name__, *marks))
        equation = _WholeEquation(self, frame.decay)
        return Cell(name, equation, self.states, self.params, any_order=self.any_order, loop=self.loop)


@dataclass(frozen=True)
class _WholeEquation:
    model: Whole
    decay: str

    def __call__(self, x: Value, *states: Value, **params: Value) -> States:
        model = self.model
        if model.recurrent:
            last, *states_left = states
            x, states = x + params.pop("V") * last, tuple(states_left)
        decays = {name: DECAYS[self.decay].bounded(params[name]) for name in model.decays}
        spk, *news = returned(model.equation, model.equation(x, *states, **(params | decays)), model.returned)
        return (spk, spk, *news) if model.recurrent else (spk, *news)


AnyModel = Model | Whole
