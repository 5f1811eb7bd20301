"""The networks of snnTorch's quickstart and tutorials with their loops, written anew and made small, for `fuse`.

Each entry makes a module and its input; `forward` has the loop that the tutorial writes in or around the network.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import spikeloom as snn

B, IN, HIDDEN, OUT, STEPS = 4, 12, 16, 5, 6
GRAD = snn.surrogate.fast_sigmoid(slope=25)


class Quickstart(nn.Module):
    """Convolutions and neurons that store their states, in a Sequential that is called at every step."""

    def __init__(self) -> None:
        super().__init__()
        kind = {"beta": 0.5, "spike_grad": GRAD, "init_hidden": True, "threshold": 0.3}
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), snn.Leaky(**kind)),
            *(nn.Conv2d(4, 8, 2), nn.MaxPool2d(2), snn.Leaky(**kind)),
            *(nn.Flatten(), nn.Linear(8, OUT), snn.Leaky(output=True, **kind)),
        )

    def forward(self, x: Tensor) -> Any:
        snn.utils.reset(self.net)
        membranes, spikes = [], []
        for _ in range(STEPS):
            spk, mem = self.net(x)
            spikes.append(spk)
            membranes.append(mem)
        return torch.stack(spikes), torch.stack(membranes)


class Feedforward(nn.Module):
    """Tutorials 3 and 5: two fully-connected layers, states by hand; a static input or one with time first."""

    def __init__(self, static: bool) -> None:
        super().__init__()
        self.static = static
        self.fc1, self.lif1 = nn.Linear(IN, HIDDEN), snn.Leaky(beta=0.95, threshold=0.4)
        self.fc2, self.lif2 = nn.Linear(HIDDEN, OUT), snn.Leaky(beta=0.95, threshold=0.4)

    def forward(self, x: Tensor) -> Any:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, membranes = [], []
        for step in range(STEPS):
            spk1, mem1 = self.lif1(self.fc1(x.flatten(1) if self.static else x[step]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes, dim=0), torch.stack(membranes, dim=0)


class SecondOrder(nn.Module):
    """Tutorial 4: a Synaptic and an Alpha neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(IN, HIDDEN)
        self.syn = snn.Synaptic(alpha=0.9, beta=0.8, threshold=0.4)
        self.alpha = snn.Alpha(alpha=0.8, beta=0.7, threshold=0.2)

    def forward(self, x: Tensor) -> Any:
        syn, mem = self.syn.init_synaptic()
        syn_exc, syn_inh, mem2 = self.alpha.init_alpha()
        found = []
        for step in range(STEPS):
            spk, syn, mem = self.syn(self.fc(x[step]), syn, mem)
            spk2, syn_exc, syn_inh, mem2 = self.alpha(spk, syn_exc, syn_inh, mem2)
            found.append((spk2, mem, mem2))
        return [torch.stack(parts) for parts in zip(*found, strict=True)]


class Convolutional(nn.Module):
    """Tutorial 6: convolutions in a forward with its own loop."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(1, 3, 3), snn.Leaky(beta=0.5, spike_grad=GRAD, threshold=0.3)
        self.conv2, self.lif2 = nn.Conv2d(3, 6, 2), snn.Leaky(beta=0.5, spike_grad=GRAD, threshold=0.2)
        self.fc, self.lif3 = nn.Linear(6, OUT), snn.Leaky(beta=0.5, spike_grad=GRAD, threshold=0.1)

    def forward(self, x: Tensor) -> Any:
        mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
        spikes, membranes = [], []
        for _ in range(STEPS):
            spk1, mem1 = self.lif1(functional.max_pool2d(self.conv1(x), 2), mem1)
            spk2, mem2 = self.lif2(functional.max_pool2d(self.conv2(spk1), 2), mem2)
            spk3, mem3 = self.lif3(self.fc(spk2.view(x.size(0), -1)), mem3)
            spikes.append(spk3)
            membranes.append(mem3)
        return torch.stack(spikes), torch.stack(membranes)


class Events(Quickstart):
    """Tutorial 7: the frames of an event camera, one per step."""

    def forward(self, x: Tensor) -> Any:
        snn.utils.reset(self.net)
        spikes = []
        for step in range(x.size(0)):
            spk, _ = self.net(x[step])
            spikes.append(spk)
        return torch.stack(spikes)


class Regression(nn.Module):
    """Regression tutorials: membranes of neurons that never reset, after recurrent and LSTM neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.rec = snn.RLeaky(beta=0.9, linear_features=HIDDEN, threshold=0.4, init_hidden=True)
        self.fc1, self.lstm = nn.Linear(IN, HIDDEN), snn.SLSTM(HIDDEN, HIDDEN, threshold=0.1, init_hidden=True)
        self.fc2 = nn.Linear(HIDDEN, 1)
        self.read = snn.Leaky(beta=0.8, learn_beta=True, reset_mechanism="none", init_hidden=True, output=True)

    def forward(self, x: Tensor) -> Any:
        for neuron in (self.rec, self.lstm, self.read):
            neuron.reset_mem()
        membranes = []
        for step in range(x.shape[0]):
            spk = self.lstm(self.rec(self.fc1(x[step])))
            _, mem = self.read(self.fc2(spk))
            membranes.append(mem)
        return torch.stack(membranes)


