"""From a node to a layer, one row per primitive."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...caller import warn_caller
from ...layers import GradedSpikes, SynapticDelay
from ...neurons import LI, Leaky, Synaptic
from ._graph import NEURONS, BadGraph, kind_of
from ._metadata import VALUES, BadMetadata, is_sealed, note_of, remade
from ._modules import EulerCubaLI, EulerCubaLIF, EulerLI, EulerLIF, Factor, GainI, GainIF, Scale, Threshold, floats
from ._package import Node
from ._shapes import as_text, pair

FIRING, SILENT = ("IF", "LIF", "CubaLIF"), ("I", "LI", "CubaLI")
UNLIKELY = 1e-2
"""What an integrator adds per step for an input of 1: below it, r is hardly one of the order of 1 / dt."""

LONGEST = 100_000
"""Steps that a delay may have: a network stores as many inputs."""

CLOSE = 1e-5
"""How near to 1 a gain is 1: files hold r and tau in single precision."""


@dataclass(frozen=True)
class Settings:
    """How to read a graph.

    Args:
        dt: length of a step, in seconds.
        reset: "zero" or "subtract"; None to follow the metadata, and NIR where there are none.
    """

    dt: float
    reset: str | None


def module_of(name: str, node: Node, settings: Settings, with_threshold: bool = False) -> nn.Module:
    """The layer of a node; raises `BadGraph`.

    Args:
        name: of the node.
        node: the node.
        settings: how to read it.
        with_threshold: whether the node and the Threshold after it are one neuron.
    """
    kind = kind_of(node)
    row = ROWS.get(kind)
    if row is None:
        raise BadGraph(f"the node {name!r} is a {kind}, which this version of spikeloom does not know")
    if kind in NEURONS and settings.reset is None:
        from_note = by_metadata(name, node, settings)
        if from_note is not None and (with_threshold or kind in FIRING or not from_note.framed):
            neuron: nn.Module = from_note
            return neuron
    try:
        layer: nn.Module = row(node, settings)
    except BadGraph as error:
        raise BadGraph(f"the node {name!r} ({kind}) {error}") from None
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError, OverflowError) as error:
        raise BadGraph(f"the node {name!r} ({kind}) has fields that do not fit: {error}") from error
    return layer


def by_metadata(name: str, node: Node, settings: Settings) -> Any:
    """The neuron of the metadata, if the fields of the node still are those of that neuron."""
    try:
        neuron = remade(node)
    except BadMetadata as error:
        raise BadGraph(
            f"the node {name!r} ({kind_of(node)}) cannot be rebuilt: {error}. Pass reset='zero' to read it by "
            "NIR's equations"
        ) from error
    if neuron is None:
        return None
    if is_sealed(node, settings.dt):
        return neuron
    warn_caller(
        f"the fields of the node {name!r} were changed after spikeloom wrote it, or dt is another; they are read, and "
        "not its metadata"
    )
    return None


# -- neurons -----------------------------------------------------------------------------------------------------------


def _values(node: Node, *names: str) -> dict[str, np.ndarray[Any, Any]]:
    """Fields as float64 arrays of one shape, all finite."""
    arrays = {name: np.asarray(getattr(node, name), dtype=np.float64) for name in names}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1:
        raise BadGraph(f"has fields of different shapes: {', '.join(f'{n} {a.shape}' for n, a in arrays.items())}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise BadGraph(f"has a {name} that is not finite")
    return arrays


def _rates(values: Mapping[str, np.ndarray[Any, Any]], dt: float, *names: str) -> list[np.ndarray[Any, Any]]:
    for name in names:
        if (values[name] <= 0).any():
            raise BadGraph(f"has a {name} of 0 or less; a time constant is a time in seconds, above 0")
    rates = [dt / values[name] for name in names]
    for name, rate in zip(names, rates, strict=True):
        if (rate > 1 + CLOSE).any():
            raise BadGraph(
                f"has a {name} of {values[name].min():.3g} s, shorter than a step of dt={dt:.3g} s; pass a smaller dt"
            )
    return [np.minimum(rate, 1) for rate in rates]


def _is_one(value: np.ndarray[Any, Any]) -> bool:
    return bool(np.allclose(value, 1, rtol=0, atol=CLOSE))


def _number(array: np.ndarray[Any, Any]) -> Any:
    """A number where all values are equal, which a kernel takes faster; else a tensor."""
    value = floats(array)
    return value.flatten()[0].clone() if value.numel() and bool((value == value.flatten()[0]).all()) else value


def _reset(node: Node, settings: Settings) -> dict[str, Any]:
    """The reset, and the threshold above it."""
    v = _values(node, "v_threshold", "v_reset")
    if (v["v_threshold"] < v["v_reset"]).any():
        raise BadGraph("has a v_threshold below its v_reset, so that it would fire at every step")
    threshold = v["v_threshold"] - v["v_reset"]
    return {
        "threshold": _number(threshold),
        "reset_mechanism": settings.reset or "zero",
        "reset_delay": False,
        "init_hidden": True,
    }


def _lif(node: Node, settings: Settings) -> nn.Module:
    v = _values(node, "tau", "r", "v_leak", "v_threshold", "v_reset")
    (rate,) = _rates(v, settings.dt, "tau")
    leak = v["v_leak"] - v["v_reset"]  # the membrane is counted from v_reset
    if _is_one(v["r"] * rate) and not leak.any():
        return Leaky(beta=_number(1 - rate), **_reset(node, settings))
    return EulerLIF(rate=_number(rate), r=_number(v["r"]), v_leak=_number(leak), **_reset(node, settings))


def _if(node: Node, settings: Settings) -> nn.Module:
    gain = _gain(node, settings)
    if _is_one(gain):
        return Leaky(beta=1.0, **_reset(node, settings))
    return GainIF(gain=_number(gain), **_reset(node, settings))


def _gain(node: Node, settings: Settings) -> np.ndarray[Any, Any]:
    """What an integrator adds per step for an input of 1. An r of 1 stands for that in the files of the field."""
    r = _values(node, "r")["r"]
    if _is_one(r):
        return r
    if r.size and (np.abs(r).max() * settings.dt < UNLIKELY):
        warn_caller(
            f"an {kind_of(node)} has r={r.flat[np.abs(r).argmax()]:.3g} and dt={settings.dt:.3g}; it is read by "
            f"NIR's equation, so that an input of 1 adds r * dt per step, at most {np.abs(r).max() * settings.dt:.3g}. "
            f"If its writer means r per step, divide r by dt"
        )
    return r * settings.dt


def _cuba(node: Node, settings: Settings, fires: bool) -> dict[str, Any]:
    names = ("tau_syn", "tau_mem", "r", "v_leak", "w_in", *(("v_threshold", "v_reset") if fires else ()))
    v = _values(node, *names)
    rate_syn, rate = _rates(v, settings.dt, "tau_syn", "tau_mem")
    leak = v["v_leak"] - v["v_reset"] if fires else v["v_leak"]
    return {"rate_syn": rate_syn, "w_in": v["w_in"], "rate": rate, "r": v["r"], "v_leak": leak}


def _cuba_lif(node: Node, settings: Settings) -> nn.Module:
    v = _cuba(node, settings, True)
    plain = _is_one(v["w_in"] * v["rate_syn"]) and _is_one(v["r"] * v["rate"]) and not v["v_leak"].any()
    if plain:
        return Synaptic(alpha=_number(1 - v["rate_syn"]), beta=_number(1 - v["rate"]), **_reset(node, settings))
    return EulerCubaLIF(**{name: _number(value) for name, value in v.items()}, **_reset(node, settings))


def _li(node: Node, settings: Settings) -> nn.Module:
    v = _values(node, "tau", "r", "v_leak")
    (rate,) = _rates(v, settings.dt, "tau")
    if _is_one(v["r"] * rate) and not v["v_leak"].any():
        return LI(beta=_number(1 - rate), init_hidden=True)
    return EulerLI(rate=_number(rate), r=_number(v["r"]), v_leak=_number(v["v_leak"]), init_hidden=True)


def _i(node: Node, settings: Settings) -> nn.Module:
    gain = _gain(node, settings)
    return LI(beta=1.0, init_hidden=True) if _is_one(gain) else GainI(gain=_number(gain), init_hidden=True)


def _cuba_li(node: Node, settings: Settings) -> nn.Module:
    return EulerCubaLI(**{n: _number(v) for n, v in _cuba(node, settings, False).items()}, init_hidden=True)


# -- other nodes -------------------------------------------------------------------------------------------------------


def _matrix(node: Node, settings: Settings) -> nn.Module:
    weight = floats(node.weight, "weight")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=kind_of(node) == "Affine")
    layer.weight = nn.Parameter(weight)
    if layer.bias is not None:
        layer.bias = nn.Parameter(floats(np.broadcast_to(node.bias, weight.shape[:1]), "bias"))
    return layer


def _convolution(node: Node, settings: Settings) -> nn.Module:
    note, dims = _sealed_sizes(node), 1 if kind_of(node) == "Conv1d" else 2
    weight = floats(node.weight, "weight")
    groups, text = int(node.groups), as_text(node.padding)
    stride, dilation = (pair(getattr(node, field))[:dims] for field in ("stride", "dilation"))
    padding: Any = text if text is not None else pair(node.padding)[:dims]
    if "kernel_size" in note:
        weight, padding = _unsquared(weight, note, padding)
    if "groups" in note:
        weight, groups = _grouped(weight, int(note["groups"])), int(note["groups"])
    bias = floats(np.broadcast_to(0.0 if node.bias is None else node.bias, weight.shape[:1]), "bias")
    has_bias = bool(note.get("bias", True)) or bool(bias.any())
    kind = nn.Conv1d if dims == 1 else nn.Conv2d
    sizes = (weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]))
    layer: Any = kind(*sizes, stride, padding, dilation, groups, has_bias)  # type: ignore[arg-type]
    layer.weight = nn.Parameter(weight)
    if has_bias:
        layer.bias = nn.Parameter(bias)
    module: nn.Module = layer
    return module


def _sealed_sizes(node: Node) -> dict[str, Any]:
    """The note of a convolution; without the groups and the kernel of before if its fields were changed."""
    note = note_of(node)
    if not {"groups", "kernel_size"} & set(note) or is_sealed(node):
        return note
    warn_caller(
        f"the fields of a {kind_of(node)} were changed after spikeloom wrote it; they are read, and not its metadata"
    )
    return {"bias": note.get("bias", True)}


def _grouped(weight: Tensor, groups: int) -> Tensor:
    """The weight of a grouped convolution, which was written with zeros between the groups."""
    out, channels, *_ = weight.shape
    if groups < 1 or out % groups or channels % groups:
        raise BadGraph(f"has a weight of shape {tuple(weight.shape)}, which does not split into {groups} groups")
    rows, columns = out // groups, channels // groups
    blocks = [weight[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] for g in range(groups)]
    return torch.cat(blocks)


def _unsquared(weight: Tensor, note: Mapping[str, Any], padding: Any) -> tuple[Tensor, Any]:
    """The kernel without the zeros that made it a square."""
    height, width = map(int, note["kernel_size"])
    top, left = (weight.shape[2] - height) // 2, (weight.shape[3] - width) // 2
    if top < 0 or left < 0:
        raise BadGraph(f"has a weight of shape {tuple(weight.shape)}, which holds no kernel {height} x {width}")
    kept = weight[:, :, top : top + height, left : left + width].clone()
    return kept, padding if isinstance(padding, str) else tuple(map(int, note["padding"]))


def _pool(node: Node, settings: Settings) -> nn.Module:
    kernel, stride, padding = (pair(getattr(node, field)) for field in ("kernel_size", "stride", "padding"))
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise BadGraph(f"has a padding {padding} of more than half of its kernel {kernel}, which torch does not pool")
    return nn.AvgPool2d(kernel, stride, padding, divisor_override=1 if kind_of(node) == "SumPool2d" else None)


def _flatten(node: Node, settings: Settings) -> nn.Module:
    start, end = (int(dim) + 1 if dim >= 0 else int(dim) for dim in (node.start_dim, node.end_dim))  # after the batch
    return nn.Flatten(start, end)


def _delay(node: Node, settings: Settings) -> nn.Module:
    delay = _values(node, "delay")["delay"] / settings.dt
    if (delay < 0).any():
        raise BadGraph("has a negative delay")
    if delay.size and delay.max() > LONGEST:
        raise BadGraph(f"has a delay of {delay.max():.3g} steps of dt={settings.dt:.3g} s; pass a larger dt")
    note = note_of(node)
    if note and settings.reset is None:
        if not 0 <= note["max_delay"] <= LONGEST:
            raise BadGraph(f"has a max_delay of {note['max_delay']} in its metadata; it is from 0 to {LONGEST} steps")
        wanted = torch.tensor(note["delay"], dtype=torch.get_default_dtype()).reshape(note["shape"])
        layer = SynapticDelay(
            tuple(note["shape"]),
            int(note["max_delay"]),
            wanted.clamp(0, int(note["max_delay"])),
            bool(note["learned"]),
            float(note["sigma"]),
        )
        if np.allclose(layer.lags.expand(delay.shape).numpy(), delay, atol=0.5):
            return layer
    steps = torch.from_numpy(np.asarray(np.round(delay))).to(torch.get_default_dtype())
    return SynapticDelay(tuple(steps.shape) or (1,), int(steps.max()) if steps.numel() else 0, steps)


def _scale(node: Node, settings: Settings) -> nn.Module:
    scale, note = floats(_values(node, "scale")["scale"]), note_of(node)
    if settings.reset is not None or not {"factor", "graded"} & set(note) or not is_sealed(node):
        return Scale(scale)
    if "factor" in note:
        factor = floats(node.metadata[VALUES]["factor"]).reshape(note["factor"])
        return Factor(factor.clone(), bool(note["divides"]))
    dim = int(note["graded"])
    layer = GradedSpikes(scale.shape[dim], 1.0, dim=dim + 1)  # after the batch
    layer.weights = nn.Parameter(scale.movedim(dim, 0).flatten(1)[:, :1].clone() if scale.dim() > 1 else scale[:, None])
    layer.weights.requires_grad_(bool(note["learned"]))
    return layer


def _threshold(node: Node, settings: Settings) -> nn.Module:
    return Threshold(floats(_values(node, "threshold")["threshold"]))


ROWS: Mapping[str, Callable[[Node, Settings], nn.Module]] = {
    "Affine": _matrix,
    "Linear": _matrix,
    "Scale": _scale,
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "AvgPool2d": _pool,
    "SumPool2d": _pool,
    "Flatten": _flatten,
    "Delay": _delay,
    "I": _i,
    "IF": _if,
    "LI": _li,
    "LIF": _lif,
    "CubaLI": _cuba_li,
    "CubaLIF": _cuba_lif,
    "Threshold": _threshold,
}
