"""A neuron in the workers of a DataLoader, forked or spawned: it runs there as it does here."""

import multiprocessing
import pickle

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import spikeloom as snn


class Filtered(Dataset[Tensor]):
    """Sequences [T, N] that a neuron turns into spikes, in the worker."""

    def __init__(self, learn: bool):
        self.neuron = snn.Leaky(torch.linspace(0.2, 0.9, 5), threshold=0.8, learn_beta=learn, init_hidden=True)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        snn.utils.reset(self.neuron)
        xs = torch.rand(8, 5, generator=torch.Generator().manual_seed(index))
        by_steps = torch.stack([self.neuron(x) for x in xs])
        snn.utils.reset(self.neuron)
        at_once = snn.unroll(self.neuron, xs)
        assert torch.equal(by_steps, at_once)
        by_steps.sum().backward() if by_steps.requires_grad else None
        return by_steps.detach()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("warm", [False, True], ids=["first use there", "used here before"])
def test_a_neuron_runs_in_the_workers_of_a_loader(method, warm):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this platform")
    data = Filtered(learn=warm)
    here = [Filtered(learn=warm)[index] for index in range(6)] if warm else None
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=method, timeout=60)
    there = torch.cat(list(loader))
    here = here or [data[index] for index in range(6)]
    assert torch.equal(there, torch.stack(here))
    assert 0 < there.mean() < 1


def test_what_a_spawned_worker_gets_is_small():
    """The dataset travels as a pickle: no program and no kernel goes along."""
    data = Filtered(learn=False)
    data[0]
    assert len(pickle.dumps(data)) < 4000
