"""The one shell around every neuron: state, parameters, step and sequence mode, saving and loading."""

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from .. import surrogate
from ..cells.firing import RESETS, Model
from ..scan.loop import Trajectory, loop
from ..scan.program import Program, program_for
from ..scan.select import Call, choose
from ._registry import INSTANCES, Instances, Registered
from ._state import Compute, broadcast_state, checked_input, detached, fresh_state
from ._time import Time, Visit, current_time, time_is

SpikeGrad = Callable[..., Tensor]
OWN_METHODS = ("fire", "fire_inhibition", "mem_reset")


class SpikingNeuron(nn.Module, metaclass=Registered):
    """Base of all spiking neurons: threshold, surrogate gradient, reset and hidden state.

    Not used by itself; see `Leaky`. The arguments are those that all neurons share.

    Args:
        threshold: membrane above which the neuron fires; a number or a tensor that broadcasts over the input.
        spike_grad: spike function (see `spikeloom.surrogate`); None is ``surrogate.atan()``.
        surrogate_disable: if True, no gradient flows through the spikes.
        init_hidden: if True, the layer keeps its state and returns the spikes alone.
        inhibition: if True, only the neuron with the highest membrane in dimension 1 may fire (2-D inputs).
        learn_threshold: if True, the threshold is an nn.Parameter.
        reset_mechanism: "subtract", "zero" or "none".
        state_quant: a function that quantises each state after every step, or False.
        output: if True, the states are returned even with init_hidden.
        graded_spikes_factor: the amplitude of a spike.
        learn_graded_spikes_factor: if True, that amplitude is an nn.Parameter.
    """

    model: ClassVar[Model]
    reset_dict: ClassVar[dict[str, int]] = {"subtract": 0, "zero": 1, "none": 2}

    threshold: Tensor
    graded_spikes_factor: Tensor
    reset_mechanism_val: Tensor
    reset_delay: bool = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        ours = cls.__module__.startswith(__name__.partition(".")[0] + ".")
        if "forward" in vars(cls) and not ours:
            cls.forward = _step_by_step(cls.forward)  # type: ignore[method-assign]

    def __init__(
        self,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "subtract",
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = False,
        graded_spikes_factor: float | Tensor = 1.0,
        learn_graded_spikes_factor: bool = False,
    ):
        super().__init__()
        _check_reset(reset_mechanism)
        if inhibition:
            warnings.warn("inhibition lets one neuron of dimension 1 fire per step; it runs step by step", stacklevel=3)
        self.init_hidden, self.inhibition, self.output = init_hidden, inhibition, output
        self.state_quant = state_quant
        self.spike_grad = surrogate.no_gradient() if surrogate_disable else spike_grad or surrogate.atan()
        self._register_value("threshold", threshold, learn_threshold)
        self._register_value("graded_spikes_factor", graded_spikes_factor, learn_graded_spikes_factor)
        self._mode = reset_mechanism
        self.register_buffer("reset_mechanism_val", torch.tensor(self.reset_dict[reset_mechanism]))
        for name in self._state_names():
            setattr(self, name, torch.zeros(0))
        self._retrace()
        INSTANCES.add(self)

    # -- running ----------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is a base class; use a neuron such as Leaky")

    def _run(self, input_: Tensor, given: tuple[Tensor | None, ...]) -> Any:
        """One step, or, while the network is unrolled, the whole sequence; then the layer's return rule."""
        if self.init_hidden and any(state is not None for state in given):
            raise TypeError(f"{self._label()} keeps its own state (init_hidden=True); call it with the input alone")
        time = current_time()
        if time is None:
            spk, *states = self._step(input_, given)
        else:
            spk, *states = self._unrolled(input_, given, time)
        return spk if self.init_hidden and not self.output else (spk, *states)

    def _step(self, input_: Tensor, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        x = checked_input(input_, self._label)
        compute = Compute.of(x)
        states = self._states(x, compute, given)
        run = self._trajectory(x.to(compute.dtype).unsqueeze(0), 1, states, False)
        self._keep(run.finals)
        return (run.spk[0].to(x.dtype), *run.finals)

    def _unrolled(self, input_: Tensor, given: tuple[Tensor | None, ...], time: Time) -> tuple[Tensor, ...]:
        if any(state is not None for state in given):
            raise TypeError(f"{self._label()} is given its states by hand, which unroll cannot do; use init_hidden=True")
        if id(self) in time.seen:
            raise RuntimeError(f"{self._label()} is called twice in one forward; give each call a neuron of its own")
        x = time.unfold(input_, self._label())
        spk, *states = self.sequence(x, time.steps, time)
        time.seen.add(id(self))
        return tuple(out.flatten(0, 1) for out in (spk, *states))

    def sequence(self, x: Tensor, steps: int, time: Time | None = None) -> tuple[Tensor, ...]:
        """All `steps` steps at once, without the layer's return rule; continues from the layer's state.

        Args:
            x: input, [T, *S], or [1, *S] for the same input at every step.
            steps: T.
            time: the unrolled run to report to.

        Returns:
            spikes [T, *S] and, unless the layer returns spikes alone, each state after every step [T, *S].
        """
        x = checked_input(x, self._label)
        compute = Compute.of(x)
        states = self._states(x[0] if len(x) else x.new_empty(x.shape[1:]), compute, (None,) * len(self._state_names()))
        traced = self.output or not self.init_hidden
        run = self._trajectory(x.to(compute.dtype), steps, states, traced, time)
        self._keep(run.finals)
        return (run.spk.to(x.dtype), *run.traces)

    def _trajectory(
        self, x: Tensor, steps: int, states: tuple[Tensor, ...], traced: bool, time: Time | None = None
    ) -> Trajectory:
        params = self._params(x)
        own = self._own_methods()
        if own:
            name, reasons = "loop", own
            run = loop(self._step_by_methods(params), x, steps, states, traced)
        else:
            call = Call(self._program, x, steps, states, params, traced, self._label())
            machine, reasons = choose(call)
            name, run = machine.name, machine.run(call)
        if time is not None and time.recording:
            time.visits[self] = Visit(name, reasons, len(x) == 1 != steps, run.spk.detach())
        return run

    def _step_by_methods(self, params: Mapping[str, Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        firing = _Methods(self)

        def step(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
            return self.model.step(firing, self._mode, self.reset_delay, x, states, params)

        return step

    def _own_methods(self) -> list[str]:
        """Why the neuron must fire by its own methods instead of by its equation alone; empty if it need not."""
        why = []
        if self.state_quant:
            why.append("state_quant is a function of the user's")
        if self.inhibition:
            why.append("inhibition compares neurons with each other")
        for name in OWN_METHODS:
            if name in self.__dict__ or getattr(type(self), name) is not getattr(SpikingNeuron, name):
                why.append(f"{type(self).__name__} overrides {name}")
        return why

    # -- parameters and state ---------------------------------------------------------------------------------------

    def _state_names(self) -> tuple[str, ...]:
        return self.model.states if hasattr(self, "model") else ()

    def _register_value(self, name: str, value: Any, learn: bool) -> None:
        tensor = torch.as_tensor(value)
        if learn:
            tensor = tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)

    def _params(self, x: Tensor) -> dict[str, Tensor]:
        """The cell's parameters in the dtype of the state, each checked to broadcast over one step of the input."""
        params = {name: cast(Tensor, getattr(self, name)).to(x.dtype) for name in self.model.params}
        for name, p in params.items():
            if p.dim() and not _broadcasts(p.shape, x.shape[1:]):
                raise ValueError(
                    f"{self._label()} has {name} of shape {tuple(p.shape)} and got an input of shape "
                    f"{tuple(x.shape[1:])}; {name} must broadcast to the input's trailing dimensions"
                )
            if p.dim() and p.device != x.device:
                raise ValueError(f"{self._label()} has {name} on {p.device} and an input on {x.device}; move one")
        return params

    def _states(self, x: Tensor, compute: Compute, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        """The state before this call: what was given, else what the layer keeps, else zeros."""
        states = []
        for name, state in zip(self._state_names(), given, strict=True):
            if state is None:
                states.append(fresh_state(getattr(self, name), x, compute))
            else:
                states.append(broadcast_state(state, x, compute, self._label(), name))
        return tuple(states)

    def _keep(self, states: tuple[Tensor, ...]) -> None:
        for name, state in zip(self._state_names(), states, strict=True):
            object.__setattr__(self, name, state)

    def reset_mem(self) -> Any:
        """Set every state to zeros of its present shape, and return them: one tensor, or a tuple of several."""
        self._keep(tuple(torch.zeros_like(getattr(self, name)) for name in self._state_names()))
        states = tuple(getattr(self, name) for name in self._state_names())
        return states[0] if len(states) == 1 else states

    def detach_mem(self) -> None:
        """Cut every state from the graph that made it; its value stays."""
        self._keep(tuple(detached(getattr(self, name)) for name in self._state_names()))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # states follow .to() and the like, but are no buffers: those would be broadcast in distributed training
        super()._apply(fn, recurse)
        self._keep(tuple(fn(getattr(self, name)) for name in self._state_names()))
        return self

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name).detach() for name in self._state_names()}
        return {k: v for k, v in self.__dict__.items() if k not in ("_program", "reset")} | kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._retrace()
        INSTANCES.add(self)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self._state_names():  # checkpoints of old versions hold the state; it is not part of the network
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if not self.reset_mechanism_val.is_meta:
            modes = {value: mode for mode, value in self.reset_dict.items()}
            self._mode = modes[int(self.reset_mechanism_val)]
            self._retrace()

    # -- what decides which kernel runs -----------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("spike_grad", "reset_delay") and "_program" in self.__dict__:
            self._retrace()

    def _retrace(self) -> None:
        """Find the program of the present options. Done here and not while running, so that nothing is traced twice."""
        if hasattr(self, "model"):
            program = program_for(self.model.cell(self._mode, self.reset_delay), self.spike_grad)
            object.__setattr__(self, "_program", program)

    _program: Program

    @property
    def reset_mechanism(self) -> str:
        """"subtract", "zero" or "none"; assigning it changes the dynamics from the next step on."""
        return self._mode

    @reset_mechanism.setter
    def reset_mechanism(self, mode: str) -> None:
        _check_reset(mode)
        self._mode = mode
        self.reset_mechanism_val = torch.full_like(self.reset_mechanism_val, self.reset_dict[mode])
        self._retrace()

    # -- firing by methods, which subclasses may override -----------------------------------------------------------

    def fire(self, mem: Tensor) -> Tensor:
        """Spikes of a membrane [B, *N]: spike_grad(mem - threshold) * graded_spikes_factor."""
        if callable(self.state_quant):
            mem = self.state_quant(mem)
        spk: Tensor = self.spike_grad(mem - self.threshold) * self.graded_spikes_factor
        return spk

    def fire_inhibition(self, batch_size: int, mem: Tensor) -> Tensor:
        """Spikes of a membrane [B, N, ...] where, in each row, only the largest mem - threshold of dimension 1 may fire."""
        above = mem - self.threshold
        spk: Tensor = self.spike_grad(above)
        winner = torch.zeros_like(spk).scatter_(1, above.argmax(dim=1, keepdim=True), 1.0)
        return spk * winner

    def mem_reset(self, mem: Tensor) -> Tensor:
        """The reset signal of a membrane [B, *N]: 1 where it is above threshold, without gradient."""
        fired: Tensor = self.spike_grad(mem - self.threshold)
        return fired.clone().detach()

    # -- all neurons of a class -------------------------------------------------------------------------------------

    @classmethod
    def init(cls) -> None:
        """Forget all instances of this class; they live on, but `reset_hidden` no longer reaches them."""
        INSTANCES.forget(lambda neuron: isinstance(neuron, cls))

    @classmethod
    def reset_hidden(cls) -> None:
        """Set the state of every living neuron of this class, in all networks, to zeros; see `spikeloom.utils.reset`."""
        for neuron in INSTANCES:
            if isinstance(neuron, cls):
                neuron.reset_mem()

    @classmethod
    def detach_hidden(cls) -> None:
        """Detach the state of every living neuron of this class, in all networks; see `spikeloom.utils.detach`."""
        for neuron in INSTANCES:
            if isinstance(neuron, cls):
                neuron.detach_mem()

    @property
    def instances(self) -> Instances:
        """All living neurons, in the order of their making; a weak view."""
        return INSTANCES

    @staticmethod
    def detach(*states: Tensor) -> None:
        """Detach each tensor in place."""
        for state in states:
            state.detach_()

    @staticmethod
    def zeros(*states: Tensor) -> None:
        """Set each tensor to zero in place."""
        with torch.no_grad():
            for state in states:
                state.zero_()

    def _label(self) -> str:
        return type(self).__name__


class _Methods:
    """Firing by the methods of a neuron, so that what a user overrides is honoured."""

    def __init__(self, neuron: SpikingNeuron):
        self.neuron = neuron

    def reset_signal(self, mem: Tensor) -> Tensor:
        return self.neuron.mem_reset(mem)

    def settle(self, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        quantise = self.neuron.state_quant
        return tuple(quantise(s) for s in states) if callable(quantise) else states

    def spikes(self, mem: Tensor) -> Tensor:
        return self.neuron.fire_inhibition(mem.size(0), mem) if self.neuron.inhibition else self.neuron.fire(mem)


def _step_by_step(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a user's own forward, which knows one step, also serve a whole sequence."""

    @wraps(forward)
    def over_time(self: SpikingNeuron, input_: Tensor, *args: Any, **kwargs: Any) -> Any:
        time = current_time()
        if time is None:
            return forward(self, input_, *args, **kwargs)
        x = time.unfold(input_, self._label())
        inputs = x.unbind(0) if len(x) == time.steps else [x[0]] * time.steps
        with time_is(None):
            outs = [forward(self, x_t, *args, **kwargs) for x_t in inputs]
        stacked = torch.utils._pytree.tree_map(lambda *each: torch.cat(each), *outs)
        if time.recording:
            spk = stacked[0] if isinstance(stacked, tuple) else stacked
            why = [f"{type(self).__name__} overrides forward"]
            time.visits[self] = Visit("loop", why, len(x) == 1 != time.steps, spk.detach())
        return stacked

    return over_time


def _check_reset(mode: str) -> None:
    if mode not in RESETS:
        raise ValueError(f"reset_mechanism is {mode!r}; choose one of {', '.join(map(repr, RESETS))}")


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    return len(shape) <= len(target) and all(
        a in (1, b) for a, b in zip(reversed(shape), reversed(target), strict=False)
    )
