"""A state that leads into a graph which backward() has freed: kernels say so in a sentence, the loop in torch's."""

import gc
import weakref
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import spikeloom as snn

from ..each import for_each
from .running import BACKENDS, WAYS, in_both_ways, on_both_backends
from .zoo import ZOO, made, sequence

XS = torch.full((4, 3, 5), 0.4)

Run = Callable[[nn.Module, Tensor], Tensor]


def bare() -> nn.Module:
    return snn.Leaky(0.5, learn_beta=True, init_hidden=True, output=True)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), snn.Leaky(0.5, init_hidden=True), nn.Linear(6, 2), bare())


NETS: dict[str, Callable[[], nn.Module]] = {
    "a bare neuron": bare,
    "a network": network,
}

MESSAGE = {"numba": r"(?s)Leaky.*spikeloom\.utils\.reset\(net\).*detach\(net\)", "loop": "second time"}


def loss_of(net: nn.Module, run: Run) -> Tensor:
    spk, mem = run(net, XS)
    return spk.sum() + mem.sum()


@on_both_backends
@in_both_ways
@pytest.mark.parametrize("net", NETS)
def test_a_second_batch_without_a_reset_names_the_layer_and_the_fix(net, run, backend):
    made = NETS[net]()
    with snn.backend(backend):
        loss_of(made, run).backward()
        loss = loss_of(made, run)
    with pytest.raises(RuntimeError, match=MESSAGE[backend]):
        loss.backward()


@for_each(("run", "name"), product(WAYS.values(), [name for name in ZOO if name != "DeltaLeaky"]))
def test_it_is_reported_every_neuron_that_keeps_its_states_to_itself(run, name):
    """No state is returned: what a kernel has saved may then be written over by its backward."""
    net = nn.Sequential(made(name, learn=True, init_hidden=True))
    xs = sequence(name, 4).requires_grad_()
    run(net, xs).sum().backward()
    again = run(net, xs).sum()
    with pytest.raises(RuntimeError, match=r"(?s)(earlier batch|before the last backward).*utils\.reset\(net\)"):
        again.backward()


def test_the_layer_is_named_by_its_path_in_an_unrolled_network():
    net = network()
    loss_of(net, WAYS["at once"]).backward()
    loss = loss_of(net, WAYS["at once"])
    with pytest.raises(RuntimeError, match=r"'[13]' \(Leaky\)"):
        loss.backward()


@on_both_backends
@pytest.mark.parametrize("carried", ["by a variable", "by the attribute"])
def test_it_is_also_reported_where_the_script_carries_the_membrane_by_hand(carried, backend):
    lif = snn.Leaky(0.5, learn_beta=True)
    with snn.backend(backend):
        spk, mem = lif(XS[0], lif.init_leaky())
        (spk + mem).sum().backward()
        spk, mem = lif(XS[1], mem if carried == "by a variable" else lif.mem)
    with pytest.raises(RuntimeError, match=MESSAGE[backend]):
        (spk + mem).sum().backward()


FIXES: dict[str, Callable[[nn.Module], None]] = {
    "utils.reset": snn.utils.reset,
    "utils.detach": snn.utils.detach,
    "detach_hidden": lambda net: snn.Leaky.detach_hidden(),
    "reset_hidden": lambda net: snn.Leaky.reset_hidden(),
    "reset_mem": lambda net: [lif.reset_mem() for lif in net.modules() if isinstance(lif, snn.Leaky)],
    "mem.detach_()": lambda net: [lif.mem.detach_() for lif in net.modules() if isinstance(lif, snn.Leaky)],
    "mem = mem.detach()": lambda net: [
        setattr(lif, "mem", lif.mem.detach()) for lif in net.modules() if isinstance(lif, snn.Leaky)
    ],
}


