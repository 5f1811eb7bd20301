"""Products with matrices that are mostly zeros, such as spikes, as compressed sparse rows (CSR), on the CPU.

Threads share rows. The order of each sum does not depend on the number of threads (see `microkernels`).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..jit import buffer_pool
from ..tuning import shapes
from .kernel import panel_bytes, row_kernel, slim_height

_mark = row_kernel(
    "where a matrix is not zero, a bit for each value",
    "rows, width, x*, counts*, marks*, other*",
    """
    words, others = (width + 63) // 64, types.int64(0)
    for r in range(low, high):
        values, own = x + SIZE * r * width, marks + 8 * r * words
        many, ones, k = types.int64(0), types.int64(0), 0
        while k + 64 <= width:
            left = nonzero(values, k)
            store_word(own, k // 64, left)
            many, ones = many + bits(left), ones + bits(one(values, k))
            k += 64
        if k < width:
            left = types.int64(0)
            for n in range(k, width):
                value = load(values, n)
                left |= types.int64(value != 0) << (n - k)
                ones += value == 1
            store_word(own, k // 64, left)
            many += bits(left)
        store_word(counts, r, many)
        others += many - ones
    if others != 0:
        store_word(other, 0, 1)""",
)

_list = row_kernel(
    "the nonzeros of a matrix",
    "rows, width, x*, marks*, starts*, index*, values*, step",
    """
    words = (width + 63) // 64
    for r in range(low, high):
        n = word(starts, r)
        for w in range(words):
            left = word(marks, r * words + w)
            while left != 0:
                k = 64 * w + lowest(left)
                store_short(index, n, np.int32(k))
                if step != 0:
                    store(values, n, load(x, r * width + k))
                n += 1
                left &= left - 1""",
)

_product = row_kernel(
    "a CSR matrix times a dense one",
    "rows, width, columns, starts*, index*, values*, step, matrix*, bias*, out*, scratch",
    """
    for begin in range(low, high, CHUNK):
        end = min(begin + CHUNK, high)
        p = 0
        while p < columns:
            block, rest = matrix + SIZE * p * width, columns - p
            for r in range(begin, end):
                first = word(starts, r)
                many, to = word(starts, r + 1) - first, out + SIZE * (r * columns + p)
                nonzeros, places = values + SIZE * step * first, index + 4 * first
                if rest >= 2 * PANEL:
                    copy(bias + SIZE * p, 2 * PANEL, to)
                    pair(nonzeros, step, places, many, block, PANEL, width * PANEL, to)
                elif rest >= PANEL:
                    copy(bias + SIZE * p, PANEL, to)
                    listed(nonzeros, step, places, many, block, PANEL, to)
                else:
                    copy(bias + SIZE * p, PANEL, scratch)
                    listed(nonzeros, step, places, many, block, PANEL, scratch)
                    copy(scratch, rest, to)
            p += 2 * PANEL if rest >= 2 * PANEL else PANEL""",
)

_turn = row_kernel(
    "the columns of a CSR matrix, of each block of rows",
    "blocks, rows, columns, starts*, index*, values*, step, ends*, to*, turned*",
    """
    for b in range(low, high):
        first = b * TURNED
        last, own = min(first + TURNED, rows), ends + 8 * b * (columns + 1)
        begin = word(starts, first)
        for k in range(columns + 1):
            store_word(own, k, 0)
        for i in range(begin, word(starts, last)):
            k = short(index, i) + 1
            store_word(own, k, word(own, k) + 1)
        for k in range(columns):
            store_word(own, k + 1, word(own, k + 1) + word(own, k))
        for r in range(first, last):
            for i in range(word(starts, r), word(starts, r + 1)):
                k = short(index, i)
                place = word(own, k)
                store_short(to, begin + place, np.int32(r - first))
                if step != 0:
                    store(turned, begin + place, load(values, i))
                store_word(own, k, place + 1)""",
)

_outer = row_kernel(
    "the gradient of a weight from a CSR input",
    "units, parts, rows, columns, width, starts*, ends*, to*, values*, step, grad*, out*, total*, scratch",
    """
    sums = scratch + SIZE * TURNED * 2 * PANEL
    for unit in range(low, high):
        p, part = unit // parts * 2 * PANEL, unit % parts
        left, right = columns * part // parts, columns * (part + 1) // parts
        count = min(width - p, 2 * PANEL)
        wide = PANEL if count <= PANEL else 2 * PANEL
        for i in range(TURNED * wide if count < wide else 0):
            store(scratch, i, R(0))
        for i in range((right - left) * wide):
            store(sums, i, R(0))
        for first in range(0, rows, TURNED):
            many, begin = min(TURNED, rows - first), word(starts, first)
            for r in range(many):
                copy(grad + SIZE * ((first + r) * width + p), count, scratch + SIZE * r * wide)
            own = ends + 8 * (first // TURNED) * (columns + 1)
            start = word(own, left - 1) if left > 0 else 0
            for k in range(left, right):
                end = word(own, k)
                nonzeros, places = values + SIZE * step * (begin + start), to + 4 * (begin + start)
                if wide > PANEL:
                    pair(nonzeros, step, places, end - start, scratch, wide, PANEL, sums + SIZE * (k - left) * wide)
                else:
                    listed(nonzeros, step, places, end - start, scratch, wide, sums + SIZE * (k - left) * wide)
                start = end
            if part == 0:  # the rows of a block by themselves first: one long sum would lose its digits
                for r in range(1, many):
                    for n in range(count):
                        store(scratch, n, load(scratch, n) + load(scratch, r * wide + n))
                for n in range(count):
                    store(total, p + n, load(total, p + n) + load(scratch, n))
            # one sum over all rows would lose its digits: that of 1,000,000 equal values in float32 is wrong by 1 %
            if (first // TURNED + 1) % 16 == 0 or first + TURNED >= rows:
                for top in range(0, right - left, 16):  # a part that stays in the first-level cache
                    for n in range(count):
                        row = out + SIZE * ((p + n) * columns + left)
                        for k in range(top, min(top + 16, right - left)):
                            store(row, k, load(row, k) + load(sums, k * wide + n))
                for i in range((right - left) * wide):
                    store(sums, i, R(0))""",
)

_pack = row_kernel(
    "a matrix in panels of columns",
    "panels, rows, columns, panel, x*, row_stride, column_stride, out*, nonfinite*",
    """
    found = types.int64(0)
    for p in range(low, high):
        count, start, to = min(panel, columns - p * panel), p * panel * column_stride, out + SIZE * p * rows * panel
        if count < panel:
            for i in range(rows * panel):
                store(to, i, R(0))
        if column_stride == 1:
            for k in range(rows):
                for n in range(count):
                    value = load(x, start + k * row_stride + n)
                    store(to, k * panel + n, value)
                    found |= value - value != 0  # true of NaN and of what is infinite
        else:
            for first in range(0, rows, 64):  # whole lines are read, and what is written stays in the cache
                for n in range(count):
                    for k in range(first, min(first + 64, rows)):
                        value = load(x, start + k * row_stride + n * column_stride)
                        store(to, k * panel + n, value)
                        found |= value - value != 0
    if found != 0:
        store_word(nonfinite, 0, 1)""",
)

_narrow_product = row_kernel(
    "a dense product with few outputs",
    "rows, width, columns, x*, matrix*, bias*, out*, scratch",
    """
    for r in range(low, high, SLIM_HEIGHT):
        many = min(SLIM_HEIGHT, high - r)
        for p in range(0, columns, SLIM):
            values, block, count = x + SIZE * r * width, matrix + SIZE * p * width, min(SLIM, columns - p)
            for i in range(many):
                copy(bias + SIZE * p, SLIM, scratch + LINE * i)
            if many == SLIM_HEIGHT:
                slim(values, width, width, block, SLIM, scratch, SLIM)
            else:
                for i in range(many):
                    thin(values + SIZE * i * width, width, block, SLIM, scratch + LINE * i)
            for i in range(many):
                copy(scratch + LINE * i, count, out + SIZE * ((r + i) * columns + p))""",
)

_narrow_input_gradient = row_kernel(
    "the gradient of the input of a product with few outputs",
    "rows, width, columns, grad*, matrix*, out*, scratch",
    """
    wide = (width + PANEL - 1) // PANEL * PANEL
    apart = wide + SLIM  # rows a multiple of 4 KiB apart would share the sets of the cache
    for r in range(low, high, HEIGHT):
        many = min(HEIGHT, high - r)
        for i in range(many * apart):
            store(scratch, i, R(0))
        for p in range(0, wide, PANEL):
            values, block, to = grad + SIZE * r * columns, matrix + SIZE * p * columns, scratch + SIZE * p
            if many == HEIGHT:
                tall(values, columns, columns, block, PANEL, to, apart)
            else:
                for i in range(many):
                    flat(values + SIZE * i * columns, columns, block, PANEL, to + SIZE * i * apart)
        for i in range(many):
            flow(scratch + SIZE * i * apart, width, out + SIZE * (r + i) * width)
    settled()""",
)


def whole_panels(width: int, like: Tensor) -> int:
    """Round a width up to a whole number of panels."""
    panel = panel_bytes() // like.element_size()
    return -(-width // panel) * panel


@dataclass(frozen=True)
class Packed:
    """A matrix [K, N], packed for kernels.

    Args:
        panels: the columns in panels, [N / panel, K, panel], padded with zeros.
        columns: N.
        finite: whether no value is NaN or infinite; otherwise zeros of the other factor must not be skipped.
    """

    panels: Tensor
    columns: int
    finite: bool


def pack_panels(matrix: Tensor, width: int = 0) -> Packed:
    """Lay out a matrix [K, N] in panels of columns, of `panel_bytes` or `width` bytes."""
    (rows, columns), panel = matrix.shape, (width or panel_bytes()) // matrix.element_size()
    panels, nonfinite = matrix.new_empty((-(-columns // panel), rows, panel)), _words(1).zero_()
    sizes = {"panels": len(panels), "size": rows * panel, "rows": rows, "columns": columns, "panel": panel}
    strides = {"row_stride": matrix.stride(0), "column_stride": matrix.stride(1)}
    _pack(matrix.dtype)(**sizes, **strides, x=matrix, out=panels, nonfinite=nonfinite)
    return Packed(panels, columns, finite=not nonfinite.item())


def finite(matrix: Tensor) -> bool:
    """Whether all values, and their sum, are finite."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(matrix.detach().numpy().sum()))


@dataclass(frozen=True)
class CSR:
    """The nonzeros of a matrix [R, K].

    Args:
        shape: R and K.
        starts: the offset of each row in `index` and `values`, and the end of the last row, [R + 1].
        index: the column of each value, row by row.
        values: the values; if all are 1, a single 1, expanded.
    """

    shape: tuple[int, int]
    starts: Tensor
    index: Tensor
    values: Tensor

    @property
    def step(self) -> int:
        """The stride of the values; 0 if they are a single value, expanded."""
        return self.values.stride(0)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a kernel that reads this matrix."""
        return {"starts": self.starts, "index": self.index, "values": self.values, "step": self.step}

    def dense(self) -> Tensor:
        """The dense matrix."""
        out = self.values.new_zeros(self.shape)
        rows = torch.repeat_interleave(self.starts.diff())
        out[rows, self.index.long()] = self.values
        return out


def listed(x: Tensor) -> CSR:
    """Find the nonzeros of a matrix."""
    nonzeros = listed_below(x, math.inf)
    assert nonzeros is not None
    return nonzeros


def listed_below(x: Tensor, most: float) -> CSR | None:
    """Find the nonzeros of a matrix; None if there are `most` or more."""
    (rows, width), other = x.shape, _words(1).zero_()
    counts, marks, starts = _words(rows), _words(rows * -(-width // 64)), _words(rows + 1).zero_()
    _mark(x.dtype)(rows=rows, size=width, width=width, x=x, counts=counts, marks=marks, other=other)
    torch.cumsum(counts, 0, out=starts[1:])
    many = int(starts[-1])
    if many >= most:
        return None
    index = torch.empty(many, dtype=torch.int32, device="cpu")
    values = x.new_empty(many) if other.item() else x.new_ones(1).expand(many)
    nonzeros = CSR((rows, width), starts, index, values)
    _list(x.dtype)(rows=rows, size=width, width=width, x=x, marks=marks, **nonzeros.arguments)
    return nonzeros


def product(x: CSR, matrix: Packed, bias: Tensor | None) -> Tensor:
    """x @ matrix + bias: [R, K], [K, N] and [N] give [R, N]."""
    (rows, width), columns, panels = x.shape, matrix.columns, matrix.panels
    out = buffer_pool.empty((rows, columns), panels)
    sizes = {"rows": rows, "size": width * columns, "width": width, "columns": columns}
    bias = padded(bias, panels)
    _product(out.dtype)(**sizes, **x.arguments, matrix=panels, bias=bias, out=out, scratch=panel_bytes())
    return out


def outer(*pairs: tuple[CSR, Tensor]) -> tuple[Tensor, Tensor]:
    """The sum over pairs of grad.T @ x, [R, K] and [R, N] giving [N, K], and of the rows of grad, [N].

    They are the gradients of a weight and of a bias.
    """
    like, columns = pairs[0][1], pairs[0][0].shape[1]
    out, total = buffer_pool.empty((like.shape[1], columns), like).zero_(), like.new_zeros(like.shape[1])
    for x, grad in pairs:
        _add_outer(out, total, x, grad)
    return out, total


def _add_outer(out: Tensor, total: Tensor, x: CSR, grad: Tensor) -> None:
    (rows, columns), width, step = x.shape, grad.shape[1], x.step
    blocks, sizes = -(-rows // shapes.outer_rows), {"rows": rows, "columns": columns}
    ends, to = _words(blocks * (columns + 1)), torch.empty_like(x.index)
    values = torch.empty_like(x.values) if step else x.values
    _turn(grad.dtype)(
        blocks=blocks, size=shapes.outer_rows * columns, **sizes, **x.arguments, ends=ends, to=to, turned=values
    )
    pair, team = 2 * panel_bytes(), torch.get_num_threads()
    pairs = -(-width * grad.element_size() // pair)
    parts = team // math.gcd(pairs, team)  # parts of the columns, so that all threads have equal work
    scratch = (shapes.outer_rows + -(-columns // parts)) * pair
    sizes |= {"units": pairs * parts, "size": rows * columns, "parts": parts, "width": width, "scratch": scratch}
    turned = {"starts": x.starts, "ends": ends, "to": to, "values": values, "step": step}
    _outer(grad.dtype)(**sizes, **turned, grad=grad, out=out, total=total)


def narrow_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias, dense: [R, K], [N, K] and [N] give [R, N].

    For few outputs, at most as many as fit into a cache line. The kernel is limited by memory bandwidth; torch's
    product takes up to three times as long.
    """
    (rows, width), columns, matrix = x.shape, len(weight), pack_panels(weight.t(), shapes.line).panels
    out = x.new_empty((rows, columns))
    sizes = {"rows": rows, "size": width * columns, "width": width, "columns": columns}
    scratch = slim_height() * shapes.line
    _narrow_product(x.dtype)(**sizes, x=x, matrix=matrix, bias=padded(bias, matrix), out=out, scratch=scratch)
    return out


def narrow_input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """grad @ weight, dense, for as few outputs: [R, N] and [N, K] give [R, K]."""
    (rows, columns), width, matrix = grad.shape, weight.shape[1], pack_panels(weight).panels
    out = buffer_pool.empty((rows, width), grad)
    scratch = shapes.tile_height * (len(matrix) * panel_bytes() + shapes.line)
    sizes = {"rows": rows, "size": width * columns, "width": width, "columns": columns, "scratch": scratch}
    _narrow_input_gradient(grad.dtype)(**sizes, grad=grad, matrix=matrix, out=out)
    return out


def _words(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.int64, device="cpu")


def padded(bias: Tensor | None, panels: Tensor) -> Tensor:
    """The bias of a product with a packed matrix, one value per column of the panels; zeros if there is no bias."""
    out = panels.new_zeros(len(panels) * panels.shape[2])
    if bias is not None:
        out[: len(bias)] = bias
    return out


def list_scratch(rows: int, width: int) -> Tensor:
    """Allocate scratch memory for the nonzeros of some rows, for the kernel of a recurrent layer."""
    return _words(rows * 2 * (width + 1))
