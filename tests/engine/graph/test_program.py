"""A living neuron keeps its program, whatever becomes of others."""

import gc

import pytest
import torch

import spikeloom as snn
from spikeloom import ops
from spikeloom.engine.graph import program


def fresh(slope: float) -> snn.Leaky:
    return snn.Leaky(0.9, spike_grad=snn.surrogate.fast_sigmoid(slope))


def forget() -> None:
    """As when so many others were made that these have left the caches."""
    program._shared_program.cache_clear()
    program._structure.cache_clear()


def works(neuron: snn.Leaky) -> None:
    """Anew, as for a kernel that is needed for the first time."""
    snn.utils.reset(neuron)
    assert program.structure_of(neuron._program.key).derivation is not None
    x = torch.rand(5, 2, 3, requires_grad=True)
    with snn.backend("numba"):
        spk, _ = snn.unroll(neuron, x)
        torch.autograd.grad(spk.sum(), x)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_neuron_outlives_an_equal_one(before):
    """Its program has left the cache of programs, and the last of some equal ones that were made later is gone."""
    others = [fresh(3.5) for _ in range(before)]
    neuron = fresh(3.5)
    forget()
    later = [fresh(3.5)]
    forget()
    later.append(fresh(3.5))
    del later, others
    forget()
    gc.collect()
    works(neuron)


@pytest.mark.usefixtures("fresh_heap")
def test_the_later_one_outlives_the_first():
    first = fresh(4.5)
    forget()
    later = fresh(4.5)
    forget()
    del first
    gc.collect()
    works(later)


@pytest.mark.usefixtures("fresh_heap")
def test_equations_of_equal_text_are_distinguished():
    """As where a cell of a notebook is run again."""

    def made():
        @snn.cell
        def Again(x, mem, *, beta=0.9):
            mem = beta * mem + x
            return ops.spike(mem - 1), mem

        return Again()

    neuron = made()
    for _ in range(3):
        later = made()
        forget()
    del later
    gc.collect()
    works(neuron)


@pytest.mark.usefixtures("fresh_heap")
def test_graphs_that_nobody_uses_are_gone():
    forget()
    gc.collect()
    before = len(program._by_key)

    def made(number: int):
        @snn.cell
        def Of(x, mem, *, beta=0.9):
            for _ in range(number):
                mem = beta * mem + x
            return ops.spike(mem - 1), mem

        return Of()

    neurons = [made(number) for number in (11, 12, 13) for _ in range(2)]
    assert len(program._by_key) == before + 3
    del neurons
    forget()
    gc.collect()
    assert len(program._by_key) == before
