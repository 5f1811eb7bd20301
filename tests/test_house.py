"""The house rules, read from the source: who may import whom, how long a file may be, what an import may load."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
import torch

import spikeloom as snn

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "spikeloom"

# The architecture: a file imports only what stands above it. Within a folder any order will do that has no cycle.
ORDER = (
    "_torch.py",
    "forks.py",
    "caller.py",
    "alias.py",
    "scoped.py",
    "fixed.py",
    "ops.py",
    "surrogate.py",
    "cells/",
    "engine/tuning.py",
    "engine/saved_tensors.py",
    "engine/graph/",
    "engine/feedback.py",
    "engine/jit/",
    "engine/sparse/",
    "engine/cpu/",
    "engine/gpu/",
    "engine/run/",
    "engine/__init__.py",
    "neurons/",
    "accelerated/",
    "layers/",
    "_neurons/",
    "_layers/",
    "network/",
    "spikegen/",
    "spikeplot/",
    "inspect/",
    "functional/",
    "metrics/",
    "data/",
    "export/",
    "utils.py",
    "distributed.py",
    "backprop.py",
    "export_nir.py",
    "import_nir.py",
    "spikevision.py",
    "__init__.py",
    "machine.py",
    "demo.py",
    "doctor.py",
    "conformance/",
    "__main__.py",
)
COMMAND_LINE = ("demo.py", "doctor.py", "conformance/", "__main__.py")
OPTIONAL = (
    *("numba", "llvmlite", "triton", "matplotlib", "pandas", "nir", "nirtorch", "sklearn", "scipy", "tqdm", "snntorch"),
    *("onnx", "onnxscript", "onnxruntime", "neurobench", "h5py", "tonic"),
    "torch._dynamo",  # optional for us, and takes longer to load than all of the package
)
LONGEST = 400

SOURCES = sorted(PACKAGE.rglob("*.py"))
WRITTEN = [
    *SOURCES,
    *sorted(path for folder in ("benchmarks", "recipes", "tests") for path in (ROOT / folder).rglob("*.py")),
]
PACKAGES = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def named(path: Path) -> str:
    return path.relative_to(PACKAGE if PACKAGE in path.parents else ROOT).as_posix()


def place(path: Path) -> str:
    """The entry of ORDER that a file belongs to."""
    first, *rest = path.relative_to(PACKAGE).parts
    if first == "engine":  # its folders have an order of their own
        return f"engine/{rest[0]}/" if len(rest) > 1 else f"engine/{rest[0]}"
    return f"{first}/" if rest else first


def running(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a file that run, also inside functions; `if TYPE_CHECKING:` never does."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")):
            yield child
            yield from running(child)


def file_of(module: str) -> Path | None:
    """The file of a dotted module name inside the package, if there is one."""
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((c for c in candidates if c.is_file()), None)


def imports_of(path: Path) -> set[Path]:
    """The package's own files that a file imports, wherever in it the import stands."""
    here = [PACKAGE.name, *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in running(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
            module = base if node.level else node.module or ""
            # `from . import ops` names a file; `from .ops import spike` a name inside one
            found |= {file_of(f"{module}.{alias.name}") or file_of(module) for alias in node.names}
    return {imported for imported in found if imported is not None and PACKAGE in imported.parents} - {path}


IMPORTS = {path: imports_of(path) for path in SOURCES}


def imported_from(path: Path) -> set[Path]:
    """The files that stand behind `from` in a file: `from .engine import jit` is from a folder, not from `jit`."""
    here = [PACKAGE.name, *path.relative_to(PACKAGE).parent.parts]
    nodes = [node for node in running(parsed(path)) if isinstance(node, ast.ImportFrom)]
    up = [".".join(here[: len(here) - node.level + 1]) if node.level else "" for node in nodes]
    names = [".".join(filter(None, (base, node.module))) for base, node in zip(up, nodes, strict=True)]
    return {file for name in names if (file := file_of(name)) is not None}


def test_files_import_only_what_stands_above_them():
    homeless = [named(path) for path in SOURCES if place(path) not in ORDER]
    assert not homeless, "give these a place in ORDER"
    upward = [
        f"{named(path)} imports {named(other)}"
        for path in SOURCES
        for other in sorted(IMPORTS[path])
        if ORDER.index(place(other)) > ORDER.index(place(path))
    ]
    assert not upward


FOLDERS = (
    *(f"engine/{folder}" for folder in ("graph", "jit", "sparse", "cpu", "gpu", "run")),
    "accelerated",
    "network",
    "network/_fuse",
    "inspect",
    "metrics",
    "data",
)
"""Folders of which outsiders know the `__init__` alone."""

ROUTINES = {path for path in SOURCES if re.search(r"^(import|from) (numba|llvmlite)", path.read_text(), re.M)}
"""What kernels call: a facade cannot import it, since it loads Numba."""


def test_outsiders_import_a_folder_by_its_facade():
    around = [
        f"{named(path)} imports from {named(file)}"
        for path in SOURCES
        for file in sorted(imported_from(path) - ROUTINES)
        if named(file.parent) in FOLDERS and file.parent not in path.parents and file.name != "__init__.py"
    ]
    assert around == []


def test_no_import_cycle():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail("the imports go in a circle: " + " -> ".join(map(named, error.args[1])))


def test_the_import_reader_sees_what_python_sees():
    """Guards the guard: the files behind the neurons are found through relative imports of every form."""
    assert PACKAGE / "ops.py" in IMPORTS[PACKAGE / "surrogate.py"]
    assert PACKAGE / "cells" / "leaky.py" in IMPORTS[PACKAGE / "neurons" / "leaky.py"]
    assert PACKAGE / "neurons" / "__init__.py" in IMPORTS[PACKAGE / "__init__.py"]


def test_files_are_short():
    lengths = {named(path): len(path.read_text().splitlines()) for path in WRITTEN}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}, "split these"


def test_files_say_what_they_are():
    texts = {named(path): path.read_text() for path in WRITTEN}
    assert [name for name, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))] == []


