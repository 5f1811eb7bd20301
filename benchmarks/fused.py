"""The loop that a user has written, states by hand: fused, plain, unrolled, and in snnTorch."""

from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn

import spikeloom as snn

from .leaky import PEER, STEPPED, TX, UNROLLED, current
from .runner import Case, Outcome, Run, installed

BETA, OUTPUTS = 0.9, 10
FUSED = "spikeloom, fused"


class Net(nn.Module):
    """Leaky, Linear, Leaky: a loop over time within the forward."""

    def __init__(self, library: ModuleType, inputs: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.fc = nn.Linear(inputs, OUTPUTS)
        self.hidden, self.output = library.Leaky(beta=BETA), library.Leaky(beta=BETA)

    def forward(self, x: Tensor) -> Tensor:
        """The membranes of the output neurons."""
        mem, mem_out, found = self.hidden.reset_mem(), self.output.reset_mem(), []
        for step in range(len(x)):
            spk, mem = self.hidden(x[step], mem)
            _, mem_out = self.output(self.fc(spk), mem_out)
            found.append(mem_out)
        return torch.stack(found)


def outcome(membranes: Tensor, x: Tensor) -> Outcome:
    """Run backward from the sum of all membranes."""
    (grad,) = torch.autograd.grad(membranes.sum(), x)
    return {"membranes": membranes.detach(), "input gradients": grad}


def looped(library: str, fused: bool, x: Tensor) -> Run:
    """The loop, as it is or fused."""
    net: nn.Module = Net(installed(library), x.shape[-1])
    run = snn.fuse(net) if fused else net
    return lambda: outcome(run(x), x)


def unrolled(x: Tensor) -> Run:
    """The same network without the loop."""
    fc = Net(snn, x.shape[-1]).fc
    net = nn.Sequential(snn.Leaky(beta=BETA, init_hidden=True), fc, snn.Leaky(beta=BETA, init_hidden=True, output=True))

    def run() -> Outcome:
        snn.utils.reset(net)
        return outcome(snn.unroll(net, x)[1], x)

    return run


FUSE = Case(
    name="fuse",
    title="A user's loop over T steps of Leaky, Linear, Leaky on [T, B, N], forward and backward",
    axes=TX,
    shapes=((100, 16, 512), (500, 16, 512), (500, 1, 128)),
    small=(12, 2, 16),
    inputs=current,
    contestants={
        FUSED: partial(looped, "spikeloom", True),
        UNROLLED: unrolled,
        STEPPED: partial(looped, "spikeloom", False),
        PEER: partial(looped, "snntorch", False),
    },
    reference=STEPPED,
    ours=FUSED,
)