@on_both_backends
@in_both_ways
@pytest.mark.parametrize("cure", FIXES)
@pytest.mark.parametrize("net", ["a bare neuron", "a network"])
def test_every_fix_works(net, cure, run, backend):
    made = NETS[net]()
    with snn.backend(backend):
        for _ in range(3):
            loss_of(made, run).backward()
            FIXES[cure](made)


@on_both_backends
@in_both_ways
def test_retain_graph_goes_back_through_all_batches(run, backend):
    """Nothing is raised where nothing was freed, and the gradients are those of one long sequence."""
    lif = bare()
    with snn.backend(backend):
        first = loss_of(lif, run)
        first.backward(retain_graph=True)
        second = loss_of(lif, run)
        second.backward(retain_graph=True)
        third = loss_of(lif, run)
        third.backward()
        grad = lif.beta.grad.clone()
        whole = snn.Leaky(0.5, learn_beta=True)
        mem = torch.stack([sum(out.sum() for out in whole(x)) for x in torch.cat([XS] * 3)])
    starts = (mem[:4].sum(), mem[4:8].sum(), mem[8:].sum())
    wanted = sum(torch.autograd.grad(start, whole.beta, retain_graph=True)[0] for start in starts)
    torch.testing.assert_close(grad, wanted)
    with pytest.raises(RuntimeError, match=MESSAGE[backend]), snn.backend(backend):
        loss_of(lif, run).backward()


@on_both_backends
@in_both_ways
def test_evaluation_between_two_batches_does_no_harm(run, backend):
    lif = bare()
    with snn.backend(backend):
        loss_of(lif, run).backward()
        with torch.no_grad():
            loss_of(lif, run)
        loss_of(lif, run).backward()


@on_both_backends
def test_a_learned_initial_state_serves_every_batch(backend):
    lif, start = snn.Leaky(0.5), nn.Parameter(torch.zeros(3, 5))
    with snn.backend(backend):
        for _ in range(3):
            mem = start
            for x in XS:
                spk, mem = lif(x, mem)
            (spk + mem).sum().backward()
    assert start.grad is not None


class Marked(torch.autograd.Function):
    """Identity; its node is a Python object, whose death can be seen."""

    @staticmethod
    def forward(ctx: Any, xs: Tensor) -> Tensor:
        return xs.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


@pytest.mark.usefixtures("fresh_heap")
@on_both_backends
@in_both_ways
def test_a_detached_neuron_keeps_no_graph_alive(run, backend):
    lif = bare()
    xs = Marked.apply(XS.clone().requires_grad_())
    node = weakref.ref(xs.grad_fn)
    with snn.backend(backend):
        loss = sum(out.sum() for out in run(lif, xs))
        loss.backward()
        assert node() is not None
        snn.utils.detach(lif)
        del loss, xs
    gc.collect()
    assert node() is None


# -- second derivatives ------------------------------------------------------------------------------------------------


def penalty(lif: snn.Leaky, run: Run, xs: Tensor) -> Tensor:
    """The squared gradient of the membranes: what a gradient penalty adds to a loss."""
    _, mem = run(lif, xs)
    (grad,) = torch.autograd.grad((mem**2).sum(), xs, create_graph=True)
    return (grad**2).sum()


@on_both_backends
@in_both_ways
def test_second_derivatives_are_right(run, backend):
    xs = torch.rand(3, 2, 2, dtype=torch.float64).requires_grad_()
    lif = snn.Leaky(torch.tensor(0.5, dtype=torch.float64), reset_delay=False, init_hidden=True, output=True)

    def of(xs: Tensor) -> Tensor:
        snn.utils.reset(lif)
        return penalty(lif, run, xs)

    with snn.backend(backend):
        (got,) = torch.autograd.grad(of(xs), xs)
    assert got.abs().sum() > 0

    class Plain(nn.Module):
        """The same equation, written out."""

        def forward(self, xs: Tensor) -> tuple[Tensor, Tensor]:
            mem, membranes = torch.zeros_like(xs[0]), []
            for x in xs:
                fired = (mem > 1).double()
                mem = 0.5 * mem + x - fired
                mem = mem - (snn.surrogate.atan()(mem - 1) - fired)
                membranes.append(mem)
            return torch.empty(0), torch.stack(membranes)

    (wanted,) = torch.autograd.grad(penalty(Plain(), lambda net, xs: net(xs), xs), xs)
    torch.testing.assert_close(got, wanted)


