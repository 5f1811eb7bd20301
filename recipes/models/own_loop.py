"""A network with its own loop over the steps, as in snnTorch's tutorials, which `snn.fuse` runs on kernels."""

import torch
from torch import Tensor, nn

import spikeloom as snn

from ..recipe import Recipe, whole
from ..task import Sizes


class Net(nn.Module):
    """Two layers whose states are passed by hand; the readout is a membrane that is not reset."""

    def __init__(self, sizes: Sizes, hidden: int = 128):
        super().__init__()
        self.hidden = nn.Linear(sizes.inputs, hidden)
        self.lif = snn.RLeaky(beta=0.9, linear_features=hidden)
        self.readout = nn.Linear(hidden, sizes.outputs)
        self.li = snn.Leaky(beta=0.9, reset_mechanism="none")
        assert isinstance(self.lif.recurrent, nn.Linear)
        nn.init.orthogonal_(self.lif.recurrent.weight, gain=0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Membranes of all steps, [T, B, K]."""
        spk, mem = self.lif.init_rleaky()
        mem_out = self.li.init_leaky()
        membranes = []
        for x_t in x:
            spk, mem = self.lif(self.hidden(x_t.flatten(1)), spk, mem)
            _, mem_out = self.li(self.readout(spk), mem_out)
            membranes.append(mem_out)
        return torch.stack(membranes)


RECIPE = Recipe("recurrent LIF, own loop and fuse", Net, run=whole, loops=True, forecasts=False)
