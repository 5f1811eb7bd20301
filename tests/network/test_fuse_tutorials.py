"""The networks of snnTorch's tutorials, fused: the numbers of their loops, and most operations over all steps."""

import copy
from typing import Any

import torch
from torch import Tensor

import spikeloom as snn

from .test_fuse import tensors_of
from .tutorial_loops import TUTORIALS


def test_the_tutorials_networks_have_the_numbers_of_their_loops() -> None:
    for name, (make, shape) in TUTORIALS.items():
        torch.manual_seed(0)
        plain = make()
        fused = copy.deepcopy(plain)
        fast: Any = snn.fuse(fused, exact_products=True)
        type(fast)._fused_engine.always = True
        for call in range(2):
            x, results = 2 * torch.rand(shape, generator=torch.Generator().manual_seed(call)), list[Any]()
            for run, net in ((plain, plain), (fast, fused)):
                net.zero_grad()
                out = run(x)
                outs = tensors_of(out)
                assert any(t.requires_grad for t in outs), name
                sum(t.sum() for t in outs if t.requires_grad).backward()
                others = [part for part in out if not isinstance(part, Tensor)] if isinstance(out, tuple) else []
                results.append((outs, others, [p.grad for p in net.parameters()], list(net.buffers())))
            (outs, others, grads, buffers), (wanted, more, wanted_grads, wanted_buffers) = results[1], results[0]
            assert others == more, name
            assert wanted[0].numel() == 1 or wanted[0].detach().std() > 0, f"{name}: nothing happens"
            if name != "convolutional LSTM":  # whose convolutions are joined within a step
                assert all(map(torch.equal, outs, wanted)), f"{name}, call {call}"
            for got, expected in ((outs, wanted), (grads, wanted_grads), (buffers, wanted_buffers)):
                for one, other in zip(got, expected, strict=True):
                    torch.testing.assert_close(one, other, msg=lambda why, name=name: f"{name}: {why}")


def test_the_tutorials_networks_run_over_all_steps() -> None:
    for name, (make, shape) in TUTORIALS.items():
        torch.manual_seed(0)
        rows = snn.explain(snn.fuse(make()), torch.rand(shape)).rows
        stepwise = {row.operation for row in rows if row.runs == "step by step"}
        allowed = {"population": {"cross_entropy"}, "autoencoder": {"batch_norm"}}.get(name, set())
        assert stepwise <= allowed, f"{name}: {stepwise}"
        scans = [row.backend for row in rows if row.runs == "scan"]
        assert scans, name
        assert set(scans) == {"numba"}, name
