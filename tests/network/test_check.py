"""check=True finds what only the comparison with the loop over steps can find, and names it."""

import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn

from .networks import NETWORKS, leaky, quarters


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif, self.head, self.kept = nn.Linear(6, 6), leaky(threshold=0.1), nn.Linear(6, 6), 0

    def spikes(self, x):
        return self.lif(self.fc(x))


class Feedback(Base):
    def forward(self, x):
        self.kept = self.spikes(x + self.kept)
        return self.kept


class Counter(Base):
    def forward(self, x):
        self.kept += 1
        return self.head(self.spikes(x) * self.kept)


class Mixing(Base):
    def forward(self, x):
        return self.head(self.spikes(x).softmax(0))


class Sized(Base):
    def forward(self, x):
        return self.head(self.spikes(x + x.size(0)))


class Resetting(Base):
    def forward(self, x):
        snn.utils.reset(self)
        return self.spikes(x)


class OneByOne(Base):
    """A layer that is called at some steps only."""

    def forward(self, x):
        self.kept += 1
        spk = self.spikes(x)
        return self.head(spk) if self.kept == 1 else spk


WRONG = {
    Feedback: "'0.fc' .* gets another input .* step 1",
    Counter: "'0.head' .* gets another input .* step 1",
    Mixing: "'0.head' .* gets another input",
    Sized: "'0.fc' .* gets another input",
    Resetting: "'0.lif' .* it is reset .* Reset before unroll",
    OneByOne: "'0.head' .* is called unrolled, but not at step 1",
}


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
def test_what_unrolling_would_change_is_found_and_named(kind, static):
    net = nn.Sequential(kind(), nn.Linear(6, 2))
    x = torch.rand(4, 6) if static else torch.rand(8, 4, 6)
    mem, kept = net[0].lif.mem, net[0].kept
    if kind is Sized and static:  # before the first neuron there are the rows of one step
        assert snn.unroll(net, x, steps=8, check=True).shape == (8, 4, 2)
        return
    with pytest.raises(RuntimeError, match=WRONG[kind]):
        snn.unroll(net, x, steps=8 if static else None, check=True)
    assert net[0].lif.mem is mem
    assert net[0].kept is kept


class Held(Base):
    """Feedback through a value of the shape of a step, which broadcasts with no folded one."""

    def __init__(self, begin):
        super().__init__()
        begin(self)

    def forward(self, x):
        spk = self.spikes(x + self.last())
        self.keep(spk)
        return spk


class ByAttribute(Held):
    def __init__(self):
        super().__init__(lambda self: setattr(self, "previous", torch.zeros(4, 6)))

    def last(self):
        return self.previous

    def keep(self, spk):
        self.previous, self.seen = spk, len(spk)


class ByBuffer(Held):
    def __init__(self):
        super().__init__(lambda self: self.register_buffer("trace", torch.zeros(4, 6)))

    def last(self):
        return self.trace

    def keep(self, spk):
        self.trace.mul_(0.5).add_(spk)


class ByList(Held):
    def __init__(self):
        super().__init__(lambda self: setattr(self, "history", [torch.zeros(4, 6)]))

    def last(self):
        return self.history[-1]

    def keep(self, spk):
        self.history.append(spk)


class Late(Held):
    """The value is there from the second step on only."""

    def __init__(self):
        super().__init__(lambda self: None)

    def last(self):
        return getattr(self, "memory", 0.0)

    def keep(self, spk):
        self.memory, self.log = spk, [spk]


NAMED = {ByAttribute: "self.previous of", ByBuffer: "self.trace of", ByList: "self.history of", Late: "self.memory of"}


@pytest.mark.parametrize("check", [None, True])
@pytest.mark.parametrize("kind", NAMED, ids=lambda kind: kind.__name__)
def test_the_attribute_through_which_values_are_fed_back_is_named(kind, check):
    net = nn.Sequential(nn.Linear(6, 6), kind())
    with pytest.raises(
        RuntimeError, match=rf"a step reads {NAMED[kind]} '1' \({kind.__name__}\), which the step be"
    ) as e:
        snn.unroll(net, torch.rand(8, 4, 6), check=check)
    assert not any(name in str(e.value) for name in ("self.seen", "self.log"))
    assert not net[1].lif.mem.numel()
    assert kind is not ByList or len(net[1].history) == 1
    assert kind is not ByBuffer or not net[1].trace.any()


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_right_passes_and_is_not_disturbed(network, static):
    net = NETWORKS[network]()
    if network == "a neuron without init_hidden":
        net.init_hidden = True  # the loop hands such a neuron its state
    x = quarters(4, 6) if static else quarters(8, 4, 6)
    drawn = torch.get_rng_state()
    out = snn.unroll(net, x, steps=8 if static else None, check=True)
    assert torch.equal(torch.get_rng_state(), drawn)
    snn.utils.reset(net)
    again = snn.unroll(net, x, steps=8 if static else None)
    assert all(
        torch.equal(a, b)
        for a, b in zip(*(torch.utils._pytree.tree_leaves(o) for o in (out, again)), strict=True)
        if a is not None
    )


def test_training_with_dropout_and_batchnorm_passes_and_updates_once():
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(), leaky())
    snn.unroll(net, torch.rand(4, 6), steps=8, check=True)
    assert net[1].num_batches_tracked == 1
    assert net.training


def test_it_continues_from_the_present_state_also_one_with_a_graph():
    net = nn.Sequential(nn.Linear(6, 6), leaky())
    snn.unroll(net, torch.rand(8, 4, 6), check=True)
    snn.unroll(net, torch.rand(8, 4, 6), check=True).sum().backward()


def test_a_network_that_draws_outside_of_torch_cannot_be_compared():
    class Noisy(Base):
        def forward(self, x):
            return self.spikes(x + float(np.random.rand()))

    with pytest.raises(RuntimeError, match="random numbers outside of torch"):
        snn.unroll(Noisy(), torch.rand(8, 4, 6), check=True)


def test_a_forward_with_a_dtype_of_its_own_is_compared_in_that():
    class Single(Base):
        def forward(self, x):
            return self.spikes(x.float())

    assert snn.unroll(Single(), torch.rand(8, 4, 6), check=True).shape == (8, 4, 6)


def test_a_single_neuron_without_init_hidden_passes():
    spk, _ = snn.unroll(snn.Leaky(beta=0.5), torch.rand(8, 4, 6), check=True)
    assert spk.shape == (8, 4, 6)
