"""Layers made from an equation; the arguments of the constructor are derived from those of the equation."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import new_class
from typing import Any, ClassVar, overload
from weakref import WeakSet

from torch import Tensor

from .. import surrogate
from ..caller import warn_caller
from ..cells.cell import signature_of
from ..cells.firing import FRAME_PARAMS, AnyModel, Frame, Model, Whole
from ..engine.graph import program_for
from ..fixed import fixed
from ._methods import HOOKS
from ._neuron import DEFAULTS, SpikingNeuron
from .recurrent import RECURRENCE, Recurrent

Equation = Callable[..., Any]

SHARED = ("spike_grad", "surrogate_disable", "init_hidden", "output", "decay")
"""The options of every layer made from an equation."""

FRAMED = ("inhibition", "reset_mechanism", "state_quant", "reset_delay")
"""Further options of a layer with the standard threshold and resets."""


class EquationNeuron(SpikingNeuron):
    """Base of the neurons that `cell` makes from an equation.

    The arguments are the parameters of the equation, by position or by name, and these, by name only:

    Args:
        learn: name or names of the parameters that become nn.Parameters.
        spike_grad: spike function (see `spikeloom.surrogate`); None is ``surrogate.atan()``.
        surrogate_disable: if True, no gradient flows through the spikes.
        init_hidden: if True, the layer stores its state and returns only the spikes.
        output: if True, return the states even with init_hidden.
        decay: how the decays of the equation are restricted to [0, 1]: "clamp", "sigmoid" or "tau" (see `Leaky`).
        With ``cell(charge=True)`` also threshold, inhibition, reset_mechanism, state_quant, reset_delay and
        graded_spikes_factor, as in `Leaky`. With ``cell(recurrent=True)`` also V, all_to_all, linear_features,
        conv2d_channels, kernel_size and learn_recurrent, as in `RLeaky`.

    Shapes:
        input_ and each state [B, *N]; returns the spikes, then the states in the order of the equation. Unrolled:
        [T, B, *N]. The first state of a recurrent neuron is its last spikes, which are returned once.
    """

    signature: ClassVar[inspect.Signature | None] = None
    _by_loop: ClassVar[bool] = False  # whether the equation always runs on the PyTorch loop

    def __init_subclass__(
        cls, model: AnyModel | None = None, learn: tuple[str, ...] = (), decay: str = "clamp", **framed: Any
    ) -> None:
        """Make a layer from a model; `learn`, `decay` and `framed` are the defaults of these options."""
        if model is not None:
            signature = _signature(model, {**DEFAULTS, **RECURRENCE, "decay": decay, **framed}, learn)
            options = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
            body = {
                **cls._of_model(model),
                "__doc__": _documented(model, options),
                "signature": signature,
                "_by_loop": model.loop,
                "framed": isinstance(model, Model),
                "_calls": HOOKS if isinstance(model, Model) else (),
            }
            for name, value in body.items():
                type.__setattr__(cls, name, value)
        super().__init_subclass__()

    @classmethod
    def _of_model(cls, model: AnyModel) -> dict[str, Any]:
        """The attributes of the class that hold its equation."""
        return {"model": model}

    def __init__(self, *args: Any, **kwargs: Any):
        if self.signature is None:
            raise NotImplementedError("EquationNeuron is a base class; make a neuron of an equation with snn.cell")
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}; its arguments are {self.signature}") from None
        bound.apply_defaults()
        given = dict(bound.arguments)
        learn = given.pop("learn")
        learned = (learn,) if isinstance(learn, str) else tuple(learn)
        names = self._learnable_names()
        unknown = [name for name in learned if name not in names]
        if unknown:
            raise ValueError(
                f"{type(self).__name__} got learn={learn!r}; it has no {', '.join(unknown)}, choose from "
                f"{', '.join(names) or 'nothing: it has no parameters'}"
            )
        self._build(given | {f"learn_{name}": name in learned for name in names})

    def forward(self, input_: Tensor, *states: Tensor | None) -> Any:
        """One step: input_ [B, *N] and, unless init_hidden, its states; returns spk, or spk and the states."""
        names = self._state_names()
        if len(states) > len(names):
            raise TypeError(f"{self._label()} got {len(states)} states; it has {len(names)}: {', '.join(names)}")
        out = self._run(input_, (*states, *[None] * (len(names) - len(states))))
        if self._by_loop and type(self) not in _warned:
            self._warn_without_gradient(out)
        return out

    def _warn_without_gradient(self, out: Any) -> None:
        """Warn once per class if the spikes of an equation that is not traced have no gradient, but its states have."""
        spk = out[0] if isinstance(out, tuple) else out
        states = [self.__dict__[name] for name in self._state_names()]
        if not (spk.requires_grad or self.surrogate_disable) and any(state.requires_grad for state in states):
            _warned.add(type(self))
            warn_caller(f"{self._label()}: {NO_GRADIENT}")


NO_GRADIENT = (
    "the spikes have no gradient, so nothing before this layer can learn: they come from a comparison, a constant or a "
    "detached value. Write spk = ops.spike(mem - threshold), whose gradient is the surrogate"
)

_warned: WeakSet[type[EquationNeuron]] = WeakSet()
"""The classes that have warned."""


class RecurrentEquationNeuron(Recurrent, EquationNeuron):
    """Base of the neurons made from an equation whose spikes are fed back to their input, as those of `RLeaky`."""

    @classmethod
    def _of_model(cls, model: AnyModel) -> dict[str, Any]:
        return {"one_to_one": model, "through_layer": replace(model, recurrent=False)}


def made(name: str, module: str, model: AnyModel) -> type[EquationNeuron]:
    """Make the layer class of a model, which pickle looks up in `module`."""
    body = {"__module__": module, "__qualname__": name}
    base = RecurrentEquationNeuron if model.recurrent else EquationNeuron
    return new_class(name, (base,), {"model": model}, lambda namespace: namespace.update(body))


def _documented(model: AnyModel, options: Iterable[str]) -> str:
    """The docstring of an equation, with the states and options of the layer inserted before the source."""
    equation = equation_of(model)
    text, source, rest = inspect.cleandoc(equation.__doc__ or "").partition("\n\nSource:")
    named = ", ".join(name for name in options if name != "learn")
    added = f"""

