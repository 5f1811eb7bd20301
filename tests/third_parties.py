"""Run packages that know snnTorch, or any PyTorch network, in a process of its own; print what they find as JSON.

`python -m tests.third_parties snntorch captum torchinfo` uses snnTorch; with `spikeloom` it is an alias of spikeloom.
"""

import contextlib
import io
import json
import sys
import warnings
from typing import Any

import torch
from torch import Tensor, nn


def by_hand(snn: Any) -> nn.Module:
    """A network in the form of snnTorch's tutorials: states by hand, and a loop over time in its forward."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(8, 6), snn.Leaky(beta=0.5)
            self.fc2, self.lif2 = nn.Linear(6, 3), snn.Leaky(beta=0.5)

        def forward(self, x: Tensor) -> Tensor:
            mem1, mem2, total = self.lif1.init_leaky(), self.lif2.init_leaky(), torch.zeros(())
            for _ in range(5):
                spk1, mem1 = self.lif1(self.fc1(x), mem1)
                _, mem2 = self.lif2(self.fc2(spk1), mem2)
                total = total + mem2
            return total

    return weighted(Net())


def weighted(net: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randint(-16, 24, p.shape, generator=draw) / 16)
    return net


def captum(snn: Any, x: Tensor) -> Any:
    from captum.attr import DeepLift, IntegratedGradients, LayerActivation, Saliency

    net = by_hand(snn)
    ways = {name: way(net).attribute(x, target=1) for name, way in (("saliency", Saliency), ("deep lift", DeepLift))}
    ways["integrated gradients"] = IntegratedGradients(net).attribute(x, target=1, n_steps=8)
    ways["layer"] = LayerActivation(net, net.fc1).attribute(x)
    return {name: way.tolist() for name, way in ways.items()}


def torchinfo(snn: Any, x: Tensor) -> Any:
    import torchinfo as package

    message = package.summary(by_hand(snn), input_data=x, verbose=0)
    return message.total_params, message.trainable_params, message.total_mult_adds, message.total_output_bytes


def thop(snn: Any, x: Tensor) -> Any:
    import thop as package

    return package.profile(by_hand(snn), inputs=(x,), verbose=False)


def spikerplus(snn: Any, x: Tensor) -> Any:
    import spikerplus as package

    def layer(model: str, size: int) -> dict[str, Any]:
        learn = dict.fromkeys(("learn_alpha", "learn_beta", "learn_threshold"), False)
        values = {"alpha": 0.5, "beta": 0.5, "threshold": 1.0, "reset_mechanism": "subtract"}
        return {"neuron_model": model, "n_neurons": size, **values, **learn}

    found = {}
    for model in ("if", "lif", "syn", "rif", "rlif"):
        layers = {"layer_0": layer(model, 6), "layer_1": layer(model, 3)}
        net = weighted(package.NetBuilder({"n_cycles": 5, "n_inputs": 8, **layers}).build())
        net((x > 0.5).float().expand(5, *x.shape))
        found[model] = [spk.tolist() for spk in net.spk_rec.values()]
        if model in ("if", "lif"):
            sizes = {"neurons_bw": 16, "fp_dec": 8, "weights_bw": 8}
            found[f"{model}, VHDL"] = package.VhdlGenerator(net, sizes).generate().code()
    return found


PACKAGES = {function.__name__: function for function in (captum, torchinfo, thop, spikerplus)}


def main(library: str, *packages: str) -> dict[str, Any]:
    if library == "spikeloom":
        import spikeloom

        spikeloom.as_snntorch()
    import snntorch as snn

    x = torch.rand(4, 8, generator=torch.Generator().manual_seed(2))
    with contextlib.redirect_stdout(io.StringIO()):
        found = {package: PACKAGES[package](snn, x) for package in packages}
    assert ("spikeloom" in sys.modules) == (library == "spikeloom")
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
