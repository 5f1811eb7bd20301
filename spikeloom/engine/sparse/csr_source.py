"""Kernels of matrices that are mostly zero: listing what is not, and products with the lists (see `products`)."""

from ..jit.numba_jit import module_source
from ..jit.tiling import CHUNK, TURNED, panel_bytes

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
    *("rows", "size", "team", "width", "columns", "starts", "index", "listed", "step", "matrix", "bias", "out", "room"),
]

PRODUCT = (
    PRODUCT_WORDS,
    """{share}
    spare = room + me * {panel}
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
    [*OUTER_WORDS, "grad", "out", "total", "room", "room_size"],
    """{share}
    grads = room + me * room_size
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
"""What of `products` a kernel calls, where that is not the routine of its name."""


def importing(dtype: str, *routines: str) -> str:
    """The lines that import routines of `products`."""
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
