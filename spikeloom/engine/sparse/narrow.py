"""Products with few outputs, as many as a line of the cache holds at most, and the input's gradient, on the CPU.

What they cost is the memory they read; torch's own products take up to three times as long there. Threads share rows,
so each sum has one order for any number of them (see `tiles`).
"""

from functools import cache, partial

from torch import Tensor

from ..graph import dtype_name
from ..jit import HEIGHT, LINE, buffer_pool, compiled, module_source, openmp, panel_bytes, slim_height
from .csr import SHARE, packed

PRODUCT = (
    ["rows", "size", "team", "width", "columns", "x", "matrix", "bias", "out", "scratch"],
    """{share}
    panel = {line} // SIZE
    sums = scratch + me * {slim_height} * {line}
    for r in range(low, high, {slim_height}):
        many = min({slim_height}, high - r)
        for p in range((columns + panel - 1) // panel):
            values, block, count = x + SIZE * r * width, matrix + {line} * p * width, min(panel, columns - p * panel)
            for i in range(many):
                copy(bias + {line} * p, panel, sums + {line} * i)
            if many == {slim_height}:
                slim(values, width, 1, 0, width, block, panel, 0, sums, panel)
            else:
                for i in range(many):
                    thin(values + SIZE * i * width, width, 1, 0, width, block, panel, 0, sums + {line} * i, panel)
            for i in range(many):
                copy(sums + {line} * i, count, out + SIZE * ((r + i) * columns + p * panel))""",
)

INPUT = (
    ["rows", "size", "team", "width", "columns", "grad", "matrix", "out", "scratch"],
    """{share}
    panel = {panel} // SIZE
    wide = (width + panel - 1) // panel * panel
    apart = wide + {line} // SIZE  # rows a multiple of 4 KiB apart would look alike to the processor
    sums = scratch + SIZE * me * {height} * apart
    for r in range(low, high, {height}):
        many = min({height}, high - r)
        for i in range(many * apart):
            store(sums, i, R(0))
        for p in range(wide // panel):
            values, block, to = grad + SIZE * r * columns, matrix + {panel} * p * columns, sums + {panel} * p
            if many == {height}:
                tall(values, columns, 1, 0, columns, block, panel, 0, to, apart)
            else:
                for i in range(many):
                    flat(values + SIZE * i * columns, 0, 1, 0, columns, block, panel, 0, to + SIZE * i * apart, 0)
        for i in range(many):
            flow(sums + SIZE * i * apart, width, out + SIZE * (r + i) * width)
    settled()""",
)

KERNELS = {"product": PRODUCT, "input": INPUT}
"""The arguments and the lines of each: the first argument is what the threads share out, `size` what one costs."""

ROUTINES = {
    "product": (("sparse.tiles", "slim"), ("sparse.tiles", "thin"), ("sparse.gemm", "copy")),
    "input": (("sparse.tiles", "tall"), ("sparse.tiles", "flat"), ("jit.intrinsics", "flow")),
}
"""What a kernel calls, and where that stands."""


def emit_narrow(kind: str, dtype: str, team: bool, cached: bool) -> str:
    """The source of one of KERNELS."""
    words, work = KERNELS[kind]
    sizes = {"line": LINE, "slim_height": slim_height(), "height": HEIGHT, "panel": panel_bytes()}
    body = work.format(share=SHARE.format(what=words[0]), **sizes)
    imports = "".join(
        f"from spikeloom.engine.{file} import {name}_{dtype} as {name}\n" for file, name in ROUTINES[kind]
    )
    if "settled" in work:
        imports += "from spikeloom.engine.jit.intrinsics import settled\n"
    return module_source(f"{kind} with few outputs, {dtype}", dtype, words, body, team, cached, imports)


@cache
def _narrow_kernel(kind: str, dtype: str) -> openmp.Kernel:
    return compiled(partial(emit_narrow, kind, dtype))


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias: [R, K], [N, K] and [N] give [R, N]."""
    (rows, width), columns = x.shape, len(weight)
    matrix = packed(weight.t(), LINE).panels
    first = matrix.new_zeros(len(matrix) * matrix.shape[2])
    if bias is not None:
        first[:columns] = bias
    out, (scratch, team) = x.new_empty((rows, columns)), openmp.scratch(slim_height() * LINE)
    words = [rows, width * columns, 0, width, columns, x.data_ptr(), matrix.data_ptr(), first.data_ptr()]
    _narrow_kernel("product", dtype_name(x.dtype)).run_words([*words, out.data_ptr(), scratch.data_ptr()], team)
    return out


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """grad @ weight: [R, N] and [N, K] give [R, K]."""
    (rows, columns), width = grad.shape, weight.shape[1]
    matrix = packed(weight).panels
    scratch, team = openmp.scratch(HEIGHT * (len(matrix) * panel_bytes() + LINE))
    out = buffer_pool.empty((rows, width), grad)
    words = [rows, width * columns, 0, width, columns, grad.data_ptr(), matrix.data_ptr(), out.data_ptr()]
    _narrow_kernel("input", dtype_name(grad.dtype)).run_words([*words, scratch.data_ptr()], team)
    return out
