"""NIR graphs and networks that several files of tests use, and an interpreter of NIR in plain NumPy."""

from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

import spikeloom as snn

NIR_RESET = {"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True}
DT = 1e-4


def leaky(beta: Any = 0.9, threshold: Any = 1.0, **options: Any) -> snn.Leaky:
    return snn.Leaky(beta, threshold, **NIR_RESET, **options)


def around(node: Any, shape: tuple[int, ...]) -> nir.NIRGraph:
    """A graph of one node."""
    nodes = {"input": nir.Input(np.array(shape)), "node": node, "output": nir.Output(np.array(shape))}
    return nir.NIRGraph(nodes, [("input", "node"), ("node", "output")], type_check=False)


def through_file(graph: nir.NIRGraph, tmp_path: Any) -> nir.NIRGraph:
    nir.write(tmp_path / "net.nir", graph)
    return nir.read(tmp_path / "net.nir")


def outputs(net: nn.Module, x: Tensor) -> Tensor:
    """The spikes of an unrolled network from zero states, without the states that it may return."""
    snn.utils.reset(net)
    with torch.no_grad():
        out = snn.unroll(net, x, check=False)
    return out[0] if isinstance(out, tuple) else out


def euler(node: Any, x: np.ndarray, dt: float = DT) -> np.ndarray:
    """A neuron of NIR by its equations, with Euler steps, in double precision; x [T, B, *N]."""
    kind = type(node).__name__
    v = np.zeros(x.shape[1:]) + (node.v_reset if hasattr(node, "v_reset") else 0.0)
    current, outs = np.zeros(x.shape[1:]), []
    for drive in x.astype(np.float64):
        if kind.startswith("Cuba"):
            current = current + dt / node.tau_syn * (node.w_in * drive - current)
            v = v + dt / node.tau_mem * ((node.v_leak - v) + node.r * current)
        elif kind in ("LIF", "LI"):
            v = v + dt / node.tau * ((node.v_leak - v) + node.r * drive)
        else:
            v = v + dt * node.r * drive
        if not hasattr(node, "v_threshold"):
            outs.append(v.copy())
            continue
        spk = (v > node.v_threshold).astype(np.float64)
        v = np.where(spk > 0, node.v_reset, v)
        outs.append(spk)
    return np.stack(outs)


def cycle(bias=0.0):
    """A LIF and the weights from it to itself, as a graph without metadata."""
    one = np.ones(3)
    nodes = {
        "input": nir.Input(np.array([3])),
        "lif": nir.LIF(10 * DT * one, 10 * one, 0 * one, one),
        "w_rec": nir.Affine(np.array([[0.0, 2.0, 0.0], [-1.0, 0.0, 0.5], [0.3, 0.0, 0.0]]), bias * one),
        "output": nir.Output(np.array([3])),
    }
    return nir.NIRGraph(nodes, [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")])


class Residual(nn.Module):
    """Two inputs, two outputs, a branch, a sum of three, a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 6), nn.Linear(7, 6)
        self.block = nn.Sequential(leaky(), nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)), leaky(0.8))
        self.head, self.out = nn.Linear(6, 3), leaky(0.7, output=True)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        h = self.left(x) + self.right(y)
        spk = self.block(h + 0.5 * h)
        out, mem = self.out(self.head(spk) + self.head(spk + spk))
        return {"spk": out, "features": (spk, mem)}
