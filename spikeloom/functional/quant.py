"""Quantized states: each value is rounded to the nearest of 2^num_bits levels, with a straight-through gradient.

Values are not compared with all levels. Uniform levels are found by a division. Non-uniform levels, which are densest
around a center, are found by a lookup table over the leading bits of the distance from the center, and few comparisons.
Levels that are too dense for the table are found by bisection.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from .._torch import exporting, real_tensors, transforms_active, unrecorded

__all__ = ["StateQuant", "state_quant"]

Search = Callable[[Tensor], Tensor]
"""A function that returns the nearest level of each value."""

MULTIPLIERS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.925, 0.95)
"""Default multipliers of non-uniform levels by number of bits; the last one also for more bits."""

MOST_BITS = 24
"""Bits of the mantissa of float32, which cannot distinguish more levels."""


class StateQuant(torch.autograd.Function):
    """``StateQuant.apply(x, levels)``: round to the nearest of custom levels, with a straight-through gradient.

    Shapes:
        x [*S] to [*S] of the same dtype; levels [L], in any order. Ties are resolved in favor of the first level.

        >>> import torch
        >>> StateQuant.apply(torch.tensor([0.2, 0.7, 5.0]), torch.tensor([0.0, 1.0]))
        tensor([0., 1., 1.])
    """

    @staticmethod
    def forward(ctx: Any, input_: Tensor, levels: Tensor) -> Tensor:
        x = input_ if input_.is_floating_point() else input_.to(torch.get_default_dtype())
        return _by_bisection(levels.detach().to(x))(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, search: Search) -> Tensor:
        return search(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Search], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], x: Tensor, search: Search) -> tuple[Tensor, int]:
        out: Tensor = _StraightThrough.apply(x, search)
        return out, in_dims[0]


@dataclass(frozen=True, repr=False)
class Quantizer:
    """The result of `state_quant`: a function of tensors that supports pickle and comparison.

    [*S] to [*S], with the same dtype and device; integers become the default dtype.
    """

    num_bits: int
    uniform: bool
    thr_centered: bool
    threshold: float
    lower_limit: float
    upper_limit: float
    multiplier: float | None
    _searches: dict[tuple[torch.dtype, torch.device, bool], Search] = field(
        default_factory=dict, init=False, compare=False
    )

    def __post_init__(self) -> None:
        if isinstance(self.num_bits, bool) or not hasattr(self.num_bits, "__index__"):
            raise TypeError(f"state_quant got num_bits={self.num_bits!r}; pass an integer number of bits, such as 8")
        if not 1 <= self.num_bits <= MOST_BITS:
            raise ValueError(f"state_quant got num_bits={self.num_bits}; pass 1 to {MOST_BITS}")
        converted: dict[str, Any] = {"num_bits": int(self.num_bits)}
        converted |= {"uniform": bool(self.uniform), "thr_centered": bool(self.thr_centered)}
        for name in ("threshold", "lower_limit", "upper_limit", "multiplier"):
            value = getattr(self, name)
            try:
                converted[name] = None if name == "multiplier" and value is None else float(value)
            except (TypeError, ValueError, RuntimeError) as error:
                raise TypeError(f"state_quant got {name}={value!r}; pass one number") from error
        for name, value in converted.items():
            object.__setattr__(self, name, value)  # frozen from here on
        self._check_ends()

    def __call__(self, x: Tensor) -> Tensor:
        """Round every value to the nearest level; NaN stays NaN."""
        if not x.is_floating_point():
            x = x.to(torch.get_default_dtype())
        kind = (x.dtype, x.device, exporting())
        search = self._searches.get(kind)
        if search is None:
            search = self._searches[kind] = self._search(*kind)
        if not x.requires_grad and not transforms_active():
            return search(x)
        nearest: Tensor = _StraightThrough.apply(x, search)
        return nearest

    def levels(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The levels in ascending order, [2^num_bits]."""
        n, (low, high) = 1 << self.num_bits, self._ends()
        if self.uniform:
            return torch.linspace(low, high, n, dtype=dtype)
        center = self._center()
        below, above = center - low, high - center
        n_below = int(n * below / (below + above))
        down, up = (self._drawn_together(count) for count in (n_below, n - n_below))
        return torch.cat((center - below * down.flip(0), center + above * up)).to(dtype)

    def _search(self, dtype: torch.dtype, device: torch.device, exported: bool) -> Search:
        if exported:
            with unrecorded(), real_tensors():
                levels = self.levels(torch.float64 if dtype == torch.float64 else torch.float32).sort().values
                return _exported(levels.to(device), self.uniform)
        if dtype not in (torch.float32, torch.float64):  # half precision cannot index 256 levels
            wide = self._search(torch.float32, device, exported)
            return lambda x: wide(x.float()).to(dtype)
        levels = self.levels(dtype).sort().values.to(device)
        if self.uniform:
            return _by_division(levels)
        return _by_leading_bits(levels, self._center())

    def _ends(self) -> tuple[float, float]:
        """The lowest and the highest level."""
        threshold = self.threshold
        return -(threshold + threshold * self.lower_limit), threshold + threshold * self.upper_limit

    def _center(self) -> float:
        """The center, where non-uniform levels are densest."""
        return self.threshold if self.thr_centered else 0.0

    def _drawn_together(self, count: int) -> Tensor:
        """Relative distances from the center, up to 1, [count]; each gap is 1 / multiplier times the one before."""
        default = MULTIPLIERS[min(self.num_bits, len(MULTIPLIERS)) - 1]
        m = default if self.multiplier is None else self.multiplier
        exponents = torch.arange(count, dtype=torch.float64)
        gaps = m ** (exponents.flip(0) if m < 1 else -exponents)  # the largest gap is 1, so that nothing overflows
        return gaps.cumsum(0) / gaps.sum()

    def _check_ends(self) -> None:
        low, high = self._ends()
        if low == high:
            raise ValueError(
                f"state_quant has all levels at {low}: threshold={self.threshold}, lower_limit={self.lower_limit}, "
                f"upper_limit={self.upper_limit}; pass limits with a range"
            )
        if self.uniform:
            return
        if self.multiplier is not None and not self.multiplier > 0:
            raise ValueError(f"state_quant got multiplier={self.multiplier}; pass a number above 0, usually below 1")
        between = sorted((low, high))
        if not between[0] <= self._center() <= between[1]:
            raise ValueError(
                f"state_quant has levels from {low} to {high}, which do not include their center {self._center()}; "
                "increase the limits, or change thr_centered"
            )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_searches": {}}

    def __repr__(self) -> str:
        options = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.init]
        return f"state_quant({', '.join(options)})"


