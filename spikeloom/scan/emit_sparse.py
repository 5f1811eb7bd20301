"""Kernels of matrices that are mostly zero: listing what is not, and products with the lists (see `products`)."""

from .numba_module import module_source
from .tiling import CHUNK

COUNT = ["rows", "size", "team", "width", "x", "counts"], """{share}
    for r in range(low, high):
        store_word(counts, r, count(x + SIZE * r * width, width))"""

LIST = ["rows", "size", "team", "width", "x", "starts", "index", "listed"], """{share}
    for r in range(low, high):
        start = word(starts, r)
        collect(x + SIZE * r * width, width, index + 4 * start, listed + SIZE * start)"""

PRODUCT_WORDS = ["rows", "size", "team", "width", "panels", "wide", "starts", "index", "listed", "matrix", "bias", "out"]

PRODUCT = PRODUCT_WORDS, """{share}
    while low < high:
        end = min(low + {chunk}, high)
        for r in range(low, end):
            for n in range(wide):
                store(out, r * wide + n, load(bias, n))
        product_of_lists(starts, index, listed, low, end, matrix, width, panels, out)
        low = end"""

OUTER_WORDS = ["columns", "size", "team", "rows", "starts", "index", "listed", "grad", "grad_width", "wide", "out"]

OUTER = [*OUTER_WORDS, "room", "room_size", "most"], """{share}
    mine = room + me * room_size
    ends, to = mine, mine + 8 * (columns + 1)
    values = to + 4 * most
    spare = values + SIZE * most
    for first in range(0, rows, {chunk}):
        more = min({chunk}, rows - first)
        turned(starts, index, listed, first, more, low, high, ends, to, values)
        block = grad + SIZE * first * grad_width
        outer_of_lists(ends, to, values, high - low, block, grad_width, more, out + SIZE * low * wide, spare)"""

SHARE = """    part = ({what} + threads * 4 - 1) // (threads * 4) * 4
    low = min(me * part, {what})
    high = min(low + part, {what})"""

KERNELS = {"count": COUNT, "collect": LIST, "product_of_lists": PRODUCT, "outer_of_lists": OUTER}
"""The arguments and the lines of each: the first argument is what the threads share out, `size` what one of it costs."""


def importing(dtype: str, *routines: str) -> str:
    """The lines that import routines of `products`."""
    return "".join(f"from spikeloom.scan.products import {name}_{dtype} as {name}\n" for name in routines)


def emit_sparse(kind: str, dtype: str, team: bool, cached: bool) -> str:
    """The source of one of KERNELS."""
    words, work = KERNELS[kind]
    body = work.format(share=SHARE.format(what=words[0]), chunk=CHUNK)
    routines = ("turned", kind) if kind == "outer_of_lists" else (kind,)
    imports = importing(dtype, *routines) + "from spikeloom.scan.memory import store_word\n"
    return module_source(f"{kind} of a matrix that is mostly zero, {dtype}", dtype, words, body, team, cached, imports)
