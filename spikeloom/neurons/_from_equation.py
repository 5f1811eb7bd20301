"""Layers made from an equation; the arguments of the constructor are derived from those of the equation."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import new_class
from typing import Any, ClassVar, overload

from torch import Tensor

from .. import surrogate
from ..cells.cell import signature_of
from ..cells.firing import AnyModel, Frame, Model, Whole
from ..engine.graph import program_for
from ..fixed import fixed
from ._methods import HOOKS
from ._neuron import DEFAULTS, SpikingNeuron

Equation = Callable[..., Any]

SHARED = ("spike_grad", "surrogate_disable", "init_hidden", "output", "decay")
"""The options of every layer made from an equation."""

FRAMED = ("inhibition", "reset_mechanism", "state_quant", "reset_delay")
"""Further options of a layer with the standard threshold and resets."""


class EquationNeuron(SpikingNeuron):
    """Base of the neurons that `cell` and `charge` make from an equation.

    The arguments are the parameters of the equation, by position or by name, and these, by name only:

    Args:
        learn: name or names of the parameters that become nn.Parameters.
        spike_grad: spike function (see `spikeloom.surrogate`); None is ``surrogate.atan()``.
        surrogate_disable: if True, no gradient flows through the spikes.
        init_hidden: if True, the layer stores its state and returns only the spikes.
        output: if True, return the states even with init_hidden.
        decay: how the decays of the equation are restricted to [0, 1]: "clamp", "sigmoid" or "tau" (see `Leaky`).
        A neuron made by `charge` also accepts threshold, inhibition, reset_mechanism, state_quant, reset_delay and
        graded_spikes_factor, as in `Leaky`.

    Shapes:
        input_ and each state [B, *N]; returns the spikes, then the states in the order of the equation. Unrolled:
        [T, B, *N].
    """

    signature: ClassVar[inspect.Signature | None] = None

    def __init_subclass__(
        cls, model: AnyModel | None = None, learn: tuple[str, ...] = (), decay: str = "clamp", **framed: Any
    ) -> None:
        """Make a layer from a model; `learn`, `decay` and `framed` are the defaults of these options."""
        if model is not None:
            signature = _signature(model, {**DEFAULTS, "decay": decay, **framed}, learn)
            options = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
            body = {
                "__doc__": _documented(model, options),
                "model": model,
                "signature": signature,
                "framed": isinstance(model, Model),
                "_calls": HOOKS if isinstance(model, Model) else (),
            }
            for name, value in body.items():
                type.__setattr__(cls, name, value)
        super().__init_subclass__()

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
        unknown = [name for name in learned if name not in self._value_names()]
        if unknown:
            raise ValueError(
                f"{type(self).__name__} got learn={learn!r}; it has no {', '.join(unknown)}, choose from "
                f"{', '.join(self._value_names()) or 'nothing: it has no parameters'}"
            )
        self._build(given | {f"learn_{name}": name in learned for name in self._value_names()})

    def forward(self, input_: Tensor, *states: Tensor | None) -> Any:
        """One step: input_ [B, *N] and, unless init_hidden, its states; returns spk, or spk and the states."""
        names = self._state_names()
        if len(states) > len(names):
            raise TypeError(f"{self._label()} got {len(states)} states; it has {len(names)}: {', '.join(names)}")
        return self._run(input_, (*states, *[None] * (len(names) - len(states))))


def made(name: str, module: str, model: AnyModel) -> type[EquationNeuron]:
    """Make the layer class of a model, which pickle looks up in `module`."""
    body = {"__module__": module, "__qualname__": name}
    return new_class(name, (EquationNeuron,), {"model": model}, lambda namespace: namespace.update(body))


def _documented(model: AnyModel, options: Iterable[str]) -> str:
    """The docstring of an equation, with the states and options of the layer inserted before the source."""
    equation = equation_of(model)
    text, source, rest = inspect.cleandoc(equation.__doc__ or "").partition("\n\nSource:")
    states, _ = signature_of(equation)
    named = ", ".join(name for name in options if name != "learn")
    added = f"""

States, in order: {", ".join(states)}; each [B, *N], unrolled [T, B, *N].

