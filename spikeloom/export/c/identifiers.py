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

MATH = _words(
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs fdim floor fma "
    "fmax fmin fmod frexp gamma hypot ilogb j0 j1 jn ldexp lgamma llrint llround log log10 log1p log2 logb lrint "
    "lround modf nan nearbyint nextafter nexttoward pow remainder remquo rint round scalbn scalbln sin sinh sqrt tan "
    "tanh tgamma trunc y0 y1 yn drem exp10 pow10 scalb sincos significand finite isinf isnan"
)
"""Functions of math.h, which have forms that end in f and l."""

INTEGERS = frozenset(
    name
    for n in (8, 16, 32, 64)
    for kind in ("", "_least", "_fast")
    for sign in ("", "u")
    for whole in (f"{sign}int{kind}{n}",)
    for name in (f"{whole}_t", f"{whole}_max".upper(), f"{whole}_min".upper(), f"{whole}_c".upper())
)
"""Names of stdint.h."""

LIBRARY = (
    MATH
    | {name + end for name in MATH for end in "fl"}
    | INTEGERS
    | _words(
        "main isfinite isnormal signbit fpclassify isgreater isgreaterequal isless islessequal islessgreater "
        "isunordered signgam matherr math_errhandling MATH_ERRNO MATH_ERREXCEPT HUGE HUGE_VAL HUGE_VALF HUGE_VALL NAN "
        "INFINITY FP_NAN FP_INFINITE FP_ZERO FP_SUBNORMAL FP_NORMAL FP_ILOGB0 FP_ILOGBNAN FP_FAST_FMA M_E M_LOG2E "
        "M_LOG10E M_LN2 M_LN10 M_PI M_PI_2 M_PI_4 M_1_PI M_2_PI M_2_SQRTPI M_SQRT2 M_SQRT1_2 float_t double_t "
        "intptr_t uintptr_t intmax_t uintmax_t size_t ssize_t ptrdiff_t wchar_t wint_t sig_atomic_t INTPTR_MIN "
        "INTPTR_MAX UINTPTR_MAX INTMAX_MIN INTMAX_MAX UINTMAX_MAX INTMAX_C UINTMAX_C PTRDIFF_MIN PTRDIFF_MAX SIZE_MAX "
        "SIG_ATOMIC_MIN SIG_ATOMIC_MAX WCHAR_MIN WCHAR_MAX WINT_MIN WINT_MAX NULL EOF FILE BUFSIZ stdin stdout stderr "
        "printf fprintf sprintf snprintf vprintf scanf fscanf sscanf puts putchar putc fputs fputc gets getchar getc "
        "fgets fgetc ungetc fopen freopen fclose fread fwrite fflush fseek ftell rewind remove rename tmpfile perror "
        "strtof strtod abs labs llabs div ldiv abort exit malloc calloc realloc free memcpy memmove memset memcmp "
        "memchr strlen strcpy strncpy strcmp strncmp strcat strchr index rindex bcopy bzero bcmp ffs alloca toupper "
        "tolower isalpha isdigit isspace isupper islower isalnum isprint errno assert unix linux i386 asm typeof"
    )
)
"""Names of the C library that the generated file includes, or that compilers treat as built in."""

HELPERS = _words(
    "spike maximum minimum clamp sigmoid absolute saturate narrow times root power_of_two sine_of_turn FRACTION ONE "
    "fixed_exp fixed_log fixed_sqrt fixed_sigmoid fixed_tanh fixed_sin fixed_cos fixed_div"
)
"""Functions and macros of the file that equations use."""

LOCAL = KEYWORDS | LIBRARY | HELPERS | _words("net n x out")
"""What the variables of an equation cannot be called."""

RESERVED = LOCAL | _words("i k o c v a b q r y step steps total active count value")
"""What functions and arrays cannot be called."""


def identifier(name: str) -> str:
    """A Python name in the letters of C: Greek ones are spelled out, others become underscores."""
    spelled = "".join(_spelled(letter) for letter in name)
    spelled = re.sub(r"\W", "_", spelled, flags=re.ASCII)
    return spelled if spelled and not spelled[0].isdigit() else f"_{spelled}"


def _spelled(letter: str) -> str:
    full_name = "" if letter.isascii() else unicodedata.name(letter, "")
    return full_name.rpartition(" ")[2].lower() if full_name.startswith("GREEK") else letter


class Names:
    """Hands out identifiers, each once.

    Args:
        taken: names that are not free.
        roots: whether further names are derived from each, as lif_mem is from lif; then lif and lif_mem are not both
            handed out. A number after the underscore derives nothing.
    """

    def __init__(self, taken: Iterable[str], roots: bool = False):
        self.taken, self.roots = set(taken), roots
        self.given = {"x"}  # the input, from which x_narrow is derived

    def new(self, *wishes: str) -> str:
        """The first of the wishes that is free; otherwise the last one with a number."""
        for wish in wishes:
            if wish not in self.taken and not (self.roots and self._meets(wish)):
                self.taken.add(wish)
                self.given.add(wish)
                return wish
        last = wishes[-1].replace("_", "") if self.roots and self._meets(wishes[-1]) else wishes[-1]
        number = 2
        while f"{last}_{number}" in self.taken or (self.roots and self._meets(f"{last}_{number}")):
            number += 1
        return self.new(f"{last}_{number}")

    def _meets(self, wish: str) -> bool:
        """Whether a name is derived from one that was handed out, or the other way round."""
        return any(_derived(wish, name) for name in self.given) or any(_derived(name, wish) for name in self.taken)


def _derived(name: str, root: str) -> bool:
    return name.startswith(f"{root}_") and not name[len(root) + 1 :][:1].isdigit()
