"""What a layer starts from, keeps, returns and forgets."""

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn

from .running import by_steps, on_both_backends, started

X = torch.full((3, 4), 0.5)

RETURNS = [
    ({}, 2),
    ({"output": True}, 2),
    ({"init_hidden": True}, 1),
    ({"init_hidden": True, "output": True}, 2),
]


@pytest.mark.parametrize(("options", "count"), RETURNS, ids=str)
def test_what_a_layer_returns_follows_from_init_hidden_and_output(options, count):
    out = snn.Leaky(0.5, **options)(X)
    assert (len(out) if isinstance(out, tuple) else 1) == count


@on_both_backends
def test_the_returned_membrane_is_the_one_that_the_layer_keeps(backend):
    lif = snn.Leaky(0.5, learn_beta=True)
    with snn.backend(backend):
        _, mem = lif(X)
    assert mem is lif.mem
    mem.detach_()  # the idiom of truncated training
    assert not lif.mem.requires_grad


def test_a_layer_starts_with_a_state_of_no_elements():
    lif = snn.Leaky(0.5)
    assert lif.mem.shape == (0,)
    assert lif.init_leaky().shape == (0,)
    assert lif.reset is None


def test_no_membrane_an_empty_one_and_zeros_are_the_same_start():
    starts = [(), (snn.Leaky(0.5).init_leaky(),), (torch.zeros(3, 4),), (torch.zeros(0, 7),), (torch.zeros(()),)]
    outs = [snn.Leaky(0.5)(X, *start)[1] for start in starts]
    assert all(torch.equal(out, outs[0]) for out in outs)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 4), (3, 1), (3, 4)], ids=str)
def test_a_membrane_passed_by_hand_broadcasts_to_the_input(shape):
    mem = torch.rand(shape, requires_grad=True)
    _, new = snn.Leaky(0.5)(X, mem)
    _, wanted = snn.Leaky(0.5)(X, mem.detach().expand(3, 4).clone())
    assert torch.equal(new, wanted)
    (grad,) = torch.autograd.grad(new.sum(), mem)
    assert grad.shape == shape
    assert grad.sum().item() == 6.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64, torch.bool])
def test_a_membrane_of_another_dtype_is_taken_in_that_of_the_state(dtype):
    _, mem = snn.Leaky(0.5)(X, torch.ones(3, 4, dtype=dtype))
    assert mem.dtype == torch.float32
    assert torch.equal(mem, torch.full((3, 4), 1.0))


def test_without_a_membrane_a_layer_goes_on_from_its_last():
    lif = snn.Leaky(0.5)
    first, second = lif(X)[1], lif(X)[1]
    assert torch.equal(second, 0.5 * first + X)


@pytest.mark.parametrize("hidden", [True, False])
def test_a_batch_of_another_size_starts_from_zeros(hidden):
    lif = started(init_hidden=hidden, output=True)
    with pytest.warns(UserWarning, match="does not broadcast"):
        _, mem = lif(torch.full((2, 4), 0.5))
    assert torch.equal(mem, torch.full((2, 4), 0.5))


def test_a_membrane_passed_by_hand_replaces_the_one_that_was_kept():
    lif = started()
    _, mem = lif(X, torch.zeros(3, 4))
    assert torch.equal(mem, X)
    assert lif.mem is mem


def test_reset_mem_gives_zeros_of_the_same_shape_and_dtype():
    lif = snn.Leaky(0.5, learn_beta=True)
    lif(X.double())
    mem = lif.reset_mem()
    assert mem is lif.mem
    assert (mem.shape, mem.dtype, mem.requires_grad) == ((3, 4), torch.float64, False)
    assert not mem.any()


def test_reset_mem_leaves_a_membrane_that_was_returned_as_it_was():
    lif = snn.Leaky(0.5)
    _, mem = lif(X)
    lif.reset_mem()
    assert torch.equal(mem, X)


def test_detach_keeps_the_values_without_their_graph():
    lif = started(learn_beta=True, init_hidden=True)
    values = lif.mem.detach().clone()
    snn.utils.detach(lif)
    assert not lif.mem.requires_grad
    assert torch.equal(lif.mem, values)


def test_the_static_helpers_act_in_place():
    mem = 2 * torch.ones(3, requires_grad=True)
    snn.Leaky.zeros(mem)
    assert not mem.any()
    assert mem.requires_grad
    snn.Leaky.detach(mem)
    assert not mem.requires_grad


def test_zeros_does_not_let_a_wrong_gradient_pass():
    mem = torch.ones(3, requires_grad=True).exp()
    square = mem**2
    snn.Leaky.zeros(mem)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.sum().backward()


def test_a_state_may_be_assigned():
    lif = snn.Leaky(0.5)
    start = torch.nn.Parameter(torch.full((3, 4), 0.5))
    lif.mem = start
    assert list(lif.parameters()) == []
    _, mem = lif(X)
    mem.sum().backward()
    assert torch.equal(start.grad, torch.full((3, 4), 0.5))


