"""Which methods of a neuron are the user's: those that run, and those that nothing would call, which are refused."""

from collections.abc import Iterator, Mapping
from types import MethodType
from typing import Any, ClassVar

from ._methods import ASSIGNABLE, HOOKS, FiringMethods, forward_over_time
from ._values import is_ours

_RECURRENT = (
    *("_init_recurrent_net", "_init_recurrent_linear", "_init_recurrent_conv2d", "_init_recurrent_one_to_one"),
    *("_init_padding", "_disable_recurrent_grad", "_V_register_buffer"),
)

UNCALLED: Mapping[str, tuple[str, ...]] = {
    "SpikingNeuron": (
        *("_snn_cases", "_reset_cases", "_snn_register_buffer", "_threshold_buffer", "_graded_spikes_buffer"),
        *("_reset_mechanism_buffer", "_surrogate_bypass"),
    ),
    "LIF": ("_lif_register_buffer", "_beta_buffer"),
    "Alpha": ("_alpha_register_buffer", "_alpha_cases"),
    "Lapicque": ("_lapicque_cases",),
    "LeakyParallel": ("_beta_buffer", "_beta_to_weight_hh", "grad_hook", "weight_hh_enable"),
    "RLeaky": (*_RECURRENT, "_rleaky_init_cases", "init_rleaky"),
    "RSynaptic": (*_RECURRENT, "_rsynaptic_init_cases", "_alpha_register_buffer"),
    "SConv2dLSTM": ("_sconv2dlstm_cases",),
    "StateLeaky": ("_tau_buffer",),
    "Synaptic": ("_alpha_register_buffer",),
}
"""Methods that a class of snnTorch calls by itself, mostly from its constructor, and that nothing calls here."""

WATCHED = frozenset((*ASSIGNABLE, "forward"))


class Overridable(FiringMethods):
    """Knows which of its methods are the user's, and refuses those that nothing would call."""

    _calls: ClassVar[tuple[str, ...]] = HOOKS  # the methods that a step calls
    _overridden: ClassVar[tuple[str, ...]] = ()  # those of them that are the user's
    _stepwise: ClassVar[bool] = True  # whether a call of forward is one step
    _assigned: bool = False  # whether one of them was assigned to this neuron

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._inspect()
        for name, advice in _idle(cls):
            raise TypeError(f"{cls.__name__} defines {name}, which nothing calls; {advice}")

    @classmethod
    def _inspect(cls) -> None:
        """Find what is overridden. Called again where a method of the class, or of a base, is assigned later."""
        theirs = tuple(name for name in HOOKS if not is_ours(getattr(cls, name, is_ours)))
        type.__setattr__(cls, "_overridden", theirs)
        forward: Any = cls.forward  # type: ignore[attr-defined]
        if cls._stepwise and not is_ours(forward) and not hasattr(forward, "over_time"):
            type.__setattr__(cls, "forward", forward_over_time(forward))

    @classmethod
    def _admit(cls, name: str) -> None:
        """Refuse a method that is assigned to the class, or to a neuron of it, and that nothing calls."""
        if name in HOOKS and name not in cls._calls:
            raise TypeError(f"{name} was assigned to {cls.__name__}, whose step does not call it")

    def _is_overridden(self, name: str) -> bool:
        """Whether one of `HOOKS` is the user's, by the class or on this neuron alone."""
        return name in self._overridden or name in self.__dict__

    def _assign(self, name: str, method: Any) -> Any:
        """What is kept as an attribute of that name, one of `WATCHED`, on this neuron alone."""
        if name == "forward":
            if not self._stepwise or is_ours(method) or hasattr(method, "over_time"):
                return method
            return MethodType(forward_over_time(lambda _, *args, **kwargs: method(*args, **kwargs)), self)
        self._admit(name)
        self.__dict__["_assigned"] = True
        return method


def _idle(cls: type[Overridable]) -> Iterator[tuple[str, str]]:
    """The methods of a class that nothing would call, and what to do instead."""
    if is_ours(cls.forward):  # type: ignore[attr-defined]
        for name in cls._overridden:
            if name not in cls._calls:
                yield name, "write a forward of your own"
    if hasattr(cls, "model") and not is_ours(cls.state_function):
        yield "state_function", "name it _base_state_function, or assign it to self.state_function in the constructor"
    for kind in cls.__mro__:
        for name in UNCALLED.get(kind.__name__, ()) if is_ours(kind) else ():
            if callable(method := getattr(cls, name, None)) and not is_ours(method):
                yield name, "call what it does after super().__init__(...) in your constructor"
