"""NIR, the neuromorphic intermediate representation: networks to graphs, and graphs to networks."""

from ._export import export_to_nir as export_to_nir
from ._import import import_from_nir as import_from_nir
