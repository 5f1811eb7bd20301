"""The reference: one page per section of docs/api.md, one per neuron, and links between them and the guides."""

import inspect
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Unpack, get_args, get_origin, get_type_hints

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.inspect import stringify_signature

import spikeloom as snn

from . import messages
from .docstrings import inline, to_rst
from .names import DOCS, Section, further, places, sections, spellings, thing

PAGES = DOCS / "reference"
FORGE = "https://github.com/spikeloom/spikeloom/blob/main"


PICTURES = {
    "snn.surrogate": ("surrogates.svg", "the derivative of every surrogate around the threshold"),
    "snn.spikegen": ("codes.svg", "twenty values from 0 to 1 in each code"),
}
"""Pictures of sections."""
MOST = 5
"""How many scripts of the gallery an entry names."""


def facts() -> dict[str, list[tuple[str, str]]]:
    """The tables of docs/neurons.md, by neuron: (column, cell) pairs, such as ("states", "syn, mem")."""
    found: dict[str, list[tuple[str, str]]] = {}
    head: list[str] = []
    for line in (DOCS / "neurons.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells and cells[0] == "neuron":
            head = cells
        elif not cells:
            head = []
        elif head and (name := re.fullmatch(r"`(\w+)`", cells[0])):
            found[name[1]] = list(zip(head[1:], cells[1:], strict=True))
    return found


@cache
def scripts() -> dict[str, list[str]]:
    """The scripts of the gallery that use a name, as pages, by full path."""
    found: dict[str, list[str]] = {}
    for script in sorted((DOCS / "gallery").rglob("plot_*.py")):
        words = set(re.findall(r"[A-Za-z_][\w.]*", script.read_text().replace("SF.", "functional.")))
        page = script.relative_to(DOCS / "gallery").with_suffix("").as_posix()
        for path in sorted({spellings()[word] for word in words if word in spellings()}):
            found.setdefault(path, []).append(f"../tutorials/{page}")
    return found


def entry(path: str) -> list[str]:
    """The directive that documents one name."""
    what = thing(path)
    if isinstance(what, type):
        lines = [f".. autoclass:: {path}", "   :members:", "   :show-inheritance:"]
    elif callable(what) and hasattr(what, "__name__"):
        lines = [f".. autofunction:: {path}"]
    else:
        lines = [f".. autodata:: {path}", "   :no-value:"]
    used = scripts().get(path, [])
    shown = ", ".join(f":doc:`{page}`" for page in used[:MOST])
    more = f", and {len(used) - MOST} more" if len(used) > MOST else ""
    return [*lines, "", *([f"   **Tutorials:** {shown}{more}.", ""] if used else [])]


def title(text: str) -> list[str]:
    """A heading of reStructuredText."""
    return [text, "=" * len(text), ""]


def neuron_page(section: Section, path: str, table: dict[str, list[tuple[str, str]]]) -> str:
    """The page of one neuron: what it is at a glance, its response to a current, and its docstring."""
    name = path.rpartition(".")[2]
    lines = title(name)
    if (DOCS / "reference" / "pictures" / f"{name}.svg").exists():
        lines += [
            f".. image:: pictures/{name}.svg",
            f"   :alt: response of {name} to a step of current",
            "   :class: dark-light",
            "",
        ]
    if rows := table.get(name):
        lines += [".. list-table:: At a glance", "   :widths: 25 75", "   :stub-columns: 1", ""]
        lines += [f"   * - {head}\n     - {inline(cell) or '-'}" for head, cell in rows]
        lines.append("")
    lines += [f"Guide: :doc:`../{section.guide}`.", ""]
    return "\n".join([*lines, *entry(path)])


def section_page(section: Section) -> str:
    """The page of a section."""
    lines = [*title(section.title), f"Guide: :doc:`../{section.guide}`.", ""]
    if picture := PICTURES.get(section.title):
        lines += [f".. image:: ../static/{picture[0]}", f"   :alt: {picture[1]}", "   :class: dark-light", ""]
    module = section.title.split(":")[0].replace("snn", "spikeloom", 1)
    text = inspect.getdoc(thing(module)) if re.fullmatch(r"spikeloom(\.\w+)+", module) else None
    if text and len(section.title.split()) == 1:
        lines += to_rst(text.splitlines())
    for path in [*section.paths, *further().get(section.page, [])]:
        lines += entry(path)
    return "\n".join(lines)


def write_pages(app: Sphinx) -> None:
    """Write the pages of the reference; a page that has not changed keeps its time, so that it is not read again."""
    from .pictures import draw_neurons

    draw_neurons(PAGES / "pictures")
    table = facts()
    pages = {"every-message": messages.page()}
    for section in sections():
        if section.separate:
            pages |= {section.page_of(path): neuron_page(section, path, table) for path in section.paths}
        else:
            pages[section.page] = section_page(section)
    PAGES.mkdir(exist_ok=True)
    for old in PAGES.glob("*.rst"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        page = PAGES / f"{name}.rst"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def prepare(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn links out of docs/ into links to the forge; link the names of docs/api.md; add what is made to the tree."""
    text = re.sub(r"\]\(\.\./([^)]*)\)", rf"]({FORGE}/\1)", source[0])
    text = re.sub(r"\]\((\w+)\)", lambda m: f"]({FORGE}/docs/{m[1]})" if (DOCS / m[1]).is_dir() else m[0], text)
    if docname == "api":
        paths = {name: path for section in sections() for path, name in section.paths.items()}
        text = re.sub(
            r"^\| \[`([\w.]+)`\]\(\S+\) \|", lambda m: f"| {{py:obj}}`{m[1]} <{paths[m[1]]}>` |", text, flags=re.M
        )
        text += tree(dict.fromkeys(places().values()), ":hidden:")
    if docname == "messages":
        text += tree(["every-message"], ":maxdepth: 1")
    source[0] = text


def tree(pages: Iterable[str], option: str) -> str:
    """A toctree of pages of the reference."""
    return "\n".join(["", "```{toctree}", option, "", *(f"reference/{page}" for page in pages), "```", ""])


def typed(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, text: str, returned: str
) -> tuple[str, str] | None:
    """The signature of a neuron from the literature, with the types of its constructor and of the shared options."""
    if not (isinstance(obj, type) and issubclass(obj, snn.EquationNeuron)):
        return None
    hints = get_type_hints(obj.__init__)
    for extra in [hint for hint in hints.values() if get_origin(hint) is Unpack]:
        hints |= get_type_hints(get_args(extra)[0])
    signature = inspect.signature(obj)
    parameters = [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    return stringify_signature(signature.replace(parameters=parameters), unqualified_typehints=True), ""


def document(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText; names of the same module become links, unless they are arguments."""
    module = name.rpartition(".")[0]
    arguments = inspect.signature(obj).parameters if what in ("class", "function") else {}
    near = {
        path.rpartition(".")[2]: spelling
        for section in sections()
        for path, spelling in section.paths.items()
        if path.rpartition(".")[0] == module and path != name
    }

    def spelled(match: re.Match[str]) -> str:
        return f"`{near[match[1]]}`" if match[1] in near and match[1] not in arguments else match[0]

    lines[:] = to_rst([re.sub(r"(?<!`)`(\w+)`(?!`)", spelled, line) for line in lines])


class Links(SphinxTransform):
    """Make the code spans of a page that spell a public name links to the reference."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        """Change the page in place; headings, and what is a link already, stay."""
        here = self.env.current_document.docname
        for node in list(self.document.findall(nodes.literal)):
            name = re.sub(r"\(.*\)$", "", node.astext())
            path = spellings().get(name)
            inside = isinstance(
                node.parent, nodes.reference | nodes.title | addnodes.pending_xref | addnodes.desc_content
            )
            if path is None or inside or here == f"reference/{places()[path]}":
                continue
            link = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=path, refdoc=here, refexplicit=True, refwarn=True
            )
            node.replace_self(link)
            link += node


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("builder-inited", write_pages, priority=100)
    app.connect("source-read", prepare)
    app.connect("autodoc-process-docstring", document)
    app.connect("autodoc-process-signature", typed)
    app.add_transform(Links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
