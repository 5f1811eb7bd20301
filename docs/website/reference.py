"""The reference: one page per section of docs/api.md, one per neuron, and links between them and the guides."""

import inspect
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from .docstrings import inline, to_rst
from .names import DOCS, Section, further, places, sections, spellings, thing

PAGES = DOCS / "reference"
FORGE = "https://github.com/spikeloom/spikeloom/blob/main"


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


def entry(path: str) -> list[str]:
    """The directive that documents one name."""
    what = thing(path)
    if isinstance(what, type):
        lines = [f".. autoclass:: {path}", "   :members:", "   :show-inheritance:"]
    elif callable(what) and hasattr(what, "__name__"):
        lines = [f".. autofunction:: {path}"]
    else:
        lines = [f".. autodata:: {path}", "   :no-value:"]
    return [*lines, "", *([".. minigallery:: " + path, ""] if (DOCS / "gallery").is_dir() else [])]


def title(text: str) -> list[str]:
    """A heading of reStructuredText."""
    return [text, "=" * len(text), ""]


def neuron_page(section: Section, path: str, table: dict[str, list[tuple[str, str]]]) -> str:
    """The page of one neuron: what it is at a glance, its response to a current, and its docstring."""
    name = path.rpartition(".")[2]
    lines = title(name)
    if (DOCS / "reference" / "pictures" / f"{name}.svg").exists():
        lines += [f".. image:: pictures/{name}.svg", f"   :alt: response of {name} to a step of current", ""]
    if rows := table.get(name):
        lines += [".. list-table:: At a glance", "   :widths: 25 75", "   :stub-columns: 1", ""]
        lines += [f"   * - {head}\n     - {inline(cell) or '-'}" for head, cell in rows]
        lines += ["", f"All neurons side by side: :doc:`../neurons`. Guide: :doc:`../{section.guide}`.", ""]
    else:
        lines += [f"Guide: :doc:`../{section.guide}`.", ""]
    return "\n".join([*lines, *entry(path)])


def section_page(section: Section) -> str:
    """The page of a section."""
    lines = [*title(section.title), f"Guide: :doc:`../{section.guide}`.", ""]
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
    pages: dict[str, str] = {}
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
    """Turn links out of docs/ into links to the forge; give docs/api.md its links and its part of the navigation."""
    source[0] = re.sub(r"\]\(\.\./([^)]*)\)", rf"]({FORGE}/\1)", source[0])
    if docname == "api":
        rows = {
            f"| `{name}` |": f"| {{py:obj}}`{name} <{path}>` |" for s in sections() for path, name in s.paths.items()
        }
        lines = [
            next((line.replace(a, rows[a], 1) for a in rows if line.startswith(a)), line)
            for line in source[0].splitlines()
        ]
        tree = [f"reference/{page}" for page in dict.fromkeys(places().values())]
        source[0] = "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *tree, "```", ""])


def document(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText."""
    lines[:] = to_rst(lines)


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
    app.add_transform(Links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
