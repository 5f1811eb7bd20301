"""The one shell around every neuron: parameters, state, step and sequence mode, saving and loading."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import surrogate
from ..cells.decay import DECAYS
from ..cells.firing import FRAME_PARAMS, RESETS, Frame, Model
from ..engine.feedback import Feedback, MemFeedback
from ..engine.graph import Program, program_for
from ..engine.run import Call, Trajectory, choose
from ._graph import Passage
from ._hooks import wants_states
from ._keeping import Keeping
from ._methods import by_methods, step_by_methods, steps_by_methods, unrolled_by_methods
from ._overrides import WATCHED, Overridable
from ._registry import INSTANCES, ClassWide, Registered
from ._short_step import short_step
from ._state import checked_input, checked_params, compute_dtype
from ._time import Time, Visit, current_time, guarded, time_of

SpikeGrad = Callable[..., Tensor]
RETRACED = ("spike_grad", "reset_delay")

DEFAULTS: Mapping[str, Any] = {
    "threshold": 1.0,
    "spike_grad": None,
    "surrogate_disable": False,
    "init_hidden": False,
    "inhibition": False,
    "reset_mechanism": "subtract",
    "state_quant": False,
    "output": False,
    "graded_spikes_factor": 1.0,
    "reset_delay": True,
    "decay": "clamp",
}
"""What a neuron has where its constructor takes no such argument."""

ORDER = ("beta", "V", "time_step", "R", "C", "alpha")
"""In which values are registered, as in snnTorch: optimizers and their checkpoints count parameters."""


class SpikingNeuron(Overridable, ClassWide, Keeping, metaclass=Registered):
    """Base of all spiking neurons: threshold, surrogate gradient, reset and hidden state.

    Not used by itself; see `Leaky`. The arguments are those that all neurons share.

    Args:
        threshold: membrane above which the neuron fires; a number or a tensor that broadcasts over the input.
        spike_grad: spike function (see `spikeloom.surrogate`); None is ``surrogate.atan()``.
        surrogate_disable: if True, no gradient flows through the spikes.
        init_hidden: if True, the layer keeps its state and returns the spikes alone.
        inhibition: if True, only the neuron with the highest membrane in dimension 1 may fire.
        learn_threshold: if True, the threshold is an nn.Parameter.
        reset_mechanism: "subtract", "zero" or "none".
        state_quant: a function that quantises each state after every step, or False.
        output: if True, the states are returned even with init_hidden.
        graded_spikes_factor: the amplitude of a spike.
        learn_graded_spikes_factor: if True, that amplitude is an nn.Parameter.
    """

    reset_dict: ClassVar[dict[str, int]] = {"subtract": 0, "zero": 1, "none": 2}

    reset_mechanism_val: Tensor
    _reset_mechanism: str
    framed: ClassVar[bool] = True  # whether it has the threshold, the factor and the resets that neurons share
    reset_delay: bool = True
    _through_layer: bool = False  # whether spikes come back through a layer (see `Recurrent`)
    _reads_mems: bool = False  # whether it needs the membrane of every step for itself
    _unrolled_around: bool = False  # see `time_of`
    _program: Program

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for model in (vars(cls).get("model"), vars(cls).get("one_to_one")):
            for name in getattr(model, "states", ()):
                type.__setattr__(cls, name, guarded(name))

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
        self._build(locals())

    def _build(self, given: Mapping[str, Any]) -> None:
        """Make the neuron of a constructor's arguments, by name; those that it lacks have their defaults.

        A value is what the model's equation takes, and whatever a ``learn_...`` goes with.
        """
        super().__init__()
        options = {**DEFAULTS, **given}
        self._check(options)
        self.init_hidden, self.inhibition, self.output = (options[n] for n in ("init_hidden", "inhibition", "output"))
        self.state_quant = options["state_quant"]
        self.reset_delay, self.decay = options["reset_delay"], options["decay"]
        self._reset_mechanism = options["reset_mechanism"]
        own = surrogate.atan() if options["spike_grad"] is None else options["spike_grad"]
        self.surrogate_disable = options["surrogate_disable"]
        self.spike_grad = surrogate.no_gradient() if self.surrogate_disable else own
        learned = [name.removeprefix("learn_") for name in given if name.startswith("learn_")]
        values = [*dict.fromkeys((*self._value_names(), *learned))]
        if self.framed:
            for name in FRAME_PARAMS:
                self._register_value(name, options[name], options.get(f"learn_{name}", False))
            self.register_buffer("reset_mechanism_val", torch.tensor(self.reset_dict[self._reset_mechanism]))
            values = [name for name in values if name not in FRAME_PARAMS]
        for name in sorted(values, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
            if name in given:
                self._register_value(name, given[name], given.get(f"learn_{name}", False))
        self._keep(tuple(torch.zeros(0) for _ in self._state_names()))
        self._retrace()
        if self._state_names():
            self._init_mem()

    def _check(self, options: Mapping[str, Any]) -> None:
        kind = type(self).__name__
        _check_reset(options["reset_mechanism"])
        if options["decay"] not in DECAYS:
            raise ValueError(f"{kind} got decay={options['decay']!r}; choose one of {', '.join(map(repr, DECAYS))}")
        for name, function in (("spike_grad", options["spike_grad"]), ("state_quant", options["state_quant"] or None)):
            if not (function is None or callable(function)):
                raise TypeError(f"{kind} got {name}={function!r}; pass a function of a tensor, or nothing")
        if options["inhibition"]:
            # the levels: _build, the constructor, the metaclass, the caller
            warnings.warn("inhibition lets one neuron of dimension 1 fire per step; it runs step by step", stacklevel=5)

    # -- running ----------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is a base class; use a neuron such as Leaky")

    def _run(self, input_: Tensor, given: tuple[Tensor | None, ...]) -> Any:
        """One step, or, while the network is unrolled, the whole sequence; then the layer's return rule."""
        if self.init_hidden and any(state is not None for state in given):
            raise TypeError(f"{self._label()} keeps its own state (init_hidden=True); call it with the input alone")
        time = time_of(self)
        if time is None:
            outs = step_by_methods(self, input_, given) if steps_by_methods(self) else self._step(input_, given)
        else:
            with time.aside():
                if by_methods(self):
                    return unrolled_by_methods(self, input_, given, time)
                outs = self._unrolled(input_, given, time)
        return outs[0] if self.init_hidden and not self.output else outs

    def _step(self, input_: Tensor, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        outs = short_step(self, input_, given)
        if outs is not None:
            return outs
        x = self._drive(checked_input(input_, self._label), None)
        run, _, _ = self._scan(x, None, x, given)
        return self._outs((run.spk if run.spk.dtype is x.dtype else run.spk.to(x.dtype), *run.finals))

    def _unrolled(self, input_: Tensor, given: tuple[Tensor | None, ...], time: Time) -> tuple[Tensor, ...]:
        """All steps at once, of an input with time folded into dimension 0; goes on from the layer's state."""
        time.admit(self, given)
        x = time.unfold(checked_input(input_, self._label), self._label())
        one_step = x[0] if len(x) else x.new_empty(x.shape[1:])
        run, machine, refusals = self._scan(self._drive(x, time.steps), time.steps, one_step, given)
        spk = run.spk.to(x.dtype)
        time.note(self, Visit(machine, refusals, len(x) == 1 != time.steps, spk, run.traces))
        return tuple(time.fold(out) for out in self._outs((spk, *run.traces)))

    def _drive(self, x: Tensor, steps: int | None) -> Tensor:
        """What a checked input gives the equation: [T, *S] or [1, *S] over the steps; or, where they are None, [*S]."""
        return x

    def _drive_step(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        """The same for one step, together with what comes back into the input from the states before."""
        return self._drive(x, None)

    def _shape_of_states(self, x: Tensor) -> tuple[int, ...] | None:
        """The shape of a state for one step of the input; None if the input, or an option, is not a common one."""
        return x.shape

    def _like_a_state(self, x: Tensor) -> Tensor:
        """A tensor of the shape of a state, for one step of the input."""
        return x

    def _outs(self, outs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What a call returns where it returns all, of the spikes and the states."""
        return outs

    def _scan(
        self, x: Tensor, steps: int | None, one_step: Tensor, given: tuple[Tensor | None, ...]
    ) -> tuple[Trajectory, str, list[str]]:
        """Run on the best backend; also returned are its name and why no faster one. Changes no state if it fails.

        Args:
            x: [T, *S] or [1, *S] over `steps`, or, if that is None, one step [*S].
            one_step: one step of x, [*S].
            given: the states passed by hand.
        """
        dtype = compute_dtype(x)
        params = checked_params(self._values(), one_step, dtype, self._label)
        states = self._states(one_step, dtype, given)
        call = Call(
            program=self._program,
            x=x,
            steps=steps,
            states=states,
            params=params,
            traced=steps is not None
            and (self.output or not self.init_hidden or self._reads_mems or wants_states(self)),
            layer=self._label(),
            feedback=self._feedback(),
            mem_feedback=self._mem_feedback(dtype),
            numbers=self._numbers,
        )
        machine, refusals = choose(call)
        run = machine.run(call)
        if steps != 0:
            self._keep(run.finals)
            self._note(run, machine.name, states, steps)
        return run, machine.name, refusals

    def _feedback(self) -> Feedback | None:
        """What brings the spikes back into the input, if anything does (see `Recurrent`)."""
        return None

    def _mem_feedback(self, dtype: torch.dtype) -> MemFeedback | None:
        """What brings the membrane back into the inputs, if anything does (see `Gated`)."""
        return None

    def _note(self, run: Trajectory, machine: str, states: tuple[Tensor, ...], steps: int | None) -> None:
        """Remember what `reset` and the message about freed graphs need."""
        own = self.__dict__  # past nn.Module's way of setting attributes, which costs as much as a step's arithmetic
        if not isinstance(self.model, Model):
            own["_before"] = None  # a neuron that resets by its own equation has no common reset signal
        elif steps is None or steps == 1:
            own["_before"], own["_reset"] = states[-1], None
        elif steps > 1:
            # cloned: a view would keep the whole sequence in memory
            own["_before"], own["_reset"] = run.traces[-1][-2].detach().clone() if run.traces else None, None
        passage = self._passage
        if passage is not None and (passage.done or not any(state.requires_grad for state in states)):
            passage = None
        if machine == "loop" and passage is None:  # the kernels notice a freed graph by themselves
            passage = Passage.watching((run.spk, *run.finals))
        own["_passage"], own["_cut"] = passage, None

    @property
    def reset(self) -> Tensor | None:
        """R of the last step, [B, *N]: 1 where the membrane before it was above threshold. None before any step, and
        after a sequence of which the membranes were not asked for."""
        if self._reset is not None or self._before is None:
            return self._reset
        return self.mem_reset(self._before.detach())

    @reset.setter
    def reset(self, fired: Tensor | None) -> None:  # for a subclass whose own forward keeps it
        self.__dict__["_reset"] = fired

    # -- moving and loading -------------------------------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        was_meta = self.framed and self.reset_mechanism_val.is_meta
        super()._apply(fn, recurse)
        if was_meta and not self.reset_mechanism_val.is_meta:  # to_empty(): what it holds is anything
            self.reset_mechanism_val.fill_(self.reset_dict[self._reset_mechanism])
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._retrace()
        INSTANCES.add(self)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # checkpoints of old versions hold the state; it is not part of the network
        states = {prefix + name for name in self._state_names()}
        state_dict = {key: value for key, value in state_dict.items() if key not in states}
        mode = _mode_of(state_dict.get(prefix + "reset_mechanism_val"), self._reset_mechanism)
        if mode is None:
            error_msgs.append(f"{prefix}reset_mechanism_val is none of {self.reset_dict}; nothing was loaded there")
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._reset_mechanism = mode
        self._retrace()

    # -- what decides which kernel runs -----------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._state_names():
            time = current_time()
            if time is not None:
                cure = "Assign it before unroll, or run the network step by step"
                time.refuse_access(self, f"its {name} is assigned", cure)
            self.__dict__[name] = value  # a state is neither buffer nor parameter, whatever is assigned
            return
        super().__setattr__(name, self._assign(name, value) if name in WATCHED else value)
        if name in RETRACED and "_program" in self.__dict__:
            self._retrace()

    def _retrace(self) -> None:
        """Find the program of the present options. Done here and not while running, so that nothing is traced twice."""
        self._find_values()
        for name in ("_passage", "_cut"):
            self.__dict__.setdefault(name, None)  # torch.compile would see it come, and compile again
        if hasattr(type(self), "model"):
            frame = Frame(self._reset_mechanism, self.reset_delay, self.decay)
            self.__dict__["_program"] = program_for(self.model.cell(frame), self.spike_grad)

    @property
    def reset_mechanism(self) -> str:
        """ "subtract", "zero" or "none"; assigning it changes the dynamics from the next step on."""
        return self._reset_mechanism

    @reset_mechanism.setter
    def reset_mechanism(self, mode: str) -> None:
        _check_reset(mode)
        if not self.framed:
            raise AttributeError(f"{type(self).__name__} resets by its own equation; it has no reset_mechanism")
        self._reset_mechanism = mode
        self.reset_mechanism_val = torch.full_like(self.reset_mechanism_val, self.reset_dict[mode])
        self._retrace()


def _check_reset(mode: str) -> None:
    if not isinstance(mode, str) or mode not in RESETS:
        raise ValueError(f"reset_mechanism is {mode!r}; choose one of {', '.join(map(repr, RESETS))}")


def _mode_of(value: Any, present: str) -> str | None:
    """The reset mechanism that a checkpoint's number stands for: the present one if it has none, None if no such."""
    if not isinstance(value, Tensor) or value.numel() != 1 or value.is_meta:
        return present
    modes = {number: mode for mode, number in SpikingNeuron.reset_dict.items()}
    return modes.get(int(value))
