"""snnTorch's module of the import from NIR."""

from .export import import_from_nir as import_from_nir

__all__ = ["import_from_nir"]
