"""Networks for other programs: NIR (both ways), ONNX, C."""

from ._onnx import OnnxExport as OnnxExport
from ._onnx import export_onnx as export_onnx
