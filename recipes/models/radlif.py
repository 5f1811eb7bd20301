"""Recurrent adaptive neurons (RadLIF, Bittar and Garner 2022): the equation of AdLIF, made recurrent by `snn.cell`."""

import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom import ops

from ..recipe import Recipe
from ..task import Sizes


@snn.cell(recurrent=True, decays=("beta", "rho"))
def RAdLIF(
    x: Tensor, mem: Tensor, adapt: Tensor, *, beta: float = 0.9, rho: float = 0.97, a: float = 0.5, b: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    """A leaky neuron whose input, the recurrent one included, is reduced by a slow current."""
    mem = beta * mem + (1 - beta) * (x - adapt)
    spk = ops.spike(mem - 1)
    fired = ops.detach(spk)
    adapt = rho * adapt + (1 - rho) * a * mem + b * spk
    return spk, mem - fired, adapt


def network(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """One recurrent layer."""
    beta, rho = (torch.exp(-1 / torch.linspace(low, high, hidden)) for low, high in ((3.0, 25.0), (30.0, 120.0)))
    lif = RAdLIF(
        beta=beta,
        rho=rho,
        a=torch.rand(hidden),
        b=torch.rand(hidden),
        learn=("beta", "rho", "a", "b"),
        decay="sigmoid",
        linear_features=hidden,
        init_hidden=True,
    )
    nn.init.orthogonal_(lif.recurrent.weight)
    encode = nn.Linear(sizes.inputs, hidden)
    with torch.no_grad():
        encode.weight *= 4  # a neuron weights its input by 1 - beta
    return nn.Sequential(
        nn.Flatten(), encode, lif, nn.Linear(hidden, sizes.outputs), snn.LI(beta=0.9, init_hidden=True)
    )


RECIPE = Recipe("recurrent AdLIF", network)
