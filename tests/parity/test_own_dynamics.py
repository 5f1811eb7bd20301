"""Neurons with dynamics of their own, as public code writes them: the same class body on either library."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn

from ..neurons.running import at_once
from ..oracle import assert_same
from .test_overrides import MODES, outcome

snntorch = pytest.importorskip("snntorch")


def linear_leak(library: ModuleType, **options: Any) -> Any:
    """A constant leak and a floor."""

    class LinearLeak(library.Leaky):
        def __init__(self) -> None:
            super().__init__(beta=0.9, **options)
            self.leak = nn.Parameter(torch.tensor(0.1))

        def _base_state_function(self, input_: Tensor) -> Tensor:
            return (self.mem - self.leak + input_).clamp(min=0)

    return LinearLeak()


def bounded_tau(library: ModuleType, **options: Any) -> Any:
    """A time constant per neuron that cannot leave its bounds, in the dynamics."""

    class BoundedTau(library.Leaky):
        def __init__(self) -> None:
            super().__init__(beta=0.9, **options)
            self.w = nn.Parameter(torch.tensor([-0.5, 0.3, 2.0]))

        def _base_state_function(self, input_: Tensor) -> Tensor:
            decay = torch.sigmoid(self.w)
            return decay * self.mem + (1 - decay) * 3 * input_

    return BoundedTau()


def bounded_property(library: ModuleType, **options: Any) -> Any:
    """The same as a property that stands before the buffer."""

    class BoundedProperty(library.Leaky):
        def __init__(self) -> None:
            super().__init__(beta=0.9, **options)
            self.w = nn.Parameter(torch.tensor([-0.5, 0.3, 2.0]))

        @property
        def beta(self) -> Tensor:
            return torch.sigmoid(self.w)

    return BoundedProperty()


def fractional(library: ModuleType, **options: Any) -> Any:
    """A memory of the last membranes, weighted by a power law, with a buffer of its own."""

    class Fractional(library.Leaky):
        def __init__(self) -> None:
            super().__init__(beta=0.9, **options)
            self.order = nn.Parameter(torch.tensor(0.6))

        def _init_mem(self) -> None:
            super()._init_mem()
            self.register_buffer("lags", torch.arange(1.0, 4.0), persistent=False)
            self.history: list[Tensor] = []

        def _base_state_function(self, input_: Tensor) -> Tensor:
            self.history = [self.mem, *self.history][:3]
            weights = self.lags ** -(1 + self.order)
            past = sum((w * mem for w, mem in zip(weights, self.history, strict=False)), torch.zeros_like(input_))
            return input_ + 0.9 * past

        def reset_mem(self) -> Tensor:
            self.history = []
            return super().reset_mem()

    return Fractional()


def minifloat(library: ModuleType, **options: Any) -> Any:
    """A membrane of few bits, straight through in the backward, around the dynamics of the base."""

    class Minifloat(library.Synaptic):
        def __init__(self) -> None:
            super().__init__(alpha=0.8, beta=0.9, learn_beta=True, learn_alpha=True, **options)

        @staticmethod
        def rounded(value: Tensor) -> Tensor:
            mantissa, exponent = torch.frexp(value.detach())
            return value + (torch.ldexp(torch.round(mantissa * 8) / 8, exponent) - value).detach()

        def _base_state_function(self, input_: Tensor) -> tuple[Tensor, Tensor]:
            syn, mem = super()._base_state_function(input_)
            return self.rounded(syn), self.rounded(mem)

    return Minifloat()


def adaptive(library: ModuleType, **options: Any) -> Any:
    """A threshold that rises with each spike, by what fires and what resets."""

    class Adaptive(library.Leaky):
        def __init__(self) -> None:
            super().__init__(beta=0.9, learn_threshold=True, **options)
            self.adapt: Any = 0.0

        def mem_reset(self, mem: Tensor) -> Tensor:
            return (self.spike_grad(mem - self.threshold - self.adapt) * (1 + self.adapt)).detach()

        def fire(self, mem: Tensor) -> Tensor:
            spk = self.spike_grad(mem - self.threshold - self.adapt)
            self.adapt = 0.8 * self.adapt + 0.3 * spk
            return spk

        def reset_mem(self) -> Tensor:
            self.adapt = 0.0
            return super().reset_mem()

    return Adaptive()


def by_own_rules(library: ModuleType, **options: Any) -> Any:
    """Each reset written anew, over the dynamics of the base; a neuron that recurs."""

    class ByOwnRules(library.RLeaky):
        def __init__(self) -> None:
            super().__init__(beta=0.9, V=torch.tensor([0.2, -0.3, 0.1]), all_to_all=False, learn_beta=True, **options)

        def _base_sub(self, input_: Tensor) -> Tensor:
            return self._base_state_function(input_) - self.reset * (self.mem - 0.2)

        def _base_zero(self, input_: Tensor) -> Tensor:
            return self._base_state_function(input_) * (1 - 0.9 * self.reset)

        def _base_int(self, input_: Tensor) -> Tensor:
            return 1.5 * self._base_state_function(input_).tanh()

    return ByOwnRules()


def chosen_in_the_constructor(library: ModuleType, **options: Any) -> Any:
    """Its state function is a method of its own, assigned in the constructor."""

    class Chosen(library.Lapicque):
        def __init__(self) -> None:
            super().__init__(beta=0.9, **options)
            self.gain = nn.Parameter(torch.tensor(0.7))
            self.state_function = self._quadratic

        def _quadratic(self, input_: Tensor) -> Tensor:
            return self.mem - self.gain * self.mem * (1 - self.mem) + input_ - self.reset * self.threshold

    return Chosen()


class Scaling:
    """A mixin that knows nothing of either library."""

    def _base_state_function(self, input_: Tensor) -> Any:
        return super()._base_state_function(0.7 * input_)  # type: ignore[misc]

    def fire(self, mem: Tensor) -> Tensor:
        return 2 * super().fire(mem)  # type: ignore[misc]


def mixed_in(library: ModuleType, **options: Any) -> Any:
    """Of a mixin and the library's class."""
    kind = type("Mixed", (Scaling, library.Leaky), {"__module__": __name__})
    return kind(beta=0.9, learn_beta=True, learn_threshold=True, **options)


