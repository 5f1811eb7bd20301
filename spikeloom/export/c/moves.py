"""Functions of torch that move values without a change: slices, permutations, padding, upsampling by repetition."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .errors import refuse
from .layers import Array, Pick

MOVES = frozenset({
    "getitem", "select", "narrow", "index_select", "chunk", "split", "tensor_split", "unbind", "permute", "transpose",
    "swapaxes", "swapdims", "movedim", "moveaxis", "mT", "flip", "fliplr", "flipud", "roll", "rot90", "expand",
    "expand_as", "broadcast_to", "repeat", "repeat_interleave", "tile", "pad", "interpolate", "upsample",
    "upsample_nearest", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
})  # fmt: skip
"""The functions, methods and attributes."""

MODULES = (
    nn.Upsample,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
    *(getattr(nn, f"{kind}Pad{n}d") for kind in ("Zero", "Constant", "Reflection", "Replication") for n in (1, 2)),
)
"""The modules."""


def moved(what: str, name: str, function: Callable[[Tensor], Any], x: Array, batch: int) -> Any:
    """Where in x the values of a result come from, [*S], -1 for a zero; a tuple if the function returns several.

    The function is called with numbers that count the places of `batch` samples.

    Args:
        what: calls it, for messages.
        name: of the function.
        function: of a tensor [B, *S].
    """
    places = torch.arange(1, batch * x.size + 1, dtype=torch.float64).view(batch, *x.shape)
    try:
        out = function(places)
    except Exception as error:  # of torch, for arguments that are no numbers
        refuse(what, f"{name} cannot be called with places ({error})")
    if isinstance(out, (tuple, list)):
        return tuple(_places(what, name, each, x, batch) for each in out)
    return _places(what, name, out, x, batch)


def _places(what: str, name: str, out: Tensor, x: Array, batch: int) -> Tensor:
    if out.dim() < 1 or len(out) != batch:
        refuse(what, f"{name} returns {tuple(out.shape)}, which does not start with the batch, {batch}")
    own = out.long() - 1 - x.size * torch.arange(batch).view(-1, *[1] * (out.dim() - 1))
    whole = torch.where(out == 0, -1, own)
    if bool((out != out.round()).any()) or bool(((whole < 0) & (out != 0)).any()) or bool((whole >= x.size).any()):
        refuse(what, f"{name} computes new values, or mixes samples of the batch")
    if bool((whole != whole[:1]).any()):
        refuse(what, f"{name} differs from sample to sample of the batch")
    return whole[0]


def check_move(what: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse options with which new values arise.

    Args:
        what: calls it, for messages.
        name: of the function.
        args, kwargs: of the call, after its input.
    """
    order = {"interpolate": ("size", "scale_factor", "mode"), "upsample": ("size", "scale_factor", "mode")}
    given = {**dict(zip(order.get(name, ("pad", "mode", "value")), args, strict=False)), **kwargs}
    if name in order and given.get("mode", "nearest") not in ("nearest", "nearest-exact"):
        refuse(what, f"{name} with mode={given['mode']!r} computes new values; use mode='nearest'")
    if name == "pad" and given.get("value"):
        refuse(what, f"{name} with value={given['value']}; only zeros can be padded")


def function_of(target: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Tensor], Any]:
    """The call as a function of its first argument."""
    if target is getattr:
        return operator.attrgetter(name)
    if isinstance(target, str):
        return lambda x: getattr(x, target)(*args, **kwargs)
    return lambda x: target(x, *args, **kwargs)


def pick(name: str, title: str, x: Array, places: Tensor) -> Pick:
    """The layer that reads these places."""
    return Pick(name, title, (x,), Array(name, tuple(places.shape)), places)