def state_quant(
    num_bits: int = 8,
    uniform: bool = True,
    thr_centered: bool = True,
    threshold: float = 1,
    lower_limit: float = 0,
    upper_limit: float = 0.2,
    multiplier: float | None = None,
) -> Quantizer:
    """Create a function that rounds to the nearest of n = 2^num_bits levels, for the `state_quant` of a neuron.

    The levels range from L = -threshold * (1 + lower_limit) to U = threshold * (1 + upper_limit). Values outside are
    clamped. Values exactly halfway between two levels are rounded down.

    - uniform: L + k (U - L) / (n - 1), k = 0 ... n - 1.
    - non-uniform, around a center c, which is the threshold (`thr_centered`) or 0, with m the multiplier:
      floor(n (c - L) / (U - L)) levels below c, the others above it, at the distances

          d_k = D (1 + m^-1 + ... + m^-(k - 1)) / (1 + m^-1 + ... + m^-(K - 1)),    k = 1 ... K

      for K levels that extend to the distance D. Each gap is 1 / m times the one before, so for m < 1 the levels are
      densest at c.

    The gradient passes unchanged, also for clamped values.

    Args:
        num_bits: 1 to 24. Default: 8.
        uniform: whether the levels are equally spaced; thr_centered and multiplier are then not used. Default: True.
        thr_centered: whether non-uniform levels are densest at the threshold, or at 0. Default: True.
        threshold: the threshold of the neuron, a number. Default: 1.
        lower_limit: extent of the levels below -threshold, in units of the threshold. Default: 0.
        upper_limit: extent of the levels above the threshold, in units of the threshold. Default: 0.2.
        multiplier: m. Default: 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.925, 0.95 for 1, 2, ... 8 bits, and 0.95 for more.

    Returns:
        a callable from a tensor [*S] to [*S] of the same dtype and device. It supports pickle.

    Raises:
        TypeError: for arguments that are not numbers.
        ValueError: if all levels are equal, or if non-uniform levels do not include their center.

    Source of the straight-through gradient: Bengio, Leonard and Courville, "Estimating or propagating gradients
    through stochastic neurons for conditional computation", 2013.

        >>> import torch
        >>> q = state_quant(num_bits=3, uniform=False, multiplier=0.5)
        >>> q.levels()
        tensor([-1.0000,  0.0079,  0.5118,  0.7638,  0.8898,  0.9528,  0.9843,  1.2000])
        >>> x = torch.tensor([0.6, 7.0], requires_grad=True)
        >>> q(x).sum().backward()
        >>> q(x).detach(), x.grad
        (tensor([0.5118, 1.2000]), tensor([1., 1.]))
    """
    return Quantizer(num_bits, uniform, thr_centered, threshold, lower_limit, upper_limit, multiplier)


