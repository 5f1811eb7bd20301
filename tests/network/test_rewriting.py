"""Unrolling a network of the tutorials raises one error that states all necessary changes."""

import pytest
import torch
from torch import nn

import spikeloom as snn

STEPS, BATCH = 7, 5


class Tutorial5(nn.Module):
    """States by hand, and the loop in forward; `hidden` is half-way to a network for unroll."""

    def __init__(self, start=True, hidden=False):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(12, 8), snn.Leaky(beta=0.9, init_hidden=hidden)
        self.fc2, self.lif2 = nn.Linear(8, 3), snn.Leaky(beta=0.9, init_hidden=hidden, output=True)
        self.start, self.hidden = start, hidden

    def forward(self, x):
        mem1, mem2 = (self.lif1.init_leaky(), self.lif2.init_leaky()) if self.start else (torch.zeros(1),) * 2
        spikes, membranes = [], []
        for _ in range(STEPS):
            if self.hidden:
                spk2, mem2 = self.lif2(self.fc2(self.lif1(self.fc1(x))))
            else:
                spk1, mem1 = self.lif1(self.fc1(x), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes, dim=0), torch.stack(membranes, dim=0)


class Tutorial6(nn.Module):
    def __init__(self, hidden=False):
        super().__init__()
        self.conv, self.lif1 = nn.Conv2d(1, 2, 3, padding=1), snn.Leaky(beta=0.9, init_hidden=hidden)
        self.fc, self.lif2, self.hidden = nn.Linear(24, 3), snn.Leaky(beta=0.9, init_hidden=hidden, output=True), hidden

    def forward(self, x):
        if self.hidden:
            return self.lif2(self.fc(self.lif1(self.conv(x)).view(BATCH, -1)))
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk1, mem1 = self.lif1(self.conv(x), mem1)
        return self.lif2(self.fc(spk1.view(BATCH, -1)), mem2)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (Tutorial5(), (BATCH, 12)), (Tutorial5(start=False), (BATCH, 12)),
        (Tutorial5(start=False, hidden=True), (BATCH, 12)),
        (Tutorial6(), (BATCH, 1, 3, 4)), (Tutorial6(hidden=True), (BATCH, 1, 3, 4)),
    ],
    ids=["5", "5 with zeros", "5 with init_hidden", "6", "6 with init_hidden"],
)  # fmt: skip
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
def test_the_first_message_to_a_network_with_its_own_loop_says_all_that_is_to_do(net, shape, static):
    x = torch.rand(*(() if static else (STEPS,)), *shape)
    with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
        snn.unroll(net, x, steps=STEPS if static else None)
    message = "".join((str(caught.value), *caught.value.__notes__))
    for part in ("init_hidden=True", "take the loop over time out of forward", "let forward return", "x.flatten(1)",
                 "docs/from-snntorch.md"):  # fmt: skip
        assert part in message
