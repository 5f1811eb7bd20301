"""The test that export_onnx writes beside a file."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom.export.onnx.generated_test import MARK

from .branches import leaky

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

X = torch.rand(30, 9, 4)


def network() -> nn.Module:
    torch.manual_seed(1)
    lif = snn.Synaptic(alpha=0.9, beta=0.8, init_hidden=True, output=True)
    return nn.Sequential(nn.Linear(4, 5), leaky(), nn.Linear(5, 3), lif)


def run(test: str) -> tuple[int, str]:
    """The exit status and the last line of a test, which runs without this library."""
    code = (
        f"import sys, runpy; sys.modules.update(torch=None, spikeloom=None); runpy.run_path({test!r}, None, '__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip() or done.stderr


@pytest.mark.parametrize(
    ("x", "options"), [pytest.param(X, {}, marks=pytest.mark.slow), (X[0], {"steps": 20, "states": "external"})]
)
def test_a_test_passes_for_the_file_and_fails_for_another(x, options, tmp_path):
    done = snn.export_onnx(network(), x, tmp_path / "it's mine.onnx", **options)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["it's mine.onnx", "it's mine_test.py"]
    assert done.test == str(tmp_path / "it's mine_test.py")
    status, told = run(done.test)
    assert (status, told.startswith("0 of ")) == (0, True), told
    model = onnx.load(tmp_path / "it's mine.onnx")
    (scan, *_) = [node for node in model.graph.node if node.op_type == "Scan"]
    (body,) = [a.g for a in scan.attribute if a.HasField("g")]
    (product, *_) = [node for node in body.node if node.op_type == "Mul"]
    product.op_type = "Add"
    onnx.save(model, tmp_path / "it's mine.onnx")
    status, told = run(done.test)
    assert status == 1, told
    assert not told.startswith("0 of ")


def test_a_test_can_be_left_out_and_replaces_no_other_file(tmp_path):
    theirs, x = tmp_path / "net_test.py", X[:3, :2]
    theirs.write_text("theirs")
    with pytest.raises(FileExistsError, match=r"net_test\.py exists, and is not a test.*pass test=False"):
        snn.export_onnx(network(), x, tmp_path / "net.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["net_test.py"]
    small = leaky()
    assert snn.export_onnx(small, x, tmp_path / "net.onnx", test=False).test is None
    assert theirs.read_text() == "theirs"
    (tmp_path / "noisy_test.py").write_text(f'"""{MARK}"""')  # of an earlier export
    noisy = snn.NoisyLeaky(beta=0.9, sigma=0.1, init_hidden=True)
    assert snn.export_onnx(noisy, x, tmp_path / "noisy.onnx").test is None
