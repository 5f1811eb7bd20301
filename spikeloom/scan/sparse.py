"""Matrices that are mostly zeros, such as spikes: what is not zero as lists, and products with these, on the CPU."""

from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from . import arena, threads
from .emit_numba import word_of
from .emit_sparse import emit_sparse
from .numba_module import compiled
from .tiling import TURNED, panel_bytes


@cache
def _kernel(kind: str, dtype: str) -> threads.Entry:
    return compiled(partial(emit_sparse, kind, dtype))


def whole_panels(width: int, like: Tensor) -> int:
    """The least width that is a whole number of panels."""
    panel = panel_bytes() // like.element_size()
    return -(-width // panel) * panel


def packed(matrix: Tensor) -> Tensor:
    """A matrix [K, N] as panels of columns, [N / panel, K, panel], filled up with zeros."""
    (rows, columns), panel = matrix.shape, panel_bytes() // matrix.element_size()
    panels = matrix.new_empty((-(-columns // panel), rows, panel))
    words = [len(panels), rows * panel, 0, rows, columns, panel, matrix.data_ptr(), *matrix.stride(), panels.data_ptr()]
    _kernel("pack", word_of(matrix.dtype)).run(words)
    return panels


def finite(matrix: Tensor) -> bool:
    """Whether no value is NaN or infinite; or so large that their sum is."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(matrix.detach().numpy().sum()))


@dataclass(frozen=True)
class Lists:
    """What is not zero in a matrix [R, K].

    Args:
        shape: R and K.
        starts: where the list of each row begins in the two others, and where the last ends, [R + 1].
        index: in which column each value stands, row by row.
        values: the values.
    """

    shape: tuple[int, int]
    starts: Tensor
    index: Tensor
    values: Tensor

    def dense(self) -> Tensor:
        """The matrix."""
        out = self.values.new_zeros(self.shape)
        rows = torch.repeat_interleave(self.starts.diff())
        out[rows, self.index.long()] = self.values
        return out


def counted(x: Tensor) -> Tensor:
    """How many values of each row of a matrix [R, K] are not zero, [R]."""
    (rows, width), counts = x.shape, torch.empty(len(x), dtype=torch.int64)
    _kernel("count", word_of(x.dtype)).run([rows, width, 0, width, x.data_ptr(), counts.data_ptr()])
    return counts


def listed(x: Tensor, counts: Tensor | None = None) -> Lists:
    """What is not zero in a matrix, of which `counted` has told how many there are."""
    counts = counted(x) if counts is None else counts
    (rows, width), starts = x.shape, torch.zeros(len(x) + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=starts[1:])
    many = int(starts[-1])
    index, values = torch.empty(many, dtype=torch.int32), x.new_empty(many)
    words = [rows, width, 0, width, x.data_ptr(), starts.data_ptr(), index.data_ptr(), values.data_ptr()]
    _kernel("collect", word_of(x.dtype)).run(words)
    return Lists((rows, width), starts, index, values)


def product(x: Lists, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """x @ matrix + bias: [R, K], [K, N] and [N] give [R, N]."""
    (rows, width), columns = x.shape, matrix.shape[1]
    panels, first = packed(matrix), matrix.new_zeros(whole_panels(columns, matrix))
    if bias is not None:
        first[:columns] = bias
    out = arena.empty((rows, columns), matrix)
    spare = torch.empty(torch.get_num_threads() * panel_bytes(), dtype=torch.uint8)
    words = [rows, width * columns, 0, width, columns, *_addresses(x), panels.data_ptr(), first.data_ptr()]
    words += [out.data_ptr(), spare.data_ptr()]
    _kernel("product_of_lists", word_of(matrix.dtype)).run(words)
    return out


def outer(*pairs: tuple[Lists, Tensor]) -> Tensor:
    """The sum over pairs of grad.T @ x: [R, K] and [R, N] give [N, K], the gradient of a weight."""
    (_, width), columns = pairs[0][0].shape, pairs[0][1].shape[1]
    out = pairs[0][1].new_zeros((width, whole_panels(columns, pairs[0][1])))
    for x, grad in pairs:
        _add_outer(out, x, grad)
    return out[:, :columns].t().contiguous()


def _add_outer(out: Tensor, x: Lists, grad: Tensor) -> None:
    (rows, width), columns = x.shape, grad.shape[1]
    steps = x.starts[[*range(0, rows, TURNED), rows]].tolist()
    most = max((end - start for start, end in pairwise(steps)), default=0)
    most += most % 2  # what follows its 32-bit places is aligned
    size = 8 * (width + 1) + (4 + grad.element_size()) * most + TURNED * panel_bytes()
    room = torch.empty(torch.get_num_threads() * size, dtype=torch.uint8)
    words = [width, rows * columns, 0, rows, *_addresses(x), grad.data_ptr(), columns, out.shape[1], out.data_ptr()]
    words += [room.data_ptr(), size, most]
    _kernel("outer_of_lists", word_of(grad.dtype)).run(words)


def column_sums(matrix: Tensor) -> Tensor:
    """The sum over the rows of a matrix [R, N], added up in their order for any number of threads."""
    (rows, columns), out = matrix.shape, matrix.new_zeros(matrix.shape[1])
    words = [columns, rows, 0, rows, matrix.data_ptr(), columns, out.data_ptr()]
    _kernel("column_sums", word_of(matrix.dtype)).run(words)
    return out


def _addresses(x: Lists) -> list[int]:
    return [x.starts.data_ptr(), x.index.data_ptr(), x.values.data_ptr()]


def room(rows: int, width: int) -> Tensor:
    """Memory in which a recurrent scan lists that many rows."""
    return torch.empty(rows * 2 * (width + 1), dtype=torch.int64)
