"""Matrix products whose one factor may be mostly zero, as parts of kernels: spikes times weights, and their gradients.

What is not zero is listed, row by row: where it stands, and its value. A product adds up the rows of the other factor
that belong to these. Addresses are integers and count bytes; strides count elements, matrices are packed (see
`sparse.packed`), lists hold 32-bit places.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from . import memory, tiles
from .tiling import HEIGHT, panel_bytes

SPARSE_BELOW = 0.4
"""Share of nonzero values below which adding up rows wins: a row alone takes 2.0 times its part of a dense tile."""


def _routines(dtype: Any) -> tuple[Callable[..., Any], ...]:
    size, name = dtype().itemsize, dtype.__name__
    panel = panel_bytes() // size
    load, store, nonzero = (getattr(memory, f"{kind}_{name}") for kind in ("load", "store", "nonzero"))
    tall, flat, listed, pair = (getattr(tiles, f"{kind}_{name}") for kind in ("tall", "flat", "listed", "pair"))
    lowest, bits, short, store_short = memory.lowest, memory.bits, memory.short, memory.store_short
    word, store_word = memory.word, memory.store_word

    def part(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = njit(nogil=True, error_model="numpy")(function)
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
    def add_rows(listed_at: int, index: int, count: int, matrix: int, stride: int, gap: int, out: int) -> None:
        """out[2 * panel] += the listed values times their rows of the matrix."""
        pair(listed_at, 0, 1, index, count, matrix, stride, gap, out, 0)

    @part
    def add_panel(listed_at: int, index: int, count: int, matrix: int, stride: int, out: int) -> None:
        """out[panel] += the listed values times their rows of the matrix."""
        listed(listed_at, 0, 1, index, count, matrix, stride, 0, out, 0)

    @part
    def product(values: int, width: int, matrix: int, panels: int, out: int, rows: int, room: int, skip: int) -> None:
        """out[rows, panels * panel] += values[rows, width] @ matrix.

        Where few values are zero the product is dense; both give the same bits (see `tiles`). A zero that is left out
        would have made NaN of an infinite factor: callers say with `skip` whether the matrix is all finite.

        Args:
            room: 2 * (width + 1) words a row.
        """
        wide, each = panels * panel, 16 * (width + 1)
        found = 0
        if skip != 0:
            for r in range(rows):
                found += count(values + size * r * width, width)
        if skip != 0 and found < SPARSE_BELOW * rows * width:
            for r in range(rows):
                mine = room + r * each
                store_word(mine, 0, collect(values + size * r * width, width, mine + 8 + size * width, mine + 8))
            for p in range(0, panels, 2):
                block = matrix + size * p * width * panel
                for r in range(rows):
                    mine, to = room + r * each, out + size * (r * wide + p * panel)
                    if p + 1 < panels:
                        add_rows(mine + 8, mine + 8 + size * width, word(mine, 0), block, panel, width * panel, to)
                    else:
                        add_panel(mine + 8, mine + 8 + size * width, word(mine, 0), block, panel, to)
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
            spare: room for a panel.
        """
        p = 0
        while p < columns:
            block, rest = matrix + size * p * width, columns - p
            for r in range(low, high):
                start = word(starts, r)
                many, to = word(starts, r + 1) - start, out + size * (r * columns + p)
                values, places = listed + size * start, index + 4 * start
                if rest >= 2 * panel:
                    copy(bias + size * p, 2 * panel, to)
                    add_rows(values, places, many, block, panel, width * panel, to)
                elif rest >= panel:
                    copy(bias + size * p, panel, to)
                    add_panel(values, places, many, block, panel, to)
                else:
                    copy(bias + size * p, panel, spare)
                    add_panel(values, places, many, block, panel, spare)
                    copy(spare, rest, to)
            p += 2 * panel if rest >= 2 * panel else panel

    @part
    def turned(
        starts: int, index: int, listed: int, rows: int, more: int, low: int, high: int, ends: int, to: int, values: int
    ) -> None:
        """The lists of `more` rows as lists of the columns from low to high: where each ends, its rows, its values."""
        for k in range(high - low + 1):
            store_word(ends, k, 0)
        for i in range(word(starts, rows), word(starts, rows + more)):
            k = short(index, i)
            if low <= k < high:
                store_word(ends, k - low + 1, word(ends, k - low + 1) + 1)
        for k in range(high - low):
            store_word(ends, k + 1, word(ends, k + 1) + word(ends, k))
        for r in range(more):
            for i in range(word(starts, rows + r), word(starts, rows + r + 1)):
                k = short(index, i)
                if low <= k < high:
                    place = word(ends, k - low)
                    store_short(to, place, np.int32(r))
                    store(values, place, load(listed, i))
                    store_word(ends, k - low, place + 1)

    @part
    def last_panel(grad: int, width: int, rows: int, columns: int, packed: int) -> None:
        """grad[rows, columns] as rows of a whole panel, filled up with zeros."""
        for r in range(rows):
            for n in range(panel):
                store(packed, r * panel + n, load(grad, r * width + n) if n < columns else dtype(0))

    @part
    def outer_of_lists(
        ends: int, index: int, values: int, columns: int, grad: int, width: int, rows: int, out: int, spare: int
    ) -> None:
        """out[k] += the listed values of column k times their rows of grad[rows, width], for k < columns.

        Args:
            out: rows as wide as the panels that hold `width`.
            spare: room for as many rows of a panel.
        """
        panels = (width + panel - 1) // panel
        wide, p = panels * panel, 0
        while p < panels:
            two = (p + 2) * panel <= width
            block, stride = grad + size * p * panel, width
            if not two and (p + 1) * panel > width:
                last_panel(block, width, rows, width - p * panel, spare)
                block, stride = spare, panel
            start = 0
            for k in range(columns):
                end = word(ends, k)
                many, to = end - start, out + size * (k * wide + p * panel)
                if many != 0 and two:
                    add_rows(values + size * start, index + 4 * start, many, block, stride, panel, to)
                elif many != 0:
                    add_panel(values + size * start, index + 4 * start, many, block, stride, to)
                start = end
            p += 2 if two else 1

    return count, collect, product, product_of_lists, turned, outer_of_lists


(
    count_float32,
    collect_float32,
    product_float32,
    product_of_lists_float32,
    turned_float32,
    outer_of_lists_float32,
) = _routines(np.float32)
(
    count_float64,
    collect_float64,
    product_float64,
    product_of_lists_float64,
    turned_float64,
    outer_of_lists_float64,
) = _routines(np.float64)
