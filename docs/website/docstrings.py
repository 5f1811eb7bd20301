"""Docstrings as reStructuredText: sections in Google's style, tables in Markdown's, and formulas as they are typed."""

import re
from collections.abc import Iterator

from .names import spellings

FIELDS = {"Args": "param", "Raises": "raises", "Warns": "warns", "Attributes": "ivar"}
LABEL = re.compile(r"^(Sources?|States, in order|By keyword|Shapes?|Memory)\b([^:]*):\s")
EQUATION = re.compile(r"^[A-Za-z]\w*('|\[\w+\])?\s+(=|<-)\s")
ROW = re.compile(r"^\|.*\|$")
LISTED = re.compile(r"(\w{1,4}[.)]|[-+])( |$)")  # what reStructuredText would take for an item of a list
TOKEN = re.compile(r"``(.+?)``|`([^`]+)`")


def inline(text: str) -> str:
    """One paragraph: names of the library become links, other code stays code, and nothing else is markup."""

    def plain(part: str) -> str:
        return re.sub(r"([\\*_|`])", r"\\\1", part)

    def code(match: re.Match[str]) -> str:
        name = (match[1] or match[2]).strip()
        path = spellings().get(name.removesuffix("()"))
        return f"\\ :py:obj:`{name} <{path}>`\\ " if path else f"\\ ``{name}``\\ "

    parts, at = [], 0
    for match in TOKEN.finditer(text):
        parts += [plain(text[at : match.start()]), code(match)]
        at = match.end()
    made = "".join([*parts, plain(text[at:])]).removeprefix("\\ ")
    return rf"\ {made}" if LISTED.match(made) else made


def paragraph(lines: list[str]) -> list[str]:
    """A paragraph as text, or as an equation if it is one."""
    text = " ".join(line.strip() for line in lines)
    if EQUATION.match(text) and not re.search(r"[a-z]{3,}\.$|\.\s+[A-Z]|: [a-z]+ [a-z]+ ", text.rstrip()):
        each = [part.strip() for line in lines for part in re.split(r";\s{2,}", line.strip())]
        return [".. code-block:: text", "   :class: equation", "", *(f"   {part}" for part in each), ""]
    if label := LABEL.match(text):
        return [f"**{label[1]}{label[2]}:** {inline(text[label.end() :])}", ""]
    return [inline(text), ""]


def table(lines: list[str]) -> list[str]:
    """A table of Markdown as a list-table."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines]
    rows = [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
    made = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        cells = [cell if cell.startswith("`") else f"`{cell}`" if re.search(r"[=\"\[]", cell) else cell for cell in row]
        made += [f"   {'*' if k == 0 else ' '} - {inline(cell)}" for k, cell in enumerate(cells)]
    return [*made, ""]


def indented(lines: list[str]) -> list[str]:
    """A block that stands further in: an example, or text as it is typed."""
    depth = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    inner = [line[depth:] for line in lines]
    kind = "pycon" if inner[0].startswith(">>>") else "text"
    return [f".. code-block:: {kind}", "", *(f"   {line}" if line else "" for line in inner), ""]


def entries(lines: list[str], field: str) -> list[str]:
    """The entries of a section, `name: text`, as fields."""
    depth = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    grouped: list[list[str]] = []
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) == depth:
            grouped.append([])
        if line.strip():
            grouped[-1].append(line.strip())
    made, after = [], []
    for group in grouped:
        name, colon, text = " ".join(group).partition(": ")
        if colon and " " not in name:
            name = name.replace("*", r"\*").replace("`", "")
            made.append(f":{field} {name}: {inline(text)}")
        else:
            after += ["", inline(" ".join(group))]
    return [*made, *after, ""]


def section(name: str, lines: list[str]) -> list[str]:
    """A section with a heading, such as `Args:`."""
    if name in FIELDS:
        return entries(lines, FIELDS[name])
    depth = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    inner = to_rst([line[depth:] for line in lines])
    if name == "Returns":
        return [f":returns: {inner[0]}", *(f"   {line}" if line else "" for line in inner[1:])]
    return [f".. rubric:: {name}", "", *inner]


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """The parts of a docstring: paragraphs, lists, tables, and blocks that stand further in."""
    block: list[str] = []
    for k, line in enumerate(lines):
        further = line.startswith("    ")
        rest = next((later for later in lines[k:] if later.strip()), "")
        continues = block and block[0].startswith("    ") and rest.startswith("    ")
        listed = block and re.match(r"(-|\d\.) ", block[0])
        starts = not continues and (
            not line.strip()
            or (further and block and not block[-1].strip() and not listed)
            or (re.match(r"(-|\d\.) ", line) and block)
            or (bool(ROW.match(line)) != bool(block and ROW.match(block[0])))
            or bool(block and block[0].startswith("    ") and not further)
        )
        if starts and block:
            yield block
            block = []
        if line.strip() or continues:
            block.append(line)
    if block:
        yield block


def to_rst(lines: list[str]) -> list[str]:
    """A whole docstring."""
    made: list[str] = []
    for part in blocks(lines):
        heading = re.fullmatch(r"([A-Z][a-z]+):", part[0])
        if heading and len(part) > 1:
            made += section(heading[1], part[1:])
        elif ROW.match(part[0]):
            made += table(part)
        elif part[0].startswith(("    ", ">>>")):
            made += indented(part)
        elif item := re.match(r"(-|\d\.) ", part[0]):
            made += [f"{item[0]}{inline(' '.join(line.strip() for line in part)[item.end() :])}", ""]
        else:
            made += paragraph(part)
    return made
