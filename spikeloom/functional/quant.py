"""Quantised states: every value goes to the nearest of 2^num_bits levels, and the gradient passes straight through.

A search through all levels would compare every value with every level, or walk down a tree of comparisons. Here an
estimate says at once between which two levels a value lies: by a division where the levels are uniform, else by a table
over the leading bits of its distance from the centre, around which the levels lie ever closer. Time and memory do not
grow with the number of levels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from .._torch import transforms_active

Search = Callable[[Tensor], Tensor]
"""The nearest level of each value."""

MULTIPLIERS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.925, 0.95)
"""How fast non-uniform levels draw together by default: by number of bits, the last for more bits too."""

MOST_BITS = 24
"""Those of a float32's mantissa: more levels than that cannot be told apart."""


class StateQuant(torch.autograd.Function):
    """``StateQuant.apply(x, levels)``: the nearest of any given levels; the gradient passes straight through.

    Shapes:
        x [*S] to [*S] of the same dtype; levels [L], in any order. Of two levels equally near the first one is taken.

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
class Quantiser:
    """What `state_quant` returns: a function of a tensor that pickles, compares and prints as its call.

    [*S] to [*S], of the same dtype and device; whole numbers become the default dtype.
    """

    num_bits: int
    uniform: bool
    thr_centered: bool
    threshold: float
    lower_limit: float
    upper_limit: float
    multiplier: float | None
    _searches: dict[tuple[torch.dtype, torch.device], Search] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.num_bits, bool) or not hasattr(self.num_bits, "__index__"):
            raise TypeError(f"state_quant got num_bits={self.num_bits!r}; pass a whole number of bits, such as 8")
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
        """The nearest level of every value; NaN stays NaN."""
        if not x.is_floating_point():
            x = x.to(torch.get_default_dtype())
        kind = (x.dtype, x.device)
        search = self._searches.get(kind)
        if search is None:
            search = self._searches[kind] = self._search(*kind)
        if not x.requires_grad and not transforms_active():
            return search(x)
        nearest: Tensor = _StraightThrough.apply(x, search)
        return nearest

    def levels(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The 2^num_bits levels in rising order, [2^num_bits]."""
        n, (low, high) = 1 << self.num_bits, self._ends()
        if self.uniform:
            return torch.linspace(low, high, n, dtype=dtype)
        centre = self._centre()
        below, above = centre - low, high - centre
        n_below = int(n * below / (below + above))
        down, up = (self._drawn_together(count) for count in (n_below, n - n_below))
        return torch.cat((centre - below * down.flip(0), centre + above * up)).to(dtype)

    def _search(self, dtype: torch.dtype, device: torch.device) -> Search:
        if dtype not in (torch.float32, torch.float64):  # a half cannot count 256 levels
            wide = self._search(torch.float32, device)
            return lambda x: wide(x.float()).to(dtype)
        levels = self.levels(dtype).sort().values.to(device)
        if self.uniform:
            return _by_division(levels)
        return _by_leading_bits(levels, self._centre())

    def _ends(self) -> tuple[float, float]:
        """The lowest and the highest level."""
        threshold = self.threshold
        return -(threshold + threshold * self.lower_limit), threshold + threshold * self.upper_limit

    def _centre(self) -> float:
        """Where non-uniform levels lie closest."""
        return self.threshold if self.thr_centered else 0.0

    def _drawn_together(self, count: int) -> Tensor:
        """Distances from the centre, up to 1, whose gaps grow by 1 / multiplier from each to the next: [count]."""
        default = MULTIPLIERS[min(self.num_bits, len(MULTIPLIERS)) - 1]
        m = default if self.multiplier is None else self.multiplier
        exponents = torch.arange(count, dtype=torch.float64)
        gaps = m ** (exponents.flip(0) if m < 1 else -exponents)  # the larger ones at 1: nothing overflows
        return gaps.cumsum(0) / gaps.sum()

    def _check_ends(self) -> None:
        low, high = self._ends()
        if low == high:
            raise ValueError(
                f"state_quant has all levels at {low}: threshold={self.threshold}, lower_limit={self.lower_limit}, "
                f"upper_limit={self.upper_limit}; give it a range"
            )
        if self.uniform:
            return
        if self.multiplier is not None and not self.multiplier > 0:
            raise ValueError(f"state_quant got multiplier={self.multiplier}; pass a number above 0, usually below 1")
        between = sorted((low, high))
        if not between[0] <= self._centre() <= between[1]:
            raise ValueError(
                f"state_quant has levels from {low} to {high}, which do not reach around {self._centre()}, where they "
                "should lie closest; raise the limits, or change thr_centered"
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
) -> Quantiser:
    """A function that moves every value to the nearest of n = 2^num_bits levels, for the `state_quant` of a neuron.

    The levels reach from L = -threshold * (1 + lower_limit) to U = threshold * (1 + upper_limit). Values beyond take
    the first and the last. Exactly half-way the lower level is taken.

    - uniform: L + k (U - L) / (n - 1), k = 0 ... n - 1.
    - else, around a centre c, which is the threshold (`thr_centered`) or 0, with m the multiplier:
      floor(n (c - L) / (U - L)) levels below c, the others above it, at the distances

          d_k = D (1 + m^-1 + ... + m^-(k - 1)) / (1 + m^-1 + ... + m^-(K - 1)),    k = 1 ... K

      for K levels that reach to the distance D: next to c they lie closest, for m < 1, and each gap is 1 / m of the
      one before.

    Backward: the gradient passes straight through, also where values were beyond the levels.

    Args:
        num_bits: 1 to 24.
        uniform: whether the levels are equally spaced; if so, the next argument and the last are not used.
        thr_centered: whether non-uniform levels lie closest around the threshold, or around 0.
        threshold: that of the neuron; one number.
        lower_limit: how far the levels reach below -threshold, in thresholds.
        upper_limit: how far the levels reach above the threshold, in thresholds.
        multiplier: m; None is 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.925, 0.95 for 1, 2, ... 8 bits, and 0.95 for more.

    Returns:
        an object to be called with a tensor [*S], which gives [*S] of the same dtype and device. It pickles.

    Raises:
        TypeError: for what are no numbers.
        ValueError: for levels that fall together, or do not reach around their centre.

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
    return Quantiser(num_bits, uniform, thr_centered, threshold, lower_limit, upper_limit, multiplier)


# -- the searches ------------------------------------------------------------------------------------------------------


def _boundaries(levels: Tensor) -> Tensor:
    """Half-way between each level and the next, [L - 1]: above it the higher one is nearer."""
    exact = levels.double()
    return ((exact[:-1] + exact[1:]) / 2).to(levels.dtype)


def _with_nan(levels: Tensor) -> Tensor:
    """The levels and, after them, NaN, for values that are."""
    return torch.cat((levels, levels.new_full((1,), torch.nan)))


def _by_division(levels: Tensor) -> Search:
    """For levels with equal gaps."""
    n, low = len(levels), float(levels[0])
    gap = (float(levels[-1]) - low) / (n - 1)
    first_boundary = low + gap / 2
    values = _with_nan(levels)

    def search(x: Tensor) -> Tensor:
        place = x.flatten().sub(first_boundary).div_(gap).ceil_().clamp_(0, n - 1).nan_to_num_(nan=n)
        # into the same memory: fresh memory costs as much as the arithmetic
        return torch.index_select(values, 0, place.to(torch.int32), out=place).view(x.shape)

    return search


def _by_leading_bits(levels: Tensor, centre: float) -> Search:
    """For levels that draw together around a centre: the leading bits of a distance from it are its order of magnitude.

    A cell is all values whose distances from the centre have the same leading bits. A table says how many boundaries
    lie below each cell. The few within it are compared one by one.
    """
    n, dtype = len(levels), levels.dtype
    as_int, shift = (torch.int32, 18) if dtype == torch.float32 else (torch.int64, 47)  # exponent, five of the mantissa
    half = 1 << (13 if dtype == torch.float32 else 16)

    def cell_of(x: Tensor) -> Tensor:
        return (x - centre).view(as_int).bitwise_right_shift_(shift).add_(half).to(torch.int32)

    def rank_of(cell: Tensor) -> Tensor:  # of negative numbers, the larger bits are the lower ones
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
    """For any levels."""
    levels, order = levels.sort(stable=True)
    boundaries = _boundaries(levels)
    lower_first = order[:-1] < order[1:]
    boundaries = torch.where(lower_first, boundaries, boundaries.nextafter(torch.full_like(boundaries, -torch.inf)))

    def search(x: Tensor) -> Tensor:
        nearest = _picked(levels, torch.bucketize(x.contiguous(), boundaries, out_int32=True))
        return torch.where(x.isnan(), x, nearest)

    return search


def _picked(table: Tensor, places: Tensor) -> Tensor:
    """table[places], in half the time."""
    return table.index_select(0, places.flatten()).view(places.shape)
