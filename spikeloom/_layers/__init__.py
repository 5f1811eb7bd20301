"""snnTorch's module paths of the layers, such as `spikeloom._layers.bntt`: other names of the files of `layers`."""

import sys

from ..layers import BatchNormTT1d as BatchNormTT1d
from ..layers import BatchNormTT2d as BatchNormTT2d
from ..layers import GradedSpikes as GradedSpikes
from ..layers import batch_norm, graded_spikes

MODULES = {"bntt": batch_norm, "graded_spikes": graded_spikes}
globals().update(MODULES)
sys.modules.update({f"{__name__}.{name}": module for name, module in MODULES.items()})
