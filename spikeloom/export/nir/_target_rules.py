"""Rules of the profiles: a node with other values of the same neuron, which a reader takes as they are meant.

Each takes a node and dt, and returns the node that is written, or raises `Misread`.
"""

from typing import Any

import numpy as np

from ._graph import kind_of
from ._package import Node, nir_package


class Misread(ValueError):
    """What a reader makes of a node, and what it would read right."""


def same(node: Node, dt: float) -> Node:
    """As it is."""
    return node


def negative_flatten(node: Node, dt: float) -> Node:
    """Dimensions counted from the end, for readers that count the batch."""
    dims = len(node.input_type["input"])
    start, end = (int(dim) - dims if dim >= 0 else int(dim) for dim in (node.start_dim, node.end_dim))
    return nir_package().Flatten(input_type=node.input_type, start_dim=start, end_dim=end)


def without_padding(node: Node, dt: float) -> Node:
    """A pool whose padding the reader ignores."""
    if np.any(node.padding):
        raise Misread(f"it ignores the padding {np.atleast_1d(node.padding).tolist()}; pass padding=0")
    return node


def affine(node: Node, dt: float) -> Node:
    """A Linear as an Affine with a bias of zero."""
    return nir_package().Affine(node.weight, np.zeros(node.weight.shape[0], node.weight.dtype))


def _scaled(node: Node, factor: Any, **fields: Any) -> Node:
    """The same neuron with a membrane that is `factor` times as large."""
    changed = {
        name: getattr(node, name) * factor for name in ("v_leak", "v_threshold", "v_reset") if hasattr(node, name)
    }
    kept = {name: getattr(node, name) for name in ("tau", "tau_syn", "tau_mem", "r", "w_in") if hasattr(node, name)}
    typed = {name: np.asarray(value, dtype=node.r.dtype) for name, value in {**kept, **changed, **fields}.items()}
    return type(node)(**typed)


def _unit(value: Any) -> Any:
    """1 where a factor is 1 but for rounding, so that nothing is scaled by almost nothing."""
    return np.where(np.isclose(value, 1, rtol=1e-5), 1.0, value)


def unit_r(node: Node, dt: float) -> Node:
    """r = 1, with the threshold divided by r: for a reader that ignores r."""
    _no_offset(node)
    return _scaled(node, 1 / node.r, r=np.ones_like(node.r))


def unit_gain(node: Node, dt: float) -> Node:
    """A gain of 1 per step, r = tau / dt, with the threshold divided by the gain."""
    _no_offset(node)
    if kind_of(node) == "CubaLIF":
        gain = _unit(node.w_in * dt / node.tau_syn) * _unit(node.r * dt / node.tau_mem)
        return _scaled(node, 1 / gain, r=node.tau_mem / dt, w_in=node.tau_syn / dt)
    return _scaled(node, 1 / _unit(node.r * dt / node.tau), r=node.tau / dt)


def uniform(node: Node, dt: float) -> Node:
    """A gain of 1, for a reader with one value for all neurons of a layer."""
    written = unit_gain(node, dt)
    _check_uniform(written, "tau", "tau_syn", "tau_mem", "v_threshold", "v_reset")
    return written


def uniform_threshold(node: Node, dt: float) -> Node:
    """A gain of 1, for a reader with one threshold for all neurons of a layer."""
    written = unit_gain(node, dt)
    _check_uniform(written, "v_threshold")
    return written


def _check_uniform(node: Node, *names: str) -> None:
    for name in names:
        value = getattr(node, name, None)
        if value is not None and np.unique(value).size > 1:
            raise Misread(f"it supports one {name} per layer; pass one number")


def without_offset(node: Node, dt: float) -> Node:
    """A neuron whose v_leak and v_reset the reader ignores or misreads."""
    _no_offset(node)
    return node


def _no_offset(node: Node) -> None:
    for name in ("v_leak", "v_reset"):
        if hasattr(node, name) and np.any(getattr(node, name)):
            raise Misread(f"it ignores or misreads {name}; the nearest has {name}=0")


def plain_if(node: Node, dt: float) -> Node:
    """An IF of a reader that adds its input as it is: a gain of 1, with the threshold divided by the gain."""
    _no_offset(node)
    return _scaled(node, 1 / _unit(node.r * dt), r=np.ones_like(node.r))


def uniform_if(node: Node, dt: float) -> Node:
    """An IF with r = 1 / dt and one threshold."""
    _no_offset(node)
    written = _scaled(node, 1 / _unit(node.r * dt), r=np.full_like(node.r, 1 / dt))
    _check_uniform(written, "v_threshold")
    return written


LONG = 2.0**26
"""Steps of a time constant after which, in single precision, nothing has decayed: 1 - 1 / LONG is 1."""


def if_as_lif(node: Node, dt: float) -> Node:
    """An IF as a LIF without decay in single precision."""
    _no_offset(node)
    threshold = node.v_threshold / _unit(node.r * dt)
    tau = np.full_like(node.r, dt * LONG)
    fields = {"tau": tau, "r": tau / dt, "v_leak": np.zeros_like(tau), "v_threshold": threshold}
    written = nir_package().LIF(**{name: np.asarray(value, dtype=node.r.dtype) for name, value in fields.items()})
    _check_uniform(written, "v_threshold")
    return written


def exponential_li(node: Node, dt: float) -> Node:
    """A LI of a reader that decays by exp(-1 / tau), with tau in steps, and adds its input as it is."""
    beta = 1 - dt / node.tau
    if not np.allclose(node.r * dt / node.tau, 1, rtol=1e-5) or np.any(node.v_leak):
        raise Misread("it supports only r=1 and v_leak=0, which is the membrane beta * mem + x of snn.LI")
    if np.any(beta <= 0):
        raise Misread("its decay is exp(-1 / tau), which is never 0; pass a beta above 0")
    tau = np.asarray(-1 / np.log(beta.astype(np.float64)), dtype=node.tau.dtype)
    return nir_package().LI(tau=tau, r=np.ones_like(tau), v_leak=np.zeros_like(tau))


def unit_li(node: Node, dt: float) -> Node:
    """A LI of a reader that ignores r and v_leak."""
    if not np.allclose(node.r * dt / node.tau, 1, rtol=1e-5) or np.any(node.v_leak):
        raise Misread("it ignores r and v_leak; the nearest has a gain of 1 and no leak potential")
    return node


def subtracting(node: Node, dt: float) -> Node:
    """A neuron of a reader that ignores r."""
    _no_offset(node)
    gain = node.r * dt if kind_of(node) == "IF" else node.r * dt / node.tau
    if not np.allclose(gain, 1, rtol=1e-5):
        return _scaled(node, 1 / gain)
    return node


def flat_order(node: Node, dt: float) -> Node:
    """A Flatten of a reader with the channels last."""
    shape = [int(size) for size in node.input_type["input"]]
    if len(shape) > 1 and shape[0] > 1 and int(np.prod(shape[1:])) > 1:
        raise Misread(f"it flattens {tuple(shape)} with the channels last; pool or convolve to one channel before")
    return node


def plain_conv(node: Node, dt: float) -> Node:
    """A convolution of a reader that ignores dilation."""
    if np.any(np.asarray(node.dilation) != 1):
        raise Misread("it ignores the dilation; pass dilation=1")
    return node
