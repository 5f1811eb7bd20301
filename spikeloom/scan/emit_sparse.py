"""Kernels of matrices that are mostly zero: listing what is not, and products with the lists (see `products`)."""

from .numba_module import module_source
from .tiling import CHUNK, TURNED, panel_bytes

COUNT = (
    ["rows", "size", "team", "width", "x", "counts"],
    """{share}
    for r in range(low, high):
        store_word(counts, r, count(x + SIZE * r * width, width))""",
)

LIST = (
    ["rows", "size", "team", "width", "x", "starts", "index", "listed"],
    """{share}
    for r in range(low, high):
        start = word(starts, r)
        collect(x + SIZE * r * width, width, index + 4 * start, listed + SIZE * start)""",
)

PRODUCT_WORDS = [
    *("rows", "size", "team", "width", "columns", "starts", "index", "listed", "matrix", "bias", "out", "room"),
]

PRODUCT = (
    PRODUCT_WORDS,
    """{share}
    spare = room + me * {panel}
    while low < high:
        end = min(low + {chunk}, high)
        product_of_lists(starts, index, listed, low, end, matrix, width, columns, bias, out, spare)
        low = end""",
)

OUTER_WORDS = ["columns", "size", "team", "rows", "starts", "index", "listed", "grad", "grad_width", "wide", "out"]

OUTER = (
    [*OUTER_WORDS, "room", "room_size", "most"],
    """{share}
    mine = room + me * room_size
    ends, to = mine, mine + 8 * (columns + 1)
    values = to + 4 * most
    spare = values + SIZE * most
    for first in range(0, rows, {turned}):
        more = min({turned}, rows - first)
        turned(starts, index, listed, first, more, low, high, ends, to, values)
        block = grad + SIZE * first * grad_width
        outer_of_lists(ends, to, values, high - low, block, grad_width, more, out + SIZE * low * wide, spare)""",
)

SUMS = (
    ["columns", "size", "team", "rows", "x", "stride", "out"],
    """{share}
    for r in range(rows):
        row = x + SIZE * r * stride
        for n in range(low, high):
            store(out, n, load(out, n) + load(row, n))""",
)

PACK = (
    ["panels", "size", "team", "rows", "columns", "panel", "x", "row_stride", "column_stride", "out"],
    """{share}
    for p in range(low, high):
        for first in range(0, rows, 16):  # a part of the panel that stays in the first-level cache, whatever is turned
            for n in range(panel):
                column = p * panel + n
                for k in range(first, min(first + 16, rows)):
                    value = load(x, k * row_stride + column * column_stride) if column < columns else R(0)
                    store(out, (p * rows + k) * panel + n, value)""",
)

SHARE = """    part = ({what} + threads - 1) // threads
    low = min(me * part, {what})
    high = min(low + part, {what})"""

KERNELS = {
    "count": COUNT,
    "collect": LIST,
    "product_of_lists": PRODUCT,
    "outer_of_lists": OUTER,
    "column_sums": SUMS,
    "pack": PACK,
}
"""The arguments and the lines of each: the first argument is what the threads share out, `size` what one costs."""

ROUTINES = {"outer_of_lists": ("turned", "outer_of_lists"), "column_sums": (), "pack": ()}
"""What of `products` a kernel calls, where that is not the routine of its name."""


def importing(dtype: str, *routines: str) -> str:
    """The lines that import routines of `products`."""
    return "".join(f"from spikeloom.scan.products import {name}_{dtype} as {name}\n" for name in routines)


def emit_sparse(kind: str, dtype: str, team: bool, cached: bool) -> str:
    """The source of one of KERNELS."""
    words, work = KERNELS[kind]
    body = work.format(share=SHARE.format(what=words[0]), chunk=CHUNK, turned=TURNED, panel=panel_bytes())
    imports = importing(dtype, *ROUTINES.get(kind, (kind,))) + "from spikeloom.scan.memory import store_word\n"
    return module_source(f"{kind} of a matrix that is mostly zero, {dtype}", dtype, words, body, team, cached, imports)
