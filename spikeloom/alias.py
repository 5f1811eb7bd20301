"""Redirect `import snntorch` to spikeloom, for third-party code that imports snnTorch by name."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, TracebackType

OURS, THEIRS = __name__.partition(".")[0], "snntorch"

RELEASE = "1.0.0"
"""The release of snnTorch whose interface this package has: the `__version__` of `snntorch._version`."""

DATASETS = f"{THEIRS}.spikevision"

NO_DATASETS = (
    "spikeloom has no spikevision: read event files with spikeloom.data, such as data.read_nmnist and data.read_shd, "
    "or use the datasets of tonic, whose events spikeloom.data takes, too; see docs/data.md"
)


class _Alias(MetaPathFinder, Loader):
    """Imports each module of spikeloom under its snnTorch name, as long as a block or a call holds it."""

    holds = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != THEIRS:
            return None
        if fullname.startswith(DATASETS):
            raise ModuleNotFoundError(NO_DATASETS, name=fullname)
        known = fullname == f"{THEIRS}._version" or importlib.util.find_spec(_ours(fullname)) is not None
        return ModuleSpec(fullname, self) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        if spec.name == f"{THEIRS}._version":
            version = ModuleType(spec.name, "The release of snnTorch that this package replaces.")
            vars(version)["__version__"] = RELEASE
            spec.loader_state = spec
            return version
        module = importlib.import_module(_ours(spec.name))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state  # the import system has put the alias's there


def _ours(fullname: str) -> str:
    return OURS + fullname.removeprefix(THEIRS)


_ALIAS = _Alias()


def stands_in() -> bool:
    """Whether `import snntorch` imports spikeloom."""
    return _ALIAS.holds > 0


class as_snntorch:  # noqa: N801
    """Make ``import snntorch`` import spikeloom and its submodules, from now on or within a ``with`` block.

    For packages that import snnTorch themselves, for example to test ``isinstance(layer, snntorch.SpikingNeuron)``:
    call it before you import them. Both names then refer to the same modules and classes. At the end of a ``with``
    block the name `snntorch` is released; modules imported within the block keep their references to spikeloom.

    Every submodule of snnTorch 1.0.0 is there, `_neurons` and `_layers` too, except the datasets of `spikevision`.
    ``snntorch.__version__`` is that of spikeloom; ``snntorch._version.__version__`` is "1.0.0".

    Raises:
        RuntimeError: if snnTorch itself was already imported in this process: other modules may refer to its classes.

        >>> import spikeloom as snn
        >>> with snn.as_snntorch():  # doctest: +SKIP
        ...     import snntorch  # spikeloom, under this name
        ...     from neurobench.models import SNNTorchModel
    """

    def __init__(self) -> None:
        self._hold()
        self._entered = False

    def _hold(self) -> None:
        present = sys.modules.get(THEIRS)
        if present is not None and present is not sys.modules[OURS]:
            raise RuntimeError(
                "snnTorch itself has been imported in this process; call spikeloom.as_snntorch() before anything that "
                "imports snntorch"
            )
        _ALIAS.holds += 1
        if _ALIAS not in sys.meta_path:
            sys.meta_path.insert(0, _ALIAS)

    def __enter__(self) -> None:
        """Begin a block; what the constructor has installed belongs to the first one."""
        if self._entered:
            self._hold()
        self._entered = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _ALIAS.holds -= 1
        if _ALIAS.holds:  # an outer block, or a call for good
            return
        if _ALIAS in sys.meta_path:
            sys.meta_path.remove(_ALIAS)
        for name in [name for name in sys.modules if name.partition(".")[0] == THEIRS]:
            del sys.modules[name]
