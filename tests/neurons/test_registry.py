"""Which neurons are known: a weak list, and what acts on all neurons of a class or of a network."""

import abc
import gc
import threading
import tracemalloc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import spikeloom as snn

from .running import started, unchanged


@pytest.fixture(autouse=True)
def nothing_alive():
    """Each test begins with an empty list; other tests' neurons are only forgotten by it."""
    snn.SpikingNeuron.init()


def test_living_neurons_are_listed_in_the_order_of_their_making():
    a, b, c = snn.Leaky(0.1), snn.LIF(0.2), snn.Leaky(0.3)
    listed = snn.SpikingNeuron.instances
    assert len(listed) == 3
    assert [n is m for n, m in zip(listed, (a, b, c), strict=True)] == [True] * 3
    assert listed[0] is a
    assert listed[-1] is c
    assert listed == [a, b, c]
    assert listed[1:] == [b, c]
    assert b in listed
    assert snn.Leaky.instances is a.instances is listed
    assert repr(listed) == repr([a, b, c])


def test_a_neuron_that_dies_leaves_the_list():
    a = snn.Leaky(0.1)
    b = snn.Leaky(0.2)
    del a
    assert snn.SpikingNeuron.instances == [b]


@pytest.mark.usefixtures("fresh_heap")
def test_a_thousand_networks_leave_no_entry_and_no_memory():
    held: list[weakref.ref[Any]] = []

    def life() -> None:
        net = nn.Sequential(nn.Linear(8, 8), snn.Leaky(torch.rand(8), init_hidden=True, learn_beta=True))
        for x in torch.rand(2, 3, 8):
            net(x).sum().backward(retain_graph=True)
        held.extend(weakref.ref(thing) for thing in (net, net[1], net[1].mem, net[1].mem.grad_fn, net[0].weight))

    for _ in range(150):  # fills what Python keeps for reuse
        life()
    held.clear()
    gc.collect()
    tracemalloc.start()
    for _ in range(1000):
        life()
    alive = sum(ref() is not None for ref in held)
    held.clear()
    gc.collect()
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert alive == 0
    assert left < 500_000, f"{left} bytes are left of 1000 networks"  # one of them takes more than 10,000
    assert len(snn.SpikingNeuron.instances) == 0


@pytest.mark.usefixtures("fresh_heap")
def test_a_network_dies_without_the_garbage_collector():
    """Its memory is free at once: nothing in a layer refers back to it."""
    gc.collect()
    gc.disable()
    try:
        for backend in ("loop", "numba"):
            with snn.backend(backend):
                lif = snn.Leaky(0.5, learn_beta=True)
                lif(torch.rand(3, 4))[0].sum().backward()
                lif(torch.rand(3, 4))
                del lif
        assert len(snn.SpikingNeuron.instances) == 0
    finally:
        gc.enable()


def test_assigning_an_empty_list_forgets_all():
    neurons = [snn.Leaky(0.1), snn.LIF(0.2)]
    snn.SpikingNeuron.instances = []
    assert list(snn.SpikingNeuron.instances) == []
    snn.SpikingNeuron.instances = neurons
    assert list(snn.SpikingNeuron.instances) == neurons


@pytest.mark.parametrize("forget", ["init", "assign"])
def test_a_class_forgets_its_own_and_goes_on_listing_new_ones(forget):
    base, leaky = snn.LIF(0.2), snn.Leaky(0.1)
    if forget == "init":
        snn.Leaky.init()
    else:
        snn.Leaky.instances = []
    assert snn.SpikingNeuron.instances == [base]
    new = started(init_hidden=True)
    assert snn.SpikingNeuron.instances == [base, new]
    snn.Leaky.reset_hidden()
    assert not new.mem.any()
    del leaky


class Other(snn.Leaky):
    """A class of the user's."""


def test_reset_hidden_reaches_the_neurons_of_a_class_in_every_network():
    a, b = started(init_hidden=True), Other(0.5, init_hidden=True)
    b(torch.rand(3, 4))
    with unchanged(a):
        Other.reset_hidden()
    assert not b.mem.any()
    snn.Leaky.reset_hidden()
    assert not a.mem.any()


def test_detach_hidden_reaches_the_neurons_of_a_class_in_every_network():
    a, b = started(learn_beta=True), started(learn_beta=True)
    snn.Leaky.detach_hidden()
    assert not a.mem.requires_grad
    assert not b.mem.requires_grad


def test_reset_of_one_network_leaves_another_alone():
    a, b = (nn.Sequential(nn.Sequential(started(init_hidden=True)), started()) for _ in range(2))
    with unchanged(b[0][0], b[1]):
        snn.utils.reset(a)
        snn.utils.detach(a)
    assert not a[0][0].mem.any()
    assert not a[1].mem.any()


def test_a_neuron_may_have_an_abstract_base_beside():
    class Named(abc.ABC):
        @abc.abstractmethod
        def name(self) -> str: ...

    class Mine(snn.Leaky, Named):
        def name(self) -> str:
            return "mine"

    assert Mine(0.5).name() == "mine"
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (snn.Leaky, Named), {})(0.5)
    assert len(snn.SpikingNeuron.instances) == 0


def test_networks_in_several_threads_do_not_disturb_each_other():
    xs = torch.rand(50, 3, 4)
    wanted = [snn.unroll(snn.Leaky(beta), xs)[1] for beta in (0.2, 0.5, 0.8)]
    got: dict[int, torch.Tensor] = {}

    def work(index: int, beta: float) -> None:
        with snn.backend("loop" if index == 1 else "numba"):  # a choice of this thread alone
            for _ in range(5):
                lif = snn.Leaky(beta, init_hidden=True, output=True)
                got[index] = torch.stack([lif(x)[1] for x in xs]) if index else snn.unroll(lif, xs)[1]
                snn.utils.reset(lif)

    threads = [threading.Thread(target=work, args=(i, beta)) for i, beta in enumerate((0.2, 0.5, 0.8))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [torch.equal(got[i], wanted[i]) for i in range(3)] == [True] * 3


def test_listing_and_dying_at_the_same_time_is_safe():
    stop = threading.Event()
    errors: list[BaseException] = []

    def make() -> None:
        try:
            while not stop.is_set():
                snn.Leaky(0.5)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        list(snn.SpikingNeuron.instances)
        snn.Leaky.reset_hidden()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
