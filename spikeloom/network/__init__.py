"""Run networks over time: all steps at once, in chunks, and checked against the loop over steps."""

from ._check import ROW_BY_ROW as ROW_BY_ROW
from ._check import run_checked as run_checked
from ._check import warn_of_reading as warn_of_reading
from ._check import why_by_steps as why_by_steps
from ._check import why_not_compared as why_not_compared
from ._checkpoint import recomputing as recomputing
from ._fuse import Fused as Fused
from ._fuse import FusedExplanation as FusedExplanation
from ._fuse import FusedRow as FusedRow
from ._fuse import as_it_is as as_it_is
from ._fuse import explain_fused as explain_fused
from ._fuse import fuse as fuse
from ._fuse import is_fused as is_fused
from ._run import Run as Run
from ._run import run_traced as run_traced
from ._snapshot import RandomState as RandomState
from ._snapshot import Snapshot as Snapshot
from ._snapshot import undone as undone
from ._time_folding import Request as Request
from ._time_folding import read as read
from ._unroll import stream as stream
from ._unroll import unroll as unroll
