"""Products with few outputs, as many as a line of the cache holds at most, and their gradients, on the CPU."""

from functools import cache, partial

from torch import Tensor

from ..graph.variant import dtype_name
from ..jit import buffer_pool, openmp
from ..jit.numba_jit import compiled
from ..jit.tiling import HEIGHT, LINE, panel_bytes, slim_height
from .csr import packed
from .narrow_source import SUMMED, emit_narrow


@cache
def _kernel(kind: str, dtype: str) -> openmp.Entry:
    return compiled(partial(emit_narrow, kind, dtype))


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias: [R, K], [N, K] and [N] give [R, N]."""
    (rows, width), columns = x.shape, len(weight)
    matrix = packed(weight.t(), LINE).panels
    first = matrix.new_zeros(len(matrix) * matrix.shape[2])
    if bias is not None:
        first[:columns] = bias
    out, (room, team) = x.new_empty((rows, columns)), openmp.scratch(slim_height() * LINE)
    words = [rows, width * columns, 0, width, columns, x.data_ptr(), matrix.data_ptr(), first.data_ptr()]
    _kernel("product", dtype_name(x.dtype)).run([*words, out.data_ptr(), room.data_ptr()], team)
    return out


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """grad @ weight: [R, N] and [N, K] give [R, K]."""
    (rows, columns), width = grad.shape, weight.shape[1]
    matrix = packed(weight).panels
    room, team = openmp.scratch(HEIGHT * (len(matrix) * panel_bytes() + LINE))
    out = buffer_pool.empty((rows, width), grad)
    words = [rows, width * columns, 0, width, columns, grad.data_ptr(), matrix.data_ptr(), out.data_ptr()]
    _kernel("input", dtype_name(grad.dtype)).run([*words, room.data_ptr()], team)
    return out


def weight_gradient(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """grad.T @ x, [R, N] and [R, K] giving [N, K], and the sum of the rows of grad, [N]."""
    (rows, columns), width = grad.shape, x.shape[1]
    panels = -(-width * x.element_size() // panel_bytes())
    out, bias = x.new_empty((columns, width)), x.new_zeros(columns)
    room, team = openmp.scratch(panel_bytes() * (2 * columns + SUMMED) + LINE)
    words = [panels, rows * columns * panel_bytes(), 0, rows, width, columns, grad.data_ptr(), x.data_ptr()]
    _kernel("weight", dtype_name(x.dtype)).run([*words, out.data_ptr(), bias.data_ptr(), room.data_ptr()], team)
    return out, bias
