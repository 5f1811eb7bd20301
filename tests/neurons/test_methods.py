"""What a user's subclass overrides, or assigns on one neuron, is honored: step by step and over a whole sequence."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom import surrogate

from ..oracle import assert_close
from .running import at_once, by_steps, in_both_ways

pytestmark = pytest.mark.filterwarnings("ignore:inhibition")

RESETS = ("subtract", "zero", "none")


class Soft(snn.Leaky):
    """Fires twice above two thresholds."""

    def fire(self, mem: Tensor) -> Tensor:
        return super().fire(mem) + self.spike_grad(mem - 2 * self.threshold)


class Refractory(snn.Leaky):
    """Resets half of what is above the threshold, and never the first neuron."""

    def mem_reset(self, mem: Tensor) -> Tensor:
        fired = 0.5 * super().mem_reset(mem)
        return fired * (torch.arange(mem.shape[-1]) > 0)


class Loudest(snn.Leaky):
    """Inhibits in its own way: only the first neuron may fire."""

    def fire_inhibition(self, batch_size: int, mem: Tensor) -> Tensor:
        return self.spike_grad(mem - self.threshold) * (torch.arange(mem.shape[-1]) == 0)


class Noted(snn.Leaky):
    """Wraps the library's forward."""

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        return super().forward(2 * input_, mem)


class FromTheTutorial(snn.Leaky):
    """Writes its step anew, in the way of a subclass of snnTorch's."""

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        if mem is not None:
            self.mem = mem
        if self.mem.shape != input_.shape:
            self.mem = torch.zeros_like(input_)
        self.reset = self.mem_reset(self.mem)
        self.mem = self.beta.clamp(0, 1) * self.mem + input_ - self.reset * self.threshold
        spk = self.fire(self.mem)
        return spk if self.init_hidden and not self.output else (spk, self.mem)


class Bare(snn.SpikingNeuron):
    """A neuron of the user's on the base class: it counts, and fires at the threshold."""

    def __init__(self, **options: Any):
        super().__init__(init_hidden=True, **options)
        self.register_buffer("mem", torch.zeros(0), persistent=False)

    def forward(self, input_: Tensor) -> Tensor:
        mem = self.mem if self.mem.shape == input_.shape else torch.zeros_like(input_)
        self.mem = mem + input_ - self.mem_reset(mem)
        return self.fire(self.mem)

    def reset_mem(self) -> Tensor:
        self.mem = torch.zeros_like(self.mem)
        return self.mem


def assigned(name: str, kind: type[snn.Leaky]) -> Callable[..., snn.Leaky]:
    """A plain Leaky that one method of a subclass was assigned to."""

    def make(**options: Any) -> snn.Leaky:
        lif, other = snn.Leaky(**options), kind(**options)
        setattr(lif, name, getattr(other, name))
        return lif

    return make


NEURONS: dict[str, Callable[..., snn.Leaky]] = {
    "fire": Soft,
    "mem_reset": Refractory,
    "fire_inhibition": lambda **options: Loudest(inhibition=True, **options),
    "forward around ours": Noted,
    "forward of its own": FromTheTutorial,
    "fire assigned": assigned("fire", Soft),
    "mem_reset assigned": assigned("mem_reset", Refractory),
    "state_quant": lambda **options: snn.Leaky(state_quant=lambda mem: torch.round(4 * mem) / 4, **options),
    "a module as spike_grad": lambda **options: snn.Leaky(spike_grad=nn.Threshold(0.0, 0.0), **options),
    "a function as spike_grad": lambda **options: snn.Leaky(
        spike_grad=lambda u: torch.sigmoid(9 * u).round(), **options
    ),
}


@pytest.mark.parametrize("hidden", [{}, {"init_hidden": True}, {"init_hidden": True, "output": True}], ids=str)
@pytest.mark.parametrize("name", NEURONS)
def test_a_sequence_at_once_is_what_its_steps_are(name, hidden):
    xs = 2 * torch.rand(6, 3, 4)
    outs = []
    for run in (by_steps, at_once):
        lif = NEURONS[name](beta=0.8, **hidden)
        out = run(lif, xs)
        outs.append((*(out if isinstance(out, tuple) else (out,)), lif.mem))
    for got, wanted in zip(*outs, strict=True):
        assert_close(got, wanted, name, exact=True)


