"""Elementary functions of fixed-point numbers: in C, and in torch with the same bits.

A number v with `fraction` fractional bits stands for v / 2^fraction. Arguments are limited to 32 bits, and so are
results. Exponentials, sines and cosines are polynomials on one octave or a quarter of a turn, with 30 fractional bits
and an error below 2e-8. Outside of its domain a function has the nearest value that it could have: the logarithm of 0
or less is the smallest number, the square root of a negative number is 0, and a quotient by 0 is the largest number
with the sign of the dividend.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

MOST, LEAST = 2**31 - 1, -(2**31)
UNIT = 2**30
"""1 with 30 fractional bits."""

POWER = (1073741824, 744261107, 257942008, 59588308, 10364229, 1362509, 223652)
"""Coefficients of 2^f in f, for 0 <= f < 1, with 30 fractional bits."""

SINE = (1686629710, -693598379, 85566703, -5019263, 163061)
"""Coefficients of sin(pi / 2 * f) / f in f^2, for 0 <= f <= 1, with 30 fractional bits."""

PER_LN2, LN2, TURNS = 1549082005, 93032640, 683565276
"""1 / ln 2 with 30 fractional bits, ln 2 with 27, and 1 / (2 pi) with 32."""


def _horner(factors: tuple[int, ...], by: str) -> str:
    """A polynomial in C."""
    text = str(factors[-1])
    for factor in factors[-2::-1]:
        text = f"{factor} + (({text}) * {by} >> 30)"
    return text


HELPERS: Mapping[str, str] = {
    "saturate": """
/* A value within 32 bits. */
static inline int32_t saturate(int64_t v)
{
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}
""",
    "power_of_two": f"""
/* 2^(v / 2^30) with `fraction` bits; a polynomial for the fractional part, a shift for the whole one. */
static inline int64_t power_of_two(int64_t v, int fraction)
{{
    const int64_t f = v & 0x3FFFFFFF;
    const int64_t p = {_horner(POWER, "f")};
    const int64_t shift = 30 - fraction - (v >> 30);
    if (shift > 32)
        return 0;
    if (shift > 0)
        return (p + ((int64_t)1 << (shift - 1))) >> shift;
    return shift < -31 ? INT32_MAX : saturate(p * ((int64_t)1 << -shift));
}}
""",
    "fixed_exp": f"""
static inline int64_t fixed_exp(int64_t v, int fraction)
{{
    return power_of_two((int64_t)saturate(v) * {PER_LN2} >> fraction, fraction);
}}
""",
    "fixed_log": f"""
/* The binary logarithm bit by bit, times ln 2. */
static inline int64_t fixed_log(int64_t v, int fraction)
{{
    int64_t m = saturate(v), y = (int64_t)(30 - fraction) * 0x40000000;
    if (m <= 0)
        return INT32_MIN;
    for (; m < 0x40000000; m *= 2)
        y -= 0x40000000;
    for (int64_t bit = 0x20000000; bit > 0; bit >>= 1) {{
        m = m * m >> 30;
        if (m >= 0x80000000) {{
            m >>= 1;
            y += bit;
        }}
    }}
    return saturate(y * {LN2} >> (57 - fraction));
}}
""",
    "root": """
/* The square root of a whole number below 2^62, rounded down. */
static inline int64_t root(int64_t v)
{
    int64_t r = 0;
    for (int64_t bit = 0x40000000; bit > 0; bit >>= 1)
        if ((r + bit) * (r + bit) <= v)
            r += bit;
    return r;
}
""",
    "fixed_sqrt": """
static inline int64_t fixed_sqrt(int64_t v, int fraction)
{
    return v > 0 ? root((int64_t)saturate(v) << fraction) : 0;
}
""",
    "fixed_sigmoid": f"""
/* 1 / (1 + e^-|v|), and 1 minus that for a negative v. */
static inline int64_t fixed_sigmoid(int64_t v, int fraction)
{{
    const int64_t u = saturate(v), size = u < 0 ? -u : u;
    const int64_t e = power_of_two(-(size * {PER_LN2} >> fraction), 30);
    const int64_t s = ((int64_t)1 << 60) / (0x40000000 + e);
    return ((u < 0 ? 0x40000000 - s : s) + ((int64_t)1 << (29 - fraction))) >> (30 - fraction);
}}
""",
    "fixed_tanh": f"""
/* (1 - e^-2|v|) / (1 + e^-2|v|), with the sign of v. */
static inline int64_t fixed_tanh(int64_t v, int fraction)
{{
    const int64_t u = saturate(v), size = u < 0 ? -u : u;
    const int64_t e = power_of_two(-(2 * size * {PER_LN2} >> fraction), 30);
    const int64_t t = ((0x40000000 - e) << 30) / (0x40000000 + e);
    return ((u < 0 ? -t : t) + ((int64_t)1 << (29 - fraction))) >> (30 - fraction);
}}
""",
    "sine_of_turn": f"""
/* The sine of v / 2^30 turns, a polynomial on a quarter of a turn. */
static inline int64_t sine_of_turn(int64_t v, int fraction)
{{
    const int64_t part = (v & 0xFFFFFFF) * 4, f = v & 0x10000000 ? 0x40000000 - part : part;
    const int64_t square = f * f >> 30;
    const int64_t s = ({_horner(SINE, "square")}) * f >> 30;
    return ((v & 0x20000000 ? -s : s) + ((int64_t)1 << (29 - fraction))) >> (30 - fraction);
}}
""",
    "fixed_sin": f"""