# -- detach -----------------------------------------------------------------------------------------------------------


@for_each(("name", "detached"), product(ZOO, ["before the loss", "before the backward", "after"]))
def test_detach_leaves_what_was_returned_with_its_graph_in_both_ways(name, detached):
    """The gradients of two chunks, each the last step's too."""
    message = []
    for run in WAYS.values():
        lif = made(name, learn=True, **({"init_hidden": True, "output": True} if name != "DeltaLeaky" else {}))
        xs, grads = sequence(name, 6).requires_grad_(), []
        torch.manual_seed(11)
        for chunk in xs.split(3):
            outs = tree_leaves(run(lif, chunk))
            if detached == "before the loss":
                snn.utils.detach(lif)
            loss = sum((out * torch.linspace(-1, i, out.numel()).view_as(out)).sum() for i, out in enumerate(outs))
            if detached == "before the backward":
                snn.utils.detach(lif)
            loss.backward()
            if detached == "after":
                snn.utils.detach(lif)
            grads.append(xs.grad.clone())
        message.append(grads)
    assert message[0][0][2].any(), "the last step of a chunk has a gradient"
    for got, wanted in zip(*message, strict=True):
        torch.testing.assert_close(got, wanted)


@for_each(("name", "backend"), product([name for name in ZOO if name != "DeltaLeaky"], BACKENDS))
def test_detach_cuts_the_states_that_a_script_passes_by_hand(name, backend):
    """Between chunks; the same gradients as by `detach` of each state."""
    message = []
    for by_library in (True, False):
        lif, xs = made(name, learn=True), sequence(name, 6).requires_grad_()
        states = ()
        torch.manual_seed(11)
        with snn.backend(backend):
            for chunk in xs.split(3):
                loss = 0.0
                for x in chunk:
                    outs = lif(x, *states)
                    states = outs[len(outs) - len(lif._state_names()) :]  # the spikes are a recurrent neuron's first
                    loss = loss + outs[0].sum() + states[-1].sum()
                if by_library:
                    snn.utils.detach(lif)
                else:
                    states = [state.detach() for state in states]
                loss.backward()
        message.append([xs.grad, *(p.grad for p in lif.parameters())])
    for got, wanted in zip(*message, strict=True):
        torch.testing.assert_close(got, wanted)


class Overriding(snn.Leaky):
    """Fires by a method of its own, and so always on the loop."""

    def fire(self, mem: Tensor) -> Tensor:
        return super().fire(mem)


def test_detach_cuts_the_state_that_is_passed_to_a_neuron_with_methods():
    lif = Overriding(0.5, learn_beta=True)
    _, mem = lif(XS[1], lif(XS[0])[1])
    snn.utils.detach(lif)
    _, new = lif(XS[2], mem)
    (grad,) = torch.autograd.grad(new.sum(), lif.beta)
    torch.testing.assert_close(grad, mem.detach().sum())


def test_a_state_that_was_reset_since_is_not_taken_for_the_detached_one():
    lif = snn.Leaky(0.5, learn_beta=True)
    _, mem = lif(XS[0])
    snn.utils.detach(lif)
    lif.reset_mem()
    assert torch.equal(lif(XS[0], mem)[1], 0.5 * mem + XS[0])
    assert mem.requires_grad


@pytest.mark.usefixtures("fresh_heap")
def test_detach_holds_no_state_that_the_script_has_dropped():
    lif = bare()
    _, mem = lif(XS[0])
    node = weakref.ref(mem)
    snn.utils.detach(lif)
    del mem
    gc.collect()
    assert node() is None
