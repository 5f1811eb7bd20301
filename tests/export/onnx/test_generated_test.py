"""The test that export_onnx writes beside a file."""

import subprocess
import sys
from pathlib import Path

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
    status, printed = run(done.test)
    assert (status, printed.startswith("0 of ")) == (0, True), printed
    model = onnx.load(tmp_path / "it's mine.onnx")
    (scan, *_) = [node for node in model.graph.node if node.op_type == "Scan"]
    (body,) = [a.g for a in scan.attribute if a.HasField("g")]
    (product, *_) = [node for node in body.node if node.op_type == "Mul"]
    product.op_type = "Add"
    onnx.save(model, tmp_path / "it's mine.onnx")
    status, printed = run(done.test)
    assert status == 1, printed
    assert not printed.startswith("0 of ")


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
    assert not (tmp_path / "noisy_test.py").exists()
    made = snn.export_onnx(small, x, tmp_path / "small.onnx").test
    (tmp_path / "small.onnx").rename(tmp_path / "other.onnx")
    status, printed = run(made)
    assert status == 1
    assert "there is no file" in printed
    snn.export_onnx(small, x, tmp_path / "small.onnx", test=False)
    assert not (tmp_path / "small_test.py").exists()
    (tmp_path / "folder_test.py").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder_test\.py is a folder.*pass test=False"):
        snn.export_onnx(small, x, tmp_path / "folder.onnx")
    (tmp_path / "link_test.py").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match=r"link_test\.py is a link to .*nowhere; remove it"):
        snn.export_onnx(small, x, tmp_path / "link.onnx")
    assert not {"folder.onnx", "link.onnx", "nowhere"} & {file.name for file in tmp_path.iterdir()}


def test_a_test_that_was_made_without_onnxruntime_accepts_rounding_and_no_other_network(tmp_path, monkeypatch):
    monkeypatch.setattr("spikeloom.export.onnx.file.find_spec", lambda name: None)
    net, x = nn.Sequential(leaky()), X[:25, :4]
    done = snn.export_onnx(net, x, tmp_path / "net.onnx")
    assert done.differing is None
    assert "ALLOWED = 4  # 1% of the values, since onnxruntime was not installed" in Path(done.test).read_text()
    assert run(done.test) == (0, "0 of 400 values differ")
    snn.export_onnx(nn.Sequential(snn.Leaky(beta=0.1, init_hidden=True)), x, tmp_path / "other.onnx", test=False)
    (tmp_path / "other.onnx").replace(tmp_path / "net.onnx")
    assert run(done.test)[0] == 1


def test_a_test_of_a_chaotic_network_fails_for_another(tmp_path, monkeypatch):
    """What differs in the rows that the test leaves out does not count."""
    counted = []

    def differing(path, inputs, wanted):
        rows = wanted["spk"].shape[1]
        counted.append(rows)
        return 0 if rows <= 4 else wanted["spk"].numel()

    monkeypatch.setattr("spikeloom.export.onnx.export.differing_values", differing)
    net, other = (nn.Sequential(nn.Linear(4, 5), leaky()) for _ in range(2))
    with pytest.warns(UserWarning, match="output values of the example differ"):
        done = snn.export_onnx(net, X, tmp_path / "net.onnx")
    assert counted == [9, 4]
    with torch.no_grad():
        other[0].weight.fill_(3.0)
    snn.export_onnx(other, X[:, :4], tmp_path / "other.onnx", test=False)
    (tmp_path / "other.onnx").replace(tmp_path / "net.onnx")
    status, printed = run(done.test)
    assert status == 1, printed