@in_both_ways
@pytest.mark.parametrize("name", [name for name in NEURONS if name not in ("forward of its own", "state_quant")])
def test_the_override_makes_a_difference(name, run):
    xs = 2 * torch.rand(6, 3, 4)
    ours, plain = run(NEURONS[name](beta=0.8), xs), run(snn.Leaky(0.8), xs)
    same = name == "a function as spike_grad"
    assert torch.equal(ours[0], plain[0]) == same


def test_the_step_written_anew_gives_the_numbers_of_ours():
    xs = 2 * torch.rand(6, 3, 4)
    mine, ours = FromTheTutorial(0.8), snn.Leaky(0.8)
    for got, wanted in zip(by_steps(mine, xs), by_steps(ours, xs), strict=True):
        assert_close(got, wanted, "a step written anew", exact=True)
    assert torch.equal(mine.reset, ours.reset)


@in_both_ways
def test_a_neuron_on_the_base_class_keeps_a_state_of_its_own(run):
    neuron = Bare(threshold=0.9)
    spk = run(neuron, torch.full((4, 2, 3), 0.5))
    assert spk[:, 0, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    snn.utils.reset(nn.Sequential(neuron))
    assert not neuron.mem.any()
    assert list(neuron.state_dict()) == ["threshold", "graded_spikes_factor", "reset_mechanism_val"]


@in_both_ways
def test_gradients_flow_through_what_is_overridden(run):
    xs = (2 * torch.rand(5, 3, 4)).requires_grad_()
    lif = Soft(0.8, learn_threshold=True)
    spk, _ = run(lif, xs)
    grads = torch.autograd.grad(spk.sum(), [xs, lif.threshold])
    assert all(grad.abs().sum() > 0 for grad in grads)


@pytest.mark.parametrize("delay", [True, False], ids=["delayed", "immediate"])
@pytest.mark.parametrize("reset", RESETS)
def test_methods_that_do_what_ours_do_give_the_numbers_of_the_equation(reset, delay):
    """The path through methods and the equation are one."""

    class Same(snn.Leaky):
        def fire(self, mem: Tensor) -> Tensor:
            return super().fire(mem)

    xs = 2 * torch.rand(6, 3, 4)
    options = {
        "beta": torch.rand(4),
        "reset_mechanism": reset,
        "reset_delay": delay,
        "graded_spikes_factor": 1.5,
        "learn_beta": True,
    }
    for run in (by_steps, at_once):
        mine, ours = Same(**options), snn.Leaky(**options)
        for got, wanted in zip(run(mine, xs), run(ours, xs), strict=True):
            assert_close(got, wanted, f"{reset}", exact=True)


def test_swapping_spike_grad_changes_the_gradient_and_no_spike():
    x = torch.tensor([[0.9, 1.1]])
    grads = {}
    lif = snn.Leaky(0.5)
    for spike_grad in (surrogate.atan(2.0), surrogate.fast_sigmoid(25), surrogate.ATan.apply):
        lif.spike_grad = spike_grad
        lif.reset_mem()
        leaf = x.clone().requires_grad_()
        spk, _ = lif(leaf)
        assert spk.tolist() == [[0.0, 1.0]]
        (grads[repr(spike_grad)],) = torch.autograd.grad(spk.sum(), leaf)
    first, second, third = grads.values()
    assert torch.equal(first, third)
    assert not torch.equal(first, second)


def test_inhibition_warns_at_the_line_that_asks_for_it():
    with pytest.warns(UserWarning, match="one neuron") as caught:
        snn.Leaky(0.5, inhibition=True)
    assert caught[0].filename == __file__


@in_both_ways
@pytest.mark.parametrize("shape", [(3, 6), (2, 5, 3, 4)], ids=str)
def test_inhibition_lets_the_highest_along_dimension_one_fire(shape, run):
    xs = 2 * torch.rand(4, *shape)
    spk, mem = run(snn.Leaky(0.5, inhibition=True, reset_mechanism="none"), xs)
    winner = torch.zeros_like(mem).scatter_(2, mem.argmax(dim=2, keepdim=True), 1.0)
    assert torch.equal(spk, winner * (mem > 1))


def test_methods_compute_in_float32_for_half_inputs():
    spk, mem = Soft(0.5)(torch.rand(3, 4, dtype=torch.float16))
    assert (spk.dtype, mem.dtype) == (torch.float16, torch.float32)


def test_an_override_that_comes_after_the_class_is_seen():
    class Late(snn.Leaky):
        pass

    lif = Late(0.5, threshold=0.1)
    lif(torch.ones(2, 3))
    Late.fire = lambda self, mem: 7 * torch.ones_like(mem)
    assert lif(torch.ones(2, 3))[0].unique().tolist() == [7.0]
