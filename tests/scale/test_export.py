"""A loop over steps is recorded by torch.jit.trace, torch.export and ONNX's exporters as operations of torch alone."""

import importlib.util
import io
import warnings

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.neurons._sequence import WholeSequence

from ..neurons.zoo import ZOO, slow_unless_compiled_differently

KINDS = {
    name: kind
    for name, kind in ZOO.items()
    if not issubclass(kind.make if isinstance(kind.make, type) else type(kind.make), WholeSequence)
}
SOME = ["Leaky", "RSynaptic through Linear", "SLSTM", "Alpha", "Izhikevich"]


class Loop(nn.Module):
    """Three steps, the states kept by the neuron or passed by hand."""

    def __init__(self, neuron: nn.Module, hidden: bool):
        super().__init__()
        self.neuron, self.hidden = neuron, hidden

    def forward(self, x: Tensor) -> Tensor:
        snn.utils.reset(self.neuron)
        spikes, states = [], ()
        for x_t in x.unbind(0):
            outs = self.neuron(x_t, *states)
            spk, *states = outs if isinstance(outs, tuple) else (outs,)
            states = () if self.hidden else states
            spikes.append(spk)
        return torch.stack(spikes)


def made(name: str, hidden: bool, surrogate_disable: bool) -> tuple[Loop, list[Tensor]]:
    kind, options = KINDS[name], {}
    if hidden:
        options["init_hidden"] = True
    if surrogate_disable:
        options["surrogate_disable"] = True
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop = Loop(kind.make(**{**kind.numbers, **options}), hidden or kind.numbers.get("init_hidden", False))
    return loop.eval(), [torch.rand(3, *kind.shape) * kind.scale + kind.shift for _ in range(2)]


def traced(loop: nn.Module, x: Tensor) -> nn.Module:
    return torch.jit.trace(loop, x)


def exported(loop: nn.Module, x: Tensor) -> nn.Module:
    program = torch.export.export(loop, (x,))
    assert not [n for n in program.graph.nodes if "spikeloom" in str(n.target)]
    return program.module()


RECORDED = {
    "traced": (traced, [(False, False), (True, True)]),
    "exported": (exported, [(False, True), (True, False)]),
}
"""How, whether states are hidden, and whether the surrogate is disabled: any two meet."""


@pytest.mark.parametrize("how", RECORDED)
@pytest.mark.parametrize("name", slow_unless_compiled_differently(name for name in KINDS if name != "NoisyLeaky"))
@pytest.mark.filterwarnings("ignore")
def test_a_recorded_loop_gives_the_spikes_of_the_loop(name, how):
    record, options = RECORDED[how]
    for hidden, surrogate_disable in options:
        try:
            loop, (x, other) = made(name, hidden, surrogate_disable)
        except TypeError:  # a neuron without that option
            continue
        run = record(loop, x)
        snn.utils.reset(loop)
        assert torch.equal(run(other), loop(other))


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs onnx, onnxscript and onnxruntime",
)
@pytest.mark.parametrize(
    ("name", "dynamo"), [*((name, False) for name in SOME), *((name, True) for name in ("SLSTM", "Izhikevich"))]
)
@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_spikes_of_the_loop(name, dynamo):
    import onnxruntime

    loop, (x, other) = made(name, False, True)
    file = io.BytesIO()
    if dynamo:
        torch.onnx.export(loop, (x,), dynamo=True, verbose=False).save(file)
    else:
        torch.onnx.export(loop, (x,), file, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue())
    (got,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    assert torch.equal(torch.tensor(got), loop(other))
