"""Networks as ONNX: one file, for any number of steps and rows."""

from .export import OnnxExport as OnnxExport
from .export import export_onnx as export_onnx
