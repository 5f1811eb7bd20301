"""Numbers to spike trains: rate, latency, delta, population, phase and burst codes, and the targets of a training.

Spike trains are led by time, [T, *S]. Each code is a function, and a module of the same name that can stand before a
network's layers: see `Encoder`.
"""

from .bursts import burst as burst
from .deltas import delta as delta
from .encoders import Burst as Burst
from .encoders import Delta as Delta
from .encoders import Encoder as Encoder
from .encoders import Latency as Latency
from .encoders import Phase as Phase
from .encoders import Population as Population
from .encoders import Rate as Rate
from .encoders import RateConv as RateConv
from .interpolations import latency_interpolate as latency_interpolate
from .interpolations import rate_interpolate as rate_interpolate
from .latencies import latency as latency
from .latencies import latency_code as latency_code
from .latencies import latency_code_linear as latency_code_linear
from .latencies import latency_code_log as latency_code_log
from .one_hots import from_one_hot as from_one_hot
from .one_hots import to_one_hot as to_one_hot
from .one_hots import to_one_hot_inverse as to_one_hot_inverse
from .phases import phase as phase
from .populations import population as population
from .populations import receptive_fields as receptive_fields
from .rates import rate as rate
from .rates import rate_conv as rate_conv
from .targeting import target_rate_code as target_rate_code
from .targeting import targets_convert as targets_convert
from .targeting import targets_latency as targets_latency
from .targeting import targets_rate as targets_rate
