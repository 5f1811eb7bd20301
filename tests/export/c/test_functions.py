"""Functions of torch between the layers of a forward, in C."""

import torch
from torch import nn
from torch.nn import functional

import spikeloom as snn
from tests.export.c.program import Program, needs_compiler
from tests.export.c.test_export import UNIT, spikes

pytestmark = needs_compiler

FUNCTIONS = {
    "clamp": lambda net, x: torch.clamp(x, -0.25, 0.5),
    "clamp by name": lambda net, x: x.clamp(max=0.25) + torch.clamp(input=x, min=-0.5),
    "clamp to a tensor": lambda net, x: x.clamp(min=net.scale) - x.clip(None, -x),
    "clamp_min": lambda net, x: torch.clamp_min(x, 0.25) * x.clamp_max(0.75),
    "in place": lambda net, x: (x + 0).clamp_(min=0).mul_(2.0).add_(x),
    "relu": lambda net, x: functional.relu(x) + functional.leaky_relu(x, 0.25) - functional.relu6(4 * x),
    "elu": lambda net, x: functional.elu(x) + functional.silu(x) * functional.softplus(x),
    "hard": lambda net, x: functional.hardtanh(x, -0.5, 0.5) + functional.hardsigmoid(x) - functional.hardswish(x),
    "elementary": lambda net, x: torch.exp(x) * x.sin() - x.cos() / (2.0 + x.abs().sqrt()) + torch.log(x**2 + 1.0),
    "powers": lambda net, x: x**3 - x.square() + x.abs().add(0.5).pow(-0.5) + (2.0 + x).reciprocal(),
    "comparisons": lambda net, x: (x > 0.25).float() - torch.le(x, -0.5).to(x.dtype) + (x != 0).float(),
    "where": lambda net, x: torch.where(x > 0, x, -x * net.scale) + torch.where(x < 0, 1.0, x),
    "numbers": lambda net, x: 1.0 - x / x.shape[-1] + torch.true_divide(1, x.square() + 1),
    "alpha": lambda net, x: torch.add(x, net.scale, alpha=2) - torch.rsub(x, 1, alpha=3),
    "constants": lambda net, x: x * net.scale + net.bias.sigmoid() - net.gain,
    "matrix": lambda net, x: x @ net.mix + functional.linear(x, net.mix.t() * 0.5),
    "layer_norm": lambda net, x: functional.layer_norm(x, (4,), net.bias, eps=1e-3),
    "slices": lambda net, x: x[:, :, 1:3].flip(-1) + x[..., [3, 0]] - x[:, -1:, ::2],
    "parts": lambda net, x: torch.cat(x.chunk(2, 2)[::-1], -1) * torch.stack(x.unbind(1), 1),
    "transposed": lambda net, x: (
        x.transpose(1, 2).permute(0, 2, 1) + x.mT.reshape(-1, 3, 4) + x.unsqueeze(1).squeeze(1)
    ),
    "broadcast": lambda net, x: x * x.mean(-1, keepdim=True) + x[:, :, :1] - x[:, :1].expand(-1, 3, -1),
    "repeated": lambda net, x: x.repeat(1, 1, 2)[:, :, 2:6] + functional.interpolate(x, scale_factor=2)[..., :4],
    "padded": lambda net, x: functional.pad(x, (1, 2))[:, :, 1:5] + functional.pad(x, (2, 2), "circular")[:, :, :4],
    "reduced": lambda net, x: x + x.sum(2, keepdim=True) - x.amax(-1, keepdim=True),
    "modules": lambda net, x: net.modules_of(x),
    "nothing": lambda net, x: functional.dropout(x, 0.5, net.training).contiguous().view(len(x), -1).view_as(x),
}
"""Of an input [B, 3, 4], as users write them."""


class Calls(nn.Module):
    """Calls all functions, each for a neuron of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale, self.bias, self.gain = (
            nn.Parameter(torch.rand(3, 4)),
            nn.Parameter(torch.rand(4)),
            nn.Parameter(torch.tensor(0.5)),
        )
        self.mix = nn.Parameter(torch.randint(-8, 9, (4, 4)) / 8)
        self.modules_of = nn.Sequential(
            *(nn.LeakyReLU(0.5), nn.ReLU6(), nn.ZeroPad1d(1), nn.Upsample(scale_factor=2), nn.LayerNorm(12), nn.ELU()),
            *(nn.Softplus(2.0), nn.SiLU(), nn.Hardtanh(), nn.Threshold(0.1, 0.0), nn.AvgPool1d(3)),
        )
        self.lif = nn.ModuleList([snn.Leaky(0.5, **UNIT) for _ in FUNCTIONS])

    def forward(self, x):
        outs = []
        for lif, function in zip(self.lif, FUNCTIONS.values(), strict=True):
            y = function(self, x)
            outs += [y.flatten(1), lif(y).flatten(1)]
        return torch.cat(outs, 1)


def test_functions_of_torch_compute_what_they_compute_in_the_library(tmp_path):
    """In floating point to rounding; in integers with the bits of the simulation, and about the same values."""
    net = Calls().eval()
    x = torch.randint(-10, 11, (6, 2, 3, 4)) / 8
    wanted = spikes(net, x)
    made = snn.export_c(net, x, tmp_path / "float.c")
    found = Program(made, wanted.shape[2]).run(x[:, 1])
    torch.testing.assert_close(found, wanted[:, 1], rtol=1e-5, atol=1e-5)
    whole = Program(snn.export_c(net, x, tmp_path / "int8.c", "int8"), wanted.shape[2], torch.int8, torch.int32)
    simulated = snn.export.simulate_int8(net, x)
    got = whole.run((x[:, 1] * torch.tensor(127 / 1.25)).round().to(torch.int8)).double()
    unit = float(simulated[:, 1].abs().max() / got.abs().max())
    torch.testing.assert_close((got * unit).float(), simulated[:, 1], rtol=1e-6, atol=0)
    assert float(((simulated - wanted).abs() > 0.05).float().mean()) < 0.05
