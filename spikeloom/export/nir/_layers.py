"""The layers that NIR knows beside neurons, one row each: from a module to a node."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...layers import GradedSpikes, SynapticDelay
from ...neurons import SpikingNeuron
from ...neurons._parameters import is_ours
from ._forms import NoForm, Shape
from ._metadata import VALUES, flat, noted
from ._modules import Factor, Scale, Threshold
from ._package import nir_package


@dataclass
class Fragment:
    """The nodes of one layer.

    Args:
        nodes: by suffix of the layer's name; the suffix of a single node is empty.
        edges: between them.
        entry, exit: the suffixes of the node that gets the input, and of the one that gives the output.
        missing: what the nodes omit of the layer, as sentences.
    """

    nodes: dict[str, Any]
    edges: list[tuple[str, str]] = field(default_factory=list)
    entry: str = ""
    exit: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a layer stands in the network: the shapes of its steps, and what holds for all of the graph.

    A Delay whose input is a step `late` delays it by one step less.
    """

    before: Shape
    after: Shape
    lead: int
    dt: float
    resets: tuple[str, bool] = ("zero", False)
    late: int = 0


def check_forward(layer: nn.Module, kinds: type | tuple[type, ...]) -> None:
    """Raise `NoForm` if the layer computes something else than the kind that it is an instance of."""
    kind: Any = next(k for k in (kinds if isinstance(kinds, tuple) else (kinds,)) if isinstance(layer, k))
    own = type(layer).forward
    if (own is not kind.forward and not is_ours(own)) or "forward" in vars(layer):  # ours: those of `accelerate`
        raise NoForm(
            f"it overrides the forward of {kind.__name__}; write what it does as layers, sums and constant factors"
        )


def is_known(layer: nn.Module) -> bool:
    """Whether NIR may have a primitive for the layer."""
    return isinstance(layer, (SpikingNeuron, *(kind for kind, _ in ROWS)))


def array(value: Tensor | None, shape: Shape | None = None) -> np.ndarray[Any, Any]:
    """A copy of a tensor as an array, float32 or float64; raises `NoForm` if it is not finite."""
    if value is not None and not value.isfinite().all():
        raise NoForm("it has values that are not finite")
    wide = torch.zeros(()) if value is None else value.detach().cpu()
    wide = wide if wide.dtype in (torch.float32, torch.float64) else wide.float()
    return np.array((wide if shape is None else wide.expand(shape)).numpy())


# -- the rows ----------------------------------------------------------------------------------------------------------


def linear_node(layer: nn.Linear, place: Place) -> Any:
    nir = nir_package()
    if len(place.before) != 1:
        raise NoForm(
            f"it acts on the last dimension of steps {place.before}, NIR's Affine on a vector; flatten before it"
        )
    weight = array(layer.weight)
    return nir.Linear(weight) if layer.bias is None else nir.Affine(weight, array(layer.bias))


def conv_node(layer: Any, place: Place) -> Any:
    nir = nir_package()
    dims = layer.weight.dim() - 2
    if layer.padding_mode != "zeros":
        raise NoForm(f"padding_mode={layer.padding_mode!r}; NIR pads with zeros")
    bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
    weight, padding = layer.weight.detach(), layer.padding
    note: dict[str, Any] = {"bias": layer.bias is not None}
    if layer.groups > 1:
        note |= {"groups": layer.groups}
        weight = _dense(weight, layer.groups)
    if dims == 2 and weight.shape[2] != weight.shape[3]:
        squared = _square(weight, padding, layer.dilation)
        if squared is not None:
            note |= {"kernel_size": list(weight.shape[2:]), "padding": padding}
            weight, padding = squared
    one = lambda value: int(value[0]) if isinstance(value, tuple) else value  # noqa: E731
    pair = lambda value: value if isinstance(value, str) else tuple(map(int, value))  # noqa: E731
    form = one if dims == 1 else pair
    shape = place.before[1:]
    node = (nir.Conv1d if dims == 1 else nir.Conv2d)(
        input_shape=shape[0] if dims == 1 else tuple(shape),
        weight=array(weight),
        stride=form(layer.stride),
        padding=form(padding),
        dilation=form(layer.dilation),
        groups=1,
        bias=array(bias),
        metadata=noted(note),
    )
    node.output_type = {"output": np.array(place.after)}  # nir takes every kernel for a square
    return node


def _dense(weight: Tensor, groups: int) -> Tensor:
    """The weight of a grouped convolution as that of a plain one, with zeros: nir cannot type groups."""
    out, per_group, *kernel = weight.shape
    dense = weight.new_zeros(out, per_group * groups, *kernel)
    rows = out // groups
    for g in range(groups):
        dense[g * rows : (g + 1) * rows, g * per_group : (g + 1) * per_group] = weight[g * rows : (g + 1) * rows]
    return dense


