"""Matrices that are mostly zeros, such as spikes: what is not zero as lists, and products with these, on the CPU."""

import math
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from ..graph.variant import dtype_name
from ..jit import buffer_pool, openmp
from ..jit.numba_jit import compiled
from ..jit.tiling import TURNED, panel_bytes
from .csr_source import emit_sparse


@cache
def _kernel(kind: str, dtype: str) -> openmp.Entry:
    return compiled(partial(emit_sparse, kind, dtype))


def whole_panels(width: int, like: Tensor) -> int:
    """The least width that is a whole number of panels."""
    panel = panel_bytes() // like.element_size()
    return -(-width // panel) * panel


@dataclass(frozen=True)
class Packed:
    """A matrix [K, N] as kernels read it.

    Args:
        panels: of its columns, [N / panel, K, panel], filled up with zeros.
        columns: N.
        finite: whether no value is NaN or infinite; else a zero of the other factor may not be left out.
    """

    panels: Tensor
    columns: int
    finite: bool


def packed(matrix: Tensor, width: int = 0) -> Packed:
    """Lay out a matrix [K, N] in panels of columns, of `panel_bytes` or `width` bytes."""
    (rows, columns), panel = matrix.shape, (width or panel_bytes()) // matrix.element_size()
    panels = matrix.new_empty((-(-columns // panel), rows, panel))
    found = torch.zeros(1, dtype=torch.int64, device="cpu")
    words = [len(panels), rows * panel, 0, rows, columns, panel, matrix.data_ptr(), *matrix.stride(), panels.data_ptr()]
    _kernel("pack", dtype_name(matrix.dtype)).run([*words, found.data_ptr()])
    return Packed(panels, columns, finite=not found.item())


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
        values: the values; where all are 1, a single one expanded.
    """

    shape: tuple[int, int]
    starts: Tensor
    index: Tensor
    values: Tensor

    @property
    def step(self) -> int:
        """How far apart the values lie: 0 where one stands for all."""
        return self.values.stride(0)

    def dense(self) -> Tensor:
        """The matrix."""
        out = self.values.new_zeros(self.shape)
        rows = torch.repeat_interleave(self.starts.diff())
        out[rows, self.index.long()] = self.values
        return out


@dataclass(frozen=True)
class Marks:
    """Where a matrix [R, K] is not zero.

    Args:
        x: the matrix.
        counts: how many values of each row are not zero, [R].
        words: a bit for each value, rows filled up to whole words, [R, K / 64].
        alike: whether all values that are not zero are 1.
    """

    x: Tensor
    counts: Tensor
    words: Tensor
    alike: bool


def marked(x: Tensor) -> Marks:
    """Look where a matrix is not zero."""
    (rows, width), found = x.shape, torch.zeros(1, dtype=torch.int64, device="cpu")
    counts, marks = (torch.empty(shape, dtype=torch.int64, device="cpu") for shape in (rows, (rows, -(-width // 64))))
    words = [rows, width, 0, width, x.data_ptr(), counts.data_ptr(), marks.data_ptr(), found.data_ptr()]
    _kernel("mark", dtype_name(x.dtype)).run(words)
    return Marks(x, counts, marks, alike=not found.item())


def listed(marks: Marks) -> Lists:
    """What is not zero in a matrix of which it is known where that is."""
    x = marks.x
    (rows, width), starts = x.shape, torch.zeros(len(x) + 1, dtype=torch.int64, device="cpu")
    torch.cumsum(marks.counts, 0, out=starts[1:])
    many = int(starts[-1])
    index = torch.empty(many, dtype=torch.int32, device="cpu")
    values = x.new_ones(1).expand(many) if marks.alike else x.new_empty(many)
    lists = Lists((rows, width), starts, index, values)
    words = [rows, width, 0, width, x.data_ptr(), marks.words.data_ptr(), *_addresses(lists)]
    _kernel("list", dtype_name(x.dtype)).run(words)
    return lists


def product(x: Lists, matrix: Packed, bias: Tensor | None) -> Tensor:
    """x @ matrix + bias: [R, K], [K, N] and [N] give [R, N]."""
    (rows, width), columns, panels = x.shape, matrix.columns, matrix.panels
    first = panels.new_zeros(whole_panels(columns, panels))
    if bias is not None:
        first[:columns] = bias
    out = buffer_pool.empty((rows, columns), panels)
    spare, team = openmp.scratch(panel_bytes())
    words = [rows, width * columns, 0, width, columns, *_addresses(x), panels.data_ptr(), first.data_ptr()]
    words += [out.data_ptr(), spare.data_ptr()]
    _kernel("product_of_lists", dtype_name(panels.dtype)).run(words, team)
    return out


def outer(*pairs: tuple[Lists, Tensor]) -> tuple[Tensor, Tensor]:
    """The sum over pairs of grad.T @ x, [R, K] and [R, N] giving [N, K], and of the rows of grad, [N].

    They are the gradients of a weight and of a bias.
    """
    like, columns = pairs[0][1], pairs[0][0].shape[1]
    out, total = buffer_pool.empty((like.shape[1], columns), like).zero_(), like.new_zeros(like.shape[1])
    for x, grad in pairs:
        _add_outer(out, total, x, grad)
    return out, total


def _add_outer(out: Tensor, total: Tensor, x: Lists, grad: Tensor) -> None:
    (rows, columns), width, kind = x.shape, grad.shape[1], dtype_name(grad.dtype)
    chunks = -(-rows // TURNED)
    ends, to = torch.empty(chunks * (columns + 1), dtype=torch.int64, device="cpu"), torch.empty_like(x.index)
    values = torch.empty_like(x.values) if x.step else x.values
    turned = [ends.data_ptr(), to.data_ptr(), values.data_ptr()]
    _kernel("turned", kind).run([chunks, TURNED * columns, 0, rows, columns, *_addresses(x), *turned])
    pair, team = 2 * panel_bytes(), torch.get_num_threads()
    pairs = -(-width * grad.element_size() // pair)
    parts = team // math.gcd(pairs, team)  # of the columns, so that no thread has more to do than another
    room_size = (TURNED + -(-columns // parts)) * pair
    room = torch.empty(team * room_size, dtype=torch.uint8, device="cpu")
    words = [pairs * parts, rows * columns, 0, parts, rows, columns, width, x.starts.data_ptr(), *turned, x.step]
    words += [grad.data_ptr(), out.data_ptr(), total.data_ptr(), room.data_ptr(), room_size]
    _kernel("outer_of_lists", kind).run(words, team)


def column_sums(matrix: Tensor) -> Tensor:
    """The sum over the rows of a matrix [R, N], added up in their order for any number of threads."""
    (rows, columns), out = matrix.shape, matrix.new_zeros(matrix.shape[1])
    words = [columns, rows, 0, rows, matrix.data_ptr(), columns, out.data_ptr()]
    _kernel("column_sums", dtype_name(matrix.dtype)).run(words)
    return out


def _addresses(x: Lists) -> list[int]:
    return [x.starts.data_ptr(), x.index.data_ptr(), x.values.data_ptr(), x.step]


def room(rows: int, width: int) -> Tensor:
    """Memory in which a recurrent scan lists that many rows."""
    return torch.empty(rows * 2 * (width + 1), dtype=torch.int64, device="cpu")
