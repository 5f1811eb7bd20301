"""The public names: read from docs/api.md, whose sections are the pages of the reference."""

import re
from dataclasses import dataclass
from functools import cache, reduce
from inspect import ismodule
from pathlib import Path

import spikeloom as snn

DOCS = Path(__file__).parent.parent
HEADING = re.compile(r"^## \[(?P<title>.+)\]\((?P<guide>[\w-]+)\.md\)$")
ROW = re.compile(r"^\| \[`(?P<name>[\w.]+)`\]\(\S+\) \| (?P<summary>.*) \|$")
ONE_PAGE_EACH = ("neurons", "parallel")
"""The guides of neurons: each neuron has a page of its own."""


@dataclass
class Section:
    """A heading of docs/api.md: the guide that it links to, and its names as full paths."""

    title: str
    guide: str
    paths: dict[str, str]  # full path -> the spelling of docs/api.md

    @property
    def separate(self) -> bool:
        """Whether each name has a page of its own."""
        return self.guide in ONE_PAGE_EACH

    @property
    def page(self) -> str:
        """The name of the section's page."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")

    def page_of(self, path: str) -> str:
        """The page of one name."""
        return path.removeprefix("spikeloom.") if self.separate else self.page


def full_path(name: str) -> str:
    """The path of a name as docs/api.md spells it: `snn.Leaky`, `functional.ce_rate_loss`, `quant.StateQuant`."""
    head, _, rest = name.partition(".")
    if head == "snn":
        return f"spikeloom.{rest}"
    inside = "" if head in snn.__all__ else "functional."
    return f"spikeloom.{inside}{name}"


def thing(path: str) -> object:
    """What a full path names."""
    return reduce(getattr, path.split(".")[1:], snn)


@cache
def sections() -> tuple[Section, ...]:
    """The sections of docs/api.md, in order."""
    found: list[Section] = []
    for line in (DOCS / "api.md").read_text().splitlines():
        if heading := HEADING.match(line):
            found.append(Section(heading["title"].replace("`", ""), heading["guide"], {}))
        elif (row := ROW.match(line)) and found:
            found[-1].paths[full_path(row["name"])] = row["name"]
    return tuple(found)


@cache
def places() -> dict[str, str]:
    """The page of every documented name, by full path."""
    return {path: section.page_of(path) for section in sections() for path in section.paths}


@cache
def spellings() -> dict[str, str]:
    """How pages and docstrings spell a public name, and its full path: `snn.unroll`, `surrogate.atan`, `Leaky`.

    A name alone is one only if it is a class in capitals: `rate` and `reset` are also words.
    """
    paths = list(places())
    found: dict[str, str] = {}
    for path in paths:
        short = path.removeprefix("spikeloom.")
        found |= dict.fromkeys((path, f"snn.{short}", short.removeprefix("functional.")), path)
        if "." not in short and not short[0].isupper():
            del found[short]
    alone: dict[str, list[str]] = {}
    for path in paths:
        alone.setdefault(path.rpartition(".")[2], []).append(path)
    found |= {name: only[0] for name, only in alone.items() if len(only) == 1 and re.match(r"[A-Z]\w+", name)}
    return found


def public() -> list[str]:
    """The full path of every name in `__all__` of the package and of its public modules, modules left out."""
    modules = {"spikeloom": snn}
    for outer in ("spikeloom", "spikeloom.functional"):
        inside = snn if outer == "spikeloom" else snn.functional
        modules |= {
            f"{outer}.{name}": getattr(inside, name) for name in inside.__all__ if ismodule(getattr(inside, name))
        }
    return [f"{path}.{name}" for path, m in modules.items() for name in m.__all__ if not ismodule(getattr(m, name))]


@cache
def further() -> dict[str, list[str]]:
    """Public names without a row in docs/api.md, by page: snnTorch's autograd functions, and constants.

    A name that a module repeats, such as `snn.layers.SynapticDelay`, has its row under its other path.
    """
    known = {id(thing(path)) for path in places()}
    found: dict[str, list[str]] = {}
    for path in public():
        if path not in places() and id(thing(path)) not in known:
            module, _, name = path.removeprefix("spikeloom.").rpartition(".")
            (page,) = (
                section.page
                for section in sections()
                if section.title == f"snn.{module}" or f"spikeloom.{name}" in section.paths
            )
            found.setdefault(page, []).append(path)
    return found
