"""Integers of every width are coded as the same numbers in float64 are, up to the ends of their ranges."""

import torch

from spikeloom import functional, spikegen
from spikeloom.functional import quant

from ..each import for_each

SIGNED = [torch.int8, torch.int16, torch.int32, torch.int64]
UNSIGNED = [torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
DTYPES = [*SIGNED, *UNSIGNED]


def ends(dtype: torch.dtype) -> torch.Tensor:
    """The ends of the range of a dtype, one after the other."""
    if dtype is torch.bool:
        return torch.tensor([0, 1, 1, 0]).bool()
    info = torch.iinfo(dtype)
    return torch.tensor([info.max, info.min, info.max, 0], dtype=dtype)


FIVE = torch.tensor(5, dtype=torch.uint8)
OF_ANY = {
    "delta": lambda x: spikegen.delta(x, 0.5, off_spike=True),
    "delta with padding": lambda x: spikegen.delta(x, 1, padding=True, off_spike=True),
    "delta by an unsigned threshold": lambda x: spikegen.delta(x, FIVE, off_spike=True),
    "rate_conv": spikegen.rate_conv,
    "receptive_fields": lambda x: spikegen.receptive_fields(x, 5, 0, 10),
    "state_quant": quant.state_quant(4),
    "state_quant, not uniform": quant.state_quant(4, uniform=False),
    "StateQuant": lambda x: quant.StateQuant.apply(x, torch.tensor([0, 1, 200])),
    "rate_interpolate": lambda x: spikegen.rate_interpolate(x, 300),
    "l1_rate_sparsity": lambda x: functional.l1_rate_sparsity()(x.view(4, 1, 1)),
}
CLASSES = {
    "latency": lambda x: spikegen.latency(x, 20, normalize=True),
    "latency, linear": lambda x: spikegen.latency(x, 20, normalize=True, linear=True),
    "burst": lambda x: spikegen.burst(x, 9),
    "phase": lambda x: spikegen.phase(x, 5),
    "population": lambda x: spikegen.population(x, 5, 4),
    "latency_interpolate": lambda x: spikegen.latency_interpolate(x, 5),
    "rate_interpolate": lambda x: spikegen.rate_interpolate(x, 5),
    "to_one_hot": lambda x: spikegen.to_one_hot(x, 2),
    "from_one_hot": lambda x: spikegen.from_one_hot(torch.stack((x, 1 - x.double()), -1).to(x.dtype)),
    "to_one_hot_inverse": spikegen.to_one_hot_inverse,
    "targets_rate": lambda x: spikegen.targets_rate(x, 2, num_steps=5, correct_rate=0.5),
    "targets_latency": lambda x: spikegen.targets_latency(x, 2, num_steps=5, normalize=True),
    "gain": lambda x: spikegen.rate(torch.ones(4), 5, gain=x),
    "low": lambda x: spikegen.receptive_fields(torch.rand(4).round(), 5, low=0 * x.to(x.dtype), high=x + 1),
}


@for_each("dtype", DTYPES)
@for_each("name", OF_ANY)
def test_the_ends_of_a_range_are_coded_as_numbers(name, dtype):
    x = ends(dtype)
    assert torch.allclose(OF_ANY[name](x).double(), OF_ANY[name](x.double()).double(), atol=1e-6, equal_nan=True)


@for_each("dtype", DTYPES)
@for_each("name", CLASSES)
def test_zeros_and_ones_are_coded_as_numbers(name, dtype):
    x = torch.tensor([0, 1, 1, 0])
    if name == "low" and dtype in (torch.bool, torch.uint16, torch.uint32, torch.uint64):
        return  # torch does not add to these
    found = []
    for given in (x.to(dtype), x.double()):
        torch.manual_seed(0)
        found.append(CLASSES[name](given).double())
    assert torch.allclose(*found, atol=1e-5)


def test_a_change_beyond_the_range_of_its_dtype_is_the_change():
    spk = spikegen.delta(torch.tensor([20000, -20000], dtype=torch.int16))
    assert spk.tolist() == [1, 0]
    assert spk.dtype == torch.int16


def test_the_range_of_receptive_fields_may_be_wider_than_its_dtype():
    ends_of = [torch.tensor(end, dtype=torch.int8) for end in (-100, 100)]
    x = torch.linspace(-100, 100, 7)
    assert torch.equal(spikegen.receptive_fields(x, 5, *ends_of), spikegen.receptive_fields(x, 5, -100, 100))
