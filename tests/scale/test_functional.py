"""torch.func and torch.utils.checkpoint: the results of a plain run, or a sentence."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

import spikeloom as snn

from ..network.networks import exact, leaky, quarters, twins
from ..oracle import assert_close


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), leaky(), nn.Linear(5, 4), leaky(output=True))


class Whole(nn.Module):
    """All steps of a sequence in one forward, from fresh states: by unroll, or in a loop."""

    def __init__(self, net: nn.Module, unrolled: bool):
        super().__init__()
        self.net, self.unrolled = net, unrolled

    def forward(self, x: Tensor) -> Any:
        snn.utils.reset(self.net)
        if self.unrolled:
            return snn.unroll(self.net, x)
        return tuple(torch.stack(outs) for outs in zip(*map(self.net, x), strict=True))


def loss_of(outs: Any) -> Tensor:
    return outs[0].sum() + (outs[1] ** 2).sum()


def ensemble() -> tuple[list[nn.Module], Any]:
    """Networks with parameters of their own, and the function of (parameters, buffers, x) that runs one of them."""
    nets = [Whole(exact(network()), unrolled=True) for _ in range(3)]
    with torch.no_grad():
        for i, net in enumerate(nets):
            for p in net.parameters():
                p.mul_(1 + i / 4)
    return nets, copy.deepcopy(nets[0])


both_ways = pytest.mark.parametrize("unrolled", [True, False], ids=["unrolled", "by steps"])


@both_ways
def test_an_ensemble_runs_and_learns_as_its_members_do(unrolled):
    nets, one = ensemble()
    one.unrolled = unrolled
    params, buffers = stack_module_state(nets)
    x = quarters(7, 3, 6)

    def loss(p: Any, b: Any) -> Tensor:
        return loss_of(functional_call(one, (p, b), (x,)))

    spk, mem = vmap(lambda p, b: functional_call(one, (p, b), (x,)))(params, buffers)
    grads = vmap(grad(loss))(params, buffers)
    for i, net in enumerate(nets):
        wanted = net(x)
        assert_close(spk[i], wanted[0], "spikes", exact=True)
        assert_close(mem[i], wanted[1], "membranes")
        loss_of(wanted).backward()
        for name, p in net.named_parameters():
            assert_close(grads[name][i], p.grad, name)


def test_what_follows_from_a_learned_value_follows_in_an_ensemble():
    """C of a Lapicque, from beta; vmap says of no parameter that it is learned."""
    nets = [snn.Lapicque(beta=beta, R=5.0, learn_beta=True) for beta in (0.5, 0.8)]
    for net in nets:
        net.beta.data.mul_(1.1)  # learned since it was made
    one, (params, buffers) = copy.deepcopy(nets[0]), stack_module_state(nets)
    x = quarters(3, 4) / 4
    _, mem = vmap(lambda p, b: functional_call(one, (p, b), (x,)))(params, buffers)
    assert_close(mem, torch.stack([net(x)[1] for net in nets]), "membranes")


WHOLE_SEQUENCES = {
    "StateLeaky": lambda: snn.StateLeaky(beta=0.8, channels=6, learn_beta=True),
    "of a window": lambda: snn.StateLeaky(beta=0.8, channels=6, learn_beta=True, kernel_truncation_steps=3),
    "LinearLeaky": lambda: snn.LinearLeaky(beta=0.8, in_features=6, out_features=4),
    "LeakyParallel": lambda: snn.LeakyParallel(6, 4, learn_beta=True),
    "of all neurons": lambda: snn.LeakyParallel(6, 4, learn_beta=True, weight_hh_enable=True),
    "AssociativeLeaky": lambda: snn.AssociativeLeaky(6, 2, 4, 8),
    "without query": lambda: snn.AssociativeLeaky(6, 2, 4, 8, use_q_projection=False),
}


@pytest.mark.parametrize("layer", WHOLE_SEQUENCES)
def test_an_ensemble_of_layers_over_whole_sequences_does_as_its_members_do(layer):
    torch.manual_seed(0)
    nets = [WHOLE_SEQUENCES[layer]() for _ in range(2)]
    params, buffers = stack_module_state(nets)
    x = torch.rand(5, 3, 6)

    def run(p: Any, b: Any) -> Tensor:
        return torch.cat([out.flatten() for out in tree_leaves(functional_call(copy.copy(nets[0]), (p, b), (x,)))])

    outs = vmap(run)(params, buffers)
    grads = vmap(grad(lambda p, b: run(p, b).square().sum()))(params, buffers)
    for i, net in enumerate(nets):
        wanted = torch.cat([out.flatten() for out in tree_leaves(net(x))])
        assert_close(outs[i], wanted, "outputs")
        wanted.square().sum().backward()
        for name, p in net.named_parameters():
            if p.requires_grad:
                assert_close(grads[name][i], p.grad, name)


@pytest.mark.parametrize("transform", [vmap, lambda f: vmap(grad(f))], ids=["vmap", "vmap of grad"])
def test_what_is_kept_of_a_transform_that_is_over_is_reported_and_can_be_reset(transform):
    nets, one = ensemble()
    params, buffers = stack_module_state(nets)
    x = quarters(7, 3, 6)
    transform(lambda p, b: loss_of(functional_call(one, (p, b), (x,))))(params, buffers)
    with pytest.raises(RuntimeError, match=r"holds a state of a torch.func.vmap that has ended; call .*reset"):
        one.net(x[0])
    copy.deepcopy(one).to(torch.float64)
    snn.utils.detach(one)
    assert_close(one(x)[1], nets[0](x)[1], "membranes", exact=True)


def test_grad_leaves_a_state_that_is_gone_on_from():
    net, twin = twins(network)
    x = quarters(7, 3, 6)
    grad(lambda x: loss_of(snn.unroll(net, x)))(x)
    snn.unroll(twin, x)
    assert_close(snn.unroll(net, x)[1], snn.unroll(twin, x)[1], "membranes", exact=True)


# -- checkpointing -----------------------------------------------------------------------------------------------------


class Inner(nn.Module):
    """Checkpoints its first layers by itself, as large models do."""

    def __init__(self, net: nn.Sequential):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        first = self.net[:2]
        return self.net[2:](again(first, first, x))


def again(run: Callable[..., Any], net: nn.Module, *args: Any) -> Any:
    return checkpoint(run, *args, use_reentrant=False, context_fn=snn.utils.recomputing(net))


def delayed() -> nn.Sequential:
    return nn.Sequential(snn.SynapticDelay(6, max_delay=3, delay=2.0), *network())


Way = Callable[[nn.Module, Tensor], Tensor]
WAYS: dict[str, tuple[Way, Callable[[], nn.Module]]] = {
    "chunks": (lambda net, x: sum(loss_of(again(snn.unroll, net, net, c)) for c in x.split(3)), network),
    "steps": (lambda net, x: sum(loss_of(again(net, net, x_t)) for x_t in x), network),
    "a loop over a chunk": (lambda net, x: sum(loss_of(again(loop, net, net, c)) for c in x.split(3)), network),
    "within what is unrolled": (lambda net, x: loss_of(snn.unroll(Inner(net), x)), network),
    "within a static network": (lambda net, x: loss_of(snn.unroll(Inner(net), x[0], steps=5)), network),
    "chunks with delays": (lambda net, x: sum(loss_of(again(snn.unroll, net, net, c)) for c in x.split(3)), delayed),
}


def loop(net: nn.Module, chunk: Tensor) -> Any:
    return tuple(torch.stack(outs) for outs in zip(*map(net, chunk), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_what_is_run_again_starts_from_the_states_of_the_first_run(way, monkeypatch):
    run, make = WAYS[way]
    net, twin = twins(make)
    x = quarters(7, 3, 6)
    loss = run(net, x)
    states = [module.mem for module in net.modules() if isinstance(module, snn.Leaky)]
    loss.backward()
    kept = [module.mem for module in net.modules() if isinstance(module, snn.Leaky)]
    assert all(a is b for a, b in zip(states, kept, strict=True)), "the backward changed a state"
    monkeypatch.setitem(globals(), "again", lambda run, net, *args: run(*args))
    run(twin, x).backward()
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert_close(p.grad, q.grad, name)


@pytest.mark.parametrize("make", [network, delayed, lambda: nn.Sequential(snn.BatchNormTT1d(6, 20), *network())])
def test_without_that_it_is_refused(make):
    net = exact(make())
    with pytest.raises(RuntimeError, match=r"would start from where the first run ended.*recomputing"):
        loss_of(checkpoint(snn.unroll, net, quarters(5, 3, 6), use_reentrant=False)).backward()


@pytest.mark.parametrize("reentrant", [False, True])
@both_ways
def test_a_reset_within_what_is_run_again_is_enough(unrolled, reentrant):
    net, twin = twins(lambda: Whole(network(), unrolled))
    x = quarters(7, 3, 6).requires_grad_()
    for _ in range(2):
        loss_of(checkpoint(net, x, use_reentrant=reentrant)).backward()
        loss_of(twin(x)).backward()
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert_close(p.grad, q.grad, name)


# -- nn.DataParallel ---------------------------------------------------------------------------------------------------


def in_parallel(net: nn.Module, x: Tensor, copies: int = 2) -> Any:
    """What nn.DataParallel does, without its devices: copies by the hook that it calls, each a part of the batch."""
    outs = []
    replicas = [replica_of(net) for _ in range(copies)]
    for replica, part in zip(replicas, x.chunk(copies, dim=-2), strict=True):
        outs.append(replica(part))
    return tuple(torch.cat(parts, dim=-2) for parts in zip(*outs, strict=True))


def replica_of(module: nn.Module) -> nn.Module:
    replica = module._replicate_for_data_parallel()
    replica._modules = {name: replica_of(child) for name, child in module._modules.items()}
    replica.__dict__.update(module._parameters)  # torch sets copies of them as plain attributes
    replica.__dict__.update(module._buffers)
    return replica


@both_ways
def test_a_whole_loop_within_dataparallel_is_right(unrolled):
    net, twin = twins(lambda: Whole(network(), unrolled))
    for seed in range(3):
        x = quarters(7, 4, 6, seed=seed)
        for part, wanted in zip(in_parallel(net, x), twin(x), strict=True):
            assert_close(part, wanted, "output", exact=True)
    one_step = quarters(1, 4, 6)
    assert_close(in_parallel(net, one_step)[1], in_parallel(net, one_step)[1], "one step, reset each time", exact=True)


@pytest.mark.parametrize("make", [network, lambda: nn.Sequential(snn.BatchNormTT1d(6, 5)), delayed])
def test_steps_through_dataparallel_are_refused_at_the_second(make):
    net = exact(make())
    if isinstance(net[-1], snn.BatchNormTT1d):
        net.append(leaky(output=True))
    in_parallel(net, quarters(4, 6))
    with pytest.raises(RuntimeError, match=r"is called once per step by an nn.DataParallel.* Put the loop over time"):
        in_parallel(net, quarters(4, 6))
    snn.utils.reset(net)
    in_parallel(net, quarters(4, 6))