def on_the_base_class(library: ModuleType, **options: Any) -> Any:
    """A neuron written on LIF in the manner of snnTorch's own: state, reset and forward are the user's."""

    class OnLIF(library.LIF):
        def __init__(self) -> None:
            super().__init__(beta=0.9, learn_beta=True, **{k: v for k, v in options.items() if k != "reset_delay"})
            self._init_mem()
            self.state_function = {"subtract": self._base_sub, "zero": self._base_zero}.get(
                self.reset_mechanism, self._base_int
            )

        def _init_mem(self) -> None:
            self.register_buffer("mem", torch.zeros(0), False)

        def reset_mem(self) -> Tensor:
            self.mem = torch.zeros_like(self.mem)
            return self.mem

        def _base_state_function(self, input_: Tensor) -> Tensor:
            return self.beta.clamp(0, 1) * self.mem + torch.tanh(input_)

        def _base_sub(self, input_: Tensor) -> Tensor:
            return self._base_state_function(input_) - self.reset * self.threshold

        def _base_zero(self, input_: Tensor) -> Tensor:
            return (1 - self.reset) * self._base_state_function(input_)

        def _base_int(self, input_: Tensor) -> Tensor:
            return self._base_state_function(input_)

        def forward(self, input_: Tensor) -> tuple[Tensor, Tensor]:
            if self.mem.shape != input_.shape:
                self.mem = torch.zeros_like(input_)
            self.reset = self.mem_reset(self.mem)
            self.mem = self.state_function(input_)
            return self.fire(self.mem), self.mem

    return OnLIF()


def its_own_forward(library: ModuleType, **options: Any) -> Any:
    """A forward of its own that calls the methods of the base, and takes a step off what has fired."""

    class OwnForward(library.Leaky):
        def __init__(self) -> None:
            super().__init__(beta=0.9, learn_beta=True, **options)

        def forward(self, input_: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
            if mem is not None:
                self.mem = mem
            if self.mem.shape != input_.shape:
                self.mem = torch.zeros_like(input_)
            self.reset = self.mem_reset(self.mem)
            self.mem = self.state_function(input_) - 0.1 * self.reset
            return self.fire(self.mem), self.mem

    return OwnForward()


NEURONS: dict[str, Callable[..., Any]] = {
    made.__name__: made
    for made in (
        *(linear_leak, bounded_tau, bounded_property, fractional, minifloat, adaptive, by_own_rules),
        *(chosen_in_the_constructor, mixed_in, on_the_base_class, its_own_forward),
    )
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NEURONS)
def test_the_same_class_body_gives_the_same_numbers(name, mode):
    options = dict(MODES[mode])
    if name == "chosen_in_the_constructor":
        options.pop("reset_delay", None)
    ours, theirs = NEURONS[name](snn, **options), NEURONS[name](snntorch, **options)
    wanted = outcome(theirs, name)
    assert wanted.spikes["out 0"].unique().numel() > 1
    assert_same(outcome(ours, name), wanted)
    assert all(grad is not None and grad.any() for grad in wanted.gradients.values())
    ours.reset_mem()
    assert_same(outcome(ours, name, at_once), wanted)


def test_the_linear_leak_of_the_simplest_form():
    class LinearLeak(snn.Leaky):
        def _base_state_function(self, input_: Tensor) -> Tensor:
            return (self.mem - 0.1 + input_).clamp(min=0)

    lif, mem = LinearLeak(beta=0.9), torch.zeros(1, 1)
    for _ in range(4):
        _, mem = lif(torch.full((1, 1), 0.3), mem)
    assert round(mem.item(), 3) == 0.8
