"""Matrix products whose one factor may be mostly zero, as parts of kernels: spikes times weights, and their gradients.

Where less than `SPARSE_BELOW` of the values are nonzero, the rows of the other factor that belong to these are added
up; otherwise the product is dense. Both give the same bits (see `tiles`), so the choice may be made block by block.
A zero that is left out would have made NaN of an infinite factor: callers say with `skip` whether all are finite.

Addresses are integers and count bytes; strides count elements, matrices are packed (see `sparse.packed`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from . import memory, tiles
from .tiling import CHUNK, HEIGHT, panel_bytes

SPARSE_BELOW = 0.4
"""Share of nonzero values below which adding up rows wins: a row alone takes 2.0 times its part of a dense tile."""


def _routines(dtype: Any) -> tuple[Callable[..., None], Callable[..., None]]:
    size, name = dtype().itemsize, dtype.__name__
    panel = panel_bytes() // size
    load, store = getattr(memory, f"load_{name}"), getattr(memory, f"store_{name}")
    tall, flat, listed = (getattr(tiles, f"{kind}_{name}") for kind in ("tall", "flat", "listed"))
    word, store_word = memory.word, memory.store_word

    def part(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = njit(nogil=True, error_model="numpy")(function)
        return compiled

    @part
    def few(values: int, stride: int, rows: int, width: int) -> bool:
        """Whether so few of values[rows, width] are nonzero that adding up wins."""
        found = 0
        for r in range(rows):
            row = values + size * r * stride
            for k in range(width):
                found += load(row, k) != 0
        return found < SPARSE_BELOW * rows * width

    @part
    def collect(values: int, width: int, index: int) -> int:
        """Write where values[width] are nonzero, and return how many are."""
        count = 0
        for k in range(width):
            store_word(index, count, k)
            count += load(values, k) != 0
        return count

    @part
    def product(values: int, width: int, matrix: int, panels: int, out: int, rows: int, index: int, skip: int) -> None:
        """out[rows, panels * panel] += values[rows, width] @ matrix.

        Args:
            index: room for (width + 2) words a row.
        """
        wide, room = panels * panel, 8 * (width + 2)
        if skip != 0 and few(values, width, rows, width):
            for r in range(rows):
                mine = index + r * room
                store_word(mine, 0, collect(values + size * r * width, width, mine + 8))
            for p in range(panels):
                for r in range(rows):
                    mine = index + r * room
                    row, to = values + size * r * width, out + size * (r * wide + p * panel)
                    listed(row, 0, 1, mine + 8, word(mine, 0), matrix + size * p * width * panel, panel, to, 0)
            return
        for p in range(panels):
            block = matrix + size * p * width * panel
            r = 0
            while r < rows:
                row, to = values + size * r * width, out + size * (r * wide + p * panel)
                if r + HEIGHT <= rows:
                    tall(row, width, 1, 0, width, block, panel, to, wide)
                    r += HEIGHT
                else:
                    flat(row, width, 1, 0, width, block, panel, to, wide)
                    r += 1

    @part
    def lists(values: int, width: int, rows: int, low: int, high: int, index: int) -> None:
        """For each column k from low to high, how many of its values are nonzero, and in which rows."""
        room, row_list = 8 * (CHUNK + 1), index + 8 * (CHUNK + 1) * width
        for k in range(low, high):
            store_word(index + k * room, 0, 0)
        mine = row_list + 8 * (low + low // HEIGHT)
        for r in range(rows):
            count = collect(values + size * (r * width + low), high - low, mine)
            for i in range(count):
                column = index + (low + word(mine, i)) * room
                seen = word(column, 0) + 1
                store_word(column, 0, seen)
                store_word(column, seen, r)

    @part
    def last_panel(grad: int, width: int, rows: int, columns: int, packed: int) -> None:
        """grad[rows, columns] as rows of a whole panel, filled up with zeros."""
        for r in range(rows):
            for n in range(panel):
                store(packed, r * panel + n, load(grad, r * width + n) if n < columns else dtype(0))

    @part
    def outer(
        values: int,
        width: int,
        grad: int,
        grad_width: int,
        rows: int,
        low: int,
        high: int,
        out: int,
        index: int,
        spare: int,
        skip: int,
    ) -> None:
        """out[k] += sum over r of values[r, k] * grad[r], for k from low to high.

        Args:
            out: rows as wide as the panels that hold grad_width.
            index: room for width * (CHUNK + 3) words, shared by threads with other k.
            spare: room for CHUNK rows of a panel, of this thread alone.
        """
        panels = (grad_width + panel - 1) // panel
        wide, room = panels * panel, 8 * (CHUNK + 1)
        for start in range(0, rows, CHUNK):
            many = min(CHUNK, rows - start)
            x, g = values + size * start * width, grad + size * start * grad_width
            sparse = skip != 0 and few(x + size * low, width, many, high - low)
            if sparse:
                lists(x, width, many, low, high, index)
            for p in range(panels):
                block, stride = g + size * p * panel, grad_width
                if (p + 1) * panel > grad_width:
                    last_panel(block, grad_width, many, grad_width - p * panel, spare)
                    block, stride = spare, panel
                k = low
                while k < high:
                    column, to = x + size * k, out + size * (k * wide + p * panel)
                    if sparse:
                        mine = index + k * room
                        listed(column, 0, width, mine + 8, word(mine, 0), block, stride, to, 0)
                        k += 1
                    elif k + HEIGHT <= high:
                        tall(column, 1, width, 0, many, block, stride, to, wide)
                        k += HEIGHT
                    else:
                        flat(column, 1, width, 0, many, block, stride, to, wide)
                        k += 1

    return product, outer


product_float32, outer_float32 = _routines(np.float32)
product_float64, outer_float64 = _routines(np.float64)
