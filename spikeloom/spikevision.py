"""snnTorch's module path of its datasets, which are not here: every name in it says where to go instead."""

from typing import TYPE_CHECKING, Any

from .alias import NO_DATASETS

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(NO_DATASETS)  # an AttributeError would lose its text in `from spikeloom.spikevision import`
