"""Recurrent neurons of which half have an adaptive threshold: the LSNN of Bellec et al. 2018."""

import torch
from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def network(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """One recurrent layer; neurons with kappa = 0 have a fixed threshold."""
    kappa = torch.zeros(hidden)
    kappa[hidden // 2 :] = 0.3
    rho = torch.exp(-1 / torch.logspace(1.0, 2.3, hidden))
    lif = snn.RALIF(beta=0.9, rho=rho, kappa=kappa, linear_features=hidden, init_hidden=True)
    assert isinstance(lif.recurrent, nn.Linear)
    nn.init.orthogonal_(lif.recurrent.weight, gain=0.5)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(sizes.inputs, hidden),
        lif,
        nn.Linear(hidden, sizes.outputs),
        snn.LI(beta=0.9, init_hidden=True),
    )


RECIPE = Recipe("recurrent ALIF (LSNN)", network)
