"""The package `nir`, which is loaded when it is first needed."""

from types import ModuleType
from typing import Any

Node = Any
"""A node of a NIR graph."""


def nir_package() -> ModuleType:
    """The package `nir`; an ImportError that names the extra if it is not installed."""
    try:
        import nir
    except ImportError as error:
        raise ImportError("NIR graphs need the package nir; pip install 'spikeloom[nir]'") from error
    module: ModuleType = nir
    return module
