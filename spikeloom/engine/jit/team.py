"""What a kernel asks OpenMP: which thread of how many it is. Imported by generated kernels alone."""

import llvmlite.binding
from numba.core import types

from .openmp import address_of

# by names of our own: another OpenMP runtime in the process may bear the common ones
for _symbol in ("omp_get_thread_num", "omp_get_num_threads"):
    llvmlite.binding.add_symbol(f"spikeloom_{_symbol}", address_of(_symbol))

thread_number = types.ExternalFunction("spikeloom_omp_get_thread_num", types.int32())
team_size = types.ExternalFunction("spikeloom_omp_get_num_threads", types.int32())
