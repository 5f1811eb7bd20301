"""Spike encoding of numbers: rate, latency, delta, population, phase and burst codes, and spike trains for labels.

Spike trains are [T, *S], time first. Each code is a function and a module of the same name, which can be the first
layer of a network: see `Encoder`. All functions require a real tensor and integer numbers of steps, and raise a
TypeError otherwise. The result has the dtype and device of that tensor; integers become the default dtype
(but see `delta`).
"""

from .codes import burst as burst
from .codes import delta as delta
from .codes import phase as phase
from .codes import population as population
from .codes import rate as rate
from .codes import rate_conv as rate_conv
from .codes import receptive_fields as receptive_fields
from .encoders import Burst as Burst
from .encoders import Delta as Delta
from .encoders import Encoder as Encoder
from .encoders import Latency as Latency
from .encoders import Phase as Phase
from .encoders import Population as Population
from .encoders import Rate as Rate
from .encoders import RateConv as RateConv
from .latencies import latency as latency
from .latencies import latency_code as latency_code
from .latencies import latency_code_linear as latency_code_linear
from .latencies import latency_code_log as latency_code_log
from .latencies import latency_interpolate as latency_interpolate
from .latencies import rate_interpolate as rate_interpolate
from .targeting import from_one_hot as from_one_hot
from .targeting import target_rate_code as target_rate_code
from .targeting import targets_convert as targets_convert
from .targeting import targets_latency as targets_latency
from .targeting import targets_rate as targets_rate
from .targeting import to_one_hot as to_one_hot
from .targeting import to_one_hot_inverse as to_one_hot_inverse

__all__ = [
    "Burst", "Delta", "Encoder", "Latency", "Phase", "Population", "Rate", "RateConv", "burst", "delta",
    "from_one_hot", "latency", "latency_code", "latency_code_linear", "latency_code_log", "latency_interpolate",
    "phase", "population", "rate", "rate_conv", "rate_interpolate", "receptive_fields", "target_rate_code",
    "targets_convert", "targets_latency", "targets_rate", "to_one_hot", "to_one_hot_inverse",
]  # fmt: skip
