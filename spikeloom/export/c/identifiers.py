"""Names in C: what a Python name becomes, and which names are taken."""

import re
import unicodedata
from collections.abc import Iterable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KEYWORDS = _words(
    "auto break case char const continue default do double else enum extern float for goto if inline int long register "
    "restrict return short signed sizeof static struct switch typedef union unsigned void volatile while"
)

LIBRARY = _words(
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs fdim floor fma "
    "fmax fmin fmod frexp gamma hypot ilogb j0 j1 jn ldexp lgamma llrint llround log log10 log1p log2 logb lrint "
    "lround main modf nan nearbyint nextafter pow printf remainder remquo rint round scalbn signgam sin sinh sqrt tan "
    "tanh tgamma trunc y0 y1 yn scanf strtof strtod stdin NAN INFINITY EOF int8_t int32_t int64_t uint16_t uint32_t"
)
"""Names of the C library that the generated file includes, or that compilers treat as built in."""

HELPERS = _words("spike maximum minimum clamp sigmoid absolute saturate narrow times FRACTION ONE")
"""Names that equations use."""

LOCAL = KEYWORDS | LIBRARY | HELPERS | _words("net n x out")
"""What the variables of an equation cannot be called."""

RESERVED = LOCAL | _words("before after i k o c v a b q r y step steps total active count value")
"""What functions and arrays cannot be called."""


def identifier(name: str) -> str:
    """A Python name in the letters of C: Greek ones are spelled out, others become underscores."""
    spelled = "".join(_spelled(letter) for letter in name)
    spelled = re.sub(r"\W", "_", spelled, flags=re.ASCII)
    return spelled if spelled and not spelled[0].isdigit() else f"_{spelled}"


def _spelled(letter: str) -> str:
    words = "" if letter.isascii() else unicodedata.name(letter, "")
    return words.rpartition(" ")[2].lower() if words.startswith("GREEK") else letter


class Names:
    """Hands out identifiers, each once.

    Args:
        taken: names that are not free.
    """

    def __init__(self, taken: Iterable[str]):
        self.taken = set(taken)

    def new(self, *wishes: str) -> str:
        """The first of the wishes that is free; otherwise the last one with a number."""
        for wish in wishes:
            if wish not in self.taken:
                self.taken.add(wish)
                return wish
        number = 2
        while f"{wishes[-1]}_{number}" in self.taken:
            number += 1
        return self.new(f"{wishes[-1]}_{number}")
