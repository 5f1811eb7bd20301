"""Networks without spikes, trained by the same loop: logistic regression, an MLP, a GRU."""

from torch import Tensor, nn

from ..recipe import Recipe, whole
from ..task import Sizes


class Flat(nn.Module):
    """A network of all steps at once: scores [B, K] of a sequence [T, B, *S]."""

    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the whole sequence."""
        out: Tensor = self.layers(x.transpose(0, 1).flatten(1))
        return out


class Recurrent(nn.Module):
    """A GRU and a readout of every step."""

    def __init__(self, sizes: Sizes, hidden: int = 72):
        super().__init__()
        self.gru = nn.GRU(sizes.inputs, hidden)
        self.readout = nn.Linear(hidden, sizes.outputs)
        self.state: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of all steps, [T, B, K]."""
        out: Tensor = self.readout(self.gru(x.flatten(2))[0])
        return out


def continued(net: nn.Module, x: Tensor) -> Tensor:
    """Run further steps from the last state; the first call, which is longer, starts from zero."""
    assert isinstance(net, Recurrent)
    seen, net.state = net.gru(x, net.state if len(x) == 1 else None)
    out: Tensor = net.readout(seen)
    return out


def logistic(sizes: Sizes) -> nn.Module:
    """One linear layer on all steps."""
    return Flat(nn.Linear(sizes.steps * sizes.inputs, sizes.outputs))


def mlp(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """Two hidden layers on all steps."""
    inputs = sizes.steps * sizes.inputs
    layers = [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
    return Flat(nn.Sequential(*layers, nn.Linear(hidden, sizes.outputs)))


BASELINES = {
    "logistic": Recipe("logistic regression", logistic, run=whole, spiking=False, forecasts=False),
    "mlp": Recipe("MLP", mlp, run=whole, spiking=False, forecasts=False),
    "gru": Recipe("GRU", Recurrent, run=whole, advance=continued, spiking=False),
}
