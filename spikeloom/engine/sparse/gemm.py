"""Matrix products whose one factor may be mostly zero, as parts of kernels: spikes times weights, and their gradients.

What is not zero is listed, row by row: where it stands, and its value. A product adds up the rows of the other factor
that belong to these. Addresses are integers and count bytes; strides count elements, matrices are packed (see
`sparse.packed`), lists hold 32-bit places.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types

from ..jit import HEIGHT, SPARSE_BELOW, intrinsics, panel_bytes
from . import tiles


def _define(dtype: Any) -> None:
    """Put the routines of a dtype into this module: `count_float32` and so on, which generated kernels import."""
    size, name = dtype().itemsize, dtype.__name__
    panel = panel_bytes() // size
    load, store, nonzero, one = (getattr(intrinsics, f"{kind}_{name}") for kind in ("load", "store", "nonzero", "one"))
    tall, flat, listed, pair = (getattr(tiles, f"{kind}_{name}") for kind in ("tall", "flat", "listed", "pair"))
    lowest, bits, short, store_short = intrinsics.lowest, intrinsics.bits, intrinsics.short, intrinsics.store_short
    word, store_word = intrinsics.word, intrinsics.store_word

    def part(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__qualname__ += f"_{name}"  # machine code that several processes have stored is linked by names
        compiled: Callable[..., Any] = njit(nogil=True, error_model="numpy")(function)
        globals()[f"{function.__name__}_{name}"] = compiled
        return compiled

    @part
    def count(values: int, width: int) -> int:
        """How many of values[width] are not zero."""
        found, k = 0, 0
        while k + 64 <= width:
            found += bits(nonzero(values, k))
            k += 64
        while k < width:
            found += load(values, k) != 0
            k += 1
        return found

    @part
    def mark(values: int, width: int, marks: int) -> tuple[int, int]:
        """Write a bit for each of values[width] that is not zero; return how many are not, and how many are 1."""
        found, same, k = 0, 0, 0
        while k + 64 <= width:
            left = nonzero(values, k)
            store_word(marks, k // 64, left)
            found, same = found + bits(left), same + bits(one(values, k))
            k += 64
        if k < width:
            left = 0
            for n in range(k, width):
                value = load(values, n)
                left |= types.int64(value != 0) << (n - k)
                same += value == 1
            store_word(marks, k // 64, left)
            found += bits(left)
        return found, same

    @part
    def places(marks: int, words: int, index: int) -> None:
        """Write where the bits are set."""
        count = 0
        for w in range(words):
            left = word(marks, w)
            while left != 0:
                store_short(index, count, np.int32(64 * w + lowest(left)))
                count += 1
                left &= left - 1

    @part
    def pick(values: int, index: int, count: int, listed: int) -> None:
        """listed[count] = values[index]."""
        for i in range(count):
            store(listed, i, load(values, short(index, i)))

    @part
    def collect(values: int, width: int, index: int, listed: int) -> int:
        """Write where values[width] are not zero, and what they are; return how many."""
        count, k = 0, 0
        while k + 64 <= width:
            left = nonzero(values, k)
            while left != 0:
                place = k + lowest(left)
                store_short(index, count, np.int32(place))
                store(listed, count, load(values, place))
                count += 1
                left &= left - 1
            k += 64
        while k < width:
            value = load(values, k)
            if value != 0:
                store_short(index, count, np.int32(k))
                store(listed, count, value)
                count += 1
            k += 1
        return count

    @part
    def add_rows(
        listed_at: int, step: int, index: int, count: int, matrix: int, stride: int, gap: int, out: int
    ) -> None:
        """out[2 * panel] += the listed values, `step` apart, times their rows of the matrix."""
        pair(listed_at, 0, step, index, count, matrix, stride, gap, out, 0)

    @part
    def add_panel(listed_at: int, step: int, index: int, count: int, matrix: int, stride: int, out: int) -> None:
        """out[panel] += the listed values, `step` apart, times their rows of the matrix."""
        listed(listed_at, 0, step, index, count, matrix, stride, 0, out, 0)

    @part
    def product(
        values: int, width: int, matrix: int, panels: int, out: int, rows: int, scratch: int, skip: int
    ) -> None:
        """out[rows, panels * panel] += values[rows, width] @ matrix.

        Where few values are zero the product is dense; both give the same bits (see `tiles`). A zero that is left out
        would have made NaN of an infinite factor: callers say with `skip` whether the matrix is all finite.

        Args:
            scratch: 2 * (width + 1) words a row.
        """
        wide, each = panels * panel, 16 * (width + 1)
        found = 0
        if skip != 0:
            for r in range(rows):
                found += count(values + size * r * width, width)
        if skip != 0 and found < SPARSE_BELOW * rows * width:
            for r in range(rows):
                mine = scratch + r * each
                store_word(mine, 0, collect(values + size * r * width, width, mine + 8 + size * width, mine + 8))
            for p in range(0, panels, 2):
                block = matrix + size * p * width * panel
                for r in range(rows):
                    mine, to = scratch + r * each, out + size * (r * wide + p * panel)
                    if p + 1 < panels:
                        add_rows(mine + 8, 1, mine + 8 + size * width, word(mine, 0), block, panel, width * panel, to)
                    else:
                        add_panel(mine + 8, 1, mine + 8 + size * width, word(mine, 0), block, panel, to)
            return
        for p in range(panels):
            block = matrix + size * p * width * panel
            r = 0
            while r < rows:
                row, to = values + size * r * width, out + size * (r * wide + p * panel)
                if r + HEIGHT <= rows:
                    tall(row, width, 1, 0, width, block, panel, 0, to, wide)
                    r += HEIGHT
                else:
                    flat(row, width, 1, 0, width, block, panel, 0, to, wide)
                    r += 1

    @part
    def copy(values: int, count: int, to: int) -> None:
        for n in range(count):
            store(to, n, load(values, n))

    @part
    def product_of_lists(
        starts: int,
        index: int,
        listed: int,
        step: int,
        low: int,
        high: int,
        matrix: int,
        width: int,
        columns: int,
        bias: int,
        out: int,
        spare: int,
    ) -> None:
        """out[r, columns] = bias + the listed values of row r times their rows of the matrix, for low <= r < high.

        Args:
            spare: scratch for a panel.
        """
        p = 0
        while p < columns:
            block, rest = matrix + size * p * width, columns - p
            for r in range(low, high):
                start = word(starts, r)
                many, to = word(starts, r + 1) - start, out + size * (r * columns + p)
                values, places = listed + size * step * start, index + 4 * start
                if rest >= 2 * panel:
                    copy(bias + size * p, 2 * panel, to)
                    add_rows(values, step, places, many, block, panel, width * panel, to)
                elif rest >= panel:
                    copy(bias + size * p, panel, to)
                    add_panel(values, step, places, many, block, panel, to)
                else:
                    copy(bias + size * p, panel, spare)
                    add_panel(values, step, places, many, block, panel, spare)
                    copy(spare, rest, to)
            p += 2 * panel if rest >= 2 * panel else panel

    @part
    def turned(
        starts: int,
        index: int,
        listed: int,
        step: int,
        rows: int,
        more: int,
        columns: int,
        ends: int,
        to: int,
        own: int,
    ) -> None:
        """The lists of `more` rows as lists of the columns: where each ends, its rows, and its values if step is 1."""
        for k in range(columns + 1):
            store_word(ends, k, 0)
        first = word(starts, rows)
        for i in range(first, word(starts, rows + more)):
            k = short(index, i) + 1
            store_word(ends, k, word(ends, k) + 1)
        for k in range(columns):
            store_word(ends, k + 1, word(ends, k + 1) + word(ends, k))
        for r in range(more):
            for i in range(word(starts, rows + r), word(starts, rows + r + 1)):
                k = short(index, i)
                place = word(ends, k)
                store_short(to, place, np.int32(r))
                if step != 0:
                    store(own, place, load(listed, i))
                store_word(ends, k, place + 1)

    @part
    def block(values: int, width: int, rows: int, columns: int, wide: int, out: int) -> None:
        """values[rows, columns], of rows as long as `width`, as rows as long as `wide`."""
        for r in range(rows):
            copy(values + size * r * width, columns, out + size * r * wide)

    @part
    def add_up(values: int, rows: int, columns: int, wide: int, total: int) -> None:
        """total[columns] += the sum of values[rows, columns], of rows as long as `wide`, in their order."""
        for r in range(rows):
            row = values + size * r * wide
            for n in range(columns):
                store(total, n, load(total, n) + load(row, n))

    @part
    def outer_of_lists(
        ends: int, index: int, values: int, step: int, low: int, high: int, grad: int, wide: int, out: int
    ) -> None:
        """out[k - low, :] += the listed values of column k times their rows of grad, for low <= k < high.

        Args:
            wide: how long the rows of `grad` and `out` are, one panel or two.
        """
        start = word(ends, low - 1) if low > 0 else 0
        for k in range(low, high):
            end = word(ends, k)
            mine, rows, to = values + size * step * start, index + 4 * start, out + size * (k - low) * wide
            if wide > panel:
                add_rows(mine, step, rows, end - start, grad, wide, panel, to)
            else:
                add_panel(mine, step, rows, end - start, grad, wide, to)
            start = end

    @part
    def add_turned(values: int, rows: int, columns: int, wide: int, out: int, stride: int) -> None:
        """out[n, k] += values[k, n] for k < rows, n < columns; rows as long as `stride` and `wide`."""
        for first in range(0, rows, 16):  # a part that stays in the first-level cache
            for n in range(columns):
                to = out + size * n * stride
                for k in range(first, min(first + 16, rows)):
                    store(to, k, load(to, k) + load(values, k * wide + n))


for kind in (np.float32, np.float64):
    _define(kind)
