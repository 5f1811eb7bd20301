"""Whole networks over time: all steps at once, in chunks, and compared with the loop over steps."""

from ._check import ROW_BY_ROW as ROW_BY_ROW
from ._check import run_checked as run_checked
from ._check import why_not_compared as why_not_compared
from ._interrupts import undone as undone
from ._recompute import recomputing as recomputing
from ._request import Request as Request
from ._request import read as read
from ._run import Run as Run
from ._run import unharmed as unharmed
from ._snapshot import RandomState as RandomState
from ._snapshot import Snapshot as Snapshot
from ._stepwise import why_by_steps as why_by_steps
from ._stream import stream as stream
from ._unroll import unroll as unroll