def _square(weight: Tensor, padding: Any, dilation: Any) -> tuple[Tensor, Any] | None:
    """The same convolution with a square kernel, with zeros around it; None if they do not fit evenly."""
    height, width = weight.shape[2:]
    more = [max(height, width) - size for size in (height, width)]
    if any(extra % 2 for extra in more) or padding == "valid":
        return None
    grown = nn.functional.pad(weight, (more[1] // 2, more[1] // 2, more[0] // 2, more[0] // 2))
    if isinstance(padding, str):
        return grown, padding
    return grown, tuple(p + extra // 2 * d for p, extra, d in zip(padding, more, dilation, strict=True))


def pool_node(layer: nn.AvgPool2d, place: Place) -> Any:
    nir = nir_package()
    kernel, padding = _pair(layer.kernel_size), _pair(layer.padding)
    stride = kernel if layer.stride is None else _pair(layer.stride)
    _check_ceil(layer, place, kernel, stride, padding)
    if any(padding) and not layer.count_include_pad and layer.divisor_override is None:
        raise NoForm("count_include_pad=False; NIR's pool counts the padding")
    sizes = {"kernel_size": kernel, "stride": stride, "padding": padding}
    fields = {name: np.array(value) for name, value in sizes.items()}
    divisor = layer.divisor_override
    if divisor not in (None, 1, kernel[0] * kernel[1]):
        raise NoForm(f"divisor_override={divisor}; NIR's pools divide by 1 or by the size of the kernel")
    return nir.SumPool2d(**fields) if divisor == 1 else nir.AvgPool2d(**fields)


def _sum_pool(layer: nn.LPPool2d, place: Place) -> Any:
    kernel = _pair(layer.kernel_size)
    if layer.norm_type != 1:
        raise NoForm(f"norm_type={layer.norm_type}; NIR's SumPool2d is that of 1")
    stride = kernel if layer.stride is None else _pair(layer.stride)
    _check_ceil(layer, place, kernel, stride, (0, 0))
    return nir_package().SumPool2d(kernel_size=np.array(kernel), stride=np.array(stride), padding=np.array((0, 0)))


def _check_ceil(layer: Any, place: Place, kernel: Shape, stride: Shape, padding: Shape) -> None:
    sizes = zip(place.before[-2:], kernel, stride, padding, strict=True)
    floor = tuple((size + 2 * p - k) // s + 1 for size, k, s, p in sizes)
    if floor != place.after[-2:]:
        raise NoForm(f"ceil_mode=True gives {place.after[-2:]} here; NIR's pools give {floor}")


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _flatten(layer: nn.Module, place: Place) -> Any:
    return flatten_node(place.before, place.after)


def flatten_node(before: Shape, after: Shape) -> Any:
    """The Flatten from one shape to another; raises `NoForm` if there is none."""
    for start in range(len(before)):
        for end in range(start, len(before)):
            size = int(np.prod(before[start : end + 1]))
            if (*before[:start], size, *before[end + 1 :]) == after and (start, end) != (0, -1):
                if before == after:  # any would do: all of it, as for a vector
                    start, end = 0, 0
                last = -1 if end == len(before) - 1 else end
                return nir_package().Flatten(input_type=np.array(before), start_dim=start, end_dim=last)
    raise NoForm(f"it reshapes steps of {before} to {after}; NIR has Flatten, of neighboring dimensions")


def _delay(layer: SynapticDelay, place: Place) -> Any:
    lags = layer.lags.double().cpu().expand(place.before) + place.late
    node = nir_package().Delay(delay=np.array((lags * place.dt).numpy()))
    node.metadata = noted(
        {
            "delay": (layer.delay.detach().cpu().double() + place.late).flatten().tolist(),
            "shape": list(layer.delay.shape),
            "max_delay": layer.max_delay + place.late,
            "sigma": layer.sigma,
            "learned": isinstance(layer.delay, nn.Parameter),
        }
    )
    return node


def _graded(layer: GradedSpikes, place: Place) -> Any:
    dims = place.lead + len(place.before)
    dim = layer.dim % dims - place.lead
    if dim < 0:
        raise NoForm("it scales dimension 0 of the input, which is the batch; make it with dim=1")
    factors = layer.weights.detach().view(-1, *[1] * (len(place.before) - dim - 1))
    node = nir_package().Scale(scale=array(factors, place.before))
    node.metadata = noted({"graded": dim, "learned": layer.weights.requires_grad})
    return node


def factor_node(factor: Tensor, divides: bool, place: Place) -> Any:
    """The Scale of a constant factor, with the factor itself as metadata."""
    node = nir_package().Scale(scale=array(1 / factor if divides else factor, place.before))
    node.metadata = {**noted({"factor": list(factor.shape), "divides": divides}), VALUES: {"factor": flat(factor)}}
    return node


def _factor(layer: Factor, place: Place) -> Any:
    return factor_node(layer.factor, layer.divides, place)


def _scale(layer: Scale, place: Place) -> Any:
    return nir_package().Scale(scale=array(layer.scale, place.before))


def _threshold(layer: Threshold, place: Place) -> Any:
    return nir_package().Threshold(threshold=array(layer.threshold, place.before))


def _nothing(layer: nn.Module, place: Place) -> None:
    return None


DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)

ROWS: tuple[tuple[type | tuple[type, ...], Callable[[Any, Place], Any]], ...] = (
    (nn.Linear, linear_node),
    ((nn.Conv1d, nn.Conv2d), conv_node),
    (nn.AvgPool2d, pool_node),
    (nn.LPPool2d, _sum_pool),
    (nn.Flatten, _flatten),
    (SynapticDelay, _delay),
    (GradedSpikes, _graded),
    (Scale, _scale),
    (Factor, _factor),
    (Threshold, _threshold),
    ((nn.Identity, *DROPOUT), _nothing),
)

HINTS = {
    **dict.fromkeys(("MaxPool1d", "MaxPool2d", "MaxPool3d"), "; the nearest is AvgPool2d"),
    **dict.fromkeys(
        ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"),
        "; fold it into the layer before it, for a convolution by torch.nn.utils.fusion.fuse_conv_bn_eval",
    ),
    "AvgPool1d": "; the nearest is AvgPool2d",
    "DelayedLinear": "; the nearest is SynapticDelay, a delay per neuron, and a Linear",
    "ReLU": "; the nearest is a spiking neuron",
    "LeakyReLU": "; the nearest is a spiking neuron",
}
