"""Spike functions: the Heaviside step in the forward pass, a surrogate gradient in the backward pass.

Each factory returns a `Spike` with a formula for dH/du, u = mem - threshold, in operations of `spikeloom.ops`, for both
autograd and the fused kernels. In the formulas below, g is the incoming gradient and k the slope.

    >>> import torch
    >>> from spikeloom import surrogate
    >>> spike_grad = surrogate.fast_sigmoid(slope=25)
    >>> u = torch.tensor([-0.1, 0.2], requires_grad=True)
    >>> spk = spike_grad(u)
    >>> spk.sum().backward()
    >>> spk.detach(), u.grad
    (tensor([0., 1.]), tensor([0.0816, 0.0278]))

For a custom surrogate: ``Spike("mine", formula, {"width": 0.5})``. Any other callable from a tensor to spikes works
too, but runs on the PyTorch loop instead of a fused kernel.

Source of the method: Neftci, Mostafa and Zenke, "Surrogate gradient learning in spiking neural networks", 2019.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType, MappingProxyType
from typing import Any

import torch

from . import ops
from ._torch import transformed
from .fixed import fixed

__all__ = ["LSO", "SFS", "SSO", "ATan", "CustomSurrogate", "FastSigmoid", "Heaviside", "LeakySpikeOperator"]
__all__ += ["Sigmoid", "SparseFastSigmoid", "Spike", "SpikeRateEscape", "StochasticSpikeOperator"]
__all__ += ["StraightThroughEstimator", "Triangular", "as_spike", "atan", "boxcar", "custom_surrogate", "exponential"]
__all__ += ["fast_sigmoid", "gaussian", "heaviside", "no_gradient", "sigmoid", "spike_rate_escape"]
__all__ += ["straight_through_estimator", "triangle", "triangular"]


class _Fire(torch.autograd.Function):
    """Heaviside forward; the surrogate gradient backward, which is differentiable itself."""

    @staticmethod
    def forward(ctx: Any, u: torch.Tensor, spike: "Spike") -> torch.Tensor:
        ctx.spike = spike
        ctx.save_for_backward(u)
        return ops.heaviside(u)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (u,) = ctx.saved_tensors
        return ctx.spike.backward(u, grads[0]), None


class _FireInTransforms(torch.autograd.Function):
    """`_Fire` in the form that torch.func and forward-mode AD require, which takes twice the time."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: torch.Tensor, spike: "Spike") -> torch.Tensor:
        return ops.heaviside(u)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, "Spike"], output: torch.Tensor) -> None:
        u, ctx.spike = inputs
        ctx.save_for_backward(u)
        ctx.save_for_forward(u)

    backward = _Fire.backward

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, spike: None) -> torch.Tensor:
        (u,) = ctx.saved_tensors
        spk: torch.Tensor = ctx.spike.backward(u, tangent)  # elementwise, so the JVP equals the VJP
        return spk


