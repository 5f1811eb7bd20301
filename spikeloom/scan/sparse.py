"""Products of tensors of which one is mostly zeros, such as spikes with the weights of a layer: the kernels, run."""

from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from . import arena, threads
from .emit_numba import word_of
from .emit_recurrent import emit_product
from .numba_module import compiled
from .tiling import CHUNK, panel_bytes


@cache
def _kernel(kind: str, dtype: str) -> threads.Entry:
    return compiled(partial(emit_product, kind, dtype))


def whole_panels(width: int, like: Tensor) -> int:
    """The least width that is a whole number of panels."""
    panel = panel_bytes() // like.element_size()
    return -(-width // panel) * panel


def packed(matrix: Tensor) -> Tensor:
    """A matrix [K, N] as panels of columns, [N / panel, K, panel], filled up with zeros."""
    rows, columns = matrix.shape
    filled = np.zeros((rows, whole_panels(columns, matrix)), dtype=word_of(matrix.dtype))  # by numpy: no team is woken
    filled[:, :columns] = matrix.detach().numpy()
    panels = filled.reshape(rows, -1, panel_bytes() // matrix.element_size()).swapaxes(0, 1)
    return torch.from_numpy(np.ascontiguousarray(panels))


def finite(matrix: Tensor) -> bool:
    """Whether no value is NaN or infinite; or so large that their sum is."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(matrix.detach().numpy().sum()))


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias: [R, K], [N, K] and [N] give [R, N]. A zero in x is skipped where few are not."""
    (rows, width), columns = x.shape, len(weight)
    matrix, index = packed(weight.t()), room(torch.get_num_threads() * CHUNK * (width + 2))
    wide = whole_panels(columns, x)
    first = x.new_zeros(wide)
    if bias is not None:
        first[:columns] = bias
    out = arena.empty((rows, wide), x)
    words = [rows, width * columns, 0, width, wide, len(matrix), finite(weight), matrix.data_ptr(), index.data_ptr()]
    words += [first.data_ptr(), x.data_ptr(), out.data_ptr()]
    _kernel("product", word_of(x.dtype)).run(words)
    return out if wide == columns else out[:, :columns].contiguous()


def outer(x: Tensor, grad: Tensor, skip: bool) -> Tensor:
    """grad.T @ x: [R, K] and [R, N] give [N, K], the gradient of a weight."""
    out = x.new_zeros((x.shape[1], whole_panels(grad.shape[1], x)))
    add_outer(out, x.contiguous(), grad, skip)
    return out[:, : grad.shape[1]].t().contiguous()


def add_outer(out: Tensor, x: Tensor, grad: Tensor, skip: bool) -> None:
    """out += x.T @ grad: [K, whole panels of N], [R, K] and [R, N]; with `skip`, grad is all finite."""
    (rows, width), columns = x.shape, grad.shape[1]
    index, size = room(width * (CHUNK + 3)), CHUNK * panel_bytes() // x.element_size()
    spare = x.new_empty(torch.get_num_threads() * size)
    words = [rows, width * columns, 0, width, columns, skip, x.data_ptr(), grad.data_ptr(), index.data_ptr()]
    words += [spare.data_ptr(), size, out.data_ptr()]
    _kernel("outer", word_of(x.dtype)).run(words)


def room(words: int) -> Tensor:
    """Memory for indices."""
    return torch.empty(words, dtype=torch.int64)
