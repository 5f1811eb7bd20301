"""From source to a callable: compilers, the kernel cache, threads and buffers."""

from . import buffer_pool as buffer_pool
from . import openmp as openmp
from . import triton_jit as triton_jit
from .kernel_cache import ENVIRONMENT as ENVIRONMENT
from .kernel_cache import LIMIT as LIMIT
from .kernel_cache import Untrusted as Untrusted
from .kernel_cache import cache_dir as cache_dir
from .kernel_cache import cache_limit as cache_limit
from .kernel_cache import cache_size as cache_size
from .kernel_cache import usable as usable
from .layout import plain as plain
from .layout import rows as rows
from .layout import spread as spread
from .layout import sum_to as sum_to
from .numba_jit import KernelSource as KernelSource
from .numba_jit import compiled as compiled
from .numba_jit import lines as lines
from .triton_jit import TritonKernel as TritonKernel