class Spike:
    """A spike function, ``Spike(name, derivative, constants)``, from the formula of its surrogate derivative.

    It is immutable: for other constants, create a new one. Globals that the formula reads are fixed at creation.

    Args:
        name: name in the repr.
        derivative: dH/du as ``derivative(u, **constants)``, with the operations of `spikeloom.ops`; a module-level
            function, so that it can be pickled. Other callables, and subclasses, run on the PyTorch loop.
        constants: keyword arguments of the formula, numbers by name.

    Raises:
        AttributeError: if name, derivative or constants are assigned later.
        TypeError: if an item of constants is assigned.

    Shapes:
        u [*S] to spikes [*S] of the same dtype and device.

    Spike functions with equal class, name, formula and constants are equal. They support pickle, deepcopy and hash.

        >>> import torch
        >>> from spikeloom import ops
        >>> def hill(u, width):
        ...     return width / (width + u**2)
        >>> spike_grad = Spike("hill", hill, {"width": 0.5})
        >>> u = torch.tensor([0.0, 0.5], requires_grad=True)
        >>> spike_grad(u).sum().backward()
        >>> u.grad
        tensor([1.0000, 0.6667])
    """

    name: str
    derivative: Callable[..., Any]
    constants: Mapping[str, Any]
    _formula: Callable[..., Any]

    def __init__(self, name: str, derivative: Callable[..., Any], constants: Mapping[str, float] | None = None):
        numbers = {key: _number(value) for key, value in (constants or {}).items()}
        self.__setstate__({"name": name, "derivative": derivative, "constants": numbers})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("name", "derivative", "constants"):
            raise AttributeError(f"{self!r} is immutable: its {name} cannot be assigned; create another spike function")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {n: v for n, v in self.__dict__.items() if n != "_formula"} | {"constants": dict(self.constants)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        formula = partial(fixed(state["derivative"]), **state["constants"])
        self.__dict__.update(state, constants=MappingProxyType(state["constants"]), _formula=formula)

    def __call__(self, u: torch.Tensor) -> torch.Tensor:
        """Spikes of u: 1 where u > 0, else 0."""
        fire = _FireInTransforms if transformed() else _Fire
        spk: torch.Tensor = fire.apply(u, self)
        return spk

    def slope_at(self, u: ops.Value) -> ops.Value:
        """dH/du at u, for tensors and symbols."""
        return self._formula(u)

    def backward(self, u: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """The gradient of u, from the gradient of the spikes."""
        result: torch.Tensor = grad * self.slope_at(u)
        return result

    def _identity(self) -> tuple[Any, ...]:
        signed = ((key, value, str(value).startswith("-")) for key, value in self.constants.items())  # -0.0 == 0.0
        return (type(self), self.name, self.derivative, *sorted(signed))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spike) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.constants.items())})"


def _number(constant: Any) -> Any:
    """Convert a tensor with one element to a number, for kernels, hashes and comparisons."""
    return constant.item() if isinstance(constant, torch.Tensor) and constant.numel() == 1 else constant


class _RandomSpike(Spike):
    """A spike function whose derivative draws random numbers in every backward pass, so it has no kernel."""


