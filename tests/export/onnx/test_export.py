"""A file of export_onnx computes in onnxruntime what `unroll` computes, for any number of steps and rows."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import spikeloom as snn
from spikeloom.export.onnx.file import graphs_of

from .branches import FEATURES, FEW, NAMES, Branches, is_exact, leaky

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def small() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), leaky(), nn.Linear(5, 3), leaky(output=True)).eval()


def in_runtime(content: bytes | Path, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    session = onnxruntime.InferenceSession(content)
    given = {name: x.numpy() if isinstance(x, Tensor) else x for name, x in inputs.items()}
    results = session.run(None, given)
    return dict(zip((o.name for o in session.get_outputs()), map(torch.as_tensor, results), strict=True))


def unrolled(net: nn.Module, x: Tensor, steps: int | None = None, reset: bool = True) -> Any:
    if reset:
        snn.reset(net)
    with torch.no_grad():
        return snn.unroll(net.eval(), x, steps=steps, check=False)


def assert_like(net: Branches, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Spikes equal where sums are exact; else at most one in a hundred differs."""
    for name in net.names:
        ours, theirs = got[str(NAMES.index(name))], wanted[str(NAMES.index(name))]
        assert ours.shape == theirs.shape, name
        differing = int((~torch.isclose(ours, theirs, rtol=1e-4, atol=1e-5)).sum())
        assert differing <= (0 if is_exact(name) else 0.01 * ours.numel()), name


@pytest.mark.parametrize(
    "names", [FEW, *(pytest.param(NAMES[i::6], marks=pytest.mark.slow) for i in range(6))], ids=lambda names: names[0]
)
def test_neurons_and_layers_give_the_spikes_of_unroll(names, tmp_path):
    """For few and many steps and rows, from reset states whatever the states of the network are."""
    net = Branches(names).eval()
    unrolled(net, torch.rand(3, 2, FEATURES))
    done = snn.export_onnx(net, torch.rand(5, 3, FEATURES), tmp_path / "net.onnx")
    if "NoisyLeaky" not in names:
        assert done.differing is not None
        assert done.differing <= 0.001 * done.compared
    model = onnx.load(tmp_path / "net.onnx")
    assert {domain.domain for domain in model.opset_import} <= {"", "ai.onnx"}
    for shape in [(9, 4), (1, 1), (40, 1), (3, 65)]:
        x = torch.rand(*shape, FEATURES)
        assert_like(net, in_runtime(tmp_path / "net.onnx", {"x": x}), unrolled(net, x))


def test_a_stream_goes_on_from_call_to_call(tmp_path):
    """The number of steps of a static input is an input with a default; the states are inputs and outputs."""
    net = nn.Sequential(nn.Linear(4, 5), snn.Synaptic(alpha=0.9, beta=0.8, init_hidden=True), nn.Linear(5, 3), leaky())
    message = snn.export_onnx(net, torch.rand(3, 4), tmp_path / "net.onnx", steps=7, states="external")
    assert message.inputs == {"x": ("B", 4), "1.syn": ("B", 5), "1.mem": ("B", 5), "3.mem": ("B", 3), "steps": ()}
    states, x = message.initial_states(6), torch.rand(6, 4)
    snn.reset(net)
    for steps in (5, 7):
        given = {"steps": np.array(steps)} if steps != 7 else {}
        got = in_runtime(tmp_path / "net.onnx", {"x": x, **given, **states})
        states = {name: got[after] for name, after in message.states.items()}
        assert torch.equal(got["spk"], unrolled(net, x, steps, reset=False))
        assert torch.allclose(got["3.mem.next"], net[3].mem)


def test_layers_before_the_first_neuron_run_once_and_the_others_over_all_steps(tmp_path):
    message = snn.export_onnx(small(), torch.rand(3, 4), tmp_path / "net.onnx", steps=7)
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert [node.op_type for node in graph.node if node.op_type in ("Scan", "Gemm")] == ["Gemm", "Scan", "Gemm", "Scan"]
    bodies = [a.g for node in graph.node if node.op_type == "Scan" for a in node.attribute if a.HasField("g")]
    assert not [node for body in bodies for node in body.node if node.op_type in ("Gemm", "MatMul", "Expand")]
    assert (message.inputs, list(message.outputs)) == ({"x": ("B", 4), "steps": ()}, ["spk", "mem"])
    text = str(message)
    assert "surrogate gradients (atan" in text
    assert "0.weight" in text


class Kept(nn.Module):
    """Round weights to 8 bits, with one scale for each output."""

    scale: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("scale", weight.detach().flatten(1).abs().amax(1) / 127)

    def forward(self, weight: Tensor) -> Tensor:
        zero = torch.zeros(len(weight), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, self.scale, zero, 0, -127, 127)


def test_quantized_weights_are_stored_in_8_bits():
    net = nn.Sequential(
        *(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), leaky(), nn.Flatten(), nn.Linear(3, 2)),
        snn.RLeaky(beta=0.8, linear_features=2, init_hidden=True),
    ).eval()
    for layer in (net[1], net[4], net[5].recurrent):
        parametrize.register_parametrization(layer, "weight", Kept(layer.weight))
    file, x = io.BytesIO(), torch.rand(2, 4) * 4
    assert snn.export_onnx(net, x, file, steps=6).test is None
    graph = onnx.load_from_string(file.getvalue()).graph
    kinds = [node.op_type for inner in graphs_of(graph) for node in inner.node]
    assert kinds.count("DequantizeLinear") == 3
    assert "QuantizeLinear" not in kinds
    assert [c.data_type for c in graph.initializer if len(c.dims) > 1] == [onnx.TensorProto.INT8] * 3
    assert torch.equal(in_runtime(file.getvalue(), {"x": x})["spk"], unrolled(net, x, 6))


