"""Matrices that are mostly zeros, such as spikes: what is not zero as lists, and products with these, on the CPU."""

import math
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from ..graph import dtype_name
from ..jit import CHUNK, TURNED, buffer_pool, compiled, module_source, openmp, panel_bytes

FLUSHED = 16
"""Of so many blocks of `TURNED` rows the outer product is one sum; these sums are then added up. One sum over all rows
would lose its digits: that of 1,000,000 equal values in float32 is wrong by 1 %."""

TURN_AT_ONCE = 64
"""Rows of a panel that packing takes from each column before it goes to the next: four lines of the cache."""

MARK = (
    ["rows", "size", "team", "width", "x", "counts", "marks", "found"],
    """{share}
    others, words = types.int64(0), (width + 63) // 64
    for r in range(low, high):
        many, ones = mark(x + SIZE * r * width, width, marks + 8 * r * words)
        store_word(counts, r, many)
        others += many - ones
    if others != 0:
        store_word(found, 0, 1)""",
)

LIST = (
    ["rows", "size", "team", "width", "x", "marks", "starts", "index", "listed", "step"],
    """{share}
    words = (width + 63) // 64
    for r in range(low, high):
        start, mine = word(starts, r), marks + 8 * r * words
        places(mine, words, index + 4 * start)
        if step != 0:
            pick(x + SIZE * r * width, index + 4 * start, word(starts, r + 1) - start, listed + SIZE * start)""",
)

PRODUCT_WORDS = [
    *(
        "rows",
        "size",
        "team",
        "width",
        "columns",
        "starts",
        "index",
        "listed",
        "step",
        "matrix",
        "bias",
        "out",
        "scratch",
    ),
]

PRODUCT = (
    PRODUCT_WORDS,
    """{share}
    spare = scratch + me * {panel}
    while low < high:
        end = min(low + {chunk}, high)
        product_of_lists(starts, index, listed, step, low, end, matrix, width, columns, bias, out, spare)
        low = end""",
)

TURN = (
    ["chunks", "size", "team", "rows", "columns", "starts", "index", "listed", "step", "ends", "to", "values"],
    """{share}
    for c in range(low, high):
        first = c * {turned}
        more, start = min({turned}, rows - first), word(starts, first)
        mine = ends + 8 * c * (columns + 1)
        turned(starts, index, listed, step, first, more, columns, mine, to + 4 * start, values + SIZE * start)""",
)

OUTER_WORDS = ["units", "size", "team", "parts", "rows", "columns", "width", "starts", "ends", "to", "values", "step"]

OUTER = (
    [*OUTER_WORDS, "grad", "out", "total", "scratch", "scratch_bytes"],
    """{share}
    grads = scratch + me * scratch_bytes
    sums = grads + {turned} * 2 * {panel}
    for unit in range(low, high):
        p, part = unit // parts, unit % parts
        left, right = columns * part // parts, columns * (part + 1) // parts
        n = p * 2 * {panel} // SIZE
        count, wide = min(width - n, 2 * {panel} // SIZE), 2 * {panel} // SIZE
        if 2 * count <= wide:
            wide = {panel} // SIZE
        for i in range({turned} * wide if count < wide else 0):
            store(grads, i, R(0))
        for i in range((right - left) * wide):
            store(sums, i, R(0))
        for first in range(0, rows, {turned}):
            more, start = min({turned}, rows - first), word(starts, first)
            block(grad + SIZE * (first * width + n), width, more, count, wide, grads)
            mine = ends + 8 * (first // {turned}) * (columns + 1)
            outer_of_lists(mine, to + 4 * start, values + SIZE * step * start, step, left, right, grads, wide, sums)
            if part == 0:  # the rows of a block by themselves first: one long sum would lose its digits
                add_up(grads + SIZE * wide, more - 1, count, wide, grads)
                add_up(grads, 1, count, wide, total + SIZE * n)
            if (first // {turned} + 1) % {flushed} == 0 or first + {turned} >= rows:
                add_turned(sums, right - left, count, wide, out + SIZE * (n * columns + left), columns)
                for i in range((right - left) * wide):
                    store(sums, i, R(0))""",
)

SUMS = (
    ["columns", "size", "team", "rows", "x", "stride", "out"],
    """{share}
    add_up(x + SIZE * low, rows, high - low, stride, out + SIZE * low)""",
)

