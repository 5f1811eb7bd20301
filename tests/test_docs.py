"""The pages: every Python block runs, every link leads somewhere, and the reset diagram is that of the equations."""

import doctest
import inspect
import re
from functools import reduce
from pathlib import Path

import pytest

import spikeloom as snn

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks_of(page: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with its first line's number."""
    text = page.read_text()
    return [(text[: m.start(1)].count("\n"), m[1]) for m in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path):
    """From top to bottom in one namespace; blocks with >>> must print what they show."""
    names: dict[str, object] = {"__name__": page.stem}
    for line, block in blocks_of(page):
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, page.name, str(page), line)
            report: list[str] = []
            result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append, clear_globs=False)
            assert not result.failed, "".join(report)
            names |= test.globs
        else:
            exec(compile("\n" * line + block, page, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to {missing}"


def test_every_page_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES[2:] if f"docs/{page.name}" not in text] == []


def test_the_first_paragraph_of_the_readme_has_the_speed_of_its_table():
    text = (ROOT / "README.md").read_text()
    (fewest, most) = re.search(r"trains (\d+) to (\d+) times as fast", text).groups()
    ratios = [float(ratio) for ratio in re.findall(r"^\| [^|]*training \| [^|]* \| ([\d.]+)x \|", text, re.M)]
    assert (int(fewest), int(most)) == (int(min(ratios)), int(max(ratios)))


def membranes(reset: str, delayed: bool, steps: int) -> list[str]:
    """The equations of docs/resets.md in plain Python: beta 0.5, threshold 1, input 0.75, as the diagram shows them."""
    mem, shown = 0.0, []
    for _ in range(steps):
        fired = float(mem > 1)
        charged = {
            "subtract": 0.5 * mem + 0.75 - fired,
            "zero": 0.5 * (1 - fired) * mem + 0.75,
            "none": 0.5 * mem + 0.75,
        }
        mem = charged[reset]
        spk = float(mem > 1)
        if not delayed:
            mem -= {"subtract": spk - fired, "zero": (spk - fired) * mem, "none": 0.0}[reset]
        shown.append(f"{mem:.3f}{'*' if spk else ''}")
    return shown


@pytest.mark.parametrize("delayed", [True, False], ids=["delayed", "immediate"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_reset_diagram_is_that_of_the_equations(reset, delayed):
    page = (ROOT / "docs" / "resets.md").read_text()
    (row,) = re.findall(rf"^{reset}, {'delayed' if delayed else 'immediate'} +(.*)$", page, re.M)
    assert row.split() == membranes(reset, delayed, steps=8)


def test_the_page_of_the_api_shows_every_public_name_with_its_summary():
    rows = dict(re.findall(r"^\| \[`([\w.]+)`\]\(\S+\) \| (.*) \|$", (ROOT / "docs" / "api.md").read_text(), re.M))
    modules = {"snn": snn, **{name: getattr(snn, name) for name in snn.__all__}, **vars(snn.functional)}
    for name, summary in rows.items():
        head, *path = name.split(".")
        thing = reduce(getattr, path, modules[head])
        first = inspect.getdoc(thing).split("\n\n")[0].replace("\n", " ").replace("|", r"\|")
        assert summary == first, name
    shown = {name.rpartition(".")[2] for name in rows}
    assert [name for name in snn.__all__ if name not in shown and not inspect.ismodule(getattr(snn, name))] == []
    for module in (snn.spikegen, snn.functional, snn.metrics, snn.data, snn.spikeplot):
        assert {name for name in vars(module) if inspect.isfunction(getattr(module, name))} <= shown


def test_public_modules_show_exactly_what_the_page_of_the_api_lists():
    """`dir(snn.utils)` has the public names alone, and none is missing on the page."""
    page = (ROOT / "docs" / "api.md").read_text()
    public = [getattr(snn, name) for name in snn.__all__ if inspect.ismodule(getattr(snn, name))]
    parts = [part for name in snn.functional.__all__ if inspect.ismodule(part := getattr(snn.functional, name))]
    assert len(public) > 12
    assert len(parts) >= 6
    for module in (*public, *parts):
        assert dir(module) == sorted(module.__all__), module
        shown = [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
        assert [name for name in shown if not re.search(rf"[`.]{name}`", page)] == [], module


def anchors_of(page: Path) -> dict[str, str]:
    """The sections of a page by the anchors of their headings, as GitHub makes them; "" is the whole page."""
    text = re.sub(r"^```.*?^```", lambda block: block[0].replace("#", "%"), page.read_text(), flags=re.M | re.S)
    sections = {"": text}
    for section in re.split(r"^#+ ", text, flags=re.M)[1:]:
        heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", section.split("\n")[0]).strip().lower()
        sections[re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")] = section
    return sections


def test_each_name_of_the_api_page_links_to_a_section_that_explains_it():
    """The section has the name; that of the class of a result may have the function that returns it."""
    rows = re.findall(
        r"^\| \[`([\w.]+)`\]\(([\w.-]+)#?([\w-]*)\) \| (.*) \|$", (ROOT / "docs" / "api.md").read_text(), re.M
    )
    assert len(rows) > 190
    sections = {page.name: anchors_of(page) for page in PAGES}
    for name, page, anchor, summary in rows:
        owner = re.findall(r"`([\w.]+)", summary) if name.rpartition(".")[2][0].isupper() else []
        words = [word.rpartition(".")[2] for word in (name, *owner)]
        assert any(re.search(rf"\b{word}\b", sections[page][anchor]) for word in words), f"{name}: {page}#{anchor}"


def test_links_to_sections_lead_to_headings():
    sections = {page.resolve(): anchors_of(page) for page in PAGES}
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([\w./-]*\.md)?#([\w-]+)\)", page.read_text()):
            assert anchor in sections[(page.parent / target).resolve() if target else page.resolve()], (
                page.name,
                anchor,
            )