def test_the_last_reset_signal_is_that_of_the_membrane_before_the_step():
    lif = snn.Leaky(0.5)
    for value, fired in ((2.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        lif(torch.full((1, 2), value))
        assert lif.reset.tolist() == [[fired, fired]]


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_after_a_sequence_the_last_reset_signal_is_that_of_the_step_loop(steps):
    xs = 2 * torch.rand(steps, 3, 4)
    stepped, at_once = snn.Leaky(0.9), snn.Leaky(0.9)
    by_steps(stepped, xs)
    snn.unroll(at_once, xs)
    assert torch.equal(at_once.reset, stepped.reset)


def test_the_last_reset_signal_keeps_no_sequence_in_memory():
    lif = snn.Leaky(0.9)
    _, mem = snn.unroll(lif, torch.rand(50, 3, 4))
    assert lif._before.untyped_storage().nbytes() == mem[0].nbytes


def test_no_reset_signal_is_known_after_a_sequence_whose_membranes_nobody_asked_for():
    lif = snn.Leaky(0.9, init_hidden=True)
    snn.unroll(lif, torch.rand(5, 3, 4))
    assert lif.reset is None


def test_a_state_made_in_inference_mode_does_not_stop_training():
    lif = snn.Leaky(0.5, learn_beta=True)
    with torch.inference_mode():
        lif(X)
    _, mem = lif(X)
    mem.sum().backward()
    assert lif.beta.grad is not None


def test_gradients_flow_through_the_state_from_step_to_step():
    xs = torch.rand(4, 2, 3, requires_grad=True)
    _, mem = by_steps(snn.Leaky(0.5, reset_mechanism="none"), xs)
    (grad,) = torch.autograd.grad(mem[-1].sum(), xs)
    assert grad[:, 0, 0].tolist() == [0.125, 0.25, 0.5, 1.0]


CHANGES = {
    "reset_mechanism": lambda lif: setattr(lif, "reset_mechanism", "none"),
    "load_state_dict": lambda lif: lif.load_state_dict(snn.Leaky(1.0, reset_mechanism="none").state_dict()),
    "load_state_dict, assign": lambda lif: lif.load_state_dict(
        snn.Leaky(1.0, reset_mechanism="none").state_dict(), assign=True
    ),
}


@on_both_backends
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_reset_acts_from_the_next_step_on(change, backend):
    lif = snn.Leaky(1.0)
    with snn.backend(backend):
        lif(torch.tensor([2.0]))
        CHANGES[change](lif)
        _, mem = lif(torch.tensor([0.0]))
    assert mem.item() == 2.0
    assert (lif.reset_mechanism, lif.reset_mechanism_val.item()) == ("none", 2)


def test_reset_delay_and_spike_grad_act_from_the_next_step_on():
    lif = snn.Leaky(1.0)
    assert lif(torch.tensor([2.0]))[1].item() == 2.0
    lif.reset_mem()
    lif.reset_delay = False
    assert lif(torch.tensor([2.0]))[1].item() == 1.0
    lif.spike_grad = snn.surrogate.straight_through_estimator()
    lif.reset_mem()
    x = torch.tensor([0.1], requires_grad=True)
    lif(x)[0].sum().backward()
    assert x.grad.item() == 1.0


def test_a_parameter_that_is_written_to_acts_from_the_next_step_on():
    lif = snn.Leaky(0.5, threshold=1.0)
    assert lif(torch.tensor([0.8]))[0].item() == 0.0
    lif.threshold.fill_(0.5)
    lif.beta = torch.tensor(0.0)
    _, mem = lif(torch.tensor([0.8]))
    assert lif.reset.item() == 1.0
    assert mem.item() == pytest.approx(0.3)


@pytest.mark.compile
@pytest.mark.parametrize("hidden", [True, False], ids=["init_hidden", "mem by hand"])
def test_compiled_steps_give_what_plain_ones_give_and_leave_the_same_state(hidden):
    """As one graph, without a break."""
    plain, compiled = (snn.Leaky(0.9, threshold=0.4, init_hidden=hidden, output=True) for _ in range(2))

    def two_steps(lif: snn.Leaky, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        _, mem = lif(x)
        return lif(2 * x) if hidden else lif(2 * x, mem)

    x = torch.rand(3, 4, requires_grad=True)
    wanted = two_steps(plain, x)
    got = torch.compile(lambda x: two_steps(compiled, x), fullgraph=True, backend="aot_eager")(x)
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(compiled.mem, plain.mem)
    grads = [torch.autograd.grad(sum(out.sum() for out in outs), x)[0] for outs in (got, wanted)]
    torch.testing.assert_close(*grads)


def test_a_submodule_of_a_users_neuron_may_be_named_model():
    class Own(snn.SpikingNeuron):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)

    assert Own()(torch.rand(2, 3)).shape == (2, 3)


def test_an_equation_that_writes_to_its_parameter_changes_no_other_neuron():
    @snn.charge(loop=True)
    def Doubling(x, mem, *, k=0.25):
        """Doubles its parameter in place."""
        k.mul_(2)
        return (mem * k + x,)

    own = Doubling()
    mem = own.reset_mem()
    for _ in range(3):
        _, mem = own(torch.ones(1, 1), mem)
    lif, mem = snn.Leaky(beta=0.25, threshold=9.0), torch.zeros(1, 1)
    with snn.backend("loop"):
        for _ in range(2):
            _, mem = lif(torch.ones(1, 1), mem)
    assert mem.item() == 1.25