# -- the searches ------------------------------------------------------------------------------------------------------


def _boundaries(levels: Tensor) -> Tensor:
    """Midpoints between adjacent levels, [L - 1]; above a midpoint the higher level is nearer."""
    exact = levels.double()
    return ((exact[:-1] + exact[1:]) / 2).to(levels.dtype)


def _with_nan(levels: Tensor) -> Tensor:
    """Append NaN to the levels, as the result for NaN."""
    return torch.cat((levels, levels.new_full((1,), torch.nan)))


def _by_division(levels: Tensor) -> Search:
    """Search for uniform levels."""
    n, low = len(levels), float(levels[0])
    gap = (float(levels[-1]) - low) / (n - 1)
    first_boundary = low + gap / 2
    values = _with_nan(levels)

    def search(x: Tensor) -> Tensor:
        place = x.flatten().sub(first_boundary).div_(gap).ceil_().clamp_(0, n - 1).nan_to_num_(nan=n)
        # in place: allocating memory takes as long as the arithmetic
        return torch.index_select(values, 0, place.to(torch.int32), out=place).view(x.shape)

    return search


def _by_leading_bits(levels: Tensor, center: float) -> Search:
    """Search for levels that are densest around a center, by the leading bits of the distance from it.

    A cell contains all values whose distances from the center have the same leading bits. A table stores the number of
    midpoints below each cell. The few midpoints within the cell are compared one by one.
    """
    n, dtype = len(levels), levels.dtype
    as_int, shift = (torch.int32, 18) if dtype == torch.float32 else (torch.int64, 47)  # exponent, 5 mantissa bits
    half = 1 << (13 if dtype == torch.float32 else 16)

    def cell_of(x: Tensor) -> Tensor:
        return (x - center).view(as_int).bitwise_right_shift_(shift).add_(half).to(torch.int32)

    def rank_of(cell: Tensor) -> Tensor:  # larger bit patterns of negative numbers are lower values
        return torch.where(cell < half, half - 1 - cell, cell)

    boundaries = _boundaries(levels)
    ranks = rank_of(cell_of(boundaries))
    below = torch.searchsorted(ranks, rank_of(torch.arange(2 * half, dtype=torch.int32, device=levels.device)))
    passes = int(ranks.unique_consecutive(return_counts=True)[1].max())
    if passes > 3:
        return _by_bisection(levels)
    nan = cell_of(torch.tensor([torch.nan, -torch.nan], dtype=dtype, device=levels.device))
    below = below.to(torch.int32).index_fill(0, nan.long(), n)
    limits = torch.cat((boundaries, boundaries.new_full((2,), torch.inf)))
    values = _with_nan(levels)

    def search(x: Tensor) -> Tensor:
        place = _picked(below, cell_of(x))
        for _ in range(passes):
            place += x > _picked(limits, place)
        return _picked(values, place)

    return search


def _by_bisection(levels: Tensor) -> Search:
    """Search for any levels."""
    levels, order = levels.sort(stable=True)
    boundaries = _boundaries(levels)
    lower_first = order[:-1] < order[1:]
    boundaries = torch.where(lower_first, boundaries, boundaries.nextafter(torch.full_like(boundaries, -torch.inf)))

    def search(x: Tensor) -> Tensor:
        nearest = _picked(levels, torch.bucketize(x.contiguous(), boundaries, out_int32=True))
        return torch.where(x.isnan(), x, nearest)

    return search


def _exported(levels: Tensor, uniform: bool) -> Search:
    """Search while torch exports: the same results, by operations that other programs have."""
    n, low, boundaries = len(levels), float(levels[0]), _boundaries(levels)
    gap = (float(levels[-1]) - low) / (n - 1)

    def search(x: Tensor) -> Tensor:
        wide = x.to(levels.dtype)
        if uniform:
            place = torch.ceil((wide - (low + gap / 2)) / gap).clamp(0, n - 1).nan_to_num(nan=0).long()
        else:  # by bisection
            place = torch.zeros_like(wide, dtype=torch.int64)
            for bit in reversed(range(n.bit_length() - 1)):
                place = torch.where(wide > boundaries[place + ((1 << bit) - 1)], place + (1 << bit), place)
        return torch.where(x.isnan(), x, levels[place].to(x.dtype))

    return search


def _picked(table: Tensor, places: Tensor) -> Tensor:
    """table[places], but twice as fast."""
    return table.index_select(0, places.flatten()).view(places.shape)
