"""Whole networks over time: all steps at once, and what that would run on."""

from .diagnosing import Diagnosis as Diagnosis
from .diagnosing import diagnose as diagnose
from .explaining import Explanation as Explanation
from .explaining import explain as explain
from .rerunning import recomputing as recomputing
from .stepping import why_by_steps as why_by_steps
from .streaming import stream as stream
from .summarising import Summary as Summary
from .summarising import summary as summary
from .tapping import Log as Log
from .tapping import tap as tap
from .tapping import with_time as with_time
from .unrolling import unroll as unroll
