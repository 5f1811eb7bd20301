"""A run can be recorded as a CUDA graph: nothing in it waits for the device, and what is replayed starts anew."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import spikeloom as snn
from spikeloom.engine.gpu import cuda_graphs
from spikeloom.engine.gpu import launch as gpu_launch
from spikeloom.engine.gpu import recurrent as gpu_recurrent
from spikeloom.engine.jit import triton_jit

from ..network.networks import quarters, twins
from ..oracle import assert_close

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Whole(nn.Module):
    """All steps of a sequence in one forward, from fresh states: by unroll, or in a loop."""

    def __init__(self, net: nn.Module, unrolled: bool = True):
        super().__init__()
        self.net, self.unrolled = net, unrolled

    def forward(self, x: Tensor) -> Any:
        snn.utils.reset(self.net)
        return tuple(tree_leaves(snn.unroll(self.net, x) if self.unrolled else [self.net(x_t) for x_t in x]))


def behind_linear(neuron: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), neuron)


def recurrent() -> nn.Module:
    return behind_linear(snn.RLeaky(beta=0.9, V=1.0, linear_features=8, init_hidden=True, output=True))


def images() -> nn.Module:
    gates = snn.SConv2dLSTM(1, 2, 3, threshold=0.1, learn_threshold=True, init_hidden=True)
    return nn.Sequential(nn.Unflatten(1, (1, 1, 5)), gates)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "recurrent": recurrent,
    "wide": recurrent,
    "wide, within a graph": recurrent,
    "learning": lambda: behind_linear(snn.Leaky(beta=0.9, learn_beta=True, learn_threshold=True, init_hidden=True)),
    "two states": lambda: behind_linear(snn.Synaptic(alpha=0.9, beta=0.8, init_hidden=True, output=True)),
    "constants": lambda: behind_linear(snn.Lapicque(beta=0.9, init_hidden=True, output=True)),
    "whole sequences": lambda: behind_linear(snn.StateLeaky(beta=0.9, channels=8, learn_beta=True)),
    "a window": lambda: behind_linear(snn.StateLeaky(beta=0.9, channels=8, learn_beta=True, kernel_truncation_steps=4)),
    "of all neurons": lambda: snn.LeakyParallel(5, 8, learn_beta=True, weight_hh_enable=True),
    "a matrix": lambda: snn.AssociativeLeaky(5, 2, 4, 8),
    "gates": lambda: snn.SLSTM(5, 8, threshold=0.1, init_hidden=True, output=True),
    "gates, within a graph": lambda: snn.SLSTM(5, 8, threshold=0.1, init_hidden=True),
    "gates of images": images,
    "gates of images, within a graph": images,
}


class OneDevice(TorchDispatchMode):
    """Refuses what a stream that is being recorded would refuse: to have a tensor made, or copied, from another
    device. A value that is asked for raises by itself where tensors have none."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        seen = {t.device.type for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)}
        assert seen <= {"meta"}, f"{function} has tensors on {seen}"
        return out


WHOLE_SEQUENCES = ("whole sequences", "a window", "of all neurons", "a matrix")
RUNS = [
    (network, backend, unrolled)
    for network in NETWORKS
    for backend in ("triton", "loop")
    for unrolled in (True, False)
    if (unrolled or network not in WHOLE_SEQUENCES) and (network, backend) != ("a window", "triton")
]


@pytest.mark.parametrize(("network", "backend", "unrolled"), RUNS)
def test_no_run_waits_for_a_value_or_copies_one(network, backend, unrolled, monkeypatch, tuned):
    """On a device without values, where the kernels are not launched and all around them is as it is on a GPU."""
    for module in (gpu_launch, gpu_recurrent):
        monkeypatch.setattr(module, "run", lambda *given: None)
    monkeypatch.setattr(triton_jit, "refusals", lambda *given: [])
    tuned(gpu_recurrent_most=4 if "wide" in network else 8)
    monkeypatch.setattr(cuda_graphs, "captured", lambda x: "within" in network)
    net = Whole(NETWORKS[network](), unrolled).to("meta")
    x = torch.empty(6, 2, 5, device="meta", requires_grad=True)
    with snn.backend(backend), OneDevice():
        outs = [out for out in net(x) if out.requires_grad]
        total = torch.stack([out.sum() for out in outs]).sum()
        torch.autograd.grad(total, [x, *(p for p in net.parameters() if p.requires_grad)])
    cuda_graphs.release()


@pytest.mark.parametrize("widest", [8, 4], ids=["one kernel", "steps"])
def test_a_recorded_run_gives_for_each_input_what_a_plain_one_gives(widest, tuned):
    """Recorded where there is a GPU."""
    tuned(gpu_recurrent_most=widest)
    net, twin = twins(lambda: Whole(recurrent()))
    net, twin = net.to(DEVICE), twin.to(DEVICE)
    first, second = (quarters(6, 2, 5, seed=seed).to(DEVICE) for seed in range(2))
    run = torch.cuda.make_graphed_callables(net, (first,)) if DEVICE == "cuda" else net
    for x in (first, second, first):
        for each, outs in ((net, run(x)), (twin, twin(x))):
            each.zero_grad()
            torch.stack([out.sum() for out in outs]).sum().backward()
        for ours, theirs in zip(run(x), twin(x), strict=True):
            assert_close(ours, theirs, "an output")
        for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
            assert_close(p.grad, q.grad, name)
