"""Run a user's own loop over time by the kernels of `unroll`: record it, find the loop, execute it.

`recorder` records operations instead of running them (`rules`: which, `recorded`: as what), `plan` finds the loop in
them, and `run` executes it. `transform` has what users call, and `report` is what `explain` shows.
"""

from .report import FusedExplanation as FusedExplanation
from .report import FusedRow as FusedRow
from .report import explain_fused as explain_fused
from .transform import Fused as Fused
from .transform import as_it_is as as_it_is
from .transform import fuse as fuse
from .transform import is_fused as is_fused