class Joined(nn.Module):
    """Several inputs, outputs in a dict with the names of operators, and a skip of the static part."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.one, self.two = nn.Linear(4, 4), leaky(output=True), leaky()

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        spk, mem = self.one(self.fc(left))
        return {"linear": self.two(spk + right), "mul": mem}


def test_several_inputs_and_a_dict_of_outputs():
    net, file = Joined().eval().double(), io.BytesIO()
    left, right = torch.rand(2, 6, 3, 4, dtype=torch.float64)
    net.train()
    net.one.mem = before = torch.ones(3, 4)
    message = snn.export_onnx(net, (left, right), file)
    assert net.training
    assert net.two.training
    assert net.one.mem is before
    assert list(message.inputs) == ["left", "right"]
    snn.reset(net)
    got, wanted = in_runtime(file.getvalue(), {"left": left, "right": right}), unrolled_pair(net, left, right)
    assert torch.equal(got["linear"], wanted["linear"])
    assert torch.allclose(got["mul"], wanted["mul"])


def unrolled_pair(net: nn.Module, left: Tensor, right: Tensor) -> Any:
    with torch.no_grad():
        return snn.unroll(net.eval(), left, right)


# -- refusals ----------------------------------------------------------------------------------------------------------


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lif = snn.Leaky(beta=0.9)

    def forward(self, x: Tensor) -> Tensor:
        mem = self.lif.init_leaky()
        return torch.stack([self.lif(x_t, mem)[0] for x_t in x])


class Depending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lif = leaky()

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(x * 2 if x.sum() > 1000 else x)


class WithoutOperator(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def doubled() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 3, 3), leaky()).double()


class Text(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, "text"


X = torch.rand(5, 2, 4)
REFUSED = {
    "no module": (lambda: len, X, {}, TypeError, "requires a network, an nn.Module; got builtin"),
    "no tensor": (small, [1.0], {}, TypeError, "the example is a list; pass a tensor"),
    "no values": (lambda: small().to("meta"), X, {}, ValueError, '0.weight is on the device "meta" and has no values'),
    "no steps": (small, X[:0], {}, ValueError, "pass at least one step and row"),
    "one dimension": (small, X[0, 0], {}, ValueError, r"shape \(4,\); pass a tensor of shape \[T, B"),
    "no such states": (small, X, {"states": "none"}, ValueError, "choose one of 'internal', 'external'"),
    "steps": (small, X[0], {"steps": "7"}, TypeError, "pass a whole number of steps"),
    "states by hand": (ByHand, X, {}, RuntimeError, "Reset before unroll.*From the tutorials' loop to unroll"),
    "data": (Depending, X, {}, RuntimeError, r"depends on the values of tensors \(line \d+ of .*test_export"),
    "operator": (WithoutOperator, X, {}, RuntimeError, "ONNX has no operator for .*bessel_j0"),
    "float64": (doubled, X.double()[:, :, None].expand(-1, -1, 2, -1), {}, RuntimeError, r"Conv.*export net.float\(\)"),
    "text": (Text, X, {}, TypeError, "the forward returns str; an exported network returns tensors"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_refused_in_a_sentence_and_leaves_no_file(name, tmp_path):
    make, x, options, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        snn.export_onnx(make(), x, tmp_path / "net.onnx", **options)
    assert os.listdir(tmp_path) == []


def test_a_path_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; create it"):
        snn.export_onnx(small(), X, tmp_path / "nowhere" / "net.onnx")
    with pytest.raises(IsADirectoryError, match=r"is a folder; pass the path of a file in it"):
        snn.export_onnx(small(), X, tmp_path)
    with pytest.raises(OSError, match="file"):
        snn.export_onnx(small(), X, tmp_path / "file" / "net.onnx")
    with pytest.raises(FileExistsError, match="is a device or a pipe"):
        snn.export_onnx(small(), X, os.devnull)
    with pytest.raises(TypeError, match="the path is 3; pass the path"):
        snn.export_onnx(small(), X, 3)
    with pytest.raises(RuntimeError):
        snn.export_onnx(Depending(), X, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_named_and_leaves_no_file(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=r"net\.onnx' cannot be written: File too large; pass a path in another"):
            snn.export_onnx(small(), X, tmp_path / "net.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


class Clamped(nn.Module):
    def __init__(self, most: float):
        super().__init__()
        self.most, self.lif = most, leaky()

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(x.clamp(-0.5, self.most))


def test_bounds_of_two_types_are_refused_with_the_cure(tmp_path):
    with pytest.raises(RuntimeError, match=r"cannot export clamp .* pass numbers of one type, such as x\.clamp"):
        snn.export_onnx(Clamped(2), X, tmp_path / "net.onnx")
    assert snn.export_onnx(Clamped(2.0), X, tmp_path / "net.onnx").differing == 0


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install 'spikeloom\[onnx\]'"):
        snn.export_onnx(small(), X, tmp_path / "net.onnx")
