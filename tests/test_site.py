"""The site, without building it: its navigation, the entries of its reference, and the messages that it explains."""

import inspect
import re
import sys
from pathlib import Path

import spikeloom as snn

DOCS = Path(__file__).parent.parent / "docs"
sys.path.append(str(DOCS))

from website import docstrings, links, messages, names  # noqa: E402

PAGES = sorted(page.stem for page in DOCS.glob("*.md"))


def tree_of(page: str) -> list[str]:
    """What the toctrees of a page list."""
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.M | re.S)
    entries = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    return [re.sub(r"^.* <(.*)>$", r"\1", entry) for entry in entries]


def test_every_page_stands_once_in_the_navigation():
    listed = [entry for page in PAGES for entry in tree_of(page)]
    assert sorted(listed) == sorted({*PAGES, "tutorials/index"} - {"index"})


def test_every_page_is_reached_from_the_home_page():
    reached, waiting = set(), ["index"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        waiting += [entry for entry in tree_of(page) if entry in PAGES]
    assert reached == set(PAGES)


def test_included_parts_of_other_pages_exist():
    found = 0
    for page in PAGES:
        for path, options in re.findall(
            r"^```\{include\} (.*?)\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.M | re.S
        ):
            text = (DOCS / path).read_text()
            for marker in re.findall(r'^:(?:start-after|end-before): "(.*)"$', options, re.M):
                assert marker in text, f"{page}.md includes {path} from or to {marker}"
                found += 1
    assert found >= 4


def test_every_public_name_has_an_entry_in_the_reference():
    entries = [*names.places(), *(path for paths in names.further().values() for path in paths)]
    documented = {id(names.thing(path)) for path in entries}
    assert len(entries) == len(set(entries)) > 200
    assert [path for path in names.public() if id(names.thing(path)) not in documented] == []


def test_public_names_include_those_of_all_public_modules():
    public = names.public()
    for path in ("spikeloom.Leaky", "spikeloom.surrogate.atan", "spikeloom.functional.quant.state_quant"):
        assert path in public
    assert set(snn.__all__) - {path.removeprefix("spikeloom.") for path in public} == {
        name for name in snn.__all__ if inspect.ismodule(getattr(snn, name))
    }


def test_every_section_of_the_reference_has_a_guide():
    assert [section.title for section in names.sections() if section.guide not in PAGES] == []


def test_code_spans_that_spell_a_public_name_are_found():
    found = names.spellings()
    assert found["snn.unroll"] == found["spikeloom.unroll"] == "spikeloom.unroll"
    assert found["surrogate.atan"] == "spikeloom.surrogate.atan"
    assert found["Leaky"] == "spikeloom.Leaky"
    assert {"rate", "reset", "data", "unroll"}.isdisjoint(found)  # also words
    assert all(names.thing(path) is not None for path in found.values())


DOCSTRING = """Fire where `x` exceeds |u|, as `Leaky` does.

mem' = beta * mem + x;  spk = H(mem' - threshold)

| mode | value |
| --- | --- |
| "a" | x = 1 |

Args:
    x: input_, [T, *N], that
        goes on.
    num_steps: T.

Raises:
    ValueError: for a bad x.

Source: Someone, "A title", 2001.

    >>> 1 + 1
    2
"""


def test_a_docstring_becomes_restructuredtext():
    text = "\n".join(docstrings.to_rst(DOCSTRING.splitlines()))
    assert r"exceeds \|u\|" in text
    assert ":py:obj:`Leaky <spikeloom.Leaky>`" in text
    assert "   mem' = beta * mem + x\n   spk = H(mem' - threshold)\n" in text
    assert '   * - ``"a"``' in text
    assert r":param x: input\_, [T, \*N], that goes on." in text
    assert ":param num_steps: \\ T." in text  # not item T of a list
    assert ":raises ValueError: for a bad x." in text
    assert '**Source:** Someone, "A title", 2001.' in text
    assert ".. code-block:: pycon\n\n   >>> 1 + 1\n   2\n" in text


def test_every_word_of_a_docstring_reaches_its_page():
    def words(text: str) -> set[str]:
        return set(re.findall(r"[A-Za-z]{3,}", text))

    for path in names.places():
        doc = inspect.getdoc(names.thing(path))
        made = "\n".join(docstrings.to_rst(doc.splitlines())).replace("\\", "")
        assert words(doc) - words(made) <= {"Args", "Raises", "Returns", "Warns", "Attributes"}, path


def says(text: str, message: str) -> bool:
    """Whether a text of the package is this message, whose `...` stand for anything."""
    at = 0
    for part in filter(None, message.split("...")):
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def test_explained_messages_are_those_of_the_package():
    page = (DOCS / "messages.md").read_text()
    explained = [text.replace(r"\|", "|") for text in re.findall(r"^\| `(.+?)` \| .+ \| .+ \|$", page, re.M)]
    texts = [text for text in messages.texts() if len(text) > 20]
    assert len(explained) == len(set(explained)) >= 40
    assert [message for message in explained if not any(says(text, message) for text in texts)] == []
    assert not any(says(text, "... got an input of a kind that does not exist") for text in texts)


def test_every_message_has_a_guide():
    found = messages.messages()
    assert len(found) > 400
    assert {message.guide for message in found} <= set(PAGES)
    shown = messages.page()
    assert all(docstrings.inline(message.text) in shown for message in found)


def test_wrong_links_of_a_built_site_are_found(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="part/page.html#here">a</a> <a href="part/#top">b</a> <a href="https://example.org/x">c</a>'
        '<a href="part/none.html">d</a> <a href="part/page.html#none">e</a> <a href="#own">f</a> <p id="own">'
        '<script src="https://example.org/x.js"></script> <img src="none.png">'
    )
    (tmp_path / "part" / "index.html").write_text('<p id="top">')
    (tmp_path / "part" / "page.html").write_text('<p id="here"><a href="../index.html">back</a>')
    found = links.wrong_links(tmp_path)
    assert len(found) == 4
    for what in ("none.html", "page.html#none", "x.js", "none.png"):
        assert any(what in sentence for sentence in found)
