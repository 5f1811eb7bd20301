"""What the tracer records, what it refuses, and with which message."""

from dataclasses import replace

import pytest
import torch

from spikeloom import ops, surrogate
from spikeloom.cells.cell import cell_from
from spikeloom.engine.graph.program import Program, program_for, reads_input, structure_of
from spikeloom.engine.graph.trace import trace

from ...cases import CELLS


def branches(x, mem, *, beta):
    if mem > 0:
        mem = beta * mem
    return ops.spike(mem - 1), mem + x


def calls_torch(x, mem, *, beta):
    mem = torch.relu(beta * mem + x)
    return ops.spike(mem - 1), mem


def uses_a_method(x, mem, *, beta):
    mem = (beta * mem + x).clamp(0, 1)
    return ops.spike(mem - 1), mem


def holds_a_tensor(x, mem, *, beta):
    mem = beta * mem + x * torch.ones(3)
    return ops.spike(mem - 1), mem


def unusual_power(x, mem, *, beta):
    mem = beta * mem + x**2.5
    return ops.spike(mem - 1), mem


def forgets_a_state(x, mem, *, beta):
    return (ops.spike(mem + x - 1),)


REFUSED = {
    branches: ["a Python branch depends on the data", "ops.where", "test_trace.py", "if mem > 0:"],
    calls_torch: ["torch.relu is not supported in an equation", "torch.relu(beta * mem + x)"],
    uses_a_method: [".clamp is not supported in an equation", "use arithmetic and spikeloom.ops"],
    holds_a_tensor: ["pass it as a parameter"],
    unusual_power: ["** 2.5 is not supported in an equation"],
    forgets_a_state: ["returned a tuple of 1; return (spk, mem)"],
}


@pytest.mark.parametrize("equation", REFUSED, ids=lambda equation: equation.__name__)
def test_what_cannot_be_traced_is_reported_with_the_line_at_fault(equation):
    program = program_for(cell_from(equation), surrogate.atan())
    assert program.derivation is None
    for message in (equation.__name__, *REFUSED[equation]):
        assert message in program.untraceable


def test_a_callable_that_is_no_formula_is_reported():
    program = program_for(CELLS["two states"].cell, lambda u: (u > 0).to(u.dtype))
    assert "can only be called" in program.untraceable


def test_equal_cells_and_spikes_share_one_program():
    cell = CELLS["two states"].cell
    assert program_for(cell, surrogate.atan()) is program_for(cell, surrogate.atan())
    assert program_for(cell, surrogate.atan()) is not program_for(cell, surrogate.atan(alpha=3.0))


def test_different_cells_and_spikes_have_different_keys():
    assert len({program_for(case.cell, surrogate.atan()).key for case in CELLS.values()}) == len(CELLS)
    cell, spikes = CELLS["two states"].cell, [surrogate.atan(), surrogate.sigmoid(), surrogate.no_gradient()]
    assert len({program_for(cell, spike).key for spike in spikes}) == len(spikes)


def test_cells_and_spikes_that_differ_in_names_and_numbers_alone_have_one_key():
    def scaled_by(factor):
        def scaled(x, mem, *, beta):
            return ops.spike(mem - factor), beta * mem + factor * x

        return cell_from(scaled)

    cells = [scaled_by(0.3), replace(scaled_by(7.5), name="a namesake"), scaled_by(-0.0), scaled_by(1e-40)]
    spikes = [surrogate.atan(), surrogate.atan(alpha=3), surrogate.atan(alpha=1.0)]
    assert len({program_for(cell, spike).key for cell in cells for spike in spikes}) == 1


def test_a_key_leads_to_its_structure_as_long_as_a_neuron_has_it():
    cell = CELLS["two states"].cell
    program, twin = program_for(cell, surrogate.atan()), Program(replace(cell, name="a namesake"), surrogate.atan())
    assert structure_of(program.key) is program.structure is twin.structure
    with pytest.raises(RuntimeError, match="no neuron in this process has the kernel nonesuch"):
        structure_of("nonesuch")


def test_the_same_operation_on_the_same_values_is_recorded_once():
    def twice(x, mem, *, beta):
        return ops.spike(beta * mem + x), beta * mem + x

    steps = [node.op for node in trace(cell_from(twice)).graph.nodes]
    assert steps.count("mul") == steps.count("add") == 1


def test_what_depends_on_parameters_alone_is_computed_by_torch_once():
    program = program_for(CELLS["exponential"].cell, surrogate.atan())
    tau = torch.tensor([2.0, 5.0], requires_grad=True)
    values = program.hoist({"tau": tau, "slope": torch.tensor(0.4)}, tau)
    decay = torch.exp(torch.reciprocal(tau) * -1.0)
    assert any(torch.equal(value, decay) and value.requires_grad for value in values if value.shape == (2,))


@pytest.mark.parametrize(("cell", "wanted"), [("leaky subtract delayed", False), ("polyglot", True)])
def test_the_input_is_saved_only_where_the_backward_reads_it(cell, wanted):
    assert reads_input(program_for(CELLS[cell].cell, surrogate.atan()).key) is wanted


@pytest.mark.parametrize(
    ("equation", "message"),
    [(lambda x, *, beta: (x,), "at least one state"), (lambda x, mem, *states: (x, mem), "write it as")],
)
def test_what_is_no_equation_is_reported(equation, message):
    with pytest.raises(TypeError, match=message):
        cell_from(equation)
