"""Kernel source for `window`: the sums over the last K steps, and the gradient of their decay.

Each thread works on blocks of elements that are small enough for what a block of K steps leaves to stay in the cache.
The gradient of the decay is a forward derivative: beside each value runs its derivative by the decay.
"""

from ..jit.numba_jit import module_source

WINDOW, WINDOW_GRADIENT = "window", "window_gradient"

KEPT = 1 << 17
"""Elements of a thread's scratch memory, about: the second-level cache holds them."""


def block_of(K: int) -> int:
    """How many elements a thread works on at once."""
    return max(16, min(4096, KEPT // K // 16 * 16))


def scratch_rows(K: int) -> int:
    """How many rows of a block a thread needs: three values and what each of K steps leaves, and their derivatives."""
    return 2 * (K + 3)


BODY = """
    part = (size + threads * 16 - 1) // (threads * 16) * 16
    end = min(me * part + part, size)
    own = scratch + SIZE * me * block * 2 * (K + 3)
    power, rest, left = own + SIZE * block, own + SIZE * block * 2, own + SIZE * block * 3
    shift = SIZE * block * (K + 3)  # from a value to its derivative
    low = me * part
    while low < end:
        count = min(block, end - low)
        for m in range(block * 2 * (K + 3)):
            store(own, m, R(0))
        for begin in range(0, steps, K):
            for m in range(count):
                store(own, m, R(0))
                store(power, m, R(1))
                store(own + shift, m, R(0))
                store(power + shift, m, R(0))
            for r in range(min(K, steps - begin)):
                x_t = x + SIZE * ((begin + r) * x_stride + low)
                left_r = left + SIZE * block * r
                {result_row}
                for m in range(count):
                    decay_m = load(decay, {index})
                    own_m, power_m, left_m = load(own, m), load(power, m), load(left_r, m)
                    {own_derivative}
                    own_m = decay_m * own_m + load(x_t, m)
                    power_m = power_m * decay_m
                    {result}
                    store(own, m, own_m)
                    store(power, m, power_m)
            for m in range(count):
                store(rest, m, R(0))
                store(power, m, R(1))
                store(rest + shift, m, R(0))
                store(power + shift, m, R(0))
            for r in range(K - 1 if begin + K < steps else 0, 0, -1):
                x_t = x + SIZE * ((begin + r) * x_stride + low)
                left_r = left + SIZE * block * (r - 1)
                for m in range(count):
                    decay_m = load(decay, {index})
                    power_m = load(power, m)
                    {rest_derivative}
                    rest_m = load(rest, m) + power_m * load(x_t, m)
                    store(rest, m, rest_m)
                    store(left_r, m, rest_m)
                    store(power, m, power_m * decay_m)
        low = low + count
"""

SUMS = {
    "result_row": "out_t = out + SIZE * ((begin + r) * out_stride + low)",
    "own_derivative": "pass",
    "result": "store(out_t, m, own_m + power_m * left_m)",
    "rest_derivative": "pass",
}

DECAY_GRADIENT = {
    "result_row": "grad_t = grad + SIZE * ((begin + r) * grad_stride + low)",
    "own_derivative": """own1_m = decay_m * load(own + shift, m) + own_m
                    power1_m = load(power + shift, m) * decay_m + power_m
                    store(own + shift, m, own1_m)
                    store(power + shift, m, power1_m)""",
    "result": """slope = own1_m + (power1_m * left_m + power_m * load(left_r + shift, m))
                    store(total, low + m, load(total, low + m) + load(grad_t, m) * slope)""",
    "rest_derivative": """power1_m = load(power + shift, m)
                    rest1_m = load(rest + shift, m) + power1_m * load(x_t, m)
                    store(rest + shift, m, rest1_m)
                    store(left_r + shift, m, rest1_m)
                    store(power + shift, m, power1_m * decay_m + power_m)""",
}

WORDS = ["steps", "size", "team", "K", "block", "decay", "scratch", "x", "x_stride"]


def emit_window(name: str, dtype: str, kind: str, team: bool, cached: bool) -> str:
    """The source of a kernel.

    Args:
        name: `WINDOW`, which writes the sums to `out`, or `WINDOW_GRADIENT`, which adds the gradient to `total`.
        dtype, team, cached: see `module_source`.
        kind: "u" if the decay is one number, "v" if there is one per element.
    """
    summing = name == WINDOW
    words = [*WORDS, *(("out", "out_stride") if summing else ("grad", "grad_stride", "total"))]
    body = BODY.format(index="0" if kind == "u" else "low + m", **(SUMS if summing else DECAY_GRADIENT))
    return module_source(f"{name}, {dtype}, {kind}", dtype, words, body, team, cached)
