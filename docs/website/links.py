"""Check a built site: `python docs/website/links.py build/site`. Every link in it leads to a page and an anchor."""

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "img": "src", "link": "href", "source": "src"}
"""Elements that a browser loads when it opens the page."""


class Page(HTMLParser):
    """The links and the anchors of a page, and what the browser loads with it."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loads: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what an element links to."""
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADS and LOADS[tag] in values and values.get("rel") != "canonical":
            self.loads.append(values[LOADS[tag]])


@cache
def read(path: Path) -> Page:
    """A page, read once."""
    return Page(path)


def wrong_links(site: Path) -> list[str]:
    """One sentence per link of the site that leads nowhere, or per thing that is loaded from elsewhere."""
    found = []
    for path in sorted(p for p in site.rglob("*.html") if "_static" not in p.parts):
        page, name = read(path), path.relative_to(site)
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    found.append(f"{name} loads {link}, which is not part of the site")
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            goal = goal / "index.html" if goal.is_dir() else goal
            if not goal.exists():
                found.append(f"{name} links to {link}, which does not exist")
            elif parts.fragment and goal.suffix == ".html" and unquote(parts.fragment) not in read(goal).anchors:
                found.append(f"{name} links to {link}, and that page has no such anchor")
    return found


if __name__ == "__main__":
    wrong = wrong_links(Path(sys.argv[1]))
    sys.exit("\n".join(wrong) or 0)
