"""`surrogate_disable=True`: spikes without gradient are outside of the graph, as in snnTorch, in every way to run."""

import warnings

import pytest
import torch
from torch import nn

import spikeloom

snntorch = pytest.importorskip("snntorch")

NEURONS = {
    "Leaky": {"beta": 0.9},
    "Lapicque": {"beta": 0.9},
    "Synaptic": {"alpha": 0.8, "beta": 0.9},
    "Alpha": {"alpha": 0.9, "beta": 0.8},
    "RLeaky": {"beta": 0.9, "linear_features": 4},
    "RSynaptic": {"alpha": 0.8, "beta": 0.9, "all_to_all": False},
    "SLSTM": {"input_size": 4, "hidden_size": 4, "threshold": 0.1},
}
OPTIONS = ({}, {"learn_threshold": True}, {"reset_mechanism": "zero"}, {"inhibition": True})
WAYS = ("step", "unroll", "fuse")


def trained(library, name, options, way):
    """Which layers get a gradient from the spikes, and from the membranes, of a network with a silent gradient."""
    torch.manual_seed(0)
    found = []
    for of in ("spikes", "membranes"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of inhibition
            lif = getattr(library, name)(**NEURONS[name], **options, surrogate_disable=True)
        net = nn.Sequential(nn.Linear(3, 4), lif)

        def run(x, net=net):
            return [net(x) for _ in range(3)][-1]

        if way == "unroll":
            outs = [out[-1] for out in spikeloom.unroll(net, torch.rand(2, 3), steps=3)]
        else:
            outs = (spikeloom.fuse(run) if way == "fuse" else run)(torch.rand(2, 3))
        out = outs[0] if of == "spikes" else outs[-1]
        if out.requires_grad:
            out.sum().backward()
        found += [outs[0].requires_grad, net[0].weight.grad is not None]
    return found


@pytest.mark.parametrize("name", NEURONS)
def test_layers_before_spikes_without_gradient_have_none(name):
    """Zeros instead would let weight decay and momentum change a layer that snnTorch leaves alone."""
    for options in OPTIONS if name == "Leaky" else OPTIONS[:2]:
        wanted = trained(snntorch, name, options, "step")
        assert wanted == [False, False, False, True]
        for way in WAYS:
            with spikeloom.backend("auto" if name == "Leaky" and not options else "loop"):  # kernels would be compiled
                assert trained(spikeloom, name, options, way) == wanted, (options, way)


@pytest.mark.parametrize("library", [snntorch, spikeloom])
def test_spikes_of_a_learned_amplitude_are_in_the_graph(library):
    lif = library.Leaky(0.9, surrogate_disable=True, graded_spikes_factor=2.0, learn_graded_spikes_factor=True)
    spk, _ = lif(torch.full((1, 2), 3.0))
    spk.sum().backward()
    assert lif.graded_spikes_factor.grad == 2


@pytest.mark.parametrize("library", [snntorch, spikeloom])
def test_sequences_too(library):
    x = torch.rand(3, 2, 4, requires_grad=True)
    spk, mem = library.StateLeaky(0.9, 4, surrogate_disable=True)(x)
    assert not spk.requires_grad
    assert mem.requires_grad
    assert not library.LeakyParallel(4, 4, surrogate_disable=True)(x).requires_grad
    assert library.StateLeaky(0.9, 4, surrogate_disable=True, learn_graded_spikes_factor=True)(x)[0].requires_grad


def test_another_spike_function_takes_part_again():
    lif = spikeloom.Leaky(0.9, surrogate_disable=True)
    lif.spike_grad = spikeloom.surrogate.atan()
    assert lif(torch.ones(1, 2, requires_grad=True))[0].requires_grad
    lif.spike_grad = spikeloom.surrogate.no_gradient()
    assert not lif(torch.ones(1, 2, requires_grad=True))[0].requires_grad
