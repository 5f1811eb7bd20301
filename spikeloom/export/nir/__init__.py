"""NIR, the neuromorphic intermediate representation: networks to graphs, and graphs to networks."""

from ._export import export_to_nir as export_to_nir
from ._import import import_from_nir as import_from_nir
from ._modules import Scale as Scale
from ._modules import Threshold as Threshold
from ._targets import TARGETS as TARGETS
