"""Steps, loops over steps and unrolled networks are recorded by torch.jit.trace, torch.export and both ONNX exporters,
as operations of torch alone."""

import importlib.util
import io
import subprocess
import sys
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


needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs onnx, onnxscript and onnxruntime",
)


@needs_onnx
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


# -- steps of networks that store their states -------------------------------------------------------------------------


def network(**options: bool) -> nn.Module:
    """A network whose forward is no Sequential, so that its first unrolled run would be checked."""

    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)
            self.lif = snn.Leaky(beta=0.9, init_hidden=True, **options)
            self.last = snn.Synaptic(alpha=0.8, beta=0.9, init_hidden=True, output=True, **options)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return self.last(self.two(self.lif(self.one(x))))

    return Custom().eval()


@pytest.mark.parametrize("surrogate_disable", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_of_a_step_starts_from_the_states_before_it_and_changes_none(surrogate_disable):
    """With torch's check, which records a second time and runs the network once more."""
    net, twin = (network(surrogate_disable=surrogate_disable) for _ in range(2))
    x = torch.rand(2, 4)
    for one in (net, twin):
        one(x)  # the states have a graph, and cannot be constants of a recording as they are
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*does not match the output of the Python function.*")
        traced = torch.jit.trace(net, x)
    wanted = twin(2 * x)
    assert all(map(torch.equal, traced(2 * x), wanted))
    snn.reset(net)
    snn.reset(twin)
    assert all(map(torch.equal, net(x), twin(x)))


STEPS_ELSEWHERE = """
import sys, torch
for file in sys.argv[1:]:
    program, (args, wanted) = torch.export.load(f"{file}.pt2").module(), torch.load(f"{file}.pt")
    assert all(map(torch.equal, program(*args), wanted)), file
assert "spikeloom" not in sys.modules
"""


class ByHand(nn.Module):
    """A step with its state passed by hand."""

    def __init__(self, **options: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.fc, self.lif = nn.Linear(4, 3), snn.Leaky(beta=0.9, **options)

    def forward(self, x: Tensor, mem: Tensor) -> Tensor:
        return self.lif(self.fc(x), mem)


STEPS = {
    "hidden": (network, lambda: (torch.rand(2, 4),)),
    "by hand": (ByHand, lambda: (torch.rand(2, 4), torch.rand(2, 3))),
}


@pytest.mark.filterwarnings("ignore")
def test_exported_steps_run_in_a_process_without_the_library(tmp_path):
    for name, (make, example) in STEPS.items():
        for surrogate_disable in (False, True):
            file = tmp_path / f"{name} {surrogate_disable}"
            program = torch.export.export(make(surrogate_disable=surrogate_disable).eval(), example())
            torch.export.save(program, f"{file}.pt2")
            given = example()
            with torch.no_grad():
                torch.save((given, make(surrogate_disable=surrogate_disable).eval()(*given)), f"{file}.pt")
    files = [str(file.with_suffix("")) for file in tmp_path.glob("*.pt2")]
    assert len(files) == 4
    code = [sys.executable, "-c", STEPS_ELSEWHERE, *files]
    run = subprocess.run(code, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@needs_onnx
@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_spikes_of_a_step(name, dynamo):
    import onnxruntime

    make, example = STEPS[name]
    for surrogate_disable in (False, True):
        file, given = io.BytesIO(), example()
        net = make(surrogate_disable=surrogate_disable).eval()
        if dynamo:
            torch.onnx.export(net, example(), dynamo=True, verbose=False).save(file)
        else:
            torch.onnx.export(net, example(), file, dynamo=False)
        session = onnxruntime.InferenceSession(file.getvalue())
        inputs = zip((one.name for one in session.get_inputs()), (x.numpy() for x in given), strict=True)
        got = session.run(None, dict(inputs))
        with torch.no_grad():
            spk, *states = make(surrogate_disable=surrogate_disable).eval()(*given)
        assert torch.equal(torch.tensor(got[0]), spk)
        assert all(torch.allclose(torch.tensor(g), s, atol=1e-6) for g, s in zip(got[1:], states, strict=True))


class Unrolled(nn.Module):
    def __init__(self, net: nn.Module, steps: int | None = None):
        super().__init__()
        self.net, self.steps = net, steps

    def forward(self, x: Tensor) -> Tensor:
        snn.reset(self.net)
        return snn.unroll(self.net, x, steps=self.steps)


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_an_unrolled_network_is_traced(steps):
    """As TensorBoard's add_graph and counters of operations do, with and without torch's check."""
    net, x = Unrolled(network(), steps), torch.rand(*(() if steps else (5,)), 2, 4)
    wanted = net(x)
    for check in (True, False):
        assert all(map(torch.equal, torch.jit.trace(net, x, check_trace=check, strict=False)(x), wanted))


ELSEWHERE = """
import sys, torch
path = sys.argv[1]
program, (x, *wanted) = torch.export.load(f"{path}/net.pt2").module(), torch.load(f"{path}/results.pt")
got = program(x)
assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True)), "other results"
assert "spikeloom" not in sys.modules
"""


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_an_exported_unrolled_network_runs_in_a_process_without_the_library(tmp_path):
    """For other numbers of steps and rows than the recorded ones."""
    net, dynamic = Unrolled(network()), torch.export.Dim.DYNAMIC
    with torch.no_grad():
        net(torch.rand(3, 7, 4))  # the recording starts with a reset of these states
        program = torch.export.export(net, (torch.rand(5, 2, 4),), dynamic_shapes={"x": {0: dynamic, 1: dynamic}})
        torch.export.save(program, tmp_path / "net.pt2")
        one = torch.rand(1, 3, 4)
        assert all(map(torch.equal, program.module()(one), net(one))), "other results for one step"
        x = torch.rand(40, 3, 4)
        torch.save((x, *net(x)), tmp_path / "results.pt")
    run = subprocess.run([sys.executable, "-c", ELSEWHERE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