PACK = (
    ["panels", "size", "team", "rows", "columns", "panel", "x", "row_stride", "column_stride", "out", "found"],
    """{share}
    strange = types.int64(0)
    for p in range(low, high):
        count, start, to = min(panel, columns - p * panel), p * panel * column_stride, out + SIZE * p * rows * panel
        if count < panel:
            for i in range(rows * panel):
                store(to, i, R(0))
        if column_stride == 1:
            for k in range(rows):
                for n in range(count):
                    value = load(x, start + k * row_stride + n)
                    store(to, k * panel + n, value)
                    strange |= value - value != 0  # true of NaN and of what is infinite
        else:
            for first in range(0, rows, {turn}):  # whole lines are read, and what is written stays in the cache
                for n in range(count):
                    for k in range(first, min(first + {turn}, rows)):
                        value = load(x, start + k * row_stride + n * column_stride)
                        store(to, k * panel + n, value)
                        strange |= value - value != 0
    if strange != 0:
        store_word(found, 0, 1)""",
)

SHARE = """    part = ({what} + threads - 1) // threads
    low = min(me * part, {what})
    high = min(low + part, {what})"""

KERNELS = {
    "mark": MARK,
    "list": LIST,
    "product_of_lists": PRODUCT,
    "turned": TURN,
    "outer_of_lists": OUTER,
    "column_sums": SUMS,
    "pack": PACK,
}
"""The arguments and the lines of each: the first argument is what the threads share out, `size` what one costs."""

ROUTINES = {
    "list": ("places", "pick"),
    "outer_of_lists": ("block", "add_up", "outer_of_lists", "add_turned"),
    "column_sums": ("add_up",),
    "pack": (),
}
"""What of `gemm` a kernel calls, where that is not the routine of its name."""


def importing(dtype: str, *routines: str) -> str:
    """The lines that import routines of `gemm`."""
    return "".join(f"from spikeloom.engine.sparse.gemm import {name}_{dtype} as {name}\n" for name in routines)


def emit_sparse(kind: str, dtype: str, team: bool, cached: bool) -> str:
    """The source of one of KERNELS."""
    words, work = KERNELS[kind]
    body = work.format(
        share=SHARE.format(what=words[0]),
        chunk=CHUNK,
        turned=TURNED,
        flushed=FLUSHED,
        turn=TURN_AT_ONCE,
        panel=panel_bytes(),
    )
    imports = (
        importing(dtype, *ROUTINES.get(kind, (kind,))) + "from spikeloom.engine.jit.intrinsics import store_word\n"
    )
    return module_source(f"{kind} of a matrix that is mostly zero, {dtype}", dtype, words, body, team, cached, imports)


@cache
def _list_kernel(kind: str, dtype: str) -> openmp.Kernel:
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
    _list_kernel("pack", dtype_name(matrix.dtype)).run_words([*words, found.data_ptr()])
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
    _list_kernel("mark", dtype_name(x.dtype)).run_words(words)
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
    _list_kernel("list", dtype_name(x.dtype)).run_words(words)
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
    _list_kernel("product_of_lists", dtype_name(panels.dtype)).run_words(words, team)
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
    _list_kernel("turned", kind).run_words([chunks, TURNED * columns, 0, rows, columns, *_addresses(x), *turned])
    pair, team = 2 * panel_bytes(), torch.get_num_threads()
    pairs = -(-width * grad.element_size() // pair)
    parts = team // math.gcd(pairs, team)  # of the columns, so that no thread has more to do than another
    scratch_bytes = (TURNED + -(-columns // parts)) * pair
    scratch = torch.empty(team * scratch_bytes, dtype=torch.uint8, device="cpu")
    words = [pairs * parts, rows * columns, 0, parts, rows, columns, width, x.starts.data_ptr(), *turned, x.step]
    words += [grad.data_ptr(), out.data_ptr(), total.data_ptr(), scratch.data_ptr(), scratch_bytes]
    _list_kernel("outer_of_lists", kind).run_words(words, team)


def column_sums(matrix: Tensor) -> Tensor:
    """The sum over the rows of a matrix [R, N], added up in their order for any number of threads."""
    (rows, columns), out = matrix.shape, matrix.new_zeros(matrix.shape[1])
    words = [columns, rows, 0, rows, matrix.data_ptr(), columns, out.data_ptr()]
    _list_kernel("column_sums", dtype_name(matrix.dtype)).run_words(words)
    return out


def _addresses(x: Lists) -> list[int]:
    return [x.starts.data_ptr(), x.index.data_ptr(), x.values.data_ptr(), x.step]


def list_scratch(rows: int, width: int) -> Tensor:
    """Memory in which a recurrent scan lists that many rows."""
    return torch.empty(rows * 2 * (width + 1), dtype=torch.int64, device="cpu")
