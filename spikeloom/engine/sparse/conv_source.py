"""Kernels of a convolution whose input is mostly zero: the result, and the gradients of the weight and the input.

A patch of the input is cut into bands, runs of the channels of neighbouring pixels that are contiguous in memory once
an image lies with its channels last: one per row of the patch, or, where it is dilated along a row, one per pixel. Each
band is a part of a matrix product (`tiles`), of which only the rows that belong to nonzero values are added up.
"""

from ..jit import HEIGHT, SPARSE_BELOW, lines, module_source, panel_bytes
from .csr import importing
from .pooling import Pooling, result_lines

SHAPE = ["images", "size", "team", "channels", "height", "width", "top", "left", "down", "across"]
STRIDES = ["image_step", "channel_step", "row_step", "pixel_step"]
PATCH = ["bands", "per_row", "reach", "row_gap", "pixel_gap", "stride_down", "stride_across"]
RESULT = ["out_height", "out_width", "out_channels", "panels"]
OUT_STRIDES = ["to_image", "to_channel", "to_row", "to_pixel"]
"""`size` is what an image costs. An image of height x width pixels is framed by zeros to down x across, beginning at
(top, left). A band is `reach` pixels; there are `per_row` in each row of a patch, `pixel_gap` pixels apart, and the
rows are `row_gap` apart."""

WORDS = {
    "forward": [
        *SHAPE,
        *STRIDES,
        *PATCH,
        *RESULT,
        *OUT_STRIDES,
        "x",
        "matrix",
        "bias",
        "out",
        "scratch",
        "scratch_bytes",
    ],
    "input": [*SHAPE, *STRIDES, *PATCH, *RESULT, "grad", "matrix", "dx", "scratch", "scratch_bytes"],
    "weight": [
        *("images", "size", "team", "channels", "height", "width", *STRIDES, "kernel_height", "kernel_width"),
        *("stride_down", "chunk", "out_height", "out_width", "panels", "out_rows", "out_columns"),
        *("x", "grad", "out", "scratch", "scratch_bytes"),
    ],
}
"""The arguments of each kernel. Scratch memory is `scratch_bytes` bytes per thread."""

POOLED = ["pooled_height", "pooled_width", "all_places"]
"""Further ones of a forward whose results are pooled."""

FORWARD = """    line, run, part = across * channels, reach * channels, (images + threads - 1) // threads
    starts = scratch + me * scratch_bytes
    frame = starts + 8 * (down * across + 1)
    values = frame + SIZE * down * line
    spare = values + SIZE * down * line
    image = spare + SIZE * out_width * PANEL
{scratch}
    for i in range(down * line):
        store(frame, i, R(0))
    for n in range(me * part, min(me * part + part, images)):
        for i in range(height):
            for j in range(width):
                pixel = frame + SIZE * ((i + top) * line + (j + left) * channels)
                for c in range(channels):
                    store(pixel, c, load(x, n * image_step + c * channel_step + i * row_step + j * pixel_step))
        found = 0
        for i in range(down):
            e, end = found, found + collect(frame + SIZE * i * line, line, active + 4 * found, values + SIZE * found)
            for j in range(across):
                while e < end and short(active, e) < j * channels:
                    e += 1
                store_word(starts, i * across + j, e)
            found = end
        store_word(starts, down * across, found)
        sparse = found < {sparse} * height * width * channels
        for i in range(out_height):
            for p in range(panels):
                for j in range(out_width):
                    for k in range(PANEL):
                        store(spare, j * PANEL + k, load(bias, p * PANEL + k))
                block = matrix + SIZE * p * bands * run * PANEL
                for b in range(bands):
                    row, shift = i * stride_down + b // per_row * row_gap, b % per_row * pixel_gap
                    rows = block + SIZE * b * run * PANEL
                    j = 0
                    while j < out_width:
                        pixel, to = j * stride_across + shift, spare + SIZE * j * PANEL
                        if sparse:
                            first = word(starts, row * across + pixel)
                            count = word(starts, row * across + pixel + reach) - first
                            if count > 0:
                                begin = rows - SIZE * pixel * channels * PANEL
                                listed(values + SIZE * first, 0, 1, active + 4 * first, count, begin, PANEL, 0, to, 0)
                            j += 1
                        elif j + {tall} <= out_width:
                            begin = frame + SIZE * (row * line + pixel * channels)
                            tall(begin, stride_across * channels, 1, 0, run, rows, PANEL, 0, to, PANEL)
                            j += {tall}
                        else:
                            flat(frame + SIZE * (row * line + pixel * channels), 0, 1, 0, run, rows, PANEL, 0, to, 0)
                            j += 1
                for j in range(out_width):
                    to = {to}
                    for k in range(min(PANEL, out_channels - p * PANEL)):
                        store(to, k{step}, load(spare, j * PANEL + k)){pool}"""