class _CustomSpike(Spike):
    """A spike function with a custom backward ``f(input, grad, spikes)``."""

    def backward(self, u: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.derivative(u, grad, ops.heaviside(u))
        return result

    def __repr__(self) -> str:
        return f"{self.name}({getattr(self.derivative, '__qualname__', repr(self.derivative))})"


# -- the formulas ---------------------------------------------------------------------------------------------------


def _straight_through(u: ops.Value) -> ops.Value:
    return 1.0


def _zero(u: ops.Value) -> ops.Value:
    return 0.0


def _triangular(u: ops.Value, threshold: float) -> ops.Value:
    return ops.where(u >= 0, ops.full_like(u, -threshold), threshold)


def _fast_sigmoid(u: ops.Value, slope: float) -> ops.Value:
    return 1 / (slope * ops.abs(u) + 1) ** 2


def _atan(u: ops.Value, alpha: float) -> ops.Value:
    return alpha / 2 / (1 + (math.pi / 2 * alpha * u) ** 2)


def _heaviside(u: ops.Value) -> ops.Value:
    return ops.where(u > 0, ops.full_like(u, 1), 0.0)


def _sigmoid(u: ops.Value, slope: float) -> ops.Value:
    decay = ops.exp(-abs(slope) * ops.abs(u))  # even in u, so the exponent is never positive and cannot overflow
    return slope * decay / (1 + decay) ** 2


def _spike_rate_escape(u: ops.Value, beta: float, slope: float) -> ops.Value:
    return slope * ops.exp(-beta * ops.abs(u - 1))


def _stochastic(u: torch.Tensor, mean: float, variance: float) -> torch.Tensor:
    return torch.where(u > 0, 1.0, (torch.rand_like(u) - 0.5 + mean) * variance)


def _leaky(u: ops.Value, slope: float) -> ops.Value:
    return ops.where(u > 0, ops.full_like(u, 1), slope)


def _sparse_fast_sigmoid(u: ops.Value, slope: float, B: float) -> ops.Value:
    return ops.where(u <= B, 0.0, _fast_sigmoid(u, slope))  # in this order NaN propagates


def _gaussian(u: ops.Value, sigma: float) -> ops.Value:
    return ops.exp(-0.5 * (u / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


def _boxcar(u: ops.Value, width: float) -> ops.Value:
    return ops.where(ops.abs(u) < width / 2, ops.full_like(u, 1 / width), 0.0)


def _triangle(u: ops.Value, width: float) -> ops.Value:
    return ops.clamp(1 - ops.abs(u) / width, 0, 1) / width


def _exponential(u: ops.Value, beta: float) -> ops.Value:
    return beta / 2 * ops.exp(-beta * ops.abs(u))


# -- the factories --------------------------------------------------------------------------------------------------


def straight_through_estimator() -> Spike:
    """g: passes the gradient unchanged (Bengio et al., 2013)."""
    return Spike("straight_through_estimator", _straight_through)


def triangular(threshold: float = 1) -> Spike:
    """g * threshold below the threshold, -g * threshold at and above it.

    As in snnTorch this is a step function, despite its name, and negative where the neuron fired. For a triangle
    around the threshold use `triangle`.
    """
    return Spike("triangular", _triangular, {"threshold": threshold})


def fast_sigmoid(slope: float = 25) -> Spike:
    """g / (k |u| + 1)^2 (Zenke and Ganguli, 2018)."""
    return Spike("fast_sigmoid", _fast_sigmoid, {"slope": slope})


def atan(alpha: float = 2.0) -> Spike:
    """g * (alpha / 2) / (1 + (pi / 2 * alpha * u)^2), the default of every neuron (Fang et al., 2021)."""
    return Spike("atan", _atan, {"alpha": alpha})


def heaviside() -> Spike:
    """g * H(u): passes the gradient only where the neuron fired."""
    return Spike("heaviside", _heaviside)


def sigmoid(slope: float = 25) -> Spike:
    """g * k e^(-k u) / (1 + e^(-k u))^2, computed without overflow (Zenke and Vogels, 2021)."""
    return Spike("sigmoid", _sigmoid, {"slope": slope})


def spike_rate_escape(beta: float = 1, slope: float = 25) -> Spike:
    """g * k exp(-beta |u - 1|), with its peak one unit *above* the threshold.

    The peak is where snnTorch has it. For a peak at the threshold use `exponential`.
    """
    return Spike("spike_rate_escape", _spike_rate_escape, {"beta": beta, "slope": slope})


def SSO(mean: float = 0, variance: float = 0.2) -> Spike:
    """Stochastic: g where the neuron fired, elsewhere g * (U(0, 1) - 0.5 + mean) * variance, drawn in every backward.

    As in snnTorch, the arguments are not the mean and variance of the noise: its mean is ``mean * variance`` and its
    standard deviation ``variance / sqrt(12)``. Runs on the PyTorch loop.
    """
    return _RandomSpike("SSO", _stochastic, {"mean": mean, "variance": variance})


def LSO(slope: float = 0.1) -> Spike:
    """Leaky: g where the neuron fired, k g elsewhere."""
    return Spike("LSO", _leaky, {"slope": slope})


def SFS(slope: float = 25, B: float = 1) -> Spike:
    """Sparse fast sigmoid: g / (k |u| + 1)^2 where u > B, else 0."""
    return Spike("SFS", _sparse_fast_sigmoid, {"slope": slope, "B": B})


def gaussian(sigma: float = 0.4) -> Spike:
    """g * exp(-u^2 / (2 sigma^2)) / (sigma sqrt(2 pi)): the density of a normal distribution."""
    _check_positive("gaussian", sigma=sigma)
    return Spike("gaussian", _gaussian, {"sigma": sigma})


def boxcar(width: float = 1.0) -> Spike:
    """g / width where |u| < width / 2, else 0: compact support, so most gradients are exactly zero.

    Source: Kaiser, Mostafa and Neftci, "Synaptic plasticity dynamics for deep continuous local learning", 2020.
    """
    _check_positive("boxcar", width=width)
    return Spike("boxcar", _boxcar, {"width": width})


def triangle(width: float = 1.0) -> Spike:
    """g * max(0, 1 - |u| / width) / width: a peak at the threshold, exactly 0 for |u| >= width."""
    _check_positive("triangle", width=width)
    return Spike("triangle", _triangle, {"width": width})


def exponential(beta: float = 5.0) -> Spike:
    """g * beta / 2 * exp(-beta |u|): a peak at the threshold with exponential decay on both sides."""
    _check_positive("exponential", beta=beta)
    return Spike("exponential", _exponential, {"beta": beta})


def custom_surrogate(custom_surrogate_function: Callable[..., torch.Tensor]) -> Spike:
    """The gradient is ``custom_surrogate_function(input, grad, spikes)``. Runs on the PyTorch loop.

    If the gradient is g times a formula for dH/du, prefer a `Spike`, which runs in fused kernels.
    """
    return _CustomSpike("custom_surrogate", custom_surrogate_function)


def no_gradient() -> Spike:
    """0: the Heaviside step without gradient, which `surrogate_disable=True` uses."""
    return Spike("no_gradient", _zero)


def _check_positive(name: str, **constants: float) -> None:
    for key, value in constants.items():
        if not value > 0:
            raise ValueError(f"surrogate.{name} got {key}={value!r}; pass a positive number")


# -- aliases with the names of autograd functions: ATan.apply(x, alpha) ----------------------------------------------


class _Function:
    """The type of ``ATan``: ``ATan.apply(u, alpha)`` is ``atan(alpha)(u)``, and ``ATan.apply`` is a spike function.

    ``apply`` returns the object itself, so that layers recognize it as spike_grad. It is pickled by name.
    """

    def __init__(self, name: str, factory: Callable[..., Spike]):
        self.name, self.factory = name, factory

    def __call__(self, input_: torch.Tensor, *constants: Any) -> torch.Tensor:
        return self.factory(*constants)(input_)

    @property
    def apply(self) -> "_Function":
        return self

    def __reduce__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{self.name}.apply"


StraightThroughEstimator = _Function("StraightThroughEstimator", straight_through_estimator)
Triangular = _Function("Triangular", triangular)
FastSigmoid = _Function("FastSigmoid", fast_sigmoid)
ATan = _Function("ATan", atan)
Heaviside = _Function("Heaviside", heaviside)
Sigmoid = _Function("Sigmoid", sigmoid)
SpikeRateEscape = _Function("SpikeRateEscape", spike_rate_escape)
StochasticSpikeOperator = _Function("StochasticSpikeOperator", SSO)
LeakySpikeOperator = _Function("LeakySpikeOperator", LSO)
SparseFastSigmoid = _Function("SparseFastSigmoid", SFS)
CustomSurrogate = _Function("CustomSurrogate", custom_surrogate)


def as_spike(spike_grad: Callable[..., torch.Tensor]) -> Spike | None:
    """The traceable `Spike` of a layer's `spike_grad`, or None if it has no traceable formula."""
    if isinstance(spike_grad, _Function) and spike_grad is not CustomSurrogate:
        spike_grad = spike_grad.factory()
    if type(spike_grad) is not Spike:
        return None
    formula = spike_grad.derivative  # a function is pure once it is `fixed`
    return spike_grad if type(formula.func if type(formula) is partial else formula) is FunctionType else None
