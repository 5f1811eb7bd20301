"""Networks as C: one C99 file, in floating point or in integers."""

from .export import CFile as CFile
from .export import export_c as export_c
from .export import simulate_int8 as simulate_int8
