"""Kernels with matrix products in them: the recurrent scan, and the products of spikes and weights by themselves.

Batch rows do not know of each other, so the threads of a recurrent scan take rows. Up to `ROWS` of them go through all
time together; between two steps their spikes, or in the backward the gradients of their currents, are multiplied by
the recurrent weights. The step itself is `emit_numba`'s, with the product as a part of its input.
"""

from .emit_numba import Variant, backward_part, backward_words, forward_part, forward_words
from .numba_module import lines, module_source
from .program import Derivation
from .tiling import CHUNK, ROWS

WEIGHTS = ["rows", "width", "wide", "panels", "skip", "matrix", "index"]
FORWARD = [*WEIGHTS, "bias", "fed", "initial_spk", "current"]
BACKWARD = [*WEIGHTS, "dx_stride", "summed", "back"]
"""The arguments of a recurrent kernel beyond those of `emit_numba`, which come first.

The layer is rows x width neurons; a row of a packed matrix, of `bias`, `fed` and `back` is wide >= width elements.
"""

BLOCKS = """{uniforms}
    part = (rows + threads - 1) // threads
    low = me * part
    end = min(low + part, rows)
    while low < end:
        count = min({count}, end - low)
        first, block, room = SIZE * low * width, SIZE * low * wide, index + 8 * low * (width + 2)
        for {time}:
{rows}
{work}
        low += count"""

FORWARD_WORK = """            last = spk + SIZE * (t - 1) * size if t > 0 else initial_spk
            for r in range(low, low + count):
                for n in range(wide):
                    store(fed, r * wide + n, load(bias, n))
            product(last + first, width, matrix, panels, fed + block, count, room, skip)
            for r in range(low, low + count):
                fed_r = fed + SIZE * r * (wide - width)
                for m in range(r * width, (r + 1) * width):
{body}"""

BACKWARD_WORK = """            for r in range(low, low + count):
                back_r = back + SIZE * r * (wide - width)
                for m in range(r * width, (r + 1) * width):
{body}
            for n in range(low * wide, (low + count) * wide):
                store(back, n, R(0))
            product(dx_t + first, width, matrix, panels, back + block, count, room, skip)"""


def emit_recurrent(derivation: Derivation, variant: Variant, title: str, team: bool, cached: bool) -> str:
    """The source of a recurrent scan's kernel, forward or, if the variant has a gradient, backward."""
    count = len(derivation.trace.states), len(variant.params)
    if variant.grad:
        part = backward_part(derivation, variant, fed=" + load(back_r, m)")
        words, work = [*backward_words(*count), *BACKWARD], BACKWARD_WORK
    else:
        part = forward_part(derivation, variant, fed=" + load(fed_r, m)")
        words, work = [*forward_words(*count), *FORWARD], FORWARD_WORK
        if variant.traced[-1] == "1":
            part.rows.append("current_t = current + SIZE * t * size")
            part.body.append("store(current_t, m, x_m)")
    uniforms, rows, source = lines(part.uniforms, 1), lines(part.rows, 3), work.format(body=lines(part.body, 5))
    body = BLOCKS.format(uniforms=uniforms, count=ROWS, time=part.time, rows=rows, work=source)
    return module_source(title, variant.dtype, words, body, team, cached, _importing("product", variant.dtype))


def _importing(kind: str, dtype: str) -> str:
    return f"from spikeloom.scan.products import {kind}_{dtype} as {kind}\n"


PRODUCT = ["rows", "size", "team", *WEIGHTS[1:], "bias", "x", "out"]
"""The arguments of the kernel out = bias + x @ matrix; `size` is what a row costs."""

PRODUCT_WORK = """    part = (rows + threads * 4 - 1) // (threads * 4) * 4
    low = me * part
    end = min(low + part, rows)
    while low < end:
        count = min({count}, end - low)
        for r in range(low, low + count):
            for n in range(wide):
                store(out, r * wide + n, load(bias, n))
        room = index + 8 * me * {count} * (width + 2)
        product(x + SIZE * low * width, width, matrix, panels, out + SIZE * low * wide, count, room, skip)
        low += count"""

OUTER = ["rows", "size", "team", "width", "grad_width", "skip", "x", "grad", "index", "spare", "spare_size", "out"]
"""The arguments of the kernel out += x.T @ grad."""

OUTER_WORK = """    part = (width + threads * 4 - 1) // (threads * 4) * 4
    low = min(me * part, width)
    high = min(low + part, width)
    own = spare + SIZE * me * spare_size
    outer(x, width, grad, grad_width, rows, low, high, out, index, own, skip)"""


def emit_product(kind: str, dtype: str, team: bool, cached: bool) -> str:
    """The source of the kernel "product", x @ matrix, or "outer", x.T @ grad, where x may be mostly zero."""
    words, work = (PRODUCT, PRODUCT_WORK) if kind == "product" else (OUTER, OUTER_WORK)
    title = f"{kind} of a matrix that may be mostly zero, {dtype}"
    return module_source(title, dtype, words, work.format(count=CHUNK), team, cached, _importing(kind, dtype))