static inline int64_t fixed_sin(int64_t v, int fraction)
{{
    return sine_of_turn((int64_t)saturate(v) * {TURNS} >> (fraction + 2), fraction);
}}
""",
    "fixed_cos": f"""
static inline int64_t fixed_cos(int64_t v, int fraction)
{{
    return sine_of_turn(((int64_t)saturate(v) * {TURNS} >> (fraction + 2)) + 0x10000000, fraction);
}}
""",
    "fixed_div": """
/* A rounded quotient. */
static inline int64_t fixed_div(int64_t a, int64_t b, int fraction)
{
    const int64_t u = saturate(a), w = saturate(b);
    const int64_t above = u < 0 ? -u : u, below = w < 0 ? -w : w;
    if (below == 0)
        return u > 0 ? INT32_MAX : u < 0 ? INT32_MIN : 0;
    const int64_t q = ((above << fraction) + below / 2) / below;
    return saturate((u < 0) != (w < 0) ? -q : q);
}
""",
}
"""The functions in C, each after those that it calls."""


def saturated(v: Tensor) -> Tensor:
    """A value within 32 bits."""
    return v.clamp(LEAST, MOST)


def _polynomial(factors: tuple[int, ...], by: Tensor) -> Tensor:
    value = torch.full_like(by, factors[-1])
    for factor in factors[-2::-1]:
        value = factor + (value * by >> 30)
    return value


def _rounded(v: Tensor, fraction: int) -> Tensor:
    """A number with 30 fractional bits, with fewer."""
    return (v + (1 << (29 - fraction))) >> (30 - fraction)


def _power_of_two(v: Tensor, fraction: int) -> Tensor:
    p, shift = _polynomial(POWER, v & (UNIT - 1)), 30 - fraction - (v >> 30)
    down, up = shift.clamp(1, 33), (-shift).clamp(0, 31)
    less, one = (p + (1 << (down - 1))) >> down, torch.ones_like(p)
    more = torch.where(shift < -31, MOST, saturated(p * (one << up)))
    return torch.where(shift > 32, 0, torch.where(shift > 0, less, more))


def _exp(v: Tensor, fraction: int) -> Tensor:
    return _power_of_two(saturated(v) * PER_LN2 >> fraction, fraction)


def _log(v: Tensor, fraction: int) -> Tensor:
    m = saturated(v)
    y, none = torch.full_like(m, (30 - fraction) * UNIT), m <= 0
    m = torch.where(none, UNIT, m)
    for _ in range(30):
        small = m < UNIT
        m, y = torch.where(small, 2 * m, m), torch.where(small, y - UNIT, y)
    for bit in range(29, -1, -1):
        m = m * m >> 30
        large = m >= 2 * UNIT
        m, y = torch.where(large, m >> 1, m), torch.where(large, y + (1 << bit), y)
    return torch.where(none, LEAST, saturated(y * LN2 >> (57 - fraction)))


def root(v: Tensor) -> Tensor:
    """The square root of a whole number below 2^62, rounded down."""
    r = torch.zeros_like(v)
    for place in range(30, -1, -1):
        more = r + (1 << place)
        r = torch.where(more * more <= v, more, r)
    return r


def _sqrt(v: Tensor, fraction: int) -> Tensor:
    return root(saturated(v).clamp(min=0) << fraction)


def _sigmoid(v: Tensor, fraction: int) -> Tensor:
    u = saturated(v)
    s = (1 << 60) // (UNIT + _power_of_two(-(u.abs() * PER_LN2 >> fraction), 30))
    return _rounded(torch.where(u < 0, UNIT - s, s), fraction)


def _tanh(v: Tensor, fraction: int) -> Tensor:
    u = saturated(v)
    e = _power_of_two(-(2 * u.abs() * PER_LN2 >> fraction), 30)
    t = ((UNIT - e) << 30) // (UNIT + e)
    return _rounded(torch.where(u < 0, -t, t), fraction)


def _sine_of_turn(v: Tensor, fraction: int) -> Tensor:
    part = (v & (2**28 - 1)) * 4
    f = torch.where((v & 2**28) != 0, UNIT - part, part)
    s = _polynomial(SINE, f * f >> 30) * f >> 30
    return _rounded(torch.where((v & 2**29) != 0, -s, s), fraction)


def _sin(v: Tensor, fraction: int) -> Tensor:
    return _sine_of_turn(saturated(v) * TURNS >> (fraction + 2), fraction)


def _cos(v: Tensor, fraction: int) -> Tensor:
    return _sine_of_turn((saturated(v) * TURNS >> (fraction + 2)) + 2**28, fraction)


def _div(a: Tensor, b: Tensor, fraction: int) -> Tensor:
    u, w = saturated(a), saturated(b)
    below = w.abs()
    q = ((u.abs() << fraction) + below // 2) // below.clamp(min=1)
    signed = saturated(torch.where((u < 0) != (w < 0), -q, q))
    return torch.where(below == 0, torch.where(u > 0, MOST, torch.where(u < 0, LEAST, 0)), signed)


FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "exp": _exp,
    "log": _log,
    "sqrt": _sqrt,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "sin": _sin,
    "cos": _cos,
    "div": _div,
}
"""The functions in torch, on int64; in C each is `fixed_` and this name. The last argument is the fractional bits."""