"""out[n, i, j] = bias + sum over bands of patch @ matrix [panels, bands * run, PANEL]."""

TO_OUT = {
    "scratch": "    active = image",
    "to": "out + SIZE * (n * to_image + p * PANEL * to_channel + i * to_row + j * to_pixel)",
    "step": " * to_channel",
    "pool": "",
}
"""What `FORWARD` does with a result: it goes to its place."""

POOL = """
        places = all_places + n * pooled_height * pooled_width * out_channels
        for i in range(pooled_height):
            for j in range(pooled_width):
                window = image + SIZE * (i * {down} * out_width + j * {across}) * out_channels
                first = (i * pooled_width + j) * out_channels
                for m in range(out_channels):
                    at = m
{lines}
        for i in range(pooled_height):
            for j in range(pooled_width):
                to = out + SIZE * (n * to_image + i * to_row + j * to_pixel)
                for c in range(out_channels):
                    store(to, c * to_channel, load(pooled, (i * pooled_width + j) * out_channels + c))"""
SCRATCH = """    pooled = image + SIZE * out_height * out_width * out_channels
    active = pooled + SIZE * pooled_height * pooled_width * out_channels"""
"""Or the results of an image stay in the cache, with their channels last, until their windows are pooled."""

INPUT = """    line, run, part = across * channels, reach * channels, (images + threads - 1) // threads
    wide = (run + PANEL - 1) // PANEL
    frame = scratch + me * scratch_bytes
    values = frame + SIZE * (down * line + wide * PANEL)
    active = values + SIZE * out_channels
    for n in range(me * part, min(me * part + part, images)):
        for i in range(down * line + wide * PANEL):
            store(frame, i, R(0))
        for i in range(out_height):
            for j in range(out_width):
                pixel = grad + SIZE * ((n * out_height + i) * out_width + j) * out_channels
                count = collect(pixel, out_channels, active, values)
                if count > 0:
                    block = matrix
                    for a in range(bands // per_row):
                        row = frame + SIZE * (i * stride_down + a * row_gap) * line
                        for b in range(per_row):
                            to = row + SIZE * (j * stride_across + b * pixel_gap) * channels
                            for p in range(wide):
                                listed(values, 0, 1, active, count, block, PANEL, 0, to + SIZE * p * PANEL, 0)
                                block += SIZE * out_channels * PANEL
        for i in range(height):
            for j in range(width):
                pixel = frame + SIZE * ((i + top) * line + (j + left) * channels)
                for c in range(channels):
                    store(dx, n * image_step + c * channel_step + i * row_step + j * pixel_step, load(pixel, c))"""
"""Each nonzero value of grad [n, i, j, out_channels] adds its rows of matrix [bands, wide, out_channels, PANEL] to the
patch that it came from. What stands beyond a band is zero."""

