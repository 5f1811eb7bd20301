"""Inputs of `fuse` in memory that NumPy or other threads write, and numbers of NumPy."""

import io
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn

STEPS, BATCH, WIDTH = 6, 4, 8
FRAMES = 2 * np.random.default_rng(0).random((STEPS, BATCH, WIDTH), dtype=np.float32)


class Net(nn.Module):
    """What the loops use."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(WIDTH, WIDTH), snn.Leaky(0.9)
        self.norm = nn.BatchNorm1d(WIDTH)


def buffer_from_numpy(net: Any) -> Tensor:
    buffer, out, mem = np.zeros((BATCH, WIDTH), np.float32), [], net.lif.init_leaky()
    x = torch.from_numpy(buffer)
    for frame in FRAMES:
        buffer[:] = frame
        _, mem = net.lif(net.fc(x) + x.view(WIDTH, BATCH).view(BATCH, WIDTH), mem)
        out.append(mem)
        buffer[:] = 0
    return torch.stack(out)


def ring_of_torch(net: Any) -> Tensor:
    ring, out, mem = torch.zeros(3, BATCH, WIDTH), [], net.lif.init_leaky()
    memory = ring.numpy()
    for step, frame in enumerate(FRAMES):
        memory[step % 3] = frame
        _, mem = net.lif(net.fc(ring[step % 3]) + ring.sum(0), mem)
        out.append(mem)
    return torch.stack(out)


def states_in_a_buffer(net: Any) -> Tensor:
    mem = torch.from_numpy(np.zeros((BATCH, WIDTH), np.float32))
    for frame in FRAMES:
        _, new = net.lif(torch.from_numpy(frame), mem)
        mem.numpy()[:] = new.detach().numpy() * 0.5
    return mem.clone()


def numbers_of_numpy(net: Any) -> Tensor:
    x, out, mem = torch.from_numpy(FRAMES), [], net.lif.init_leaky()
    for step in np.arange(STEPS):
        _, mem = net.lif(np.float64(0.5) * net.fc(x[step]) + np.float32(0.1), mem)
        out.append(mem.clamp(max=np.float64(3)) * np.int64(2))
    return torch.stack(out)


def test_memory_that_numpy_writes_between_steps_has_the_values_of_the_plain_loop() -> None:
    torch.manual_seed(0)
    net = Net()
    for loop in (buffer_from_numpy, ring_of_torch, states_in_a_buffer, numbers_of_numpy):
        fast: Any = snn.fuse(loop)
        fast._fused_engine.always = True
        for _ in range(2):
            torch.testing.assert_close(fast(net), loop(net), msg=lambda why, loop=loop: f"{loop.__name__}: {why}")
        if loop is not states_in_a_buffer:
            assert fast._fused_engine.fused >= 2 * STEPS, loop.__name__


def test_gradients_reach_an_input_from_numpy() -> None:
    net, grads = Net(), []

    def loop(x: Tensor) -> Tensor:
        mem = net.lif.init_leaky()
        for x_t in x:
            _, mem = net.lif(net.fc(x_t) * x[0], mem)
        return mem

    for run in (loop, snn.fuse(loop)):
        x = torch.from_numpy(FRAMES.copy()).requires_grad_()
        run(x).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(grads[1], grads[0])


def test_what_changes_unseen_during_a_recording_is_an_error() -> None:
    net, x = Net(), torch.rand(BATCH, WIDTH)

    def in_a_thread() -> None:
        thread = threading.Thread(target=x.add_, args=(1.0,))
        thread.start()
        thread.join()

    weight, beta = net.fc.weight.detach().numpy(), net.lif.beta.numpy()

    def in_numpy() -> None:
        np.multiply(weight, 0.9, out=weight)

    def parameter() -> None:
        np.multiply(beta, 0.9, out=beta)

    for change in (in_a_thread, in_numpy, parameter):

        @snn.fuse
        def loop(change: Any = change) -> Tensor:
            mem = net.lif.init_leaky()
            for _ in range(STEPS):
                _, mem = net.lif(net.fc(x), mem)
                change()
            return mem

        with pytest.raises(RuntimeError, match=r"shape \[.*\] was changed while a fused function"):
            loop()
        assert type(net.lif.mem) is Tensor


def test_a_network_from_a_file_is_recorded_and_updates_its_statistics() -> None:
    file = io.BytesIO()
    torch.save(Net(), file)
    nets = []
    for _ in range(2):
        file.seek(0)
        nets.append(torch.load(file, weights_only=False))

    def loop(net: Any) -> Tensor:
        mem = net.lif.init_leaky()
        for x_t in torch.from_numpy(FRAMES):
            _, mem = net.lif(net.norm(net.fc(x_t)), mem)
        return mem

    fast: Any = snn.fuse(loop)
    for _ in range(2):
        torch.testing.assert_close(fast(nets[0]), loop(nets[1]))
        torch.testing.assert_close(nets[0].norm.running_var, nets[1].norm.running_var)
    assert fast._fused_engine.fused >= 2 * (STEPS - 1)
