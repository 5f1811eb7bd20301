"""Directives of the site in pages that are also read as plain Markdown, where they would show as raw text.

A page holds them in a comment, `<!-- site` to `-->`, which a forge hides; Sphinx reads what is inside.
"""

import re
from typing import Any

COMMENT = re.compile(r"^<!-- site\n(.*?)^-->$", re.M | re.S)


def shown(text: str) -> str:
    """A page with the directives that its comments hold."""
    return COMMENT.sub(r"\1", text)


def read(app: Any, page: str, source: list[str]) -> None:
    """Replace the source of a page before it is parsed."""
    source[0] = shown(source[0])


def setup(app: Any) -> dict[str, bool]:
    """Register the filter."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