class Population(nn.Module):
    """The population tutorial: several output neurons per class, and the loss within the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(IN, HIDDEN), snn.Leaky(beta=0.9, threshold=0.4, init_hidden=True)
        self.fc2, self.lif2 = (
            nn.Linear(HIDDEN, 2 * OUT),
            snn.Leaky(beta=0.9, threshold=0.4, init_hidden=True, output=True),
        )

    def forward(self, x: Tensor) -> Any:
        snn.utils.reset(self)
        loss, spikes = torch.zeros(()), []
        target = torch.arange(B) % OUT
        for x_t in x:
            spk, mem = self.lif2(self.fc2(self.lif1(self.fc1(x_t))))
            spikes.append(spk)
            loss += functional.cross_entropy(mem.view(B, OUT, 2).sum(-1), target)
        return loss, snn.functional.accuracy_rate(torch.stack(spikes), target, population_code=True, num_classes=OUT)


class Autoencoder(nn.Module):
    """The autoencoder tutorial: an encoder's loop with batch norms, then a decoder's loop."""

    def __init__(self) -> None:
        super().__init__()
        kind = {"beta": 0.5, "spike_grad": snn.surrogate.atan(alpha=2.0), "init_hidden": True, "threshold": 0.4}
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), snn.Leaky(**kind)),
            *(nn.Flatten(1), nn.Linear(4 * 16, 8), snn.Leaky(output=True, **kind)),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(8, 4 * 16), snn.Leaky(**kind), nn.Unflatten(1, (4, 4, 4))),
            *(nn.ConvTranspose2d(4, 1, 2, stride=2), snn.Leaky(output=True, **kind | {"reset_mechanism": "none"})),
        )

    def forward(self, x: Tensor) -> Any:
        snn.utils.reset(self.encoder)
        snn.utils.reset(self.decoder)
        codes, images = [], []
        for _ in range(STEPS):
            spk, _ = self.encoder(x)
            codes.append(spk)
        for step in range(STEPS):
            _, mem = self.decoder(codes[step])
            images.append(mem)
        return torch.stack(images, dim=4)


class ConvLSTM(nn.Module):
    """Convolutional LSTM neurons over frames."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = snn.SConv2dLSTM(1, 2, 3, max_pool=2, threshold=0.05)
        self.fc, self.lif = nn.Linear(2 * 4 * 4, OUT), snn.Leaky(beta=0.9, threshold=0.1)

    def forward(self, x: Tensor) -> Any:
        syn, mem = self.cell.init_sconv2dlstm()
        mem2, out = self.lif.init_leaky(), []
        for x_t in x:
            spk, syn, mem = self.cell(x_t, syn, mem)
            spk, mem2 = self.lif(self.fc(spk.flatten(1)), mem2)
            out.append(spk)
        return torch.stack(out), mem


IMAGES, FRAMES, SERIES = (B, 1, 8, 8), (STEPS, B, 1, 8, 8), (STEPS, B, IN)
TUTORIALS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "quickstart": (Quickstart, IMAGES),
    "3": (lambda: Feedforward(static=False), SERIES),
    "4": (SecondOrder, SERIES),
    "5": (lambda: Feedforward(static=True), (B, 1, IN)),
    "6": (Convolutional, IMAGES),
    "7": (Events, FRAMES),
    "regression": (Regression, SERIES),
    "population": (Population, SERIES),
    "autoencoder": (Autoencoder, IMAGES),
    "convolutional LSTM": (ConvLSTM, FRAMES),
}
"""By the name of the tutorial: what makes its network, and the shape of its input."""
