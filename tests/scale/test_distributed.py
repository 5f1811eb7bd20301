"""Two processes give what one gives on the joined batch: DDP, FSDP2, checkpoints across numbers of processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import spikeloom as snn

from . import two_processes
from .two_processes import Whole, assert_equal, optimizer_of, trained

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs torch's gloo"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized:UserWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning"),  # by checkpoints of some releases
]
ROOT = Path(__file__).parent.parent.parent


def test_two_processes_give_what_one_gives(tmp_path):
    """All checks in one start of two processes; then one process goes on from what both have saved."""
    net = Whole()
    optimizer = optimizer_of(net)
    trained(1, net, optimizer)
    save(net, optimizer, tmp_path / "of one")
    torch.multiprocessing.spawn(two_processes.run, (tmp_path,), nprocs=two_processes.WORLD)
    for check in two_processes.CHECKS:
        for rank in range(two_processes.WORLD):
            message = (tmp_path / f"{check.__name__} {rank}").read_text()
            assert message == "right", f"{check.__name__}, process {rank}:\n{message}"
    again = Whole()
    optimizer = optimizer_of(again)
    load(again, optimizer, tmp_path / "of two")
    assert_equal(again, trained(2), gradients=False)
    assert_equal(trained(1, again, optimizer, first=2), trained(3))


def save(net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    model, optim = get_state_dict(net, optimizer)
    dcp.save({"net": model, "optimizer": optim}, checkpoint_id=folder)


def load(net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    model, optim = get_state_dict(net, optimizer)
    saved = {"net": model, "optimizer": optim}
    dcp.load(saved, checkpoint_id=folder)
    set_state_dict(net, optimizer, model_state_dict=saved["net"], optim_state_dict=saved["optimizer"])


def test_what_cannot_be_averaged_is_reported():
    class Cut(nn.Parameter):
        def full_tensor(self) -> None:
            """What a part of a parameter has."""

    with pytest.raises(TypeError, match=r"shape \(3,\) is sharded by FSDP"):
        snn.distributed.average_gradients([Cut(torch.zeros(3))])
    with pytest.raises(RuntimeError, match=r"call torch.distributed.init_process_group first"):
        snn.distributed.average_gradients([])
    with pytest.raises(TypeError, match=r"expects a network, an nn.Module; got list"):
        snn.distributed.scalars([])


@pytest.mark.slow
def test_the_example_learns_the_digits_in_two_processes(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("tqdm")
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    example = [str(ROOT / "examples" / "distributed_digits.py"), "--epochs", "2", "--seed", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launched, *example, "--save", str(tmp_path / "saved")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = done.stdout.splitlines()  # gloo of some releases prints, too
    assert "seed 0: 1438 digits to train, 359 to validate, on 2 processes" in printed
    accuracies = [float(line.split()[-1].rstrip("%")) for line in printed if line.startswith("epoch")]
    assert len(accuracies) == 2, "each line is printed once, not by every process"
    assert accuracies[-1] > 85
    assert done.stderr.count("training:   0%") == 2, "a bar per epoch, that of process 0"  # its end may be drawn twice
    assert (tmp_path / "saved").exists()
