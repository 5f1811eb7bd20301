"""Networks for other programs: NIR (both ways), ONNX, C."""

from .c import CFile as CFile
from .c import export_c as export_c
from .c import simulate_int8 as simulate_int8
from .nir import export_to_nir as export_to_nir
from .nir import import_from_nir as import_from_nir
from .onnx import OnnxExport as OnnxExport
from .onnx import export_onnx as export_onnx
