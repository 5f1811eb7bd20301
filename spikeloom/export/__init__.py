"""Networks for other programs: NIR (both ways), ONNX, C."""

from .nir import export_to_nir as export_to_nir
from .nir import import_from_nir as import_from_nir
