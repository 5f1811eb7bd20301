"""The base of all neurons: constructor options, saving and loading, and the choice of the program."""

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, ClassVar, get_type_hints

import torch
from torch import Tensor, nn

from .. import surrogate
from ..caller import warn_caller
from ..cells.decay import DECAYS
from ..cells.firing import FRAME_PARAMS, RESETS, Frame
from ..engine.graph import program_for
from ._forward import Running
from ._methods import WATCHED
from ._parameters import NO_MODEL
from ._registry import INSTANCES, ClassWide, Registered
from ._unrolled_run import current_run, guarded

SpikeGrad = Callable[..., Tensor]
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
RETRACED = ("spike_grad", "reset_delay")

ORDER = ("beta", "V", "time_step", "R", "C", "alpha")
"""The order in which values are registered, as in snnTorch: checkpoints of optimizers refer to parameters by index."""


class SpikingNeuron(Running, ClassWide, metaclass=Registered):
    """Base of all spiking neurons: threshold, surrogate gradient, reset and hidden state.

    Do not use it directly; see `Leaky`. The arguments are common to all neurons.

    Args:
        threshold: membrane above which the neuron fires; a number or a tensor that broadcasts over the input.
        spike_grad: spike function (see `spikeloom.surrogate`); None is ``surrogate.atan()``.
        surrogate_disable: if True, no gradient flows through the spikes.
        init_hidden: if True, the layer stores its state and returns only the spikes.
        inhibition: if True, only the neuron with the highest membrane in dimension 1 may fire.
        learn_threshold: if True, the threshold is an nn.Parameter.
        reset_mechanism: "subtract", "zero" or "none".
        state_quant: a function that quantizes each state after every step, or False.
        output: if True, return the states even with init_hidden.
        graded_spikes_factor: the amplitude of a spike.
        learn_graded_spikes_factor: if True, the amplitude is an nn.Parameter.
    """

    reset_dict: ClassVar[dict[str, int]] = {"subtract": 0, "zero": 1, "none": 2}

    reset_mechanism_val: Tensor
    _reset_mechanism: str
    framed: ClassVar[bool] = True  # whether it has the standard threshold, graded factor and resets
    reset_delay: bool = True

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
        """Initialize the neuron from the arguments of a constructor, by name; missing ones have their defaults.

        The values are the parameters of the model's equation, and those for which a ``learn_...`` is given.
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
        _check_spike_grad(kind, options["spike_grad"])
        if options["inhibition"]:
            warn_caller("inhibition lets one neuron of dimension 1 fire per step; it runs step by step")

    @property
    def reset(self) -> Tensor | None:
        """The reset signal R of the last step, [B, *N]: 1 where the membrane before it was above threshold. None before
        any step, and after a sequence whose membranes were not requested."""
        if self._reset is not None or self._before is None:
            return self._reset
        return self.mem_reset(self._before.detach())

    @reset.setter
    def reset(self, fired: Tensor | None) -> None:  # for a subclass whose own forward stores it
        self.__dict__["_reset"] = fired

    # -- moving and loading -------------------------------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        was_meta = self.framed and self.reset_mechanism_val.is_meta
        super()._apply(fn, recurse)
        if was_meta and not self.reset_mechanism_val.is_meta:  # to_empty(): its content is undefined
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
        # checkpoints of old versions contain the state, which is not part of the network
        states = {prefix + name for name in self._state_names()}
        state_dict = {key: value for key, value in state_dict.items() if key not in states}
        mode, number = self._reset_mechanism, state_dict.get(prefix + "reset_mechanism_val")
        if isinstance(number, Tensor) and number.numel() == 1 and not number.is_meta:
            modes = {value: name for name, value in self.reset_dict.items()}
            if int(number) not in modes:
                error_msgs.append(f"{prefix}reset_mechanism_val is none of {self.reset_dict}; nothing was loaded there")
                return
            mode = modes[int(number)]
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._reset_mechanism = mode
        self._retrace()

    # -- the choice of the kernel -----------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._state_names():
            unrolled = current_run()
            if unrolled is not None:
                cure = "Assign it before unroll, or run the network step by step"
                unrolled.refuse_access(self, f"its {name} is assigned", cure)
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"{type(self).__name__} got {name} of type {type(value).__name__}; pass a tensor, or call "
                    "spikeloom.utils.reset(net) for the initial state"
                )
            self.__dict__[name] = value  # a state is never a buffer or parameter, whatever is assigned
            return
        if name == "spike_grad":
            _check_spike_grad(type(self).__name__, value)
        super().__setattr__(name, self._assign(name, value) if name in WATCHED else value)
        if name in RETRACED and "_program" in self.__dict__:
            self._retrace()

    def _retrace(self) -> None:
        """Find the program for the current options. Done at assignment, not during runs, so nothing is traced twice."""
        self._find_values()
        has_factor = self.framed or "graded_spikes_factor" in self._value_names()
        self.__dict__["_flat"] = has_factor and self.spike_grad == surrogate.no_gradient()
        self.__dict__.setdefault("_cut", None)  # now, or torch.compile would recompile when it appears
        if self._model is not NO_MODEL:
            frame = Frame(self._reset_mechanism, self.reset_delay, self.decay)
            self.__dict__["_program"] = program_for(self.model.cell(frame), self.spike_grad)

    def extra_repr(self) -> str:
        """The arguments of the constructor that are required or differ from their defaults."""
        shown = []
        for name, argument in _arguments(type(self)).items():
            if name == "learn":
                value: Any = tuple(n for n in self._learnable_names() if isinstance(self._own(n), nn.Parameter))
            elif name.startswith("learn_") and self._own(name.removeprefix("learn_")) is not None:
                value = isinstance(self._own(name.removeprefix("learn_")), nn.Parameter)
            else:
                value = getattr(self, name, argument.default)
            default = surrogate.atan() if name == "spike_grad" else argument.default
            if isinstance(value, Tensor):
                value = float(f"{value.item():.6g}") if value.numel() == 1 else f"Tensor{[*value.shape]}"
            if value not in (default, (default, default)):  # such as a stride of 1, which is stored for both dimensions
                shown.append(f"{name}={value if str(value).startswith('Tensor') else repr(value)}")
        return ", ".join(shown)

    def _own(self, name: str) -> Tensor | None:
        """The parameter or buffer that stores a value; None if the neuron has none of that name."""
        own = self._registered_as(name)
        return self._parameters.get(own, self._buffers.get(own))

    @property
    def reset_mechanism(self) -> str:
        """ "subtract", "zero" or "none"; assign it to change the dynamics from the next step on."""
        return self._reset_mechanism

    @reset_mechanism.setter
    def reset_mechanism(self, mode: str) -> None:
        _check_reset(mode)
        if not self.framed:
            raise AttributeError(f"{type(self).__name__} resets by its own equation; it has no reset_mechanism")
        self._reset_mechanism = mode
        self.reset_mechanism_val = torch.full_like(self.reset_mechanism_val, self.reset_dict[mode])
        self._retrace()


def _arguments(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of a constructor by name, including those that it passes on to its base class."""
    found: dict[str, inspect.Parameter] = {}
    for kind in cls.__mro__:
        if kind is not cls and "__init__" not in vars(kind):
            continue
        parameters = inspect.signature(kind).parameters.values()
        found = {p.name: p for p in parameters if p.kind not in VARIADIC} | found
        if not any(p.kind in VARIADIC for p in parameters):
            break
    return found


