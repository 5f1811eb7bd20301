"""Networks for other programs: NIR (both ways), ONNX, C."""

from .c import CFile as CFile
from .c import export_c as export_c
from .c import simulate_int8 as simulate_int8
