"""Inspect a network: its backends, its layers, the activity of its neurons, and why it does not learn."""

from ._diagnose import Diagnosis as Diagnosis
from ._diagnose import diagnose as diagnose
from ._explain import Explanation as Explanation
from ._explain import Summary as Summary
from ._explain import aligned as aligned
from ._explain import explain as explain
from ._explain import share as share
from ._explain import summary as summary
from ._problems import PROBLEMS as PROBLEMS
from ._problems import Finding as Finding
from ._problems import Problem as Problem
from ._tap import Log as Log
from ._tap import Recording as Recording
from ._tap import Tap as Tap
from ._tap import tap as tap
from ._tap import with_time as with_time