DEFAULTS: Mapping[str, Any] = {
    **{name: p.default for name, p in inspect.signature(SpikingNeuron.__init__).parameters.items() if name != "self"},
    "reset_delay": True,
    "decay": "clamp",
}
"""The options of a neuron whose constructor does not accept them."""


def _check_reset(mode: str) -> None:
    if not isinstance(mode, str) or mode not in RESETS:
        raise ValueError(f"reset_mechanism is {mode!r}; choose one of {', '.join(map(repr, RESETS))}")


SURROGATES = (surrogate.__name__, "snntorch.surrogate")


def _check_spike_grad(kind: str, spike_grad: Any) -> None:
    """Reject what makes a spike function instead of being one."""
    name, module = getattr(spike_grad, "__name__", ""), getattr(spike_grad, "__module__", "")
    if isinstance(spike_grad, FunctionType) and name in FACTORIES and module in SURROGATES:
        raise TypeError(
            f"{kind} got spike_grad=surrogate.{name}, which makes a spike function; call it: "
            f"spike_grad=surrogate.{name}{'(f)' if name == 'custom_surrogate' else '()'}"
        )
    if isinstance(spike_grad, type) and issubclass(spike_grad, torch.autograd.Function):
        raise TypeError(f"{kind} got spike_grad={name}, an autograd.Function; pass spike_grad={name}.apply")


FACTORIES = {
    name
    for name, thing in vars(surrogate).items()
    if isinstance(thing, FunctionType) and get_type_hints(thing).get("return") is surrogate.Spike
}
"""The functions that make spike functions, in `spikeloom.surrogate` and in snnTorch's module of that name."""


class LIF(SpikingNeuron):
    """Base of the leaky neurons: a `SpikingNeuron` with a decay `beta`, without a forward."""

    beta: Tensor

    def __init__(
        self,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "subtract",
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = False,
        graded_spikes_factor: float | Tensor = 1.0,
        learn_graded_spikes_factor: bool = False,
    ):
        self._build(locals())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("LIF is the base of the leaky neurons and has no forward; use Leaky")
