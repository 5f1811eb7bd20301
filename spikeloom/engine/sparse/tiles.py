"""A tile of a matrix product, held in vector registers: what Numba's own loops cannot be made to do.

For a few rows i and the `PANEL` bytes of columns that begin at an address,

    out[i, :] += sum over n < count of  values[i, n] * matrix[k, :],   k = n, or index[n] where there are indices

with the sums in registers; a tile of two panels has the second as far behind the first as `gap` says. Each sum is added
up in the order of n, whatever the tile's shape and whether zeros are left out, so dense and sparse products of finite
numbers give the same bits. The vectors are LLVM's: a machine whose own are shorter, or that has no fused multiply-add,
runs the same code in more instructions.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..jit import HEIGHT, LINE, panel_bytes, slim_height

_WORDS = {types.float32: (ir.FloatType(), 4, "f32"), types.float64: (ir.DoubleType(), 8, "f64")}


LANES = 64 if panel_bytes() == 256 else 16
"""Bytes of a vector: the longest that the registers hold, or four of them where they are short."""


def _tile(scalar: Any, height: int, panels: int, indexed: bool, width: int = 0) -> Callable[..., None]:
    element, size, suffix = _WORDS[scalar]
    lanes = LANES // size
    vector, columns = ir.VectorType(element, lanes), (width or panel_bytes()) // LANES

    def tile(
        typingctx: Any,
        values: Any,
        row_stride: Any,
        step: Any,
        index: Any,
        count: Any,
        matrix: Any,
        matrix_stride: Any,
        gap: Any,
        out: Any,
        out_stride: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values, row_stride, step, index, count, matrix, matrix_stride, gap, out, out_stride = args
            word, short = ir.IntType(64), ir.IntType(32)
            fused = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}{suffix}"
            )

            def at(base: Any, offset: Any, kind: Any) -> Any:
                return builder.gep(builder.inttoptr(base, kind.as_pointer()), [offset])

            def slots(base: Any, first: Any, apart: Any) -> list[Any]:
                """Pointers to the vectors of a row of the panels, which lie that far apart."""
                starts = [at(base, first if p == 0 else builder.add(first, apart), element) for p in range(panels)]
                steps = [builder.gep(start, [word(j * lanes)]) for start in starts for j in range(columns)]
                return [builder.bitcast(s, vector.as_pointer()) for s in steps]

            beside = word(columns * lanes)
            outs = [slots(out, builder.mul(out_stride, word(i)), beside) for i in range(height)]
            sums = [[cgutils.alloca_once(builder, vector) for _ in row] for row in outs]
            for row, kept in zip(outs, sums, strict=True):
                for pointer, own in zip(row, kept, strict=True):
                    builder.store(builder.load(pointer, align=size), own)
            with cgutils.for_range(builder, count) as loop:
                k = builder.sext(builder.load(at(index, loop.index, short), align=4), word) if indexed else loop.index
                places = slots(matrix, builder.mul(k, matrix_stride), gap)
                weights = [builder.load(s, align=size) for s in places]
                for i, kept in enumerate(sums):
                    offset = builder.add(builder.mul(row_stride, word(i)), builder.mul(loop.index, step))
                    value = builder.load(at(values, offset, element), align=size)
                    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, short(0))
                    zeros = ir.Constant(ir.VectorType(short, lanes), [0] * lanes)
                    many = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)
                    for own, weight in zip(kept, weights, strict=True):
                        builder.store(builder.call(fused, [many, weight, builder.load(own)]), own)
            for row, kept in zip(outs, sums, strict=True):
                for pointer, own in zip(row, kept, strict=True):
                    builder.store(builder.load(own), pointer, align=size)
            return context.get_dummy_value()

        return types.void(*(types.int64,) * 10), generate

    return intrinsic(tile)


tall_float32, tall_float64 = (_tile(kind, HEIGHT, 1, indexed=False) for kind in (types.float32, types.float64))
flat_float32, flat_float64 = (_tile(kind, 1, 1, indexed=False) for kind in (types.float32, types.float64))
listed_float32, listed_float64 = (_tile(kind, 1, 1, indexed=True) for kind in (types.float32, types.float64))
pair_float32, pair_float64 = (_tile(kind, 1, 2, indexed=True) for kind in (types.float32, types.float64))
slim_float32, slim_float64 = (_tile(kind, slim_height(), 1, False, LINE) for kind in (types.float32, types.float64))
thin_float32, thin_float64 = (_tile(kind, 1, 1, False, LINE) for kind in (types.float32, types.float64))
"""A tall tile has rows enough to read each part of the matrix once for all; the pair sums enough to hide how long one
takes. Slim and thin tiles are tall and flat ones of `LINE` bytes."""