States, in order: {", ".join(model.states)}; each [B, *N], unrolled [T, B, *N].

By keyword: learn, the names of the parameters to learn; {named} (see `EquationNeuron`)."""
    return text + added + source + rest


def equation_of(model: AnyModel) -> Equation:
    """The function from which the model was made."""
    return model.charge if isinstance(model, Model) else model.equation


def _signature(model: AnyModel, options: Mapping[str, Any], learn: tuple[str, ...]) -> inspect.Signature:
    own = [p for p in inspect.signature(equation_of(model)).parameters.values() if p.kind is p.KEYWORD_ONLY]
    required = [p for p in own if p.default is p.empty]
    values = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in (*required, *(p for p in own if p not in required))]
    named = (*(RECURRENCE if model.recurrent else ()), *SHARED)
    if isinstance(model, Model):
        named += (*FRAMED, "graded_spikes_factor")
        values.append(inspect.Parameter("threshold", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=1.0))
    given = {"learn": learn, **{name: options[name] for name in named}}
    only = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in given.items()]
    return inspect.Signature([*values, *only])


@overload
def cell(equation: Equation) -> type[EquationNeuron]: ...
@overload
def cell(
    *, charge: bool = False, recurrent: bool = False, decays: str | Sequence[str] = (), loop: bool = False
) -> Callable[[Equation], type[EquationNeuron]]: ...
def cell(
    equation: Equation | None = None,
    *,
    charge: bool = False,
    recurrent: bool = False,
    decays: str | Sequence[str] = (),
    loop: bool = False,
) -> Any:
    """Decorator: turn the equation of a custom neuron into a layer class of the same name.

    The equation computes one time step, ``(x, *states, *, parameters) -> (spk, *new states)``: the arguments after x
    are the states, the keyword-only arguments are the parameters, with their defaults. Write it with arithmetic and the
    operations of `spikeloom.ops`, such as `ops.spike`. The initial value of a state is its default, or zero. The layer
    stores its states and runs single steps and whole sequences in fused kernels, forward and backward. Its parameters
    may be numbers or tensors, constant or learned (see `EquationNeuron` for the arguments of the layer).

    Args:
        equation: the function.
        charge: if True, the equation returns only the new states before the reset, the membrane last, and the layer
            adds what `spikeloom.Leaky` does with them: threshold, every reset mechanism, delayed or immediate,
            inhibition, graded spikes. ``@snn.charge`` is the same.
        recurrent: if True, the spikes of the last step are fed back to x, one-to-one or through an nn.Linear or
            nn.Conv2d. The layer has the arguments of `spikeloom.RLeaky` for it, by name, and the spikes as its first
            state.
        decays: name or names of the parameters that are decays per step, which are restricted to [0, 1].
        loop: if True, the equation may use all of PyTorch, and runs in a PyTorch loop over time.

    Raises:
        TypeError: if the equation cannot be compiled (for example a Python branch on values, a torch function, a tensor
            from outside) and `loop` is False, with the line in the message; or if its arguments or results are not
            those of a neuron.

    Warns:
        UserWarning: if the spikes have no gradient, for example because they come from a comparison instead of
            `ops.spike`.

        >>> import torch, spikeloom as snn
        >>> from spikeloom import ops
        >>> @snn.cell
        ... def Accumulator(x, mem, *, leak=0.1, threshold=1.0):
        ...     mem = mem + x - leak
        ...     spk = ops.spike(mem - threshold)
        ...     return spk, mem - ops.detach(spk) * threshold
        >>> lif = Accumulator(leak=torch.tensor([0.1, 0.3]), learn="leak", init_hidden=True)
        >>> snn.unroll(lif, torch.full((4, 1, 2), 0.75)).sum(0)
        tensor([[2., 1.]], grad_fn=<SumBackward1>)
    """

    def layer_of(function: Equation) -> type[EquationNeuron]:
        if not hasattr(function, "__name__"):
            raise TypeError(f"cell got {function!r}; decorate a function (x, state, ..., *, parameter, ...)")
        own, kind = function if loop else fixed(function), Model if charge else Whole
        names = (decays,) if isinstance(decays, str) else tuple(decays)
        model: AnyModel = kind(own, decays=names, recurrent=recurrent, loop=loop)
        _check_names(function.__name__, model)
        layer = made(function.__qualname__, function.__module__, model)
        layer.__name__ = function.__name__
        if not loop:
            _check_program(function.__name__, model)
        return layer

    return layer_of if equation is None else layer_of(equation)


@overload
def charge(equation: Equation) -> type[EquationNeuron]: ...
@overload
def charge(
    *, recurrent: bool = False, decays: str | Sequence[str] = (), loop: bool = False
) -> Callable[[Equation], type[EquationNeuron]]: ...
def charge(equation: Equation | None = None, **options: Any) -> Any:
    """Decorator: `cell` with ``charge=True``: the layer adds the standard threshold and resets to the equation.

    The equation is ``(x, *states, *, parameters) -> new states``, before the reset, with the membrane last.

    Args:
        equation: the function.
        options: recurrent, decays and loop, see `cell`.

    Raises:
        TypeError: as in `cell`.

        >>> import torch, spikeloom as snn
        >>> @snn.charge(decays=("slow", "fast"))
        ... def TwoTimescales(x, trace, mem, *, slow=0.99, fast=0.8):
        ...     trace = slow * trace + x
        ...     return trace, fast * mem + x + 0.1 * trace
        >>> lif = TwoTimescales(learn=("slow", "fast"), threshold=0.5, reset_mechanism="zero")
        >>> spk, trace, mem = snn.unroll(lif, torch.rand(20, 4, 8))
        >>> spk.shape
        torch.Size([20, 4, 8])
    """
    decorator: Any = cell(charge=True, **options)
    return decorator if equation is None else decorator(equation)


def _check_program(name: str, model: AnyModel) -> None:
    """Reject an equation that cannot be compiled; warn if its spikes have no gradient."""
    program = program_for(model.cell(Frame()), surrogate.atan())
    if program.untraceable:
        raise TypeError(
            f"{program.untraceable}. Write the equation with arithmetic and spikeloom.ops, or let it run through the "
            "plain loop over time: @snn.cell(loop=True)"
        )
    if not program.spikes_have_gradient():
        warn_caller(f"{name}: {NO_GRADIENT}")


def _check_names(name: str, model: AnyModel) -> None:
    """Reject names that the layer uses itself, and decays that are not parameters."""
    states, params = signature_of(equation_of(model))
    base = RecurrentEquationNeuron if model.recurrent else SpikingNeuron
    used = ("learn", *SHARED, *(("spk", "recurrent", *RECURRENCE) if model.recurrent else ()))
    added = [n for n in (*states, *params) if isinstance(model, Model) and n in (*FRAMED, *FRAME_PARAMS)]
    if added:
        raise TypeError(
            f"{name} has a state or parameter named {', '.join(added)}, which the layer adds itself with charge=True; "
            "leave it out, or, if the equation fires and resets itself, decorate it with @snn.cell, without charge"
        )
    taken = [n for n in (*states, *params) if n in used or hasattr(base, n)]
    if taken:
        raise TypeError(f"{name} has a state or parameter named {', '.join(taken)}, a name of every layer; rename it")
    unknown = [n for n in model.decays if n not in params]
    if unknown:
        raise TypeError(f"{name} has no parameter {', '.join(unknown)} that could be a decay; it has {params}")