WEIGHT = """    part = (channels + threads - 1) // threads
    most, wide = chunk * height * width + 1, panels * PANEL
    begins = scratch + me * scratch_bytes
    firsts = begins + 8 * (height + 1)
    places = firsts + 8 * (height + 1)
    found = places + 8 * 2 * most
    values = found + SIZE * most
    active = values + SIZE * most
    for start in range(0, images, chunk):
        count = min(chunk, images - start)
        for c in range(me * part, min(me * part + part, channels)):
            seen, position = 0, 0
            for rest in range(stride_down):
                for i in range(rest, height, stride_down):
                    store_word(begins, position, seen)
                    position += 1
                    for n in range(count):
                        row = x + SIZE * ((start + n) * image_step + c * channel_step + i * row_step)
                        for j in range(width):
                            value = load(row, j * pixel_step)
                            store_word(places, 2 * seen, j)
                            store_word(places, 2 * seen + 1, (n * out_height + i // stride_down) * out_width)
                            store(found, seen, value)
                            seen += value != 0
            store_word(begins, height, seen)
            for b in range(kernel_width):
                kept = 0
                for r in range(height):
                    store_word(firsts, r, kept)
                    for e in range(word(begins, r), word(begins, r + 1)):
                        column = word(out_columns, b * width + word(places, 2 * e))
                        store_short(active, kept, np.int32(word(places, 2 * e + 1) + column))
                        store(values, kept, load(found, e))
                        kept += column >= 0
                store_word(firsts, height, kept)
                for a in range(kernel_height):
                    first = word(firsts, word(out_rows, 3 * a))
                    many = word(firsts, word(out_rows, 3 * a + 1)) - first
                    pixel = start * out_height * out_width + word(out_rows, 3 * a + 2) * out_width
                    to = out + SIZE * ((a * kernel_width + b) * channels + c) * wide
                    for p in range(panels):
                        block = grad + SIZE * (pixel * wide + p * PANEL)
                        places_there, values_there = active + 4 * first, values + SIZE * first
                        listed(values_there, 0, 1, places_there, many, block, wide, 0, to + SIZE * p * PANEL, 0)"""
"""out[a, b, c] += sum over active inputs of value * the row of grad [n, out_height, out_width, wide] that it meets.

For each channel, active inputs of a few images are listed row by row; rows that are whole strides apart follow each
other, since those that meet row a of the kernel are then one run (`Patch.meeting_rows`)."""

BODIES = {"forward": FORWARD, "input": INPUT, "weight": WEIGHT}


def _to_windows(pooling: Pooling) -> dict[str, str]:
    down, across = pooling.windows.stride
    body = result_lines(pooling, pooling.taps("out_width", "out_channels"), "pooled")
    return {
        "scratch": SCRATCH,
        "to": "image + SIZE * ((i * out_width + j) * out_channels + p * PANEL)",
        "step": "",
        "pool": POOL.format(down=down, across=across, lines=lines(body, 5)),
    }


def emit_convolution(kind: str, dtype: str, pooling: Pooling | None, team: bool, cached: bool) -> str:
    """The source of the kernel "forward", or of that for the gradient of the "input" or the "weight".

    With pooling, a forward writes the results of that to `out`, and `all_places` as emit_pooling's kernels do.
    """
    body = BODIES[kind].format(
        sparse=SPARSE_BELOW, tall=HEIGHT, **(TO_OUT if pooling is None else _to_windows(pooling))
    )
    words = WORDS[kind] if pooling is None else [*WORDS[kind], *POOLED]
    tiles = ", ".join(f"{tile}_{dtype} as {tile}" for tile in ("flat", "listed", "tall"))
    imports = "from spikeloom.engine.jit.intrinsics import short, store_byte, store_short, store_word\n" + importing(
        dtype, "collect"
    )
    imports += f"from spikeloom.engine.sparse.tiles import {tiles}\n"
    imports += f"\nPANEL = {panel_bytes() // (4 if dtype == 'float32' else 8)}\n"
    title = f"convolution of a mostly zero input: {kind}, {dtype}{'' if pooling is None else ', pooled'}"
    return module_source(title, dtype, words, body, team, cached, imports)
