"""Routines for products in which one factor may be mostly zero: spikes times weights, and their gradients.

Addresses are integers and count bytes; strides count elements. A product adds up the rows of a matrix that belong to
nonzero values. The matrix is packed in panels of columns (`csr.pack_panels`), and indices are 32-bit integers.

A tile of a product is held in vector registers, which loops compiled by Numba do not achieve. For a few rows i of
values, and one panel or two, of `PANEL` columns each,

    out[i, :] += sum over n < count of  values[i, n] * matrix[k, :],   k = n, or index[n] where there are indices

Each sum is added up in the order of n, for any shape of tile, with and without zeros. So dense and sparse products of
finite numbers are bit-identical. The vectors are those of LLVM: a processor with shorter vectors or without fused
multiply-add runs the same code in more instructions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils

from .. import tuning
from ..jit import intrinsics
from ..jit.intrinsics import emitted
from .kernel import panel_bytes, slim_height

HEIGHT, LINE, SPARSE_BELOW = tuning.shapes.tile_height, tuning.shapes.line, tuning.shapes.sparse_below

LANES = 64 if panel_bytes() == 256 else 16
"""Bytes of a vector: the size of the longest register, or of four registers if they are short."""


def _tile(dtype: Any, height: int = 1, panels: int = 1, indexed: bool = False, width: int = 0) -> Any:
    """A tile of a number of rows and panels. It takes those of the arguments below that it needs."""
    element, size, suffix = (ir.FloatType(), 4, "f32") if dtype is np.float32 else (ir.DoubleType(), 8, "f64")
    lanes = LANES // size
    vector, columns = ir.VectorType(element, lanes), (width or panel_bytes()) // LANES
    several_rows = height > 1
    names = [
        *("values", *["row_stride"] * several_rows, *["step", "index"] * indexed, "count"),
        *("matrix", "matrix_stride", *["gap"] * (panels > 1), "out", *["out_stride"] * several_rows),
    ]

    def tile(builder: Any, *args: Any) -> None:
        word, short = ir.IntType(64), ir.IntType(32)
        given = {"row_stride": word(0), "step": word(1), "gap": word(0), "out_stride": word(0)}
        given |= dict(zip(names, args, strict=True))
        fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}{suffix}"
        )

        def at(base: str, offset: Any, kind: Any) -> Any:
            return builder.gep(builder.inttoptr(given[base], kind.as_pointer()), [offset])

        def vectors(base: str, first: Any, apart: Any) -> list[Any]:
            """Pointers to the vectors of a row of the panels, at the given stride."""
            starts = [at(base, builder.add(first, builder.mul(apart, word(p))), element) for p in range(panels)]
            steps = [builder.gep(start, [word(j * lanes)]) for start in starts for j in range(columns)]
            return [builder.bitcast(s, vector.as_pointer()) for s in steps]

        outs = [vectors("out", builder.mul(given["out_stride"], word(i)), word(columns * lanes)) for i in range(height)]
        sums = [[cgutils.alloca_once(builder, vector) for _ in row] for row in outs]
        for row, own in zip(outs, sums, strict=True):
            for pointer, total in zip(row, own, strict=True):
                builder.store(builder.load(pointer, align=size), total)
        with cgutils.for_range(builder, given["count"]) as loop:
            n = loop.index
            k = builder.sext(builder.load(at("index", n, short), align=4), word) if indexed else n
            rows = vectors("matrix", builder.mul(k, given["matrix_stride"]), given["gap"])
            weights = [builder.load(pointer, align=size) for pointer in rows]
            for i, own in enumerate(sums):
                offset = builder.add(builder.mul(given["row_stride"], word(i)), builder.mul(n, given["step"]))
                value = builder.load(at("values", offset, element), align=size)
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, short(0))
                zeros = ir.Constant(ir.VectorType(short, lanes), [0] * lanes)
                many = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)
                for total, weight in zip(own, weights, strict=True):
                    builder.store(builder.call(fused, [many, weight, builder.load(total)]), total)
        for row, own in zip(outs, sums, strict=True):
            for pointer, total in zip(row, own, strict=True):
                builder.store(builder.load(total), pointer, align=size)

    return emitted(types.void, (types.int64,) * len(names), tile)


def _square(dtype: Any) -> Any:
    """Transpose a square whose rows are cache lines: out[j * out_stride + i] = values[i * stride + j]."""
    element, size = (ir.FloatType(), 4) if dtype is np.float32 else (ir.DoubleType(), 8)
    n, short = LINE // size, ir.IntType(32)
    vector = ir.VectorType(element, n)
    halves = [
        ir.Constant(ir.VectorType(short, n), [k // 2 + half + k % 2 * n for k in range(n)]) for half in (0, n // 2)
    ]

    def square(builder: Any, values: Any, stride: Any, out: Any, out_stride: Any) -> None:
        def row(base: Any, apart: Any, i: int) -> Any:
            start = builder.gep(builder.inttoptr(base, element.as_pointer()), [builder.mul(apart, apart.type(i))])
            return builder.bitcast(start, vector.as_pointer())

        rows = [builder.load(row(values, stride, i), align=size) for i in range(n)]
        for _ in range(n.bit_length() - 1):  # each round interleaves the first half of the rows with the second
            pairs = zip(rows[: n // 2], rows[n // 2 :], strict=True)
            rows = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in halves]
        for i, each in enumerate(rows):
            builder.store(each, row(out, out_stride, i), align=size)

    return emitted(types.void, (types.int64,) * 4, square)


def _define(dtype: Any) -> None:
    """Define the routines of a dtype in this module: `collect_float32` and so on, which generated kernels import."""
    size, name = dtype().itemsize, dtype.__name__
    panel = panel_bytes() // size
    load, store, nonzero = (getattr(intrinsics, f"{kind}_{name}") for kind in ("load", "store", "nonzero"))
    lowest, bits, store_short = intrinsics.lowest, intrinsics.bits, intrinsics.store_short
    word, store_word = intrinsics.word, intrinsics.store_word
    tall, flat = _tile(dtype, HEIGHT), _tile(dtype)
    # a tall tile has enough rows to read the matrix once for all, a pair has enough sums to hide the latency of one;
    # slim and thin tiles are tall and flat ones of `LINE` bytes
    listed, pair = _tile(dtype, indexed=True), _tile(dtype, panels=2, indexed=True)
    slim, thin = _tile(dtype, slim_height(), width=LINE), _tile(dtype, width=LINE)
    band = _tile(dtype, indexed=True, width=2 * LINE)
    tiles = {
        "tall": tall,
        "flat": flat,
        "listed": listed,
        "pair": pair,
        "slim": slim,
        "thin": thin,
        "band": band,
        "square": _square(dtype),
    }
    globals().update({f"{kind}_{name}": tile for kind, tile in tiles.items()})

    def routine(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__qualname__ += f"_{name}"  # machine code that several processes have stored is linked by names
        compiled: Callable[..., Any] = njit(nogil=True, error_model="numpy")(function)
        globals()[f"{function.__name__}_{name}"] = compiled
        return compiled

    @routine
    def copy(values: int, count: int, to: int) -> None:
        for n in range(count):
            store(to, n, load(values, n))

    @routine
    def count(values: int, width: int) -> int:
        """The number of nonzeros in values[width]."""
        found, k = 0, 0
        while k + 64 <= width:
            found += bits(nonzero(values, k))
            k += 64
        while k < width:
            found += load(values, k) != 0
            k += 1
        return found

    @routine
    def collect(values: int, width: int, index: int, found: int) -> int:
        """Write the positions and values of the nonzeros in values[width]; return their number."""
        many, k = 0, 0
        while k + 64 <= width:
            left = nonzero(values, k)
            while left != 0:
                place = k + lowest(left)
                store_short(index, many, np.int32(place))
                store(found, many, load(values, place))
                many += 1
                left &= left - 1
            k += 64
        while k < width:
            value = load(values, k)
            if value != 0:
                store_short(index, many, np.int32(k))
                store(found, many, value)
                many += 1
            k += 1
        return many

    @routine
    def product(
        values: int, width: int, matrix: int, panels: int, out: int, rows: int, scratch: int, skip: int
    ) -> None:
        """out[rows, panels * panel] += values[rows, width] @ matrix.

        If few values are zero the product is dense; both are bit-identical. A skipped zero times an infinite factor
        would be NaN: `skip` says whether the matrix is finite. Scratch: 2 * (width + 1) values of 64 bits per row.
        """
        wide, each = panels * panel, 16 * (width + 1)
        found = 0
        if skip != 0:
            for r in range(rows):
                found += count(values + size * r * width, width)
        if skip != 0 and found < SPARSE_BELOW * rows * width:
            for r in range(rows):
                own = scratch + r * each
                store_word(own, 0, collect(values + size * r * width, width, own + 8 + size * width, own + 8))
            for p in range(0, panels, 2):
                block = matrix + size * p * width * panel
                for r in range(rows):
                    own, to = scratch + r * each, out + size * (r * wide + p * panel)
                    nonzeros, index, many = own + 8, own + 8 + size * width, word(own, 0)
                    if p + 1 < panels:
                        pair(nonzeros, 1, index, many, block, panel, width * panel, to)
                    else:
                        listed(nonzeros, 1, index, many, block, panel, to)
            return
        for p in range(panels):
            block = matrix + size * p * width * panel
            r = 0
            while r < rows:
                row, to = values + size * r * width, out + size * (r * wide + p * panel)
                if r + HEIGHT <= rows:
                    tall(row, width, width, block, panel, to, wide)
                    r += HEIGHT
                else:
                    flat(row, width, block, panel, to)
                    r += 1


for kind in (np.float32, np.float64):
    _define(kind)
