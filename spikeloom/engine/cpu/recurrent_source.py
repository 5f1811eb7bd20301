"""Kernels with matrix products in them: the recurrent scan.

Batch rows do not know of each other, so the threads of a recurrent scan take rows. Up to `ROWS` of them go through all
time together; between two steps their spikes, or in the backward the gradients of their currents, are multiplied by
the recurrent weights. The step itself is `emit_numba`'s, with the product as a part of its input.
"""

from ..graph.program import Derivation
from ..graph.variant import Variant
from ..jit.numba_jit import lines, module_source
from ..jit.tiling import ROWS
from ..sparse.csr_source import importing
from .source import backward_part, backward_words, forward_part, forward_words

WEIGHTS = ["rows", "width", "wide", "panels", "skip", "matrix", "room"]
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
        first, block, mine = SIZE * low * width, SIZE * low * wide, room + 16 * low * (width + 1)
        for {time}:
{rows}
{work}
        low += count"""

FORWARD_WORK = """            last = spk + SIZE * (t - 1) * size if t > 0 else initial_spk
            for r in range(low, low + count):
                for n in range(wide):
                    store(fed, r * wide + n, load(bias, n))
            product(last + first, width, matrix, panels, fed + block, count, mine, skip)
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
            product(dx_t + first, width, matrix, panels, back + block, count, mine, skip)"""


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
    return module_source(title, variant.dtype, words, body, team, cached, importing(variant.dtype, "product"))
