"""Products over time in which each connection has a weight and a delay: the result, and the gradients.

A sequence is [T, B, N]. In scratch memory, each thread lays out all steps of a neuron as a contiguous line. A
connection adds one line to another, shifted by its delay, at a cost that does not depend on the longest delay. If the
input is mostly zeros, `Places` lists its other values, and zeros are skipped. `listed` (see `microkernels`) adds up
whole lines, read as a matrix whose row n begins at step n.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..jit import buffer_pool
from ..tuning import shapes
from .csr import listed_below, whole_panels
from .kernel import panel_bytes, row_kernel

_list = row_kernel(
    "the nonzeros of a sequence, by neuron",
    "inputs, steps, samples, span, starts*, index*, values*, step, ends*, places*, turned*",
    """
    for r in range(steps * samples):
        place = r % samples * span + r // samples
        for e in range(word(starts, r), word(starts, r + 1)):
            k = short(index, e)
            if low <= k < high:
                to = word(ends, k)
                store_short(places, to, np.int32(place))
                if step != 0:
                    store(turned, to, load(values, e))
                store_word(ends, k, to + 1)""",
)

SPIKES = "starts*, places*, values*, step"

BLOCK = "blocks, steps, samples, inputs, outputs, longest, span"
"""Threads share blocks of outputs. A block has as many outputs as a cache line has values."""

LINES = """
    across, down = samples * outputs, samples * span
    for block in range(low, high):
        first = block * SLIM
        count = min(SLIM, outputs - first)"""

READ = (
    """
    for i in range(SLIM * samples * span):
        store(scratch, i, R(0))"""
    + LINES
    + """
        for begin in range(0, steps, SLIM):
            end = min(begin + SLIM, steps)
            for n in range(samples):
                row, line = grad + SIZE * (begin * across + n * outputs + first), SIZE * (n * span + longest + begin)
                if count == SLIM and end == begin + SLIM:
                    square(row, across, scratch + line, down)
                else:
                    for t in range(end - begin):
                        for o in range(count):
                            store(scratch + line, o * down + t, load(row, t * across + o))"""
)
"""Lay out the gradient of a block of outputs as lines."""

_add = row_kernel(
    "spikes times weights with delays",
    f"{BLOCK}, {SPIKES}, weight*, lags*, bias*, out*, scratch",
    LINES
    + """
        for o in range(count):
            line, start = scratch + SIZE * o * down, load(bias, first + o)
            for i in range(down):
                store(line, i, start)
            for k in range(inputs):
                at = (first + o) * inputs + k
                to, factor = line + SIZE * short(lags, at), load(weight, at)
                if step == 0:
                    for e in range(word(starts, k), word(starts, k + 1)):
                        place = short(places, e)
                        store(to, place, load(to, place) + factor)
                else:
                    for e in range(word(starts, k), word(starts, k + 1)):
                        place = short(places, e)
                        store(to, place, load(to, place) + factor * load(values, e))
        for begin in range(0, steps, SLIM):
            end = min(begin + SLIM, steps)
            for n in range(samples):
                line, row = SIZE * (n * span + longest + begin), out + SIZE * (begin * across + n * outputs + first)
                if count == SLIM and end == begin + SLIM:
                    square(scratch + line, down, row, across)
                else:
                    for t in range(end - begin):
                        for o in range(count):
                            store(row, t * across + o, load(scratch + line, o * down + t))""",
)
"""out[t, n, o] = bias[o] + sum over k of weight[o, k] * x[longest + t - lags[o, k], n, k]."""

ABREAST = range(4)
"""Outputs whose sums are computed at the same time, which hides the latency of an addition."""

_pair = row_kernel(
    "the gradient of weights at two neighboring delays",
    f"{BLOCK}, {SPIKES}, grad*, lags*, out*, scratch",
    READ
    + f"""
        for o in range(0, count, {len(ABREAST)}):
            for k in range(inputs):"""
    + "".join(
        f"""
                at{i} = min(first + o + {i}, outputs - 1) * inputs + k
                line{i} = scratch + SIZE * ((o + {i}) * down + short(lags, at{i}))
                a{i}, b{i} = R(0), R(0)"""
        for i in ABREAST
    )
    + """
                for e in range(word(starts, k), word(starts, k + 1)):
                    place, value = short(places, e), load(values, e * step)"""
    + "".join(
        f"""
                    a{i} += value * load(line{i}, place)
                    b{i} += value * load(line{i}, place + 1)"""
        for i in ABREAST
    )
    + "".join(
        f"""
                if o + {i} < count:
                    store(out, 2 * at{i}, a{i})
                    store(out, 2 * at{i} + 1, b{i})"""
        for i in ABREAST
    ),
)
"""out[o, k, d] = sum over the nonzeros of input k of value * (line o)[place + lags[o, k] + d], for d = 0 and 1."""

_every = row_kernel(
    "the gradient of weights at every delay",
    f"{BLOCK}, width, {SPIKES}, grad*, out*, scratch",
    READ
    + """
        for o in range(count):
            for k in range(inputs):
                e, to = word(starts, k), out + SIZE * ((first + o) * inputs + k) * width
                many, line = word(starts, k + 1) - e, scratch + SIZE * o * down
                for d in range(0, width, BAND):
                    band(values + SIZE * step * e, step, places + 4 * e, many, line + SIZE * d, 1, to + SIZE * d)""",
)
"""out[o, k, d] = sum over the nonzeros of input k of value * (line o)[place + d], for d below `width`."""

_dense = row_kernel(
    "a product with delays that skips no zeros",
    "samples, steps, inputs, outputs, results, longest, span, x*, weight*, shift*, out*, scratch",
    """
    sums = scratch + SIZE * inputs * span
    for i in range(inputs * span):
        store(scratch, i, R(0))
    for n in range(low, high):
        for t in range(steps):
            row = x + SIZE * (t * samples + n) * inputs
            for k in range(inputs):
                store(scratch, k * span + longest + t, load(row, k))
        for first in range(0, outputs, SLIM):
            count = min(SLIM, outputs - first)
            for p in range(0, results, PANEL):
                for o in range(count):
                    to, row = sums + SIZE * o * PANEL, (first + o) * inputs
                    for j in range(PANEL):
                        store(to, j, R(0))
                    listed(weight + SIZE * row, 1, shift + 4 * row, inputs, scratch + SIZE * p, 1, to)
                for j in range(min(PANEL, results - p)):
                    to = out + SIZE * (((p + j) * samples + n) * outputs + first)
                    for o in range(count):
                        store(to, o, load(sums, o * PANEL + j))""",
)
"""out[t, n, o] = sum over k of weight[o, k] * (line of input k)[t + shift[o, k] - k * span], for t below `results`."""


@dataclass(frozen=True)
class Places:
    """The nonzeros of a sequence [longest + T, B, I], neuron by neuron.

    Args:
        shape: longest + T, B and I.
        longest: the longest delay.
        starts: the offset of each neuron in `places` and `values`, and the end of the last neuron, [I + 1].
        places: b * span + t of each value.
        values: the values; if all are 1, a single 1, expanded.
    """

    shape: tuple[int, int, int]
    longest: int
    starts: Tensor
    places: Tensor
    values: Tensor

    @property
    def span(self) -> int:
        """The number of values of a line."""
        return self.shape[0] + self.longest + 1

    def dense(self) -> Tensor:
        """The dense sequence."""
        neurons, places = torch.repeat_interleave(self.starts.diff()), self.places.long()
        out = self.values.new_zeros(self.shape)
        out[places % self.span, places // self.span, neurons] = self.values
        return out

    def arguments(self, outputs: int) -> dict[str, Any]:
        """The arguments of a kernel that adds the values to, or reads them from, the lines of `outputs` neurons."""
        (steps, samples, inputs), block = self.shape, shapes.line // self.values.element_size()
        sizes = {"blocks": -(-outputs // block), "size": block * (len(self.places) + samples * self.span)}
        sizes |= {"steps": steps - self.longest, "samples": samples, "inputs": inputs, "outputs": outputs}
        sizes |= {
            "longest": self.longest,
            "span": self.span,
            "scratch": shapes.line * (samples * self.span + panel_bytes()),
        }
        nonzeros = {"starts": self.starts, "places": self.places, "values": self.values}
        return sizes | nonzeros | {"step": self.values.stride(0)}


def places_below(x: Tensor, longest: int, most: float) -> Places | None:
    """The nonzeros of a contiguous sequence [longest + T, B, I]; None if they are not fewer than `most`."""
    steps, samples, inputs = x.shape
    rows = listed_below(x.view(-1, inputs), most)
    if rows is None:
        return None
    starts = torch.zeros(inputs + 1, dtype=torch.int64, device="cpu")
    torch.cumsum(torch.bincount(rows.index, minlength=inputs), 0, out=starts[1:])
    values = torch.empty_like(rows.values) if rows.step else rows.values
    found = Places((steps, samples, inputs), longest, starts, torch.empty_like(rows.index), values)
    sizes = {"inputs": inputs, "size": len(rows.index), "steps": steps, "samples": samples, "span": found.span}
    _list(x.dtype)(**sizes, **rows.arguments, ends=starts.clone(), places=found.places, turned=values)
    return found


def product(x: Places, weight: Tensor, lags: Tensor, bias: Tensor | None) -> Tensor:
    """out[t, b, o] = bias[o] + sum_i weight[o, i] x[longest + t - lags[o, i], b, i], [T, B, O].

    Args:
        x: of [longest + T, B, I].
        weight: [O, I], finite.
        lags: [O, I], in 32 bits, from 0 to longest.
        bias: [O], or None.
    """
    outputs = len(weight)
    out = buffer_pool.empty((x.shape[0] - x.longest, x.shape[1], outputs), weight)
    bias = weight.new_zeros(outputs) if bias is None else bias
    _add(weight.dtype)(**x.arguments(outputs), weight=weight, lags=lags, bias=bias, out=out)
    return out


def input_gradient(grad: Tensor, weight: Tensor, lags: Tensor, longest: int) -> Tensor:
    """The gradient [longest + T, B, I] of the input of `product`, from that of its result, [T, B, O]."""
    (steps, samples, inputs), outputs = grad.shape, weight.shape[1]  # delays in the other direction
    results = steps + longest
    span = whole_panels(results, grad) + longest
    shift = (lags.t() + span * torch.arange(inputs, dtype=torch.int32, device="cpu")).contiguous()
    out = buffer_pool.empty((results, samples, outputs), grad)
    sizes = {"samples": samples, "size": results * inputs * outputs, "steps": steps, "inputs": inputs}
    sizes |= {"outputs": outputs, "results": results, "longest": longest, "span": span}
    sizes["scratch"] = grad.element_size() * inputs * span + panel_bytes() * (shapes.line // grad.element_size())
    _dense(grad.dtype)(**sizes, x=grad, weight=weight.t().contiguous(), shift=shift, out=out)
    return out


def weight_gradient(x: Places, grad: Tensor, lags: Tensor) -> Tensor:
    """The gradient of each weight at its delay and at the next longer one, if any: [O, I, 2]."""
    out = buffer_pool.empty((*lags.shape, 2), grad)
    _pair(grad.dtype)(**x.arguments(len(lags)), grad=grad, lags=lags, out=out)
    return out


def weight_gradients(x: Places, grad: Tensor) -> Tensor:
    """The gradient that each weight would have at each delay from 0 to longest: [O, I, longest + 1]."""
    band = 2 * shapes.line // grad.element_size()
    outputs, width = grad.shape[2], -(-(x.longest + 1) // band) * band
    out = buffer_pool.empty((outputs, x.shape[2], width), grad).zero_()
    _every(grad.dtype)(**x.arguments(outputs), width=width, grad=grad, out=out)
    return out[..., : x.longest + 1]