def test_files_leave_nothing_to_do():
    assert [named(path) for path in WRITTEN if re.search(r"\bT[O]DO\b|\bFIX[M]E\b", path.read_text())] == []


OFFERED_TO_SUBCLASSES = {
    *("_parameters", "_buffers", "_modules"),  # where nn.Module holds what is assigned to it
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_compiled_call_impl"),
    *("_apply", "_load_from_state_dict", "_save_to_state_dict", "_replicate_for_data_parallel"),  # overridden
    "_conv_forward",  # what nn.Conv2d's forward calls, so that a subclass can pass another weight
    "_version",  # of a tensor, as the documentation of autograd describes it
}
"""Private names of torch that any file may use."""

OUTSIDE_OF_CLASSES = {"_is_replica", "_orig_mod", "_dynamo_marked_constant"}
"""Attributes that torch sets on objects, which `hasattr` of a class cannot find."""


ATTRIBUTES_OF_TORCH = OUTSIDE_OF_CLASSES | {*dir(torch.nn.Module()), *dir(torch.Tensor), *dir(torch._C)}


def private_names(node: ast.AST) -> set[str]:
    """The private names in an import, an attribute, or a string that names an attribute of torch's."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [part for alias in node.names for part in alias.name.split(".")]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
    elif isinstance(node, ast.Attribute):
        names = [node.attr]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        names = [node.value] if node.value in ATTRIBUTES_OF_TORCH else []
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def defined_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


OWN = {name for path in SOURCES for name in defined_names(parsed(path))}


def test_private_names_of_torch_stand_in_one_file():
    """Each has a public name in spikeloom/_torch.py."""
    found = {}
    for path in SOURCES:
        names = {name for node in ast.walk(parsed(path)) for name in private_names(node)}
        foreign = sorted(names - OWN - OFFERED_TO_SUBCLASSES)
        if foreign and named(path) != "_torch.py":
            found[named(path)] = foreign
    assert found == {}


def test_the_library_does_not_print():
    printing = [
        f"{named(path)}:{node.lineno}"
        for path in SOURCES
        if place(path) not in COMMAND_LINE
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_warnings_point_at_the_line_of_the_user():
    """So every warning is issued by caller.py, which finds that line."""
    found = [
        f"{named(path)}:{node.lineno}"
        for path in SOURCES
        if named(path) != "caller.py"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("warn", "warnings.warn")
    ]
    assert found == []


def test_no_submodule_bears_the_name_of_something_public():
    """Loading a submodule binds its name in the package, and would replace a function of that name."""
    twice = []
    for folder in PACKAGES:
        package = importlib.import_module(".".join(folder.relative_to(ROOT).parts))
        children = {path.stem for path in folder.glob("*.py")}
        children |= {path.parent.name for path in folder.glob("*/__init__.py")}
        for name in children - {"__init__", "__main__"}:
            if not isinstance(getattr(package, name, package), ModuleType):
                twice.append(f"{package.__name__}.{name}")
    assert twice == []


def test_import_loads_nothing_optional():
    code = f"""
import sys, torch
before = set(sys.modules)
import spikeloom
print(*[name for name in {OPTIONAL!r} if name in sys.modules and name not in before])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == [], "import spikeloom loads an optional package"


def public_names(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The public names of a module that are the package's own: functions, classes and what they hold."""
    for name in dir(module):
        thing = getattr(module, name)
        ours = (getattr(thing, "__module__", None) or "").startswith(PACKAGE.name)
        if name.startswith("_") or not ours or not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        yield f"{module.__name__}.{name}", thing
        for cls in thing.__mro__ if inspect.isclass(thing) else ():
            for member, value in vars(cls).items() if cls.__module__.startswith(PACKAGE.name) else ():
                if not member.startswith("_") and isinstance(
                    value, (FunctionType, classmethod, staticmethod, property)
                ):
                    yield f"{module.__name__}.{name}.{member}", getattr(thing, member)


PUBLIC = (
    *(snn, snn.surrogate, snn.spikegen, snn.functional, snn.layers, snn.utils, snn.backprop, snn.spikeplot),
    *(snn.metrics, snn.data),
    importlib.import_module("spikeloom.ops"),
)


def test_public_names_are_documented():
    assert [name for module in PUBLIC for name, thing in public_names(module) if not inspect.getdoc(thing)] == []


def test_public_names_show_in_dir_and_to_type_checkers():
    """`__all__` names everything public, and type checkers, which do not see `__getattr__`, find each by an import."""
    assert (PACKAGE / "py.typed").exists()
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body
    imports = [node for node in body if isinstance(node, ast.ImportFrom)]
    stated = {alias.asname or alias.name for node in imports for alias in node.names if node.module != "typing"}
    assert {name for name in stated if not name.startswith("_")} == set(snn.__all__)
    assert dir(snn) == sorted([*snn.__all__, "__version__"])
    with pytest.raises(AttributeError, match="'Laeky'"):
        _ = snn.Laeky
