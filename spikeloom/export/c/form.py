"""C source as lists of lines: functions, loops and tables."""

from collections.abc import Iterable, Sequence
from textwrap import fill

WIDTH = 100
"""Of a line of the generated file, at most, where it is filled."""


def indented(lines: Iterable[str]) -> list[str]:
    """The lines one level deeper."""
    return [f"    {line}" if line else line for line in lines]


def function(head: str, body: Iterable[str]) -> list[str]:
    """A function with an empty line after it."""
    return [head, "{", *indented(body), "}", ""]


def loop(variable: str, count: int | str, body: Sequence[str], first: str = "0") -> list[str]:
    """A loop over a range; braces where the body has several lines."""
    head = f"for (int {variable} = {first}; {variable} < {count}; {variable}++)"
    return [head, *indented(body)] if len(body) == 1 else [f"{head} {{", *indented(body), "}"]


def comment(lines: Iterable[str], level: int = 0) -> list[str]:
    """A comment of several lines; text of users cannot end it."""
    safe = [line.replace("*/", "* /").replace("/*", "/ *").rstrip() for line in lines]
    pad = " " * (4 * level)
    if len(safe) == 1:
        return [f"{pad}/* {safe[0]} */"]
    return [f"{pad}/* {safe[0]}", *(f"{pad} * {line}".rstrip() for line in safe[1:]), f"{pad} */"]


def table(head: str, numbers: Sequence[str], shape: Sequence[int]) -> list[str]:
    """An array of numbers with a brace for each dimension; `head` is the declaration, without the semicolon."""
    lines = _nested(numbers, tuple(shape))
    return [*f"{head} = {chr(10).join(lines)};".splitlines(), ""]


def _nested(numbers: Sequence[str], shape: tuple[int, ...]) -> list[str]:
    if len(shape) == 1:
        filled = _filled(numbers)
        return [f"{{{filled[0].strip()}}}"] if len(filled) == 1 else ["{", *filled, "}"]
    size = len(numbers) // shape[0]
    parts = [_nested(numbers[k * size : (k + 1) * size], shape[1:]) for k in range(shape[0])]
    inner = [line for part in parts for line in indented([*part[:-1], f"{part[-1]},"])]
    return ["{", *inner, "}"]


def _filled(numbers: Sequence[str]) -> list[str]:
    lines, line = list[str](), ""
    for number in numbers:
        if len(line) + len(number) > WIDTH - 6:
            lines.append(f"    {line.rstrip()}")
            line = ""
        line += f"{number}, "
    return [*lines, f"    {line.rstrip().rstrip(',')}"]  # C99 has no empty arrays, so there is a last number


def wrapped(text: str, indent: str = "") -> list[str]:
    """Text in lines of a comment."""
    return fill(text, WIDTH - 4, subsequent_indent=indent, break_long_words=False).splitlines()
