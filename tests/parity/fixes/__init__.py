"""Where we differ from snnTorch 1.0.0 on purpose: one table, from which `docs/from-snntorch.md` is generated.

Each file here has the rows of one part of the library. A name stands once in the whole table.
"""

from . import layers, losses, lstm, more_neurons, neurons, parallel, plots, probes, spikegen, surrogates, training
from .fix import Fix

PARTS = (neurons, more_neurons, lstm, parallel, layers, surrogates, losses, probes, training, plots, spikegen)

FIXES: dict[str, Fix] = {name: fix for part in PARTS for name, fix in part.FIXES.items()}
assert len(FIXES) == sum(len(part.FIXES) for part in PARTS), "two parts use one name"
