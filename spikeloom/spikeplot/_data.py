"""Colors and data conversion for all plots."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, INK, SHADE = "#007acc", "#e67700", "#333f4b", "lightgrey"

LEGIBLE = 4.0
"""The smallest font size, in points; smaller numbers are left out."""


def needs_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("spikeplot needs matplotlib; install it with: pip install 'spikeloom[plot]'") from error


def numbers(data: Any, taker: str, wanted: str, dims: int | None = None) -> Any:
    """Convert a tensor (on any device, with or without an autograd graph), an array or a list to an array.

    Args:
        taker, wanted: name of the plot and its expected data, for messages.
        dims: required number of dimensions; None is any.
    """
    if isinstance(data, Tensor):
        data = data.detach().cpu().to_dense()
        data = data.float() if data.dtype is torch.bfloat16 else data
    try:
        array = np.asarray(data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{taker} draws {wanted}; it cannot read a {type(data).__name__} ({error})") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{taker} draws {wanted}, real numbers; got a {type(data).__name__} of {array.dtype}")
    if not array.size or not array.ndim:
        raise ValueError(f"{taker} draws {wanted} and got data of shape {array.shape}; pass at least one value")
    if dims is not None and array.ndim != dims:
        cure = "select one sample of the batch" if array.ndim > dims else f"pass {dims} dimensions"
        raise ValueError(f"{taker} draws {wanted} and got data of shape {array.shape}; {cure}")
    return array


def size_of(ax: "Axes") -> tuple[float, float]:
    """The width and height of axes, in inches."""
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    return box.width, box.height