By keyword: learn, the names of the parameters to learn; {named} (see `EquationNeuron`)."""
    return text + added + source + rest


def equation_of(model: AnyModel) -> Equation:
    """The function from which the model was made."""
    return model.charge if isinstance(model, Model) else model.equation


def _signature(model: AnyModel, options: Mapping[str, Any], learn: tuple[str, ...]) -> inspect.Signature:
    own = [p for p in inspect.signature(equation_of(model)).parameters.values() if p.kind is p.KEYWORD_ONLY]
    required = [p for p in own if p.default is p.empty]
    values = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in (*required, *(p for p in own if p not in required))]
    named = (*SHARED, *FRAMED, "graded_spikes_factor") if isinstance(model, Model) else SHARED
    if isinstance(model, Model):
        values.append(inspect.Parameter("threshold", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=1.0))
    given = {"learn": learn, **{name: options[name] for name in named}}
    only = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in given.items()]
    return inspect.Signature([*values, *only])


@overload
def cell(equation: Equation) -> type[EquationNeuron]: ...
@overload
def cell(*, decays: tuple[str, ...] = (), loop: bool = False) -> Callable[[Equation], type[EquationNeuron]]: ...
def cell(equation: Equation | None = None, *, decays: tuple[str, ...] = (), loop: bool = False) -> Any:
    """Decorator: turn the equation of a custom neuron into a layer class of the same name.

    The equation computes one time step, ``(x, *states, *, parameters) -> (spk, *new states)``: the arguments after x
    are the states, the keyword-only arguments are the parameters, with their defaults. Write it with arithmetic and the
    operations of `spikeloom.ops`, such as `ops.spike`. The initial value of a state is its default, or zero. The layer
    stores its states and runs single steps and whole sequences in fused kernels, forward and backward. Its parameters
    may be numbers or tensors, constant or learned (see `EquationNeuron` for the arguments of the layer).

    Args:
        equation: the function.
        decays: names of the parameters that are decays per step, which are restricted to [0, 1].
        loop: if True, the equation may use all of PyTorch, and runs in a PyTorch loop over time.

    Raises:
        TypeError: if the equation cannot be compiled (for example a Python branch on values, a torch function, a tensor
            from outside) and `loop` is False, with the line in the message; or if its arguments or results are not
            those of a neuron.

    For a neuron with the standard threshold and resets, see `charge`.

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
    return _decorated(lambda function: Whole(function, decays, loop=loop), equation, loop)


@overload
def charge(equation: Equation) -> type[EquationNeuron]: ...
@overload
def charge(*, decays: tuple[str, ...] = (), loop: bool = False) -> Callable[[Equation], type[EquationNeuron]]: ...
def charge(equation: Equation | None = None, *, decays: tuple[str, ...] = (), loop: bool = False) -> Any:
    """Decorator: turn the charging equation of a custom neuron into a layer class with the standard resets.

    The equation is ``(x, *states, *, parameters) -> new states``, before the reset, with the membrane last. The layer
    has the features of `spikeloom.Leaky`: every reset mechanism, delayed or immediate, inhibition, graded spikes.

    Args:
        equation: the function.
        decays: names of the parameters that are decays per step, which are restricted to [0, 1].
        loop: if True, the equation may use all of PyTorch, and runs in a PyTorch loop over time.

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
    return _decorated(lambda function: Model(function, decays=decays, loop=loop), equation, loop)


def _decorated(model_of: Callable[[Equation], AnyModel], equation: Equation | None, loop: bool) -> Any:
    def layer_of(function: Equation) -> type[EquationNeuron]:
        model = model_of(function if loop else fixed(function))
        _check_names(function.__name__, model)
        layer = made(function.__qualname__, function.__module__, model)
        layer.__name__ = function.__name__
        why = program_for(model.cell(Frame()), surrogate.atan()).untraceable
        if why and not loop:
            raise TypeError(
                f"{why}. Write the equation with arithmetic and spikeloom.ops, or let it run through the plain loop "
                "over time: @snn.cell(loop=True)"
            )
        return layer

    return layer_of if equation is None else layer_of(equation)


def _check_names(name: str, model: AnyModel) -> None:
    """Reject names that the layer uses itself, and decays that are not parameters."""
    states, params = signature_of(equation_of(model))
    taken = [n for n in (*states, *params) if n in ("learn", *SHARED) or hasattr(SpikingNeuron, n)]
    if taken:
        raise TypeError(f"{name} calls a value {', '.join(taken)}, which every layer has already; call it otherwise")
    strange = [n for n in model.decays if n not in params]
    if strange:
        raise TypeError(f"{name} has no parameter {', '.join(strange)} that could be a decay; it has {params}")
