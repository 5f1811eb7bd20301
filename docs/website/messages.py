"""The messages of the package: read from its sources, and shown on one page."""

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import spikeloom as snn

from .docstrings import inline
from .names import DOCS

PACKAGE = Path(snn.__file__).parent
COMMAND_LINE = ("conformance", "demo.py", "doctor.py", "machine.py", "__main__.py")
GUIDES = {
    "accelerated": "linear",
    "backprop.py": "training",
    "cells": "own-neuron",
    "data": "data",
    "distributed.py": "scaling",
    "engine": "engine",
    "export/_": "c",
    "export/c": "c",
    "export/nir": "nir",
    "export/onnx": "onnx",
    "functional/probe.py": "probes",
    "functional/quant.py": "quantization",
    "functional/stdp_learner.py": "stdp",
    "functional": "losses",
    "inspect/_tap.py": "probes",
    "inspect/_recorded.py": "probes",
    "inspect": "debugging",
    "layers": "layers",
    "metrics": "metrics",
    "network/_checkpoint.py": "memory",
    "network/_fuse": "fuse",
    "network": "unroll",
    "neurons/associative_leaky.py": "parallel",
    "neurons/leaky_parallel.py": "parallel",
    "neurons/state_leaky.py": "parallel",
    "neurons": "neurons",
    "ops.py": "own-neuron",
    "spikegen": "spikegen",
    "spikeplot": "plots",
    "surrogate.py": "surrogates",
    "utils.py": "training",
    "": "from-snntorch",
}
"""The guide that explains the messages of a file: that of the first entry which its path begins with."""


@dataclass(frozen=True)
class Message:
    """A message: the file that raises it, the class of the error, and its text with `...` for what varies."""

    file: str
    error: str
    text: str

    @property
    def guide(self) -> str:
        """The page that explains what the message is about."""
        return next(page for start, page in GUIDES.items() if self.file.startswith(start))


def text_of(node: ast.AST) -> str:
    """The text that an expression builds, with `...` for each value in it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "..."


@cache
def sources() -> tuple[dict[str, list[ast.AST]], dict[str, str]]:
    """The `raise` statements and the strings of each file that a program runs, and the base of each class."""
    nodes: dict[str, list[ast.AST]] = {}
    bases: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(COMMAND_LINE):
            continue
        kept = nodes[name] = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise | ast.JoinedStr | ast.Constant | ast.BinOp):
                kept.append(node)
            elif isinstance(node, ast.ClassDef) and node.bases:
                bases[node.name] = ast.unparse(node.bases[0]).split("[")[0]
    return nodes, bases


def public_class(error: str) -> str:
    """The class to catch for an error: the first base that the package does not define for itself."""
    bases = sources()[1]
    while error in bases:
        error = bases[error]
    return "OSError" if error == "type(error)" else error


@cache
def messages() -> tuple[Message, ...]:
    """Every message that a `raise` in the package writes out, once per file and class."""
    found = {}
    for name, nodes in sources()[0].items():
        for node in nodes:
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = re.sub(r"(\.\.\.)+", "...", text_of(node.exc.args[0]))
                if len(re.findall(r"[a-z]{2,}", text)) > 3:
                    found[Message(name, public_class(ast.unparse(node.exc.func)), text)] = None
    return tuple(found)


def texts() -> set[str]:
    """Every text in the package, with `...` for each value in it: messages also stand in constants and tables."""
    return {text_of(node) for nodes in sources()[0].values() for node in nodes if not isinstance(node, ast.Raise)}


def page() -> str:
    """The page of all messages, by guide."""
    title = "Every message"
    lines = [title, "=" * len(title), "", "All messages of errors, by the guide that explains what they are about. "]
    lines += ["``...`` stands for what differs from case to case. The most frequent ones are explained in", ""]
    lines[-2] += " :doc:`../messages`."
    by_guide: dict[str, list[Message]] = {}
    for message in messages():
        by_guide.setdefault(message.guide, []).append(message)
    for guide, group in sorted(by_guide.items()):
        heading = (DOCS / f"{guide}.md").read_text().splitlines()[0].removeprefix("# ").replace("`", "")
        lines += [heading, "-" * len(heading), "", f"Guide: :doc:`../{guide}`.", ""]
        seen = dict.fromkeys((message.error, message.text) for message in group)
        lines += [f"- *{inline(error)}*: {inline(text)}" for error, text in seen]
        lines.append("")
    return "\n".join(lines)
